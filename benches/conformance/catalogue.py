"""The models of the catalogue: what to feed each, and the sizes published for it."""

from dataclasses import dataclass, field

import numpy as np

# Published figures must be met within this fraction.
SIZE_TOLERANCE = 0.005


@dataclass
class Model:
    """One model file, with one way of feeding it."""

    file: str
    # Input name -> extents; what a random input looks like is decided by `random_inputs`.
    shapes: dict
    # Inputs that are no data: the same value in every run.
    fixed: dict = field(default_factory=dict)
    # Kind of real data, see real_inputs.py.
    real: str = "none"
    # Published parameters and MACs (Conv, MatMul, Gemm), as printed in the data catalogue, with their rounding.
    published: tuple = (None, None)
    note: str = ""


def sr(rate):
    return {"sr": np.array(rate, np.int64)}


def silero(file, samples, rate=None):
    fixed = sr(rate) if rate else {}
    shapes = {"input": (1, samples), "state": (2, 1, 128)}
    return Model(f"silero-vad/{file}", shapes, fixed, "speech", note=f"{rate} Hz" if rate else "")


def light(name, data="data_0"):
    return Model(f"onnx-light/light_{name}.onnx", {data: (1, 3, 224, 224)}, real="ramp")


MODELS = [
    Model("rapidocr-onnxruntime/ch_PP-OCRv4_det_infer.onnx", {"x": (1, 3, 640, 640)}, real="image",
          published=(1.17e6, 2233e6)),
    Model("rapidocr-onnxruntime/ch_ppocr_mobile_v2.0_cls_infer.onnx", {"x": (1, 3, 48, 192)}, real="image",
          published=(0.13e6, 16.3e6)),
    Model("rapidocr-onnxruntime/ch_PP-OCRv4_rec_infer.onnx", {"x": (1, 3, 48, 320)}, real="image"),
    silero("silero_vad.onnx", 576, 16000),
    silero("silero_vad.onnx", 288, 8000),
    silero("silero_vad_16k_op15.onnx", 576, 16000),
    silero("silero_vad_half.onnx", 576),
    silero("silero_vad_op18_ifless.onnx", 576, 16000),
    silero("silero_vad_op18_ifless.onnx", 288, 8000),
    silero("silero_vad_openvino_16k.onnx", 576),
    Model("silero-vad/silero_vad_16k_sequence.onnx", {"input": (32, 576), "h": (1, 1, 128), "c": (1, 1, 128)},
          real="speech", published=(0.31e6, 19.7e6)),
    Model("magika/model.onnx", {"bytes": (1, 2048)}, real="files", published=(0.785e6, 367e6)),
    Model("speechmos/sig_bak_ovr.onnx", {"input_1": (1, 144160)}, real="speech", published=(0.287e6, 19411e6)),
    Model("speechmos/pdnsmos_models-sig_bak_ovr.onnx", {"input_1": (1, 144160)}, real="speech"),
    Model("speechmos/sig.onnx", {"input_1": (1, 901, 161)}, real="spectrum"),
    Model("speechmos/bak_ovr.onnx", {"input_1": (1, 901, 161)}, real="spectrum"),
    Model("speechmos/model_v8.onnx", {"input_1": (1, 900, 120)}, real="spectrum", published=(0.055e6, 435e6)),
    Model("speechmos/Run_1663829550_Stage_0.onnx", {"input": (1, 3, 400, 160), "h0": (4, 1, 64)}, real="spectrum"),
    Model("speechmos/Run_1663915512_Stage_0.onnx", {"input": (1, 3, 400, 160), "h0": (4, 1, 64)}, real="spectrum"),
    Model("speechmos/Run_1668423760_Stage_0.onnx", {"input": (1, 3, 400, 160), "h0": (4, 1, 96)}, real="spectrum"),
    Model("speechmos/plcmos_v2.onnx", {"degraded_audio": (1, 1, 400, 257), "rater_embed": (1, 64)},
          real="spectrum"),
    light("bvlc_alexnet"),
    light("densenet121"),
    light("inception_v1"),
    light("inception_v2"),
    light("resnet50", "gpu_0/data_0"),
    light("shufflenet", "gpu_0/data_0"),
    light("squeezenet"),
    light("vgg19"),
    light("zfnet512", "gpu_0/data_0"),
]


def random_inputs(model, types, seed):
    """Inputs by name: normal floats (audio quieter), bytes for integers."""
    rng = np.random.default_rng(seed)
    feeds = dict(model.fixed)
    for name, shape in model.shapes.items():
        if np.issubdtype(types[name], np.floating):
            scale = 0.1 if model.real == "speech" and name.startswith("input") else 1.0
            feeds[name] = (rng.standard_normal(shape) * scale).astype(types[name])
        else:
            feeds[name] = rng.integers(0, 256, shape).astype(types[name])
    return feeds
