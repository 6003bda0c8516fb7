#!/bin/sh
# Makes a slim Debian base image with debootstrap, for a machine that reaches Debian's packages and no image registry.
#
#   deploy/image/base.sh [NAME]      as root; NAME is debian:bookworm-slim, the Dockerfile's BASE, unless given
#
# buildah is asked to hold it; podman shares its storage. STORAGE_DRIVER and BUILDAH_ISOLATION are theirs.
set -eu
name=${1:-debian:bookworm-slim}
root=$(mktemp -d)
container=
trap 'rm -rf "$root"; [ -z "$container" ] || buildah rm "$container" >/dev/null' EXIT

debootstrap --variant=minbase bookworm "$root" >&2
# As Debian's own images: apt keeps no packages, and nobody reads manuals.
echo 'DPkg::Post-Invoke {"rm -f /var/cache/apt/archives/*.deb";};' >"$root/etc/apt/apt.conf.d/docker-clean"
rm -rf "$root"/var/cache/apt/*.bin "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* \
    "$root"/usr/share/doc/* "$root"/usr/share/man/*
container=$(buildah from scratch)
buildah add --quiet "$container" "$root" / >/dev/null
buildah config --cmd bash "$container"
buildah commit --quiet "$container" "$name" >/dev/null
echo "$name"
