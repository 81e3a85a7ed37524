#!/usr/bin/env bash
# Makes a root file system of Debian 12 with what others use against SIP attacks (fail2ban, CrowdSec with its firewall bouncer) once, and
# prints its path. As Debian ships them; what is set here is only where Asterisk's log is and that CrowdSec works without its cloud.
# Kept in the cache folder (about 500 MB, two to three minutes); later calls only print the path.
source "$(dirname "$0")/../scripts/lib.sh"

suite=bookworm
rootfs=$CACHE/peers-rootfs

if [ -e "$rootfs/.made" ]; then
    echo "$rootfs"
    exit 0
fi
[ "$(id -u)" = 0 ] || die "making the peers' root file system needs root"
have debootstrap || die "debootstrap is missing: scripts/install-tools.sh bench installs it"

main() {
    local part=$rootfs.part mirror
    rm -rf --one-file-system "$part" "$rootfs"
    # What it mounts goes with it, even when it is interrupted.
    # The mirror of this machine's own package sources, so that a local mirror or proxy is respected.
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' 2>/dev/null | grep -v security | head -n 1 || true)
    long "Debian $suite base system (debootstrap)" unshare --mount debootstrap --variant=minbase "$suite" "$part" ${mirror:+"$mirror"}
    # No start of services inside: there is no init.
    printf '#!/bin/sh\nexit 101\n' >"$part/usr/sbin/policy-rc.d"
    chmod +x "$part/usr/sbin/policy-rc.d"
    # Credentials of the cloud that are there are not asked for over the network.
    mkdir -p "$part/etc/crowdsec" "$part/var/log/asterisk"
    printf 'url: http://127.0.0.1:1/\nlogin: none\npassword: none\n' >"$part/etc/crowdsec/online_api_credentials.yaml"
    # With what fail2ban recommends for its default settings: iptables, and pyinotify to follow logs.
    # Their installation looks into /proc, which is there as long as that lasts and for nobody else.
    long "fail2ban and CrowdSec" unshare --mount sh -c 'mount -t proc proc "$1/proc" && shift && exec env DEBIAN_FRONTEND=noninteractive "$@"' \
        sh "$part" chroot "$part" apt-get install -y --no-install-recommends nftables iptables fail2ban python3-pyinotify crowdsec crowdsec-firewall-bouncer
    fail2ban "$part"
    crowdsec "$part"
    chroot "$part" apt-get clean
    rm -rf "${part:?}/var/lib/apt/lists"/*
    # The cloud has no credentials, so the local server must not ask for it.
    sed -i '/online_client:/,+1d' "$part/etc/crowdsec/config.yaml"
    touch "$part/.made"
    mv "$part" "$rootfs"
}

fail2ban() {
    cat >"$1/etc/fail2ban/jail.local" <<'JAIL'
[sshd]
enabled = false
[asterisk]
enabled = true
logpath = /var/log/asterisk/security.log
JAIL
}

# What `cscli collections install crowdsecurity/asterisk` does, from the copy of the hub that is in the package; no logs but Asterisk's.
crowdsec() {
    local hub=/var/lib/crowdsec/hub name
    ln -sf "$hub/collections/crowdsecurity/asterisk.yaml" "$1/etc/crowdsec/collections/"
    ln -sf "$hub/parsers/s01-parse/crowdsecurity/asterisk-logs.yaml" "$1/etc/crowdsec/parsers/s01-parse/"
    for name in asterisk_bf asterisk_user_enum; do
        ln -sf "$hub/scenarios/crowdsecurity/$name.yaml" "$1/etc/crowdsec/scenarios/"
    done
    printf 'filenames:\n  - /var/log/asterisk/security.log\nlabels:\n  type: asterisk\n' >"$1/etc/crowdsec/acquis.yaml"
}

mkdir -p "$CACHE"
exec 9>"$CACHE/peers-rootfs.lock"
flock -w 900 9 || die "another process has been making $rootfs for 15 minutes"
[ -e "$rootfs/.made" ] || main >&2
echo "$rootfs"
