#!/usr/bin/env bash
# What `make test` and CI do. Every step runs even when an earlier one failed; the end says what passed, failed and was left out, and why.
#   test.sh          everything
#   test.sh lint     only what needs no database, browser or privilege
source "$(dirname "$0")/lib.sh"
cd "$REPO"

export SQLX_OFFLINE=true
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-always}
passed=() failed=() left_out=()
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

# step NAME COMMAND…
step() {
    local name=$1 begun=$SECONDS
    shift
    say "$name"
    if "$@" 2>&1 | tee "$logs/${name//[^a-zA-Z0-9]/_}"; then
        passed+=("$name ($((SECONDS - begun)) s)")
    else
        failed+=("$name")
        printf '\033[31mFAILED\033[0m %s\n' "$name"
    fi
}

lint() {
    step "Formatting" cargo fmt --all --check
    step "Crate directions and browser bundle" scripts/check-crate-directions.sh
    step "Clippy" cargo clippy --locked --workspace --exclude frontend --all-targets -- -D warnings
    step "Clippy for the browser" cargo clippy --locked -p frontend -p policy --target wasm32-unknown-unknown -- -D warnings
    step "Documentation" env RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --exclude frontend --no-deps --document-private-items
    step "Generated protocol code" regenerated
    step "Dependencies" cargo deny --log-level error check bans licenses sources
    if advisories_reachable; then
        step "Advisories" cargo deny --log-level error check advisories
    else
        left_out+=("Advisories: their database cannot be reached from here")
    fi
}

everything() {
    scripts/install-tools.sh test
    lint
    step "Queries against the schema" scripts/test-postgres.sh scripts/check-queries.sh
    [ "$(id -u)" = 0 ] || left_out+=("Packets in network namespaces, the drills, and the journeys with a real Asterisk: they need root")
    step "Tests" scripts/test-postgres.sh cargo nextest run --locked --workspace --exclude frontend --no-fail-fast -E 'not package(drills)'
    # The same build. A drill mostly waits, so more of them run at a time than there are cores.
    step "Drills" cargo nextest run --locked --workspace --exclude frontend --no-fail-fast -E 'package(drills)' -j 6
    step "Fuzzing, ${RINGFENCE_FUZZ_SECONDS:=15} s a target" fuzz/run.sh "$RINGFENCE_FUZZ_SECONDS"
    step "Release build" scripts/build.sh
    [ "$(id -u)" != 0 ] || step "Real Asterisk" testbed/asterisk-rootfs.sh
    step "Types of the journeys" end2end/node_modules/.bin/tsc --noEmit -p end2end
    step "Journeys" npm --prefix end2end test
}

regenerated() {
    local before
    before=$(cat proto/src/gen/* | cksum)
    cargo run --locked -q -p proto --features regenerate --bin regenerate || return 1
    [ "$before" = "$(cat proto/src/gen/* | cksum)" ] || {
        echo "proto/src/gen differed from what proto/proto gives; it is written anew, commit it" >&2
        return 1
    }
}

advisories_reachable() { timeout 120 cargo deny --log-level off fetch db >/dev/null 2>&1; }

case ${1:-} in
    lint) lint ;;
    "") everything ;;
    *) die "usage: test.sh [lint]" ;;
esac

echo
say "Result"
[ ${#passed[@]} = 0 ] || printf '    passed    %s\n' "${passed[@]}"
[ ${#left_out[@]} = 0 ] || printf '    left out  %s\n' "${left_out[@]}"
[ ${#failed[@]} = 0 ] || printf '    FAILED    %s\n' "${failed[@]}"
# The runners' own sums last.
grep -h 'Summary \[' "$logs/Tests" "$logs/Drills" 2>/dev/null || true
grep -hE '^ +[0-9]+ (passed|failed|skipped|flaky|did not run|interrupted)' "$logs/Journeys" 2>/dev/null || true
[ ${#failed[@]} = 0 ] || exit 1
