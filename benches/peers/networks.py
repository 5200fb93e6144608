"""Writes the networks of docs/results as ONNX files: random weights, and masks that pruning made.

    python networks.py FOLDER [--only mobilenet-v1] [--masks dense uniform skewed] [--batches 1 16]
    python networks.py FOLDER --masks imp --data /usr/share/datasets/fashion-mnist --tickets LEVEL/final.safetensors

Masks keep a tenth of the weights of each 1x1, 3x3 and fully connected layer; stems and depthwise layers stay dense.

dense    all weights
uniform  a tenth, anywhere
skewed   a tenth, rows and columns differing by factors up to 50
imp      iterative magnitude pruning. LeNet: from `wattle ticket find` (`--tickets`). The others: `--rounds` times a
         short training (`--steps` steps of Adam) and a pruning of the smallest weights of each layer down to the same
         tenth in the end, weights kept. Convolutional networks learn Fashion-MNIST at 64 x 64 and three equal channels,
         the encoder to guess masked bytes of this repository's documentation. That is too short for a good network; it
         is long enough that rows differ as training makes them differ.

Needs numpy and onnx; torch for imp.
"""

import argparse
import gzip
import json
import struct
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).resolve().parent
DENSITY = 0.1


class Network:
    """An ONNX graph under construction; `prunable` names the weights that masks thin out."""

    def __init__(self, name, sample, opset=13):
        self.name, self.sample, self.opset = name, sample, opset
        self.nodes, self.weights, self.prunable = [], {}, []
        self.random = np.random.default_rng(1)

    def node(self, op, inputs, **attributes):
        output = f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def tensor(self, array, prunable=False):
        name = f"w{len(self.weights)}"
        self.weights[name] = np.ascontiguousarray(array)
        if prunable:
            self.prunable.append(name)
        return name

    def drawn(self, shape, fan_in, prunable, gain=2.0):
        values = self.random.standard_normal(shape) * (gain / fan_in) ** 0.5
        return self.tensor(values.astype(np.float32), prunable)

    def vector(self, length, value):
        return self.tensor(np.full(length, value, np.float32))

    def conv(self, x, channels, filters, taps, stride=1, groups=1, act="Relu", prunable=None):
        fan_in = channels // groups * taps * taps
        prunable = groups == 1 and channels > 3 if prunable is None else prunable
        w = self.drawn((filters, channels // groups, taps, taps), fan_in, prunable, 2.0 if act else 1.0)
        x = self.node("Conv", [x, w, self.vector(filters, 0.05)], kernel_shape=[taps, taps], strides=[stride, stride],
                      pads=[taps // 2] * 4, group=groups)
        if act == "Clip":
            return self.node("Clip", [x, self.tensor(np.float32(0)), self.tensor(np.float32(6))])
        return self.node(act, [x]) if act else x

    def classify(self, x, channels):
        x = self.node("Flatten", [self.node("GlobalAveragePool", [x])])
        return self.gemm(x, channels, 1000)

    def gemm(self, x, inputs, outputs):
        w = self.drawn((outputs, inputs), inputs, True)
        return self.node("Gemm", [x, w, self.vector(outputs, 0.0)], transB=1)

    def dense(self, x, inputs, outputs):
        w = self.drawn((inputs, outputs), inputs, True, 1.0)
        return self.node("Add", [self.node("MatMul", [x, w]), self.vector(outputs, 0.0)])

    def model(self, batch):
        tensors = [numpy_helper.from_array(array, name) for name, array in self.weights.items()]
        value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        nodes = self.nodes[:-1] + [onnx.NodeProto.FromString(self.nodes[-1].SerializeToString())]
        nodes[-1].output[0] = "y"
        shape = [batch, *self.shape]
        graph = helper.make_graph(nodes, self.name, [value("x", [batch, *self.sample])], [value("y", shape)], tensors)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)


def lenet():
    """LeNet-300-100 (LeCun et al. 1998)."""
    net = Network("lenet", [784])
    x = net.node("Relu", [net.gemm("x", 784, 300)])
    x = net.node("Relu", [net.gemm(x, 300, 100)])
    net.gemm(x, 100, 10)
    net.prunable.pop()
    net.shape = [10]
    return net


def mobilenet_v1():
    """Howard et al. 2017, table 1; batch normalisation folded, as for all of these."""
    net = Network("mobilenet-v1", [3, 224, 224])
    x, channels = net.conv("x", 3, 32, 3, 2), 32
    for filters, stride in [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)] + [(512, 1)] * 5 + [(1024, 2),
                                                                                                      (1024, 1)]:
        x = net.conv(x, channels, channels, 3, stride, channels)
        x, channels = net.conv(x, channels, filters, 1), filters
    net.classify(x, channels)
    net.shape = [1000]
    return net


def mobilenet_v2():
    """Sandler et al. 2018, table 2."""
    net = Network("mobilenet-v2", [3, 224, 224])
    x, channels = net.conv("x", 3, 32, 3, 2, act="Clip"), 32
    for factor, filters, count, stride in [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
                                           (6, 160, 3, 2), (6, 320, 1, 1)]:
        for index in range(count):
            before, wide = x, channels * factor
            if factor > 1:
                x = net.conv(x, channels, wide, 1, act="Clip")
            step = stride if index == 0 else 1
            x = net.conv(x, wide, wide, 3, step, wide, act="Clip")
            x = net.conv(x, wide, filters, 1, act=None)
            if step == 1 and channels == filters:
                x = net.node("Add", [before, x])
            channels = filters
    net.classify(net.conv(x, channels, 1280, 1, act="Clip"), 1280)
    net.shape = [1000]
    return net


def resnet18():
    """He et al. 2016, table 1, with 1x1 shortcuts where shapes change."""
    net = Network("resnet18", [3, 224, 224])
    x, channels = net.conv("x", 3, 64, 7, 2), 64
    x = net.node("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    for filters, stride in [(64, 1), (128, 2), (256, 2), (512, 2)]:
        for step in (stride, 1):
            y = net.conv(net.conv(x, channels, filters, 3, step), filters, filters, 3, act=None)
            if step > 1 or channels != filters:
                x = net.conv(x, channels, filters, 1, step, act=None)
            x, channels = net.node("Relu", [net.node("Add", [y, x])]), filters
    net.classify(x, 512)
    net.shape = [1000]
    return net


def encoder(spelled_out=False):
    """Six layers (Vaswani et al. 2017, normalisation first), width 512, 8 heads, 2048 hidden, 128 tokens.

    Layer normalisation is an operator, or `spelled_out` in arithmetic as exporters wrote it before opset 17: DeepSparse
    knows only the latter.
    """
    name, opset = ("encoder-13", 13) if spelled_out else ("encoder", 17)
    return layers(Network(name, [128, 512], opset), 6, 8, 2048)


def layers(net, count, heads, hidden, classes=None):
    """Transformer layers, normalisation first; with `classes`, the mean over tokens and a dense layer at the end."""
    tokens, width = net.sample
    split = net.tensor(np.array([0, 0, heads, width // heads], np.int64))
    join = net.tensor(np.array([0, 0, width], np.int64))
    scale = net.tensor(np.float32((width // heads) ** -0.5))
    two, epsilon = net.tensor(np.float32(2)), net.tensor(np.float32(1e-5))

    def norm(x):
        if net.opset >= 17:
            return net.node("LayerNormalization", [x, net.vector(width, 1.0), net.vector(width, 0.0)], axis=-1)
        x = net.node("Sub", [x, net.node("ReduceMean", [x], axes=[-1])])
        variance = net.node("ReduceMean", [net.node("Pow", [x, two])], axes=[-1])
        x = net.node("Div", [x, net.node("Sqrt", [net.node("Add", [variance, epsilon])])])
        return net.node("Add", [net.node("Mul", [x, net.vector(width, 1.0)]), net.vector(width, 0.0)])

    x = "x"
    for _ in range(count):
        normal = norm(x)
        q, k, v = [
            net.node("Transpose", [net.node("Reshape", [net.dense(normal, width, width), split])], perm=perm)
            for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
        ]
        scores = net.node("Mul", [net.node("MatMul", [q, k]), scale])
        mixed = net.node("MatMul", [net.node("Softmax", [scores], axis=-1), v])
        mixed = net.node("Reshape", [net.node("Transpose", [mixed], perm=[0, 2, 1, 3]), join])
        x = net.node("Add", [x, net.dense(mixed, width, width)])
        wide = net.node("Relu", [net.dense(norm(x), width, hidden)])
        x = net.node("Add", [x, net.dense(wide, hidden, width)])
    x = norm(x)
    net.shape = [tokens, width]
    if classes:
        net.gemm(net.node("ReduceMean", [x], axes=[1], keepdims=0), width, classes)
        net.shape = [classes]
    return net


def transformer():
    """A classifier to be trained: four layers of width 256, 4 heads, 1024 hidden, on 64 embedded tokens."""
    return layers(Network("transformer", [64, 256], 17), 4, 4, 1024, classes=10)


NETWORKS = {"lenet": lenet, "mobilenet-v1": mobilenet_v1, "mobilenet-v2": mobilenet_v2, "resnet18": resnet18,
            "encoder": encoder, "encoder-13": lambda: encoder(spelled_out=True), "transformer": transformer}


def random_masks(net, skewed):
    random = np.random.default_rng(2)
    for name in net.prunable:
        w = net.weights[name]
        rows, columns = w.shape[0], w.size // w.shape[0]
        chance = np.full((rows, columns), DENSITY)
        if skewed:
            factors = [np.exp(random.uniform(-2, 2, n)) for n in (rows, columns)]
            chance *= np.outer(*factors) / (factors[0].mean() * factors[1].mean())
        kept = random.random((rows, columns)) < chance
        # What is left has the size of products that all of it had.
        net.weights[name] = (w * kept.reshape(w.shape) / DENSITY ** 0.5).astype(np.float32)


def fashion(folder):
    read = lambda name: gzip.open(Path(folder) / name).read()
    images = np.frombuffer(read("train-images-idx3-ubyte.gz"), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    labels = np.frombuffer(read("train-labels-idx1-ubyte.gz"), np.uint8, offset=8)
    return images, labels


def ticket(net, path):
    """LeNet's weights and masks from a checkpoint of `wattle ticket find`."""
    data = Path(path).read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header, data = json.loads(data[8:8 + length]), data[8 + length:]
    kinds = {"F32": np.float32, "U8": np.uint8}
    tensors = {name: np.frombuffer(data[slice(*t["data_offsets"])], kinds[t["dtype"]]).reshape(t["shape"])
               for name, t in header.items() if name != "__metadata__"}
    names = [name for layer in ("fc1", "fc2", "fc") for name in (f"{layer}.weight", f"{layer}.bias")]
    for ours, theirs in zip(net.weights, names):
        mask = tensors.get(f"mask/{theirs}")
        net.weights[ours] = tensors[theirs].copy()
        if mask is not None:
            bits = np.unpackbits(mask, bitorder="little")[:tensors[theirs].size].reshape(tensors[theirs].shape)
            assert not (net.weights[ours][bits == 0]).any(), "the checkpoint's weights are zero where its mask is"


def imp(net, arguments):
    """Trains a little, prunes a little, again and again; the PyTorch translation is that of `wattle bench`."""
    import torch

    sys.path.insert(0, str(HERE.parents[1] / "crates/wattle-jobs/src/bench"))
    import peer

    torch.manual_seed(0)
    leaves = {name: torch.tensor(array) for name, array in net.weights.items()}
    steps = []
    for node in net.nodes:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        steps.append((getattr(peer.Operators(torch, leaves), node.op_type)(node, attributes), node.input, node.output[0]))
    trained = [t.requires_grad_() for t in leaves.values() if t.dtype == torch.float32 and t.ndim > 0]
    if net.name.startswith("encoder"):
        text = b"".join(p.read_bytes() for p in sorted((HERE.parents[1] / "docs").rglob("*.md")))
        text = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()
        embedding, head = torch.randn(257, 512) * 0.5, torch.randn(512, 256) * 512 ** -0.5
        trained += [embedding.requires_grad_(), head.requires_grad_()]

        def batch():
            starts = torch.randint(len(text) - 128, (arguments.batch // 4,)).tolist()
            tokens = torch.stack([text[s:s + 128] for s in starts])
            hidden = torch.rand(tokens.shape) < 0.15
            return embedding[tokens.masked_fill(hidden, 256)], tokens[hidden], lambda y: y[hidden] @ head
    else:
        images, labels = fashion(arguments.data)

        def batch():
            chosen = np.random.default_rng(len(losses)).integers(0, len(labels), arguments.batch)
            x = torch.from_numpy(images[chosen].astype(np.float32) / 127.5 - 1)
            x = torch.nn.functional.interpolate(x, (64, 64), mode="bilinear").expand(-1, 3, -1, -1)
            return x.contiguous(memory_format=torch.channels_last), torch.from_numpy(labels[chosen].astype(np.int64)), None

    masks = {name: torch.ones_like(leaves[name]) for name in net.prunable}
    optimizer, losses = torch.optim.Adam(trained, arguments.rate), []
    for level in range(arguments.rounds + 1):
        for _ in range(arguments.steps):
            x, wanted, last = batch()
            values = {"": None, **leaves, "x": x}
            for call, inputs, output in steps:
                values[output] = call(*[values[name] for name in inputs])
            y = values[output]
            loss = torch.nn.functional.cross_entropy(last(y) if last else y, wanted)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            losses.append(loss.item())
            with torch.no_grad():
                for name, mask in masks.items():
                    leaves[name].mul_(mask)
        print(f"{net.name}: {DENSITY ** (level / arguments.rounds):.2f} kept, loss {np.mean(losses[-10:]):.3f}", flush=True)
        if level == arguments.rounds:
            break
        with torch.no_grad():
            for name, mask in masks.items():
                size = leaves[name].abs()
                count = int(round(mask.numel() * DENSITY ** ((level + 1) / arguments.rounds)))
                mask.copy_(size >= size.flatten().kthvalue(mask.numel() - count + 1).values)
                leaves[name].mul_(mask)
    for name in net.weights:
        net.weights[name] = leaves[name].detach().numpy()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", choices=sorted(NETWORKS), default=sorted(NETWORKS))
    parser.add_argument("--masks", nargs="+", choices=["dense", "uniform", "skewed", "imp"], default=["dense", "uniform"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--data", default="/usr/share/datasets/fashion-mnist")
    parser.add_argument("--tickets", help="a level's final.safetensors of wattle ticket find, for LeNet")
    parser.add_argument("--rounds", type=int, default=10, help="imp: prunings")
    parser.add_argument("--steps", type=int, default=20, help="imp: steps before each pruning and after the last")
    parser.add_argument("--batch", type=int, default=32, help="imp: samples in a step")
    parser.add_argument("--rate", type=float, default=3e-4, help="imp: learning rate")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.only:
        for masks in arguments.masks:
            net = NETWORKS[name]()
            if masks in ("uniform", "skewed"):
                random_masks(net, masks == "skewed")
            elif masks == "imp" and name == "lenet":
                if arguments.tickets is None:
                    print("lenet imp: left out; give --tickets", file=sys.stderr)
                    continue
                ticket(net, arguments.tickets)
            elif masks == "imp":
                # The square root of a variance near zero has no gradient: the other form is trained.
                trained = encoder() if name == "encoder-13" else net
                imp(trained, arguments)
                net.weights = trained.weights
            kept = sum(np.count_nonzero(net.weights[w]) for w in net.prunable)
            whole = sum(net.weights[w].size for w in net.prunable)
            for batch in arguments.batches:
                onnx.save(net.model(batch), arguments.folder / f"{name}-{masks}-b{batch}.onnx")
            print(f"{name}-{masks}: {kept / whole:.3f} of {whole} prunable weights kept", flush=True)


if __name__ == "__main__":
    main()
