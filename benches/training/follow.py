"""Trains four small networks with PyTorch and stores what wattle must follow: the exported networks with the weights that
training starts from, the data in order, and the loss before each of 50 updates.

    python benches/training/follow.py

writes crates/wattle-train/tests/follow. Needs torch, onnx and onnxscript; the test that reads the files needs none of them.
"""

import json
import struct
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn
from torch.nn import functional as F

STEPS = 50
OUT = Path(__file__).resolve().parents[2] / "crates/wattle-train/tests/follow"


class TokenClassifier(nn.Module):
    """Two encoder layers of a Transformer; a class for every token. The mask says which tokens are padding."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 16)
        self.position = nn.Parameter(torch.randn(10, 16) * 0.1)
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 5)

    def forward(self, tokens, padding):
        x = self.embedding(tokens) + self.position
        return self.head(self.encoder(x, src_key_padding_mask=padding))


class LanguageModel(nn.Module):
    """An LSTM; the scores of the next token at every token."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 12)
        self.lstm = nn.LSTM(12, 16, batch_first=True)
        self.head = nn.Linear(16, 20)

    def forward(self, tokens):
        return self.head(self.lstm(self.embedding(tokens))[0])


class UNet(nn.Module):
    """One step down, one step up, and what was there before beside it; a class for every pixel."""

    def __init__(self):
        super().__init__()
        self.enter = nn.Conv2d(1, 8, 3, padding=1)
        self.down = nn.Conv2d(8, 12, 3, padding=1)
        self.up = nn.ConvTranspose2d(12, 8, 2, stride=2)
        self.join = nn.Conv2d(16, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, image):
        wide = F.relu(self.enter(image))
        deep = F.relu(self.down(F.max_pool2d(wide, 2)))
        both = torch.cat([self.up(deep), wide], 1)
        return self.head(F.relu(self.join(both)))


class TwoInputs(nn.Module):
    """Two numbers from two kinds of rows."""

    def __init__(self):
        super().__init__()
        self.left = nn.Linear(6, 8)
        self.right = nn.Linear(3, 8)
        self.join = nn.Linear(16, 12)
        self.head = nn.Linear(12, 2)

    def forward(self, left, right):
        x = torch.cat([torch.tanh(self.left(left)), torch.sigmoid(self.right(right))], 1)
        return self.head(F.gelu(self.join(x)))


def token_data():
    tokens = torch.randint(1, 20, (32, 10))
    lengths = torch.randint(4, 11, (32,))
    padding = torch.arange(10)[None, :] >= lengths[:, None]
    labels = (tokens + tokens.roll(1, 1)) % 5
    return {"tokens": tokens.masked_fill(padding, 0), "padding": padding, "targets": labels.masked_fill(padding, -100)}


def language_data():
    start, stride = torch.randint(0, 20, (32, 1)), torch.randint(1, 4, (32, 1))
    text = (start + stride * torch.arange(13)[None, :]) % 20
    return {"tokens": text[:, :-1].clone(), "targets": text[:, 1:].clone()}


def pixel_data():
    image = torch.randn(16, 1, 12, 12)
    labels = (image[:, 0] > 0).long() + (image[:, 0].roll(1, 2) > 0.5).long()
    return {"image": image, "targets": labels.masked_fill(torch.rand(16, 12, 12) < 0.2, 255)}


def row_data():
    left, right = torch.randn(32, 6), torch.randn(32, 3)
    answers = torch.stack([left[:, 0] * right[:, 1], left[:, 2] + right[:, 0].sin()], 1)
    return {"left": left, "right": right, "targets": answers}


def undecayed_biases(model):
    biases = [p for name, p in model.named_parameters() if p.ndim < 2]
    rest = [p for name, p in model.named_parameters() if p.ndim >= 2]
    return [{"params": rest}, {"params": biases, "weight_decay": 0.0}]


def tokens_loss(answer, targets, ignore=-100):
    return F.cross_entropy(answer.flatten(0, 1), targets.flatten(), ignore_index=ignore)


