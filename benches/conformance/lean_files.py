"""Sparse weights in every file format that wattle writes: sizes, the spec's checker, and onnxruntime's outputs, which must
be those of the dense file to the last bit.

    cargo build --release -p wattle-graph --example repack
    target/peers/bin/python benches/conformance/lean_files.py [--density 0.1] [PART_OF_A_NAME]

Real models of the catalogue are pruned by magnitude, tensor by tensor; two small models have 8-bit weights. With --time
inferences of the dense and the compact file are timed in turn, on one thread.
"""

import argparse
import pathlib
import statistics
import subprocess
import sys
import time

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import runs  # noqa: E402
from catalogue import MODELS, random_inputs

ROOT = pathlib.Path(__file__).resolve().parents[2]
FORMATS = ["dense", "compact", "sparse-tensor"]
SLACK = 64 * 1024
WEIGHTS = {TensorProto.FLOAT: 4, TensorProto.INT8: 1, TensorProto.UINT8: 1}


def tensors(graph):
    """Initialisers and the values of Constant nodes, nested graphs included."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR and node.op_type == "Constant":
                yield attribute.t
            elif attribute.type == onnx.AttributeProto.GRAPH:
                yield from tensors(attribute.g)


def prune(model, density):
    """Keeps the largest `density` of the elements of every matrix and kernel."""
    for tensor in tensors(model.graph):
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 1 and np.prod(tensor.dims) >= 1000:
            values = numpy_helper.to_array(tensor)
            least = np.quantile(np.abs(values), 1 - density)
            tensor.CopyFrom(numpy_helper.from_array(np.where(np.abs(values) > least, values, np.float32(0)), tensor.name))


def quantised(density):
    """Two models with 8-bit weights: a product after DequantizeLinear, and a QLinearConv."""
    random = np.random.default_rng(1)

    def weights(shape, kind, zero):
        drawn = random.integers(-127, 128, shape)
        return np.where(random.random(shape) < density, drawn + zero, zero).astype(kind)

    def model(nodes, shape, initializers):
        initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in initializers.items()]
        types = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
        results = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
        graph = helper.make_graph(nodes, "quantised", types, results, initializers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)

    scales = np.linspace(0.001, 0.01, 1024, dtype=np.float32)
    product = model(
        [helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"], axis=1),
         helper.make_node("MatMul", ["x", "w"], ["y"])], (4, 1024),
        {"q": weights((1024, 1024), np.int8, 0), "s": scales, "z": np.zeros(1024, np.int8)})
    convolution = model(
        [helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
         helper.make_node("QLinearConv", ["xq", "xs", "xz", "q", "ws", "wz", "ys", "yz"], ["yq"]),
         helper.make_node("DequantizeLinear", ["yq", "ys", "yz"], ["y"])], (1, 256, 8, 8),
        {"q": weights((256, 256, 3, 3), np.uint8, 128), "xs": np.float32(0.02), "xz": np.uint8(128),
         "ws": np.float32(0.01), "wz": np.uint8(128), "ys": np.float32(0.2), "yz": np.uint8(128)})
    yield "int8 product 1024 x 1024", product, {"x": random.standard_normal((4, 1024)).astype(np.float32)}
    yield "uint8 convolution 256 x 256 x 3 x 3", convolution, {"x": random.standard_normal((1, 256, 8, 8)).astype(np.float32)}


def catalogue(density, wanted):
    for model in MODELS:
        path = ROOT / "target/models" / model.file
        if model.note or not path.exists() or path.stat().st_size < 300_000:
            continue
        if wanted in model.file:
            pruned = onnx.load(path)
            prune(pruned, density)
            session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            types = {i.name: {"tensor(float)": np.float32, "tensor(int64)": np.int64}.get(i.type, np.int32) for i in session.get_inputs()}
            yield model.file.removesuffix(".onnx"), pruned, random_inputs(model, types, 1)


def session(path, optimised=None):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if optimised:
        options.optimized_model_filepath = str(optimised)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def accepts(path, format_):
    """What the spec's checker says. Its shape inference (onnx 1.23) does not know sparse initialisers."""
    try:
        onnx.checker.check_model(str(path), full_check=format_ != "sparse-tensor")
        return "accepted"
    except onnx.checker.ValidationError as error:
        return str(error)


