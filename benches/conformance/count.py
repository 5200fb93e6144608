"""Parameters and MACs of a model, counted from the ONNX file without wattle."""

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper

FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16)
PRODUCTS = ("Conv", "MatMul", "Gemm")


def parameters(graph):
    """Float constants of the graph and the graphs nested in it: initialisers, Constant nodes, and arrays that
    ConstantOfShape makes of a constant shape (how the `light_*` models spell their weights)."""
    total = sum(int(np.prod(t.dims)) for t in graph.initializer if t.data_type in FLOATS)
    shapes = {t.name: numpy_helper.to_array(t) for t in graph.initializer if t.data_type == onnx.TensorProto.INT64}
    for node in graph.node:
        if node.op_type == "ConstantOfShape" and node.input[0] in shapes:
            total += int(np.prod(shapes[node.input[0]]))
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                total += parameters(attribute.g)
            elif node.op_type == "Constant" and attribute.t.data_type in FLOATS:
                total += int(np.prod(attribute.t.dims))
            elif node.op_type == "Constant" and attribute.name in ("value_float", "value_floats"):
                total += max(1, len(attribute.floats))
    return total


def branches(graph):
    """Whether the graph has nested ones, whose work depends on which of them runs."""
    return any(a.type == onnx.AttributeProto.GRAPH for node in graph.node for a in node.attribute)


def macs(model, feeds):
    """Multiply-accumulates of Conv, MatMul and Gemm for the given inputs.

    Shapes come from ONNX shape inference; those it does not find, from running the model with the values as outputs.
    """
    model = onnx.ModelProto.FromString(model.SerializeToString())
    for value in model.graph.input:
        if value.name in feeds:
            dims = value.type.tensor_type.shape.dim
            for dim, extent in zip(dims, feeds[value.name].shape):
                dim.dim_value = extent
    del model.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    shapes = {}
    for value in [*inferred.graph.value_info, *inferred.graph.input]:
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(d.dim_value > 0 for d in dims):
            shapes[value.name] = tuple(d.dim_value for d in dims)
    for tensor in model.graph.initializer:
        shapes[tensor.name] = tuple(tensor.dims)
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            shapes[node.output[0]] = numpy_helper.to_array(node.attribute[0].t).shape
    products = [n for n in model.graph.node if n.op_type in PRODUCTS]
    wanted = {name for n in products for name in (n.input[0], n.input[1], n.output[0])}
    _run_for_shapes(model, feeds, sorted(wanted - shapes.keys()), shapes)
    return sum(_of(node, shapes) for node in products)


def _run_for_shapes(model, feeds, names, shapes):
    if not names:
        return
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for name, array in zip(names, session.run(names, feeds)):
        shapes[name] = array.shape


def _of(node, shapes):
    out = int(np.prod(shapes[node.output[0]]))
    if node.op_type == "Conv":
        return out * int(np.prod(shapes[node.input[1]][1:]))
    if node.op_type == "Gemm":
        transposed = any(a.name == "transA" and a.i for a in node.attribute)
        return out * shapes[node.input[0]][0 if transposed else 1]
    return out * shapes[node.input[0]][-1]
