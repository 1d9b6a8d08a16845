#!/bin/sh
# Everything a CUDA device can tell, on the machine that has one:
#
#   bench/gpu.sh [--minutes M] [--only STEPS] [--quick] [OUT_FOLDER]
#
# builds for the device at hand, runs the GPU tests (and compute-sanitizer over the op tests, where it is
# installed), then measures for at most M minutes (8): the device's ceilings, the products of a layer over
# token counts, every other kernel, the whole forward pass by batch and length, recorded passes beside plain
# launches, precisions beside each other. Writes OUT_FOLDER/gpu.md and gpu.json (build/gpu unless given), of
# what it has when it is cut off or a step fails; the exit status is then not 0. STEPS is some of
# build,test,sanitize,measure, for machines that are lent for less time than all take. With --quick the sizes
# are tiny and nothing is tested: it tries the script, and its times mean nothing.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
minutes=8
quick=
only=build,test,sanitize,measure
out=$here/build/gpu
while [ $# -gt 0 ]; do
    case $1 in
    --minutes) minutes=$2; shift 2 ;;
    --only) only=$2; shift 2 ;;
    --quick) quick=--quick; shift ;;
    -*) sed -n '2,13s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    *) out=$1; shift ;;
    esac
done
mkdir -p "$out"
build=$here/build/gpu-release
bundle=$build/bundle$quick
lines=$out/lines.jsonl
python=/usr/bin/python3
[ -x "$python" ] || python=python3
bad=0

wanted() { case ,$only, in *,"$1",*) ;; *) return 1 ;; esac; }
say() { echo "== $*"; }
# step NAME RESULT: into the report.
step() {
    echo "{\"kind\":\"step\",\"name\":\"$1\",\"result\":\"$2\"}" >>"$lines"
    say "$1: $2"
}
# Tables of what there is so far: written over and over, so that a run that is killed leaves them too.
render() { [ ! -s "$lines" ] || "$python" "$here/bench/gpu_report.py" "$lines" "$out" $quick; }
finish() {
    [ -z "${watcher-}" ] || kill "$watcher" 2>/dev/null || true
    render && say "$out/gpu.md"
    exit "$1"
}
trap 'finish $?' EXIT
trap 'exit 130' INT TERM
wanted build && : >"$lines"
[ -f "$lines" ] || : >"$lines"

if wanted build; then
    # A single architecture builds fast; the one of the first device.
    capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -1 | tr -d .) ||
        capability=
    cmake -S "$here" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DBESTROUTE_CUDA=ON \
        -DBESTROUTE_CUDA_ARCHITECTURES="${capability:-90}" >"$out/configure.log" ||
        { tail -30 "$out/configure.log"; exit 1; }
    cmake --build "$build" >"$out/build.log" || { tail -30 "$out/build.log"; exit 1; }
    if [ ! -f "$bundle/router.json" ]; then
        if [ -n "$quick" ]; then small="--layers 2 --vocab 2064"; else small=; fi
        "$python" "$here/weights/generate.py" --preset 44m $small --out "$bundle" >/dev/null
    fi
fi

if [ -z "$quick" ] && wanted test; then
    say "GPU tests"
    if ctest --test-dir "$build" -L gpu --output-on-failure; then
        step "GPU tests" passed
    else
        step "GPU tests" FAILED
        bad=1
    fi
fi

if [ -z "$quick" ] && wanted sanitize; then
    if command -v compute-sanitizer >/dev/null; then
        for tool in memcheck racecheck initcheck; do
            result=passed
            for op in attention pooled_attention linear linear_fp8 layernorm embed_layernorm gather_rows \
                heads; do
                code=0
                timeout 120 compute-sanitizer --tool "$tool" --error-exitcode 9 "$build/tests/test_op_$op" \
                    >"$out/$tool-$op.log" 2>&1 || code=$?
                case $code in
                0 | 77) ;;
                124) result="$result, $op out of time" ;;
                *) result="$result, $op FAILED"; bad=1; tail -20 "$out/$tool-$op.log" ;;
                esac
            done
            step "compute-sanitizer $tool" "$result"
        done
    else
        step compute-sanitizer "not installed, passed over"
    fi
