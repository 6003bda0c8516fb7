#!/bin/sh
# Builds one target of the Dockerfile, with docker, podman or buildah, whichever works here first.
#
#   deploy/image/build.sh [cpu|gpu] [OPTIONS OF THE BUILD COMMAND]      e.g. build.sh cpu --build-arg BASE=NAME
#
# ENGINE names one of the three where the first that works is not the one that is meant.
set -eu
target=cpu
case ${1:-} in
    cpu | gpu) target=$1; shift ;;
    '' | --*) ;;
    *) echo "error: $1: expected cpu, gpu or an option of the build command" >&2; exit 2 ;;
esac
root=$(cd "$(dirname "$0")/../.." && pwd)
engine=$("$root/deploy/image/engine.sh" docker podman buildah)
case $engine in
    docker) set -- build "$@" ;;
    podman) set -- build --format docker "$@" ;;  # the OCI format has no HEALTHCHECK
    buildah) set -- bud --format docker "$@" ;;
esac
exec "$engine" "$@" \
    --file "$root/Dockerfile" \
    --target "$target" \
    --build-arg "VERSION=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' "$root/malmoi/__init__.py")" \
    --build-arg "REVISION=$(git -C "$root" describe --always --dirty --abbrev=10 2>/dev/null || echo unknown)" \
    --tag "malmoi:$target" \
    "$root"
