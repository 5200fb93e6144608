"""Quantises the networks of networks.py with onnxruntime: 8-bit activations, signed 8-bit weights, one scale a channel.

    python quantize.py NETS FOLDER [--only mobilenet-v1] [--masks dense uniform] [--batches 1] [--forms qdq qop dynamic]

qdq      static, as pairs of QuantizeLinear and DequantizeLinear around float operators
qop      static, as QLinearConv, QLinearMatMul and onnxruntime's own operators
dynamic  weights beforehand, activations while running: MatMulInteger

Ranges come from normal noise, as the weights do: these files are for time and agreement, not for accuracy.

Needs numpy, onnx and onnxruntime.
"""

import argparse
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import (CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static)

NETWORKS = ["lenet", "mobilenet-v1", "mobilenet-v2", "resnet18", "encoder"]


class Noise(CalibrationDataReader):
    """Eight samples of the first input."""

    def __init__(self, path):
        graph = onnx.load(path, load_external_data=False).graph
        shape = [d.dim_value for d in graph.input[0].type.tensor_type.shape.dim]
        random = np.random.default_rng(3)
        batches = [random.standard_normal(shape).astype(np.float32) for _ in range(8)]
        self.left = iter([{graph.input[0].name: batch} for batch in batches])

    def get_next(self):
        return next(self.left, None)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", type=Path, help="where networks.py wrote")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--masks", nargs="+", default=["dense"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1])
    parser.add_argument("--forms", nargs="+", choices=["qdq", "qop", "dynamic"], default=["qdq", "qop", "dynamic"])
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.only:
        for masks in arguments.masks:
            for batch in arguments.batches:
                source = arguments.nets / f"{name}-{masks}-b{batch}.onnx"
                for form in arguments.forms:
                    target = arguments.folder / f"{name}-{masks}-{form}-b{batch}.onnx"
                    if form == "dynamic":
                        if name != "encoder":
                            continue
                        quantize_dynamic(source, target, per_channel=True, weight_type=QuantType.QInt8)
                    else:
                        quantize_static(
                            source, target, Noise(source), per_channel=True, activation_type=QuantType.QUInt8,
                            weight_type=QuantType.QInt8,
                            quant_format=QuantFormat.QDQ if form == "qdq" else QuantFormat.QOperator)
                    print(target, flush=True)


if __name__ == "__main__":
    main()
