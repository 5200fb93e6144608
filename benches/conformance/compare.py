"""Compares wattle with onnxruntime, and its counts with independent and published ones, model by model.

    bash .ci/fetch-test-data && cargo build --release
    target/peers/bin/python benches/conformance/compare.py

Prints two Markdown tables, those of docs/results/conformance.md, and keeps them in benches/runs/<date>-<machine>/; exit code 1
when something differs that should not.
`--bisect PART_OF_A_NAME` runs one model with every intermediate value as an output and names the first that differs.
`--oracle PART_OF_A_NAME` says how far wattle and onnxruntime are each from the reference interpreter, which sums in f64.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import count  # noqa: E402
import runs  # noqa: E402
from catalogue import MODELS, SIZE_TOLERANCE, random_inputs
from real_inputs import real_inputs

# Largest error allowed, as a fraction of the largest magnitude of the output.
LIMIT = 1e-4
# Some networks magnify rounding: onnxruntime then disagrees with itself by more than the limit, as written against
# optimised. An error up to this many times that disagreement is rounding too, and the table says so.
ROUNDING = 2.0
TYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(int32)": np.int32}


def peer(model_bytes, optimised=False):
    options = ort.SessionOptions()
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(model_bytes, options, providers=["CPUExecutionProvider"])


def wattle(binary, *args):
    """The JSON document a command prints; its error, when there is none."""
    done = subprocess.run([binary, *args, "--json"], capture_output=True, text=True,
                          env={**os.environ, "WATTLE_LEDGER": ""})
    if done.returncode != 0:
        raise RuntimeError(" ".join(done.stderr.split()))
    return json.loads(done.stdout)


def run_wattle(binary, path, feeds, *options):
    """Outputs by name, and whether the model was planned or interpreted."""
    with tempfile.TemporaryDirectory() as folder:
        args = []
        for index, (name, array) in enumerate(feeds.items()):
            file = f"{folder}/input{index}.npy"
            np.save(file, np.array(array, order="C"))
            args += ["--input", f"{name}={file}"]
        document = wattle(binary, "run", str(path), *args, "--out", folder, *options)
        return {o["name"]: np.load(o["file"]) for o in document["outputs"]}, document["execution"]


def difference(expected, found):
    """Largest absolute error over the largest magnitude; infinite when shapes or non-finite elements differ."""
    if expected.shape != found.shape:
        return np.inf
    expected, found = expected.astype(np.float64), found.astype(np.float64)
    finite = np.isfinite(expected)
    if not np.array_equal(finite, np.isfinite(found)):
        return np.inf
    scale = np.abs(expected[finite]).max(initial=0.0)
    error = np.abs(expected - found)[finite].max(initial=0.0)
    return error / scale if scale > 0 else error


def run_model(binary, path, model, seeds):
    """The row of the first table."""
    session, optimised = peer(path.read_bytes()), peer(path.read_bytes(), optimised=True)
    types = {i.name: TYPES[i.type] for i in session.get_inputs()}
    names = [o.name for o in session.get_outputs()]
    cases = [(random_inputs(model, types, seed), "random") for seed in range(seeds)]
    cases += [case for index in range(2) if (case := real_inputs(model, types, index))]
    worst, executions = {"random": None, "real": None}, set()
    own, within_limit, within_rounding = 0.0, True, True
    for feeds, source in cases:
        kind = "random" if source == "random" else "real"
        expected = dict(zip(names, session.run(names, feeds)))
        again = dict(zip(names, optimised.run(names, feeds)))
        noise = max(difference(expected[name], again[name]) for name in names)
        found, execution = run_wattle(binary, path, feeds)
        executions.add(execution)
        error = max(difference(expected[name], found[name]) for name in names)
        if model.real == "ramp" and kind == "real":
            stored = sorted(path.parent.glob(f"{path.stem}_output_*.pb"))
            for name, file in zip(names, stored):
                reference = numpy_helper.to_array(onnx.TensorProto.FromString(file.read_bytes()))
                error = max(error, difference(reference, found[name]))
        worst[kind] = max(error, worst[kind] or 0.0)
        own = max(own, noise)
        within_limit &= error <= LIMIT
        within_rounding &= error <= max(LIMIT, ROUNDING * noise)
    text = [("none here" if e is None else f"{e:.1e}") for e in worst.values()]
    verdict = "yes" if within_limit else "rounding" if within_rounding else "NO"
    return within_rounding, [*text, f"{own:.1e}", ", ".join(sorted(executions)), verdict]


def size_row(binary, path, model):
    """The row of the second table."""
    proto = onnx.load(path)
    feeds = random_inputs(model, {i.name: TYPES[i.type] for i in peer(path.read_bytes()).get_inputs()}, 0)
    # Of an input without published shapes only the ones the table names are bound.
    args = [a for name, shape in model.shapes.items() for a in ("--input", f"{name}={'x'.join(map(str, shape))}")]
    # Scalars decide between branches; their content is given.
    with tempfile.TemporaryDirectory() as folder:
        for name, value in model.fixed.items():
            np.save(f"{folder}/{name}.npy", value)
            args += ["--input", f"{name}={folder}/{name}.npy"]
        totals = wattle(binary, "profile", str(path), *args)["totals"]
    own = {"params": count.parameters(proto.graph), "macs": None}
    if not count.branches(proto.graph):
        own["macs"] = count.macs(proto, feeds)
    passed, cells = True, []
    for key, published in zip(("params", "macs"), model.published):
        cells += [f"{totals[key]:,}", "branches" if own[key] is None else f"{own[key]:,}",
                  "" if published is None else f"{published / 1e6:g} M"]
        for wanted in (own[key], published):
            # A published figure has so many digits; half of the last one is no disagreement.
            rounding = 0.0 if wanted is not published or wanted is None else _half_digit(wanted)
            if wanted is not None and abs(totals[key] - wanted) > max(SIZE_TOLERANCE * wanted, rounding):
                passed = False
    return passed, [*cells, "yes" if passed else "NO"]


def _half_digit(published):
    """Half a unit of the last digit of a number printed in millions."""
    text = f"{published / 1e6:g}"
    decimals = len(text.split(".")[1]) if "." in text else 0
    return 0.5 * 10**-decimals * 1e6


def bisect(binary, path, model):
    """Prints the nodes whose results differ, first ones first."""
    proto = onnx.load(path)
    types = {i.name: TYPES[i.type] for i in peer(path.read_bytes()).get_inputs()}
    feeds = random_inputs(model, types, 0)
    nodes = [n for n in proto.graph.node if n.op_type != "Constant"]
    del proto.graph.output[:]
    names = [o for n in nodes for o in n.output if o]
    proto.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    session = peer(proto.SerializeToString())
    # wattle wants the types that onnxruntime found.
    del proto.graph.output[:]
    for output in session.get_outputs():
        kind = getattr(onnx.TensorProto, output.type[7:-1].upper())
        proto.graph.output.append(onnx.helper.make_tensor_value_info(output.name, kind, None))
    expected = dict(zip(names, session.run(names, feeds)))
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        file.write(proto.SerializeToString())
        file.flush()
        found, execution = run_wattle(binary, pathlib.Path(file.name), feeds)
    print(f"{path.name}: {len(names)} values, {execution}")
    shown = 0
    for node in nodes:
        for name in filter(None, node.output):
            error = difference(expected[name], found[name])
            if error > LIMIT / 10 and shown < 20:
                shown += 1
                print(f"  {error:.1e}  {node.op_type} `{node.name}` -> `{name}` {expected[name].shape}")


def oracle(binary, path, model, seeds):
    """Prints the errors of wattle, of onnxruntime as written and of onnxruntime optimised against the interpreter."""
    session, optimised = peer(path.read_bytes()), peer(path.read_bytes(), optimised=True)
    types = {i.name: TYPES[i.type] for i in session.get_inputs()}
    names = [o.name for o in session.get_outputs()]
    cases = [(random_inputs(model, types, seed), "random") for seed in range(seeds)]
    cases += [case for index in range(2) if (case := real_inputs(model, types, index))]
    print(f"{path.name}: input, scale of the output, errors of wattle, onnxruntime, onnxruntime optimised")
    for feeds, source in cases:
        exact, _ = run_wattle(binary, path, feeds, "--reference")
        found = [run_wattle(binary, path, feeds)[0]]
        found += [dict(zip(names, s.run(names, feeds))) for s in (session, optimised)]
        errors = [max(difference(exact[n], outputs[n]) for n in names) for outputs in found]
        scale = max(np.abs(exact[n]).max() for n in names)
        print(f"  {source}: {scale:.1e}: " + ", ".join(f"{e:.1e}" for e in errors), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--wattle", default="target/release/wattle", help="the program")
    parser.add_argument("--models", default="target/models", type=pathlib.Path, help="the folder of models")
    parser.add_argument("--seeds", default=3, type=int, help="random inputs for each model")
    parser.add_argument("--only", default="", help="only models whose file name contains this")
    parser.add_argument("--table", choices=["outputs", "sizes"], help="only this table")
    parser.add_argument("--bisect", metavar="PART_OF_A_NAME", help="find the node at fault instead")
    parser.add_argument("--oracle", metavar="PART_OF_A_NAME", help="errors against the interpreter instead")
    args = parser.parse_args()
    chosen = [m for m in MODELS if (args.bisect or args.oracle or args.only) in m.file]
    missing = [m.file for m in chosen if not (args.models / m.file).exists()]
    chosen = [m for m in chosen if m.file not in missing]
    if args.bisect:
        for model in chosen:
            bisect(args.wattle, args.models / model.file, model)
        return 0
    if args.oracle:
        for model in chosen:
            oracle(args.wattle, args.models / model.file, model, args.seeds)
        return 0
    failures = []

    def table(header, row):
        print("| " + " | ".join(header) + " |\n|" + "---|" * len(header))
        for model in chosen:
            name = model.file.removesuffix(".onnx") + (f", {model.note}" if model.note else "")
            try:
                passed, cells = row(model)
            except Exception as error:  # one model's failure must not hide the others
                passed, cells = False, [f"error: {' '.join(str(error).split())[:300]}"] + [""] * (len(header) - 2)
            if not passed:
                failures.append(name)
            print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
        print()

    if args.table != "sizes":
        table(["model", "error, random inputs", "error, real inputs", "onnxruntime with itself", "run", "passes"],
              lambda m: run_model(args.wattle, args.models / m.file, m, args.seeds))
    if args.table != "outputs":
        table(["model", "parameters", "counted apart", "published", "MACs", "counted apart", "published", "agrees"],
              lambda m: size_row(args.wattle, args.models / m.file, m))
    print(f"{len(chosen)} cases, {len(failures)} failures{': ' if failures else ''}{', '.join(failures)}")
    if missing:
        print(f"not found below {args.models}: {', '.join(sorted(set(missing)))}")
    return 1 if failures or missing else 0


if __name__ == "__main__":
    with runs.kept("conformance.md"):
        code = main()
    sys.exit(code)
