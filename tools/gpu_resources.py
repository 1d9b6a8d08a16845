#!/usr/bin/env python3
"""What the compiler needs for each CUDA kernel: registers, shared memory, spills,
and how many warps then fit.

    tools/gpu_resources.py

Compiles cuda/*.cu for sm_80, sm_90 and sm_100, prints a table, and fails when a kernel spills registers, has
a stack frame, or is reported on by no architecture. Skipped (77) where nvcc is missing. $BESTROUTE_SOURCE and
$NVCC come from ctest.
"""
import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

# Of a multiprocessor: registers, bytes of shared memory, warps, blocks.
ARCHITECTURES = {
    "80": (65536, 164 << 10, 64, 32),
    "90": (65536, 228 << 10, 64, 32),
    "100": (65536, 228 << 10, 64, 32),
}
RESERVED_SHARED = 1024  # of each block, taken by the system
ONLY = {"linear_warpgroup.cu": ("90a",)}  # wgmma is sm_90's alone


def dynamic_shared(name):
    """Bytes that the launchers ask for on top of the static ones,
    for the kernels where it decides what fits."""
    numbers = [int(word) for word in re.findall(r"\b\d+\b", name)]
    if name.startswith("attention_band"):
        size, tiles = numbers[0], numbers[1]
        keys = 16 * tiles
        return 2 * 2 * keys * size * 2 + 2 * 2 * keys * size * 2 + tiles * 4096 + 3 * 4 * 257
    if name.startswith("linear_warpgroup"):
        return 3 * 256 * 128
    if name.startswith("linear"):
        return 3 * (numbers[0] + numbers[1]) * 128
    return 0


def readable(mangled):
    text = subprocess.run(["c++filt", mangled], capture_output=True, text=True, check=True).stdout.strip()
    text = re.sub(r"_GLOBAL__N__\w+::|\(anonymous namespace\)::", "", text)
    text = re.sub(r"^void ", "", text)
    depth = 0
    for at, letter in enumerate(text):  # up to the parameters, which begin outside of < >
        depth += (letter == "<") - (letter == ">")
        if letter == "(" and depth == 0:
            text = text[:at]
            break
    for long, short in (("_kernel", ""), ("__nv_bfloat16", "bf16"), ("__half", "f16"),
                        ("__nv_fp8_e4m3", "e4m3"),
                        ("(br_epilogue)0", "store"), ("(br_epilogue)1", "gelu"),
                        ("(br_epilogue)2", "accumulate")):
        text = text.replace(long, short)
    return text


def compile_one(nvcc, source, architecture, folder):
    """[(kernel, registers, static shared bytes, spilled bytes, stack bytes, threads)]"""
    ptx = os.path.join(folder, f"{source.stem}.{architecture}.ptx")
    root = source.parent.parent
    subprocess.run([nvcc, "-std=c++17", "-O3", "-I", root / "include", "-I", root / "src",
                    f"-arch=compute_{architecture}",
                    "-ptx", source, "-o", ptx], check=True)
    threads = {}
    entry = None
    with open(ptx, encoding="utf-8") as lines:
        for line in lines:
            found = re.search(r"\.entry (\w+)", line)
            entry = found.group(1) if found else entry
            found = re.search(r"\.maxntid (\d+)", line)
            if found and entry:
                threads[entry] = int(found.group(1))
    ptxas = pathlib.Path(nvcc).resolve().parent / "ptxas"
    done = subprocess.run([ptxas, "-v", f"-arch=sm_{architecture}", ptx, "-o", os.devnull], check=True,
                          capture_output=True, text=True)
    kernels = []
    spilled = stack = 0
    for line in (done.stdout + done.stderr).splitlines():
        found = re.search(r"Compiling entry function '(\w+)'", line)
        if found:
            entry = found.group(1)
        found = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line)
        if found:
            stack, spilled = int(found.group(1)), int(found.group(2)) + int(found.group(3))
        found = re.search(r"Used (\d+) registers", line)
        if found:
            shared = re.search(r"(\d+) bytes smem", line)
            kernels.append((entry, int(found.group(1)), int(shared.group(1)) if shared else 0, spilled, stack,
                            threads[entry]))
    return kernels


def warps_that_fit(architecture, registers, shared, threads):
    all_registers, all_shared, all_warps, all_blocks = ARCHITECTURES[architecture.rstrip("a")]
    warps = threads // 32
    by_registers = all_registers // ((registers + 7) // 8 * 8 * 32 * warps)
    by_shared = all_shared // (shared + RESERVED_SHARED)
    return min(by_registers, by_shared, all_warps // warps, all_blocks) * warps, all_warps


def main():
    nvcc = os.environ.get("NVCC") or shutil.which("nvcc")
    if not nvcc:
        print("skipped: there is no nvcc")
        return 77
    folder = pathlib.Path(os.environ["BESTROUTE_SOURCE"]) / "cuda"
    known = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True,
                           check=True).stdout.split()
    jobs = [(source, architecture) for source in sorted(folder.glob("*.cu"))
            for architecture in ONLY.get(source.name, ARCHITECTURES)
            if f"compute_{architecture.rstrip('a')}" in known]
    problems = []
    rows = []
    with (tempfile.TemporaryDirectory() as scratch,
          concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool):
        futures = [(job, pool.submit(compile_one, nvcc, *job, scratch)) for job in jobs]
        for (source, architecture), future in futures:
            kernels = future.result()
            if not kernels:
                problems.append(f"{source.name} has no kernel for sm_{architecture}")
            for mangled, registers, static, spilled, stack, threads in kernels:
                name = readable(mangled)
                shared = static + dynamic_shared(name)
                fit, most = warps_that_fit(architecture, registers, shared, threads)
                rows.append((name, architecture, threads, registers, shared, spilled, stack,
                             f"{fit} of {most}"))
                if spilled or stack:
                    problems.append(f"{name} on sm_{architecture}: {spilled} bytes spilled, {stack} bytes of "
                                    "stack")
    print("| kernel | sm | threads | registers | shared bytes | spilled | stack | warps that fit |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for row in sorted(rows):
        print("| " + " | ".join(map(str, row)) + " |")
    for problem in problems:
        print(f"over the bar: {problem}")
    print(f"{len(rows)} kernels, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
