#!/bin/sh
# Everything a CUDA device can tell, on the machine that has one:
#
#   bench/gpu.sh [--minutes M] [--quick] [OUT_FOLDER]
#
# builds for the device at hand, runs the GPU tests (and compute-sanitizer over the op tests, where it is installed), then
# measures for at most M minutes (8): the device's ceilings, the products of a layer over token counts, every other
# kernel, the whole forward pass by batch and length, recorded passes beside plain launches, precisions beside each other.
# Writes OUT_FOLDER/gpu.md and gpu.json (build/gpu unless given). With --quick the sizes are tiny: it tries the script,
# and its times mean nothing.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
minutes=8
quick=
out=$here/build/gpu
while [ $# -gt 0 ]; do
    case $1 in
    --minutes) minutes=$2; shift 2 ;;
    --quick) quick=--quick; shift ;;
    -*) sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    *) out=$1; shift ;;
    esac
done
mkdir -p "$out"
build=$here/build/gpu-release
bundle=$build/bundle
lines=$out/lines.jsonl
python=/usr/bin/python3
[ -x "$python" ] || python=python3

# A single architecture builds fast; the one of the first device.
capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -1 | tr -d .) || capability=
cmake -S "$here" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DBESTROUTE_CUDA=ON \
    -DBESTROUTE_CUDA_ARCHITECTURES="${capability:-90}" >"$out/configure.log"
cmake --build "$build" >"$out/build.log" || { tail -30 "$out/build.log"; exit 1; }

if [ -z "$quick" ]; then
    echo "== GPU tests"
    ctest --test-dir "$build" -L gpu --output-on-failure
    if command -v compute-sanitizer >/dev/null; then
        for tool in memcheck racecheck initcheck; do
            for op in attention pooled_attention linear layernorm embed_layernorm gather_rows heads; do
                echo "== compute-sanitizer $tool: $op"
                compute-sanitizer --tool "$tool" --error-exitcode 9 "$build/tests/test_op_$op" >"$out/$tool-$op.log" ||
                    { tail -20 "$out/$tool-$op.log"; exit 1; }
            done
        done
    else
        echo "== compute-sanitizer is not installed: passed over"
    fi
fi

echo "== measuring for at most $minutes minutes"
if [ ! -f "$bundle/router.json" ]; then
    if [ -n "$quick" ]; then small="--layers 2 --vocab 2064"; else small=; fi
    "$python" "$here/weights/generate.py" --preset 44m $small --out "$bundle" >/dev/null
fi
end=$(($(date +%s) + minutes * 60))
left() { echo $((end - $(date +%s))); }
: >"$lines"
"$build/bench_cuda" --seconds $((minutes * 25)) $quick | tee -a "$lines" | grep -c . >/dev/null

# forward PRECISION BATCH LENGTHS [FLAG]: one line of bench_forward's JSON, tagged.
forward() {
    [ "$(left)" -gt 5 ] || { echo "out of time before $*"; return 0; }
    length=$3
    tokens=$(($2 * length))
    seconds=1
    streams=1
    [ "$tokens" -ge 2048 ] && streams=2 # as the service runs full batches
    [ -n "$quick" ] && seconds=0.01
    result=$("$build/bench_forward" --bundle "$bundle" --engine cuda --precision "$1" --lengths "$length" --streams $streams \
        --batch-tokens "$tokens" --seconds $seconds --no-check --json ${4-}) || return 1
    echo "{\"kind\":\"forward\",\"flag\":\"${4-}\",\"asked\":\"$2\",\"run\":$result}" >>"$lines"
    echo "forward $* done, $(left) s left"
}
full=2816
lengths="32 64 128 512"
batches="1 8 64 full"
[ -n "$quick" ] && lengths="32 64" && batches="1 2"
for length in $lengths; do
    for batch in $batches; do
        if [ "$batch" = full ]; then count=$((full / length)); else count=$batch; fi
        forward f16 "$count" "$length"
    done
    forward f16 1 "$length" --plain
done
for precision in bf16 fp8; do
    for length in $lengths; do
        if [ -n "$quick" ]; then count=2; else count=$((full / length)); fi
        forward $precision "$count" "$length"
    done
done
"$python" "$here/bench/gpu_report.py" "$lines" "$out"
echo "== $out/gpu.md"
