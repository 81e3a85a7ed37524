#!/usr/bin/env bash
# Makes a root file system with the real Asterisk once, and prints its path. Debian 12 ships no Asterisk, Debian unstable does.
# Kept in the cache folder (about 420 MB, one to two minutes); later calls only print the path.
source "$(dirname "$0")/../scripts/lib.sh"

suite=${RINGFENCE_ASTERISK_SUITE:-sid}
rootfs=$CACHE/asterisk-rootfs

if [ -x "$rootfs/usr/sbin/asterisk" ]; then
    echo "$rootfs"
    exit 0
fi
[ "$(id -u)" = 0 ] || die "making the Asterisk root file system needs root"
have debootstrap || die "debootstrap is missing: scripts/install-tools.sh test installs it"

mkdir -p "$CACHE"
# Two test runs may want it at the same moment; the second waits and finds it made.
exec 9>"$CACHE/asterisk-rootfs.lock"
flock -w 900 9 || die "another process has been making $rootfs for 15 minutes"
if [ ! -x "$rootfs/usr/sbin/asterisk" ]; then
    part=$rootfs.part
    rm -rf --one-file-system "$part"
    # The mirror of this machine's own package sources, so that a local mirror or proxy is respected.
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' 2>/dev/null | grep -v security | head -n 1 || true)
    {
        long "Debian $suite base system (debootstrap)" debootstrap --variant=minbase "$suite" "$part" ${mirror:+"$mirror"}
        # No start of services inside: there is no init.
        printf '#!/bin/sh\nexit 101\n' >"$part/usr/sbin/policy-rc.d"
        chmod +x "$part/usr/sbin/policy-rc.d"
        long "Asterisk" env DEBIAN_FRONTEND=noninteractive chroot "$part" apt-get install -y --no-install-recommends asterisk
        chroot "$part" apt-get clean
        rm -rf "${part:?}/var/lib/apt/lists"/*
        mv "$part" "$rootfs"
    } >&2
fi
echo "$rootfs"
