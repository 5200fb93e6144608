"""The tables of docs/results (dense, sparse, avx2, bytes, training-steps): `wattle bench FILE --against PEER` over networks.

    python tables.py sparse FOLDER --deepsparse PYTHON   # sparse networks: onnxruntime, PyTorch and DeepSparse
    python tables.py dense FOLDER --det DET.onnx         # dense inference: onnxruntime and PyTorch
    python tables.py train FOLDER                        # training steps: PyTorch
    python tables.py int8 FOLDER --masks dense uniform   # what quantize.py wrote: onnxruntime

FOLDER is what networks.py wrote. Run it with the Python that has torch, onnx and onnxruntime. Each comparison is one
process of wattle that takes turns with one process of the peer; a row is the median of both and of the ratio over the
rounds (peer over wattle, above 1 where wattle is faster). "At the limits" is what wattle would take if each node ran as
fast as what limits it, multiply-adds or bandwidth (`wattle bench --roofline`). The table and its rows, a JSON line each, are kept in
benches/runs/<date>-<machine>/; rows that are in --out already are not measured again; rows of a busy machine are marked.
"""

import argparse
import json
import math
import os
import shlex
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import runs  # noqa: E402

# Least ratio that is wanted: of the faster dense peer, and of DeepSparse.
FLOORS = {"lenet": (3, 1.5), "mobilenet-v1": (2.5, 1.5), "encoder": (3, 1.5), "encoder-13": (3, 1.5), "resnet18": (2, None)}
# Name or file, shape of a sample, batch, optimiser, floor.
TRAINED = {"resnet-20": ("1x3x32x32", 128, "sgd", 1.2), "lenet-300-100": ("1x1x28x28", 60, "adam", 3),
           "transformer-dense-b1.onnx": ("1x64x256", 32, "adam", 1.2)}


def compare(arguments, done, key, command):
    if key in done:
        return done[key]
    line = [*shlex.split(arguments.before), arguments.wattle, "bench", *command, "--json", "--rounds", str(arguments.rounds)]
    run = subprocess.run([str(part) for part in line], capture_output=True, text=True)
    if run.returncode != 0:
        print(f"{key}: {run.stderr.strip()}", file=sys.stderr)
        return {"error": run.stderr.strip()}
    result = json.loads(run.stdout)
    done[key] = result
    with open(arguments.out, "a") as file:
        file.write(json.dumps({"key": key, **result}) + "\n")
    return result


def cell(result):
    if "error" in result:
        return "failed", "", float("nan")
    peer, mark = result["peer"], " (busy)" if result["disturbed"] else ""
    layout = {"channels_last": " (channels last)"}.get(peer["variant"], "")
    text = f"{peer['median_ms']:.3g}{layout}{mark}"
    return text, f"{result['ratio']:.2f} [{result['ratio_p10']:.2f} {result['ratio_p90']:.2f}]", result["ratio"]


def least(arguments, done, key, command):
    """Milliseconds if each node ran at what limits it: multiply-adds in registers, or bandwidth at its size."""
    if key not in done:
        line = [*shlex.split(arguments.before), arguments.wattle, "bench", *command, "--roofline", "--json"]
        run = subprocess.run([str(part) for part in line], capture_output=True, text=True, check=True)
        nodes = json.loads(run.stdout)["roofline"]["nodes"]
        done[key] = {"least_ms": sum(node["ms"] * (node["share"] or 0) for node in nodes)}
        with open(arguments.out, "a") as file:
            file.write(json.dumps({"key": key, **done[key]}) + "\n")
    return done[key]["least_ms"]


