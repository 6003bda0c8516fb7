#!/bin/sh
# Prints the first of the named container engines that works here; ENGINE, where set, is the only one looked at.
#
#   deploy/image/engine.sh docker podman buildah
set -eu
for engine in ${ENGINE:-"$@"}; do
    if command -v "$engine" >/dev/null && "$engine" info >/dev/null 2>&1; then
        echo "$engine"
        exit 0
    fi
done
echo "error: expected a container engine that works here, found none of: ${ENGINE:-$*};" \
    "install one (Debian: podman, runc) or start its daemon" >&2
exit 2
