"""Maps every model of the catalogue on an architecture and writes the table of docs/results/accelerator-catalogue.md.

    cargo build --release && python benches/accel/catalogue.py [--also FOLDER] [--presets] [--arch eyeriss-v2]

Models and inputs are those of benches/conformance (fetched by .ci/fetch-test-data into target/models); --also adds all
.onnx files of a folder whose shapes are known but for the batch, --presets the networks that `wattle train` knows.
A model whose layers and host work do not add up to what `wattle profile` counts, or that cannot be mapped, ends the run
with an error after the table is written. Needs numpy.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benches/conformance"), str(ROOT / "benches")]

import runs  # noqa: E402
from catalogue import MODELS  # noqa: E402

PAGE = ROOT / "docs/results/accelerator-catalogue.md"
BEGIN, END = "<!-- catalogue: begin -->\n", "<!-- catalogue: end -->\n"
PRESETS = ["lenet-300-100", "lenet-5", "small-conv", "resnet-20"]


def wattle(*arguments):
    command = [str(ROOT / "target/release/wattle"), *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    return json.loads(done.stdout)


def inputs_of(model, folder):
    """--input flags of a model of the catalogue; fixed values go through files."""
    flags = []
    for name, shape in model.shapes.items():
        flags += ["--input", f"{name}=" + "x".join(map(str, shape))]
    for name, value in model.fixed.items():
        path = Path(folder) / f"{name}.npy"
        np.save(path, value)
        flags += ["--input", f"{name}={path}"]
    return flags


def number(x):
    for size, prefix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if x >= size:
            return f"{x / size:.4g}{prefix}"
    return f"{x:.4g}"


def row(name, path, flags, arch):
    """A line of the table, and what is wrong with the model, if anything."""
    try:
        profile = wattle("profile", path, *flags)["totals"]
        found = wattle("accel", "estimate", path, "--arch", arch, *flags)
    except RuntimeError as error:
        return f"| {name} | | | | | | {error} |", f"{name}: {error}"
    counted = profile["macs"] + sum(profile["macs_separate"].values())
    totals, host = found["totals"], found["host"]
    layers = round(totals["macs"])
    left = {h["op"]: h["reason"] for h in host if h["macs"] > 0 or h["reason"].startswith("custom")}
    told = "; ".join(f"{op}: {reason}" for op, reason in sorted(left.items()))
    wrong = None
    if layers + totals["host_macs"] != counted:
        wrong = f"{name}: {layers} + {totals['host_macs']} MACs, profile counts {counted}"
    rates = [number(totals[key]) for key in ("inferences_per_s", "inferences_per_j")]
    cells = [name, str(len(found["layers"])), number(layers), number(totals["host_macs"]), *rates, told]
    return "| " + " | ".join(cells) + " |", wrong


def rows(arguments):
    with tempfile.TemporaryDirectory() as folder:
        for model in MODELS:
            name = Path(model.file).name + (f", {model.note}" if model.note else "")
            yield row(name, ROOT / "target/models" / model.file, inputs_of(model, folder), arguments.arch)
        for path in sorted(arguments.also.glob("*.onnx")) if arguments.also else []:
            yield row(path.name, path, [], arguments.arch)
        for preset in PRESETS if arguments.presets else []:
            out = Path(folder) / preset
            wattle("train", "--model", preset, "--epochs", 1, "--out", out)
            yield row(f"{preset}, trained on digits", out / "model.onnx", [], arguments.arch)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--also", type=Path)
    parser.add_argument("--presets", action="store_true")
    parser.add_argument("--arch", default="eyeriss-v2")
    arguments = parser.parse_args()
    lines, errors = [], []
    for line, wrong in rows(arguments):
        print(line, flush=True)
        lines.append(line)
        errors += [wrong] if wrong else []
    head = ["| model | layers | their MACs | MACs on the host | inferences/s | inferences/J | on the host because |",
            "|---|---|---|---|---|---|---|"]
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    runs.keep("accelerator-catalogue.md", "\n".join(head + lines))
    PAGE.write_text(before + BEGIN + "\n" + "\n".join(head + lines) + "\n\n" + END + rest.split(END)[1])
    if errors:
        sys.exit("\n".join(errors))


if __name__ == "__main__":
    main()