def rows(arguments, files, peers, floors):
    """One Markdown row a file and number of threads."""
    done = {}
    if Path(arguments.out).exists():
        done = {r.pop("key"): r for r in map(json.loads, open(arguments.out))}
    names = " | ".join(f"{peer}, ms | ratio [p10 p90]" for peer, _ in peers)
    print(f"| network | batch | threads | wattle, ms | at the limits, ms | {names} | floors |")
    print("|---|---|---|---|---|" + "---|---|" * len(peers) + "---|")
    for label, network, batch, path, inputs in files:
        for threads in arguments.threads:
            cells, ours, ratios = [], [], {}
            for peer, python in peers:
                command = [path, *inputs, "--against", peer, "--python", python, "--threads", threads]
                result = compare(arguments, done, f"{label} b{batch} t{threads} {peer}", command)
                text, ratio, value = cell(result)
                cells += [text, ratio]
                ratios[peer] = value
                if "wattle" in result:
                    ours.append(result["wattle"]["median_ms"])
            key = f"{label} b{batch} t{threads} roofline"
            # The roofline's multiply-adds are those of floats.
            known = ours and arguments.table != "int8"
            bound = f"{least(arguments, done, key, [path, *inputs, '--threads', threads]):.3g}" if known else ""
            verdict = []
            for floor, of in zip(floors(network, batch), (("onnxruntime", "torch"), ("deepsparse",))):
                found = [ratios[peer] for peer in of if peer in ratios and not math.isnan(ratios[peer])]
                if floor and found:
                    worst = min(found)
                    verdict.append(f"{floor:g}x {'met' if worst >= floor else 'missed'}")
            mine = f"{sorted(ours)[len(ours) // 2]:.3g}" if ours else "failed"
            cells = [label, batch, threads, mine, bound, *cells, ", ".join(verdict)]
            print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def options(purpose):
    """What says which rows; before_after.py takes the same."""
    parser = argparse.ArgumentParser(description=purpose, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=["sparse", "dense", "train", "int8"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--det", help="PP-OCR's detection model")
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--masks", nargs="+", default=["uniform", "imp"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--before", default="", help="put before each timed command, such as a lock of the machine")
    return parser


def chosen(arguments):
    """The rows of a table without their threads: label, network, batch, file or name, further options."""
    files = []
    if arguments.table == "sparse":
        for network in arguments.only or FLOORS:
            for masks in arguments.masks:
                for batch in arguments.batches:
                    path = arguments.folder / f"{network}-{masks}-b{batch}.onnx"
                    if path.exists():
                        files.append((f"{network} {masks}", network, batch, path, []))
    elif arguments.table == "dense":
        for network in arguments.only or ["mobilenet-v1", "mobilenet-v2", "resnet18", "encoder", "lenet"]:
            for batch in arguments.batches:
                path = arguments.folder / f"{network}-dense-b{batch}.onnx"
                files.append((network, network, batch, path, []))
        if arguments.det:
            files.append(("PP-OCR det 640x640", "det", 1, arguments.det, ["--input", "x=1x3x640x640"]))
    elif arguments.table == "int8":
        for network in arguments.only or ["lenet", "mobilenet-v1", "mobilenet-v2", "resnet18", "encoder"]:
            for masks in arguments.masks:
                for form in ["qdq", "qop", "dynamic"]:
                    for batch in arguments.batches:
                        path = arguments.folder / f"{network}-{masks}-{form}-b{batch}.onnx"
                        if path.exists():
                            files.append((f"{network} {masks} {form}", network, batch, path, []))
    else:
        for network in arguments.only or TRAINED:
            shape, batch, optimizer, _ = TRAINED[network]
            inputs = ["--input", f"x={shape}", "--train", "--batch", str(batch), "--optimizer", optimizer]
            path = arguments.folder / network if network.endswith(".onnx") else network
            files.append((f"{network.removesuffix('-dense-b1.onnx')} step, {optimizer}", network, batch, path, inputs))
    return files


def main():
    parser = options(__doc__)
    parser.add_argument("--wattle", default="target/release/wattle")
    parser.add_argument("--python", default=sys.executable, help="has torch, onnx and onnxruntime")
    parser.add_argument("--deepsparse", help="a Python 3.11 that has deepsparse==1.8.0 and numpy<2")
    parser.add_argument("--out", help="JSON lines; in the folder of this date and machine by default")
    arguments = parser.parse_args()
    isa = os.environ.get("WATTLE_ISA")
    name = f"{arguments.table}-{isa}" if isa else arguments.table
    arguments.out = arguments.out or runs.folder() / f"{name}.jsonl"
    files = chosen(arguments)
    peers = [("onnxruntime", arguments.python), ("torch", arguments.python)]
    if arguments.table == "sparse":
        if arguments.deepsparse:
            peers.append(("deepsparse", arguments.deepsparse))
        floors = lambda network, batch: (None, None) if network == "resnet18" and batch > 1 else FLOORS[network]
    elif arguments.table == "dense":
        # The detector's outputs are larger, and so are its differences.
        tolerant = lambda row: (*row[:4], [*row[4], "--tolerance", "1e-3"]) if row[1] == "det" else row
        files = list(map(tolerant, files))
        floors = lambda network, batch: (1.0, None)
    elif arguments.table == "int8":
        # A few steps of 1/255: where rounding falls differently, later layers carry it on.
        files = [(*row[:4], [*row[4], "--tolerance", "0.1"]) for row in files]
        peers = [("onnxruntime", arguments.python)]
        floors = lambda network, batch: (1.0, None)
    else:
        peers = [("torch", arguments.python)]
        floors = lambda network, batch: (TRAINED[network][3], None)
    with runs.kept(f"{name}.md"):
        rows(arguments, files, peers, floors)


if __name__ == "__main__":
    main()
