#!/bin/sh
# Runs every fuzzer of a build folder; together they take so many seconds: run.sh BUILD_FOLDER SECONDS
# New inputs go to a scratch folder, never to the corpus in the tree.
set -eu
build=$1
total=$2
corpus=$(cd "$(dirname "$0")" && pwd)/corpus
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
programs=0
for program in "$build"/tests/fuzz/fuzz_*; do
    if [ -x "$program" ] && [ -f "$program" ]; then programs=$((programs + 1)); fi
done
[ "$programs" -gt 0 ] || { echo "no fuzzers in $build"; exit 1; }
seconds=$((total / programs))
[ "$seconds" -gt 0 ] || seconds=1
count=0
for program in "$build"/tests/fuzz/fuzz_*; do
    [ -x "$program" ] && [ -f "$program" ] || continue
    parser=${program##*/fuzz_}
    mkdir -p "$scratch/$parser"
    printf 'fuzz_%s: ' "$parser"
    if ! "$program" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="$scratch/" "$scratch/$parser" "$corpus/$parser" >"$scratch/log" 2>&1; then
        cat "$scratch/log"
        echo "fuzz_$parser failed"
        exit 1
    fi
    grep 'number_of_executed_units' "$scratch/log" | sed 's/.*: */executions: /'
    count=$((count + 1))
done
echo "$count fuzzers passed, 0 failed"
