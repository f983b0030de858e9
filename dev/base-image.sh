#!/usr/bin/env bash
# Make the image stormdrill-base:bookworm from Debian packages: what `--target docker` builds on where no registry can be
# reached. Half a minute, and 240 MB. An image of that name is left as it is; BASE_ANEW=1 makes it again.
set -euo pipefail
image=stormdrill-base:bookworm
docker=${DOCKER:-docker}
if ! command -v "$docker" >/dev/null 2>&1 || ! "$docker" version >/dev/null 2>&1; then
    echo "no container engine answers. Debian: apt-get install docker.io, then start it and be root or in the group docker" >&2
    exit 1
fi
if [ -z "${BASE_ANEW:-}" ] && "$docker" image inspect "$image" >/dev/null 2>&1; then
    echo "$image is there already"
    exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "making a base image needs root: sudo make base-image; or name another one in STORMDRILL_BASE_IMAGE" >&2
    exit 1
fi
if ! command -v debootstrap >/dev/null 2>&1; then
    echo "debootstrap is missing: apt-get install debootstrap" >&2
    exit 1
fi
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
echo "making $image from Debian packages …"
# The mirror is the one that this machine uses itself, when it can be told; else Debian's own.
sources=(/etc/apt/sources.list /etc/apt/sources.list.d/*.sources)
mirror=$( (cat "${sources[@]}" 2>/dev/null || true) |
    sed -nE 's/^(deb (\[[^]]*\] )?|URIs: )(https?:\S*debian\S*).*/\3/p' | sed -n 1p)
if ! debootstrap --variant=minbase --include=python3,iptables,iproute2,ca-certificates bookworm "$place/root" \
    ${mirror:+"$mirror"} >"$place/log" 2>&1; then
    tail -n 20 "$place/log" >&2
    exit 1
fi
rm -rf "$place"/root/var/cache/apt/* "$place"/root/var/lib/apt/lists/* "$place"/root/usr/share/doc/*
tar -C "$place/root" -c . | "$docker" import - "$image" >/dev/null
echo "$image is made"