# Name, network, data, batch, loss, optimiser, largest norm of the gradients.
CASES = {
    "token-classifier": (
        TokenClassifier, token_data, 8, tokens_loss,
        lambda m: torch.optim.AdamW(m.parameters(), lr=3e-3, weight_decay=0.01), None),
    "lstm-language-model": (
        LanguageModel, language_data, 8, tokens_loss,
        lambda m: torch.optim.SGD(m.parameters(), lr=0.3, momentum=0.9), 0.1),
    "u-net": (
        UNet, pixel_data, 4, lambda answer, targets: F.cross_entropy(answer, targets, ignore_index=255),
        lambda m: torch.optim.SGD(m.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3), None),
    "two-inputs": (
        TwoInputs, row_data, 8, F.mse_loss,
        lambda m: torch.optim.Adam(undecayed_biases(m), lr=5e-3, weight_decay=0.01), None),
}


def export(model, inputs, path):
    """The network as PyTorch exports it, the batch free."""
    names = list(inputs)
    examples = tuple(value[:2] for value in inputs.values())
    batch = torch.export.Dim("batch")
    shapes = {name: {0: batch} for name in names}
    torch.onnx.export(
        model, examples, str(path), dynamo=True, input_names=names, output_names=["answer"], opset_version=18,
        dynamic_shapes=shapes, external_data=False, verbose=False, optimize=True)
    strip(path)


def strip(path):
    """Leaves out what the exporter says of the Python source: it is most of a small file."""
    model = onnx.load(path)
    for part in [model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output,
                 *model.graph.initializer, *model.functions]:
        del part.metadata_props[:]
        if hasattr(part, "doc_string"):
            part.doc_string = ""
    del model.graph.value_info[:]
    onnx.save(model, path)


def store(path, columns):
    """A safetensors file; whole numbers as the smallest type that holds them, to be widened when they are fed."""
    header, data = {}, b""
    for name, tensor in columns.items():
        array = tensor.numpy()
        if array.dtype == np.int64:
            array = array.astype(np.uint8 if array.min() >= 0 else np.int16)
        kind = {"float32": "F32", "uint8": "U8", "int16": "I16", "bool": "BOOL"}[str(array.dtype)]
        raw = array.tobytes()
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def losses(model, columns, batch, loss, optimizer, clip, dtype):
    """The loss before each update, batch after batch in the order of the data."""
    model = model.to(dtype).train()
    convert = lambda t: t.to(dtype) if t.is_floating_point() else t
    columns = {name: convert(t) for name, t in columns.items()}
    optimizer, found = optimizer(model), []
    count = len(columns["targets"]) // batch
    for step in range(STEPS):
        part = {name: t[step % count * batch:][:batch] for name, t in columns.items()}
        targets = part.pop("targets")
        optimizer.zero_grad()
        value = loss(model(*part.values()), targets)
        value.backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        found.append(value.item())
    return found


def main():
    torch.set_num_threads(1)
    torch.backends.mha.set_fastpath_enabled(False)
    OUT.mkdir(parents=True, exist_ok=True)
    for name, (network, data, batch, loss, optimizer, clip) in CASES.items():
        torch.manual_seed(7)
        model, columns = network(), data()
        # Exporters merge tensors that are equal when training starts; these are not.
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.02)
        start = {key: value.clone() for key, value in model.state_dict().items()}
        inputs = {key: value for key, value in columns.items() if key != "targets"}
        export(model.eval(), inputs, OUT / f"{name}.onnx")
        store(OUT / f"{name}.safetensors", columns)
        found = {}
        for dtype in [torch.float64, torch.float32]:
            model = network()
            model.load_state_dict(start)
            found[dtype] = losses(model, columns, batch, loss, optimizer, clip, dtype)
        (OUT / f"{name}.txt").write_text("".join(f"{x:.9g}\n" for x in found[torch.float32]))
        single, double = found[torch.float32], found[torch.float64]
        off = max(abs(s - d) / abs(d) for s, d in zip(single, double))
        print(f"{name}: {single[0]:.4f} -> {single[-1]:.4f}; single precision is off by {off:.1e} of double")


if __name__ == "__main__":
    main()
