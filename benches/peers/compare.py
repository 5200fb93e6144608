"""Interleaved A/B of `wattle bench` against onnxruntime (inference) and PyTorch (training).

Every round runs each contender once, in a process of its own and in turn, so that a machine that slows down slows
all of them. Inputs are noise, never zeros. Prints a Markdown table and writes all samples as JSON.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# PyTorch's copy in peer.py: the same network by wattle's name, and its input.
NETWORKS = {"lenet": ("lenet-300-100", "x=1x1x28x28"), "resnet20": ("resnet-20", "x=1x3x32x32")}


def quantile(samples, q):
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, max(0, -(-int(q * 100) * len(ordered) // 100) - 1))]


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def contenders(arguments, threads):
    runs = ["--runs", str(arguments.runs), "--threads", str(threads)]
    python = [sys.executable, str(HERE / "peer.py")]
    if arguments.train:
        name, shape = NETWORKS[arguments.train]
        ours = [arguments.wattle, "bench", name, "--input", shape, *runs, "--json"]
        ours += ["--train", "--batch", str(arguments.batch), "--optimizer", arguments.optimizer]
        variants = [("contiguous", arguments.optimizer)]
        if arguments.train == "resnet20":
            variants.append(("channels_last", arguments.optimizer))
        if arguments.optimizer == "adam":
            variants.append(("contiguous", "fused-adam"))
        theirs = {
            f"PyTorch {layout}, {optimizer}":
                [*python, "train", arguments.train, str(arguments.batch), optimizer, layout, *runs]
            for layout, optimizer in variants
        }
    else:
        ours = [arguments.wattle, "bench", arguments.model, "--input", arguments.input, *runs, "--json"]
        theirs = {"onnxruntime": [*python, "infer", arguments.model, arguments.input, *runs]}
    return {"wattle": ours, **theirs}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", help="ONNX model, for inference")
    parser.add_argument("--wattle", default="target/release/wattle")
    parser.add_argument("--input", help="NAME=1x3x224x224, for inference")
    parser.add_argument("--train", choices=sorted(NETWORKS), help="time training steps of this network")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--optimizer", choices=["sgd", "adam"], default="sgd")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--runs", type=int, default=10, help="timed runs per process")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("peers.json"))
    arguments = parser.parse_args()
    if bool(arguments.model and arguments.input) == bool(arguments.train):
        parser.error("state either a model and its --input, or --train")
    record = {"machine": platform.platform(), "model": arguments.model or arguments.train, "results": []}
    print("| threads | contender | median ms | p10 ms | p90 ms | wattle / contender |")
    print("|--------:|-----------|----------:|-------:|-------:|-------------------:|")
    for threads in arguments.threads:
        commands = contenders(arguments, threads)
        samples = {name: [] for name in commands}
        for _ in range(arguments.rounds):
            for name, command in commands.items():
                samples[name] += run(command)["samples_ms"]
        ours = statistics.median(samples["wattle"])
        for name, list_ms in samples.items():
            median = statistics.median(list_ms)
            print(
                f"| {threads} | {name} | {median:.3f} | {quantile(list_ms, 0.1):.3f} "
                f"| {quantile(list_ms, 0.9):.3f} | {ours / median:.2f} |"
            )
            record["results"].append({"threads": threads, "contender": name, "samples_ms": list_ms})
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
