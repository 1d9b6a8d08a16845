#!/usr/bin/env python3
"""Queries per second of bestroute's CPU engine beside ONNX Runtime's, same weights, same run.

    python3 bench/compare_onnxruntime.py --bundle DIR --bench BUILD/bench_forward
        [--work DIR] [--seconds 2] [--rounds 3]

Needs torch, transformers, onnx and onnxruntime. It

  1. loads the bundle's weights into Hugging Face's DebertaV2Model with its heads and exports it (once, into
     --work),
  2. checks that ONNX Runtime and bestroute score the same prompts alike,
  3. finds ONNX Runtime's best settings for each length: one session over all cores or one session per core,
     and the batch size,
  4. measures ONNX Runtime at those settings and bestroute in float32 and bf16 in turn, several rounds,
     and prints the medians.

Rates are queries per second of processor time, per core, so that whatever else the machine does
counts less (it still takes cache and memory bandwidth from both); --wall uses the clock, all cores together.

ONNX Runtime's batches hold prompts of one length, so it computes no padding here either; a mix of lengths
would cost it some. Dynamic shapes, all graph optimisations on.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time

import numpy as np

POOL_INDEX = 1


def export(bundle, path):
    """Writes the bundle as an ONNX model: ids [B, S] -> quality [B, K]."""
    import torch
    from safetensors.torch import load_file
    from transformers import DebertaV2Config, DebertaV2Model

    with open(os.path.join(bundle, "config.json")) as file:
        config = DebertaV2Config(**json.load(file))
    weights = {name: tensor.float()
               for name, tensor in load_file(os.path.join(bundle, "model.safetensors")).items()}
    config._attn_implementation = "eager"

    class Router(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = DebertaV2Model(config)
            prefix = "pretrained_model."
            own = {name[len(prefix) :]: t for name, t in weights.items() if name.startswith(prefix)}
            missing, unexpected = self.encoder.load_state_dict(own, strict=False)
            if missing or [name for name in unexpected if "position_ids" not in name]:
                sys.exit(f"the bundle's names do not fit: missing {missing}, unexpected {unexpected}")
            count = len({name.split(".")[1] for name in weights if name.startswith("single_heads.")})
            weight = [weights[f"single_heads.{k}.1.weight"] for k in range(count)]
            bias = [weights[f"single_heads.{k}.1.bias"] for k in range(count)]
            self.weight = torch.nn.Parameter(torch.stack([w[0] - w[1] for w in weight]))
            self.bias = torch.nn.Parameter(torch.stack([b[0] - b[1] for b in bias]))

        def forward(self, ids):
            hidden = self.encoder(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
            return torch.sigmoid(torch.nn.functional.linear(hidden[:, POOL_INDEX], self.weight, self.bias))

    model = Router().eval()
    example = torch.randint(4, 1000, (2, 24))
    with torch.no_grad():
        torch.onnx.export(
            model,
            (example,),
            path,
            input_names=["ids"],
            output_names=["quality"],
            dynamic_axes={"ids": {0: "batch", 1: "tokens"}, "quality": {0: "batch"}},
            opset_version=17,
            dynamo=False,
        )


class OnnxRuntime:
    """Sessions that run at once, each in its own thread."""

    def __init__(self, path, sessions, threads):
        import onnxruntime

        self.sessions = []
        self.threads = threads
        for _ in range(sessions):
            options = onnxruntime.SessionOptions()
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
            options.intra_op_num_threads = threads
            options.inter_op_num_threads = 1
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            self.sessions.append(session)

    def score(self, ids):
        return self.sessions[0].run(None, {"ids": ids})[0]

    def measure(self, length, batch, seconds):
        """Queries per second of all sessions together, and per core and second of processor time."""
        ids = np.random.default_rng(length).integers(4, 100000, (batch, length), dtype=np.int64)
        rates = [0.0] * len(self.sessions)
        counts = [0] * len(self.sessions)
        core_seconds = [0.0] * len(self.sessions)
        barrier = threading.Barrier(len(self.sessions))

        def work(index):
            session = self.sessions[index]
            session.run(None, {"ids": ids})
            barrier.wait()
            begin = time.perf_counter()
            core_begin = time.thread_time()
            count = 0
            while count == 0 or time.perf_counter() - begin < seconds:
                session.run(None, {"ids": ids})
                count += 1
            rates[index] = count * batch / (time.perf_counter() - begin)
            counts[index] = count * batch
            core_seconds[index] = time.thread_time() - core_begin

        threads = [threading.Thread(target=work, args=(i,)) for i in range(len(self.sessions))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # A session with more threads works on others than ours, one to each; they spin while they wait.
        return sum(rates), sum(counts) / (sum(core_seconds) * self.threads)


def bestroute(args, precision, *more):
    command = [args.bench, "--bundle", args.bundle, "--engine", "cpu", "--precision", precision]
    command += ["--lengths", ",".join(map(str, args.lengths)), "--no-check", *more]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def measure_bestroute(args, precision):
    output = bestroute(args, precision, "--json", "--seconds", str(args.seconds),
                       "--streams", str(args.cores))
    parsed = json.loads(output)
    return parsed, {r["tokens"]: r["queries_per_s" if args.wall else "queries_per_core_s"]
                    for r in parsed["results"]}


def check(args, runtime, precision, bar):
    """The largest difference between the two engines' qualities over prompts of every length."""
    worst = 0.0
    for line in bestroute(args, precision, "--dump", "--batch-tokens", "128").splitlines():
        prompt = json.loads(line)
        expected = runtime.score(np.array([prompt["ids"]], dtype=np.int64))[0]
        worst = max(worst, float(np.abs(expected - np.array(prompt["quality"])).max()))
    print(f"largest |quality - ONNX Runtime's|, {precision}: {worst:.1e}", file=sys.stderr)
    if not worst <= bar:
        sys.exit("the engines do not agree: not timed")
    return worst


