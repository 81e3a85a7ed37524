# Shared by the scripts beside it: where things are kept, how progress is shown, how a command gets root.
# Sourced, never run. shellcheck shell=bash

set -euo pipefail

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Slow to make and the same for every checkout (tools, the Asterisk root file system), so kept outside of it.
CACHE=${RINGFENCE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ringfence}
export REPO CACHE
export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$CACHE/tools/node_modules/.bin:$PATH:/usr/sbin:/sbin"

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
note() { printf '    %s\n' "$*"; }
die() {
    printf '\033[31merror:\033[0m %s\n' "$*" >&2
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif have sudo; then
        sudo "$@"
    else
        die "this needs root or sudo: $*"
    fi
}

can_root() { [ "$(id -u)" = 0 ] || { have sudo && sudo -n true 2>/dev/null; }; }

# Runs a long command with its output in a log, and shows every few seconds that it lives and what it does.
# long "label" command…; on failure the end of the log is shown.
long() {
    local label=$1 log started pid status=0
    shift
    log=$(mktemp)
    started=$SECONDS
    say "$label"
    "$@" >"$log" 2>&1 &
    pid=$!
    while kill -0 "$pid" 2>/dev/null; do
        sleep 1
        if [ $(((SECONDS - started) % 10)) = 0 ]; then
            printf '    %3d s  %s\n' $((SECONDS - started)) "$(tail -n 1 "$log" | tr '\r' '\n' | tail -n 1 | cut -c1-100)"
        fi
    done
    wait "$pid" || status=$?
    if [ "$status" != 0 ]; then
        tail -n 60 "$log" >&2
        rm -f "$log"
        die "$label: ended with status $status"
    fi
    note "done in $((SECONDS - started)) s"
    rm -f "$log"
}

# Waits until a command succeeds: wait_for SECONDS "what" command…
wait_for() {
    local limit=$1 what=$2 deadline
    shift 2
    deadline=$((SECONDS + limit))
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.2
    done
    : "$what"
}

# The folder with initdb, pg_ctl and postgres: Debian keeps them off PATH.
postgres_bin() {
    local folder
    folder=$(find /usr/lib/postgresql -maxdepth 2 -name bin -type d 2>/dev/null | sort -V | tail -n 1)
    if [ -n "$folder" ]; then echo "$folder"; elif have initdb; then dirname "$(command -v initdb)"; else return 1; fi
}