fi
wanted measure || exit $bad

say "measuring for at most $minutes minutes"
grep '"kind":"step"' "$lines" >"$lines.steps" || true
mv "$lines.steps" "$lines"
end=$(($(date +%s) + minutes * 60))
left() { echo $((end - $(date +%s))); }
if [ -z "$quick" ] && command -v nvidia-smi >/dev/null; then
    nvidia-smi -i 0 --query-gpu=clocks.sm,power.draw,temperature.gpu --format=csv,noheader,nounits -l 1 \
        >"$out/clocks.csv" 2>/dev/null &
    watcher=$!
fi
seconds=1
lengths=32,64,128,512
batches="1 8 64"
if [ -n "$quick" ]; then seconds=0.01 lengths=32,64 batches="1 2"; fi

# failed WHAT CODE: time that ran out, a precision that the device lacks, or a failure.
failed() {
    if [ "$2" = 124 ]; then
        echo "{\"kind\":\"cut\",\"at\":\"$1\"}" >>"$lines"
    elif grep -q "needs compute capability" "$out/stderr.log"; then
        step "$1" "not supported by this device, passed over"
    else
        step "$1" FAILED
        cat "$out/stderr.log"
        bad=1
    fi
}
# forward PRECISION NAME [OPTION...]: bench_forward's JSON, tagged.
# A precision the device lacks is passed over.
checked=
forward() {
    precision=$1 name=$2
    shift 2
    if [ "$(left)" -le 5 ]; then
        echo "{\"kind\":\"cut\",\"at\":\"forward $precision $name\"}" >>"$lines"
        return 0
    fi
    # Once in each precision the qualities are compared with the reference engine's first.
    case $checked in *" $precision "*) check=--no-check ;; *) check= checked="$checked $precision " ;; esac
    code=0
    result=$(timeout --foreground "$(left)" "$build/bench_forward" --bundle "$bundle" --engine cuda \
        --precision "$precision" --lengths $lengths --seconds $seconds $check --json "$@" \
        2>"$out/stderr.log") || code=$?
    if [ $code = 0 ]; then
        echo "{\"kind\":\"forward\",\"name\":\"$name\",\"run\":$result}" >>"$lines"
        say "forward $precision, $name: done, $(left) s left"
        render
    else
        failed "forward $precision, $name" $code
    fi
}
# single PRECISION SECONDS [OPTION...]: bench_cuda's lines.
single() {
    precision=$1 most=$2
    shift 2
    [ "$(left)" -gt 5 ] || { echo "{\"kind\":\"cut\",\"at\":\"kernels $precision\"}" >>"$lines"; return 0; }
    code=0
    timeout --foreground "$(left)" "$build/bench_cuda" --precision "$precision" --seconds "$most" \
        $quick "$@" >>"$lines" 2>"$out/stderr.log" || code=$?
    if [ $code = 0 ]; then
        say "kernels and products, $precision: done, $(left) s left"
        render
    else
        failed "kernels and products, $precision" $code
    fi
}

single f16 $((minutes * 20))
full=$(sed -n 's/.*"batch_tokens":\([0-9]*\).*/\1/p' "$lines" | head -1)
[ -z "$quick" ] || full=128
forward f16 "alone and full" --streams 1 --batch-tokens "${full:-2816}"
for batch in $batches; do forward f16 "$batch" --streams 1 --batch "$batch"; done
for batch in $batches; do forward f16 "$batch, enqueued" --streams 1 --batch "$batch" --plain; done
forward f16 "full, enqueued" --streams 1 --batch-tokens "${full:-2816}" --plain
for precision in f16 bf16 fp8; do
    forward $precision "full, two encoders" --streams 2 --batch-tokens "${full:-2816}"
done
single bf16 $((minutes * 8)) --products
single fp8 $((minutes * 8)) --products
exit $bad