def best_settings(args, runtimes):
    """The fastest (name, batch) of ONNX Runtime for each length."""
    best = {}
    for length in args.lengths:
        tried = []
        for name, runtime in runtimes.items():
            for batch in args.batches:
                if batch * length > 8192:
                    continue
                tried.append((runtime.measure(length, batch, args.seconds / 2)[0 if args.wall else 1], name,
                              batch))
                print(f"  {length} tokens, {name}, batch {batch}: {tried[-1][0]:.1f} queries/s",
                      file=sys.stderr)
        best[length] = max(tried)[1:]
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--bench", required=True, help="the built bench_forward")
    parser.add_argument("--work", default="onnx-model", help="folder for the exported model")
    parser.add_argument("--lengths", default="32,64,128,512", type=lambda s: [int(x) for x in s.split(",")])
    parser.add_argument("--batches", default="1,2,4,8,16", type=lambda s: [int(x) for x in s.split(",")])
    parser.add_argument("--seconds", default=2.0, type=float, help="per measurement")
    parser.add_argument("--rounds", default=3, type=int)
    parser.add_argument("--cores", default=len(os.sched_getaffinity(0)), type=int)
    parser.add_argument("--wall", action="store_true", help="rates by the clock, all cores together")
    args = parser.parse_args()

    os.makedirs(args.work, exist_ok=True)
    path = os.path.join(args.work, "router.onnx")
    if not os.path.exists(path):
        export(args.bundle, path)
    runtimes = {
        f"1 session x {args.cores} threads": OnnxRuntime(path, 1, args.cores),
        f"{args.cores} sessions x 1 thread": OnnxRuntime(path, args.cores, 1),
    }
    any_runtime = next(iter(runtimes.values()))
    difference = {"f32": check(args, any_runtime, "f32", 2e-5),
                  "bf16": check(args, any_runtime, "bf16", 5e-2)}
    best = best_settings(args, runtimes)

    rates = {name: {length: [] for length in args.lengths} for name in ("ort", "f32", "bf16")}
    device = ""
    for _ in range(args.rounds):
        for length in args.lengths:
            name, batch = best[length]
            rate = runtimes[name].measure(length, batch, args.seconds)[0 if args.wall else 1]
            rates["ort"][length].append(rate)
        for precision in ("f32", "bf16"):
            parsed, measured = measure_bestroute(args, precision)
            device = parsed["device"]
            for length in args.lengths:
                rates[precision][length].append(measured[length])

    import onnxruntime

    print(f"{device}; {args.cores} cores; ONNX Runtime {onnxruntime.__version__} float32, best settings;")
    print(f"median of {args.rounds} rounds in turn, {args.seconds:g} s each. Largest difference in quality "
          f"from ONNX Runtime: f32 {difference['f32']:.0e}, bf16 {difference['bf16']:.0e}.")
    print("Queries/s " + (f"of {args.cores} cores." if args.wall else "per core, by processor time.") + "\n")
    print("| tokens | ONNX Runtime, queries/s | its best settings | bestroute f32 | ratio | bestroute bf16 | "
          "ratio |")
    print("| ---: | ---: | --- | ---: | ---: | ---: | ---: |")
    for length in args.lengths:
        ort, f32, bf16 = (statistics.median(rates[name][length]) for name in ("ort", "f32", "bf16"))
        settings = f"{best[length][0]}, batch {best[length][1]}"
        print(f"| {length} | {ort:.1f} | {settings} | {f32:.1f} | {f32 / ort:.2f} | {bf16:.1f} | "
              f"{bf16 / ort:.2f} |")
    print("\nRatios of each round: " + json.dumps({
        name: {length: [round(r / o, 2) for r, o in zip(rates[name][length], rates["ort"][length])]
               for length in args.lengths} for name in ("f32", "bf16")}))


if __name__ == "__main__":
    main()
