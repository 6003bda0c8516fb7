#!/bin/sh
# malmoi-serve as a container starts it: for whoever its port is published to, its options from the environment as well.
#
#   MALMOI_SERVE_MAX_RUNNING=16     stands for --max-running 16
#   MALMOI_SERVE_STRICT=true        stands for --strict; false for --no-strict
#
# What stands after IMAGE on the command line comes after these, and an option that stands there counts.
set -eu
if [ -n "${MALMOI_SERVE_PORT:-}" ]; then  # EXPOSE and HEALTHCHECK have 8000
    echo "error: MALMOI_SERVE_PORT: expected none in a container, found one; publish another port: -p $MALMOI_SERVE_PORT:8000" >&2
    exit 2
fi
if [ "${1:-}" = keys ]; then
    exec malmoi-serve "$@"
fi
for variable in $(env | sed -n 's/^\(MALMOI_SERVE_[A-Z_]*\)=.*/\1/p' | sort -r); do
    option=$(echo "${variable#MALMOI_SERVE_}" | tr A-Z_ a-z-)
    value=$(printenv "$variable")
    case $value in
        true) set -- "--$option" "$@" ;;
        false) set -- "--no-$option" "$@" ;;
        *) set -- "--$option" "$value" "$@" ;;
    esac
done
exec malmoi-serve --host 0.0.0.0 --open-to-all "$@"
