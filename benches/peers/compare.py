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
    ours = [arguments.wattle, "bench", arguments.model, *runs, "--json"]
    if arguments.train:
        ours += ["--train", "--batch", str(arguments.batch), "--optimizer", arguments.optimizer]
        theirs = {
            f"PyTorch {layout}": [*python, "train", arguments.train, str(arguments.batch), arguments.optimizer, layout, *runs]
            for layout in ("contiguous", "channels_last")
        }
    else:
        ours += ["--input", arguments.input]
        theirs = {"onnxruntime": [*python, "infer", arguments.model, arguments.input, *runs]}
    return {"wattle": ours, **theirs}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="ONNX model that wattle runs or trains")
    parser.add_argument("--wattle", default="target/release/wattle")
    parser.add_argument("--input", help="NAME=1x3x224x224, for inference")
    parser.add_argument("--train", choices=["lenet", "resnet20"], help="train; names PyTorch's copy of the network")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--optimizer", choices=["sgd", "adam"], default="sgd")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--runs", type=int, default=10, help="timed runs per process")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("peers.json"))
    arguments = parser.parse_args()
    if bool(arguments.input) == bool(arguments.train):
        parser.error("state either --input or --train")
    record = {"machine": platform.platform(), "model": arguments.model, "results": []}
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