def operators(path):
    return sorted(node.op_type for node in onnx.load(path).graph.node)


def stored(path):
    """Elements of weights that are not the most frequent value, and how many bytes one has."""
    alive, bytes_of_values = 0, 0
    for tensor in tensors(onnx.load(path).graph):
        if tensor.data_type in WEIGHTS:
            values = numpy_helper.to_array(tensor)
            fill = np.bincount(values.ravel().view(np.uint8)).argmax() if values.dtype.itemsize == 1 and values.size else 0
            count = int(np.count_nonzero(values.view(np.uint8) != fill if values.dtype.itemsize == 1 else values))
            alive += count
            bytes_of_values += count * WEIGHTS[tensor.data_type]
    return alive, bytes_of_values


def milliseconds(sessions, feeds):
    samples = [[] for _ in sessions]
    for _ in range(15):
        for runner, list_ in zip(sessions, samples):
            begun = time.perf_counter()
            runner.run(None, feeds)
            list_.append(1e3 * (time.perf_counter() - begun))
    return [statistics.median(list_) for list_ in samples]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", default="")
    parser.add_argument("--density", type=float, default=0.1)
    parser.add_argument("--repack", default=ROOT / "target/release/examples/repack")
    parser.add_argument("--time", action="store_true")
    args = parser.parse_args()
    work = ROOT / "target/lean-files"
    work.mkdir(parents=True, exist_ok=True)
    cases = list(catalogue(args.density, args.name))
    cases += [case for case in quantised(args.density) if args.name in case[0]]
    failed = False
    timed = " dense, ms | compact, ms |" if args.time else ""
    print(f"| model | weights left | dense | sparse-tensor | compact | bytes a weight | bound | outputs |{timed}")
    print("|---|---|---|---|---|---|---|---|" + ("---|---|" if args.time else ""))
    for name, model, feeds in cases:
        source = work / "pruned.onnx"
        onnx.save(model, source)
        paths = {f: work / f"{f}.onnx" for f in FORMATS}
        for format_, path in paths.items():
            subprocess.run([args.repack, source, path, format_], check=True, stdout=subprocess.DEVNULL)
        accepted = {f: accepts(path, f) for f, path in paths.items()}
        sizes = {f: path.stat().st_size for f, path in paths.items()}
        alive, bytes_of_values = stored(paths["dense"])
        optimised = {f: work / f"{f}-optimised.onnx" for f in FORMATS}
        sessions = {f: session(path, optimised[f]) for f, path in paths.items()}
        results = {f: s.run(None, feeds) for f, s in sessions.items()}
        same = all((a.shape, a.tobytes()) == (b.shape, b.tobytes())
                   for f in FORMATS for a, b in zip(results["dense"], results[f]))
        folded = all(operators(optimised["dense"]) == operators(optimised[f]) for f in FORMATS)
        bound = 1.3 * bytes_of_values + SLACK
        # No code for a random mask of density d takes less than this for each value (Shannon 1948).
        d = args.density
        entropy = -(d * np.log2(d) + (1 - d) * np.log2(1 - d)) / d / 8
        least = 1.3 * (bytes_of_values + entropy * alive) + SLACK
        within = "kept" if sizes["compact"] <= bound else "least x 1.3 kept" if sizes["compact"] <= least else "missed"
        verdict = ("equal" if same else "DIFFERENT") + (", folded" if folded else ", NOT FOLDED")
        # Outputs of unknown rank, which the checker refuses, are not these formats' doing.
        checked = all(accepted[f] == accepted["dense"] for f in FORMATS)
        verdict += "" if checked else ", REFUSED BY THE CHECKER"
        failed |= not same or not folded or not checked or within == "missed"
        row = [name, f"{alive}", *(f"{sizes[f]}" for f in ["dense", "sparse-tensor", "compact"]),
               f"{sizes['compact'] / alive:.2f}", within, verdict]
        if args.time:
            row += [f"{ms:.2f}" for ms in milliseconds([sessions["dense"], sessions["compact"]], feeds)]
        print("| " + " | ".join(row) + " |", flush=True)
    return failed


if __name__ == "__main__":
    with runs.kept("lean-files.md"):
        failed = main()
    sys.exit(failed)
