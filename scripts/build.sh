#!/usr/bin/env bash
# The release build: portal with its browser bundle, and the agent. Skipped when nothing that goes into it is younger than it.
source "$(dirname "$0")/lib.sh"
cd "$REPO"

stamp=target/release/.built
sources=(Cargo.toml Cargo.lock policy store actions app frontend server proto agent migrations style .sqlx scripts/join-program.mjs)
fresh() {
    [ -f "$stamp" ] && [ -x target/release/ringfence ] && [ -x target/release/ringfence-agent ] && [ -d target/site ] || return 1
    local existing=() entry
    for entry in "${sources[@]}"; do [ ! -e "$entry" ] || existing+=("$entry"); done
    [ -z "$(find "${existing[@]}" -newer "$stamp" -print -quit)" ]
}
if fresh; then
    note "The release build is up to date"
    exit 0
fi
mkdir -p target/release
begun=$(mktemp)
# Queries were checked against the schema when .sqlx was written; no database is needed to build.
export SQLX_OFFLINE=true
long "Building the portal (server and browser bundle)" cargo leptos build --release --precompress --split
long "Joining the program's parts for first pages" node scripts/join-program.mjs target/site/pkg
# With the flags that cargo-leptos sets, so that what both need is built once.
long "Building the agent" env RUSTFLAGS="--cfg erase_components" cargo build --release --locked -p agent
# As old as the start of the build: what was edited meanwhile is built next time.
touch -r "$begun" "$stamp"
rm -f "$begun"
