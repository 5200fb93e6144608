"""One contender in one process: times onnxruntime on a model, or PyTorch on a training step; prints JSON."""

import argparse
import json
import time


def timed(call, runs):
    for _ in range(max(2, runs // 10)):
        call()
    samples = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        samples.append((time.perf_counter() - start) * 1e3)
    return samples


def infer(arguments):
    import numpy
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = arguments.threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(arguments.model, options, providers=["CPUExecutionProvider"])
    name, shape = arguments.input.split("=")
    noise = numpy.random.default_rng(0).standard_normal([int(n) for n in shape.split("x")], dtype=numpy.float32)
    return timed(lambda: session.run(None, {name: noise}), arguments.runs)


def network(name):
    from torch import nn
    from torch.nn import functional

    class Block(nn.Module):
        """A basic block (He et al. 2016); where the shape changes, the shortcut is a 1x1 convolution."""

        def __init__(self, inputs, outputs, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            self.norm1 = nn.BatchNorm2d(outputs)
            self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
            self.norm2 = nn.BatchNorm2d(outputs)
            self.shortcut = nn.Identity()
            if stride > 1:
                self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

        def forward(self, x):
            y = functional.relu(self.norm1(self.conv1(x)))
            return functional.relu(self.norm2(self.conv2(y)) + self.shortcut(x))

    if name == "lenet":
        layers = [nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)]
        return nn.Sequential(*layers), (784,)
    layers, width = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()], 16
    for stage, outputs in enumerate([16, 32, 64]):
        for block in range(3):
            layers.append(Block(width, outputs, 2 if stage > 0 and block == 0 else 1))
            width = outputs
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    return nn.Sequential(*layers), (3, 32, 32)


def train(arguments):
    import torch

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    model, shape = network(arguments.network)
    x = torch.randn(arguments.batch, *shape)
    if arguments.layout == "channels_last" and len(shape) == 3:
        model, x = model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(arguments.batch) % 10
    if arguments.optimizer in ("adam", "fused-adam"):
        optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=arguments.optimizer == "fused-adam")
    else:
        optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=1e-4)

    def step():
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), labels).backward()
        optimizer.step()

    return timed(step, arguments.runs)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    kinds = parser.add_subparsers(required=True)
    kind = kinds.add_parser("infer")
    kind.add_argument("model")
    kind.add_argument("input")
    kind.set_defaults(call=infer)
    kind = kinds.add_parser("train")
    kind.add_argument("network", choices=["lenet", "resnet20"])
    kind.add_argument("batch", type=int)
    kind.add_argument("optimizer", choices=["sgd", "adam", "fused-adam"])
    kind.add_argument("layout", choices=["contiguous", "channels_last"])
    kind.set_defaults(call=train)
    for kind in kinds.choices.values():
        kind.add_argument("--runs", type=int, default=10)
        kind.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    print(json.dumps({"samples_ms": arguments.call(arguments)}))


if __name__ == "__main__":
    main()
