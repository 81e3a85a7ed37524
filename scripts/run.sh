#!/usr/bin/env bash
# What `make run` does: installs what is missing, builds, and runs a portal with a demo tenant whose simulated PBX is under attack.
#   run.sh              runs until Ctrl-C
#   run.sh clean-data   forgets the demo's data
#   run.sh code         prints the one-time code for the demo login
source "$(dirname "$0")/lib.sh"
cd "$REPO"

if [ "$(id -u)" = 0 ]; then
    # The private PostgreSQL gives up root and must be able to pass through to its data.
    data=${RINGFENCE_DEMO_DATA:-/var/lib/ringfence-demo}
else
    data=${RINGFENCE_DEMO_DATA:-${XDG_DATA_HOME:-$HOME/.local/share}/ringfence-demo}
fi
port=${RINGFENCE_PORT:-3000}
agents_port=${RINGFENCE_AGENTS_PORT:-3443}
portal=target/release/ringfence
agent=target/release/ringfence-agent

export LEPTOS_SITE_ROOT=target/site
export RINGFENCE__HTTP__LISTEN=127.0.0.1:$port
export RINGFENCE__HTTP__PUBLIC_URL=http://localhost:$port
export RINGFENCE__DATABASE__DATA_DIR=$data/portal
export RINGFENCE__AGENTS__LISTEN=127.0.0.1:$agents_port
export RINGFENCE__AGENTS__PUBLIC_HOST=localhost
export RINGFENCE__AGENTS__PUBLIC_PORT=$agents_port
export RINGFENCE__DEVELOPMENT__MAILBOX=true

main() {
    case ${1:-} in
        clean-data) clean_data ;;
        code) node scripts/one-time-code.mjs "$(from_seed totp_secret "$(cat "$data/login.json")")" ;;
        "") run ;;
        *) die "usage: run.sh [clean-data|code]" ;;
    esac
}

run() {
    scripts/install-tools.sh run
    scripts/build.sh
    mkdir -p "$data/logs" "$data/agent"
    chmod 755 "$data"
    chmod 700 "$data/agent"
    exec 9>"$data/lock"
    flock -n 9 || die "the demo runs already, on this data: $data$(running)"
    ! port_open "$port" || die "port $port is taken: choose another with RINGFENCE_PORT=…"

    say "Demo tenant"
    local seed token
    seed=$("$portal" demo-seed --json 2>>"$data/logs/portal.log" 9>&-) || { tail -n 30 "$data/logs/portal.log" >&2; die "ringfence demo-seed"; }
    (umask 077 && echo "$seed" >"$data/login.json")

    say "Portal"
    trap stop EXIT
    trap 'exit 0' INT TERM
    # In sessions of their own, so that Ctrl-C reaches only this script and it can stop them in order.
    # The portal and its database hold the lock, too: whatever happens to this script, nobody takes their data away.
    setsid "$portal" serve >>"$data/logs/portal.log" 2>&1 &
    portal_pid=$!
    echo "$portal_pid" >"$data/portal.pid"
    wait_for 60 portal portal_answers || { tail -n 30 "$data/logs/portal.log" >&2; die "the portal did not answer within 60 s"; }

    say "Agent with a simulated PBX"
    token=$(from_seed enrolment_token "$seed")
    if [ -n "$token" ]; then
        "$agent" enrol --token "$token" --server "localhost:$agents_port" --state-dir "$data/agent" >>"$data/logs/agent.log" 2>&1 9>&- ||
            { tail -n 30 "$data/logs/agent.log" >&2; die "ringfence-agent enrol"; }
    fi
    # The simulated PBX has simulated attackers: their bans belong in memory, not in this machine's firewall.
    setsid "$agent" run --state-dir "$data/agent" --pbx simulated --firewall memory >>"$data/logs/agent.log" 2>&1 9>&- &
    agent_pid=$!

    cat <<WELCOME

  Ringfence runs at  http://localhost:$port

    E-mail           $(from_seed email "$seed")
    Password         $(from_seed password "$seed")
    One-time code    $(node scripts/one-time-code.mjs "$(from_seed totp_secret "$seed")") at this moment; the next ones: make code
                     or add this key to an authenticator app: $(from_seed totp_secret "$seed")

  Mail that it would send is at http://localhost:$port/dev/mailbox. Logs: $data/logs. Ctrl-C stops everything, the data stays.

WELCOME
    # Whichever ends first takes the other with it, and its log says why.
    wait -n "$portal_pid" "$agent_pid" || true
    tail -n 20 "$data/logs/portal.log" "$data/logs/agent.log" >&2
    die "the portal or the agent ended by itself"
}

stop() {
    # A second Ctrl-C must not end this before it has stopped what it started.
    trap '' INT TERM
    trap - EXIT
    say "Stopping"
    local pid
    for pid in ${agent_pid:-} ${portal_pid:-}; do
        kill -TERM "$pid" 2>/dev/null || continue
        wait_for 15 "process $pid" gone "$pid" || kill -KILL "$pid" 2>/dev/null || true
    done
}

clean_data() {
    [ -e "$data" ] || { note "There is no data"; return; }
    exec 9>"$data/lock"
    flock -n 9 || die "the demo is running: stop it first$(running)"
    rm -rf --one-file-system "$data"
    note "Forgot $data"
}

# How to stop a portal that outlived its script.
running() {
    local pid
    pid=$(cat "$data/portal.pid" 2>/dev/null) && kill -0 "$pid" 2>/dev/null && echo " (kill $pid)"
    return 0
}

gone() { ! kill -0 "$1" 2>/dev/null; }
port_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
portal_answers() {
    kill -0 "$portal_pid" 2>/dev/null || die "the portal ended; see $data/logs/portal.log"
    port_open "$port"
}
# from_seed FIELD JSON: the field, or nothing when it is null.
from_seed() { node -e 'console.log(JSON.parse(process.argv[2])[process.argv[1]] ?? "")' "$1" "$2"; }

main "$@"
