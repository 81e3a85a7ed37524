#!/usr/bin/env bash
# Fuzzes every target for a while with the stable compiler: the coverage counters that libFuzzer steers by are LLVM's and need no nightly.
#   fuzz/run.sh [SECONDS each, default 20] [TARGET…]
source "$(dirname "$0")/../scripts/lib.sh"
cd "$REPO/fuzz"

seconds=${1:-20}
[ $# -eq 0 ] || shift
targets=("$@")
if [ ${#targets[@]} = 0 ]; then
    for file in targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi

counters="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1"
host=$(rustc -vV | sed -n 's/^host: //p')
# With an explicit target, cargo keeps the counters out of build scripts and macros.
long "Building fuzz targets" env RUSTFLAGS="$(tr -s '\n ' ' ' <<<"$counters")" cargo build --release --locked --target "$host"

for target in "${targets[@]}"; do
    mkdir -p "corpus/$target" "artifacts/$target"
    log=$(mktemp)
    if ! "target/$host/release/$target" "corpus/$target" "seeds/$target" -max_total_time="$seconds" -max_len=4096 \
        -artifact_prefix="artifacts/$target/" -print_final_stats=1 >"$log" 2>&1; then
        tail -n 40 "$log" >&2
        rm -f "$log"
        die "fuzz target $target found something; the input is in fuzz/artifacts/$target"
    fi
    note "fuzz $target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs in $seconds s, nothing found"
    rm -f "$log"
done
