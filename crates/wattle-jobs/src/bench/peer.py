"""One runtime, asked by `wattle bench --against`: a JSON line on stdin for a question, one on stdout for the answer."""

import json
import os
import sys
import time


class Unusable(Exception):
    """What was asked for cannot work with this Python, peer or model."""


def needed(module, install):
    try:
        return __import__(module)
    except ImportError as error:
        raise Unusable(f"{sys.executable} has no {module} ({error}); install it with: "
                       f"{sys.executable} -m pip install {install}, or name another Python with --python") from None


class OnnxRuntime:
    """Inputs and outputs are bound before the run, which saves their copies."""

    variants = ["default"]

    def __init__(self, question, inputs):
        ort = needed("onnxruntime", "onnxruntime numpy")
        self.version, self.names = ort.__version__, question["outputs"]
        options = ort.SessionOptions()
        options.intra_op_num_threads = question["threads"]
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.session = ort.InferenceSession(question["model"], options, providers=["CPUExecutionProvider"])
        self.binding = self.session.io_binding()
        self.inputs = {name: ort.OrtValue.ortvalue_from_numpy(value) for name, value in inputs.items()}
        for name, value in self.inputs.items():
            self.binding.bind_ortvalue_input(name, value)
        for name in self.names:
            self.binding.bind_output(name)

    def call(self, variant):
        session, binding = self.session, self.binding
        return lambda: session.run_with_iobinding(binding)

    def outputs(self, variant):
        self.call(variant)()
        return self.binding.copy_outputs_to_cpu()


class DeepSparse:
    variants = ["default"]

    def __init__(self, question, inputs):
        deepsparse = needed("deepsparse", "'deepsparse==1.8.0' 'numpy<2' (on Python 3.11)")
        import onnx

        self.version = deepsparse.__version__
        graph = onnx.load(question["model"], load_external_data=False).graph
        weights = {tensor.name for tensor in graph.initializer}
        order = [value.name for value in graph.input if value.name not in weights]
        self.inputs = [inputs[name] for name in order]
        self.places = [[value.name for value in graph.output].index(name) for name in question["outputs"]]
        batch = self.inputs[0].shape[0] if self.inputs[0].ndim else 1
        # Exactly this many threads; without a lock of each to a core, which the others could not have.
        self.engine = deepsparse.Engine(model=question["model"], batch_size=batch, num_cores=question["threads"])

    def call(self, variant):
        engine, inputs = self.engine, self.inputs
        return lambda: engine.run(inputs, val_inp=False)

    def outputs(self, variant):
        results = self.call(variant)()
        return [results[place] for place in self.places]


class Torch:
    """The model's nodes as PyTorch calls, eager, without gradients unless a step is to be trained."""

    def __init__(self, question, inputs):
        torch = needed("torch", "torch onnx")
        onnx = needed("onnx", "onnx")
        from onnx import numpy_helper

        self.torch, self.version, self.names = torch, torch.__version__, question["outputs"]
        self.training = question.get("training")
        torch.set_num_threads(question["threads"])
        graph = onnx.load(question["model"]).graph
        # A copy, for arrays of a file may be read-only.
        tensor = lambda array: torch.from_numpy(array.copy())
        constants = {t.name: tensor(numpy_helper.to_array(t)) for t in graph.initializer}
        nodes = []
        for node in graph.node:
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            attributes = {k: v.decode() if isinstance(v, bytes) else v for k, v in attributes.items()}
            if node.op_type == "Constant":
                value = attributes.get("value")
                if value is None:
                    raise Unusable(f"{node.name or node.output[0]}: a Constant without a tensor is not translated")
                constants[node.output[0]] = tensor(numpy_helper.to_array(value))
            else:
                nodes.append((node, attributes))
        operators = Operators(torch, constants, self.training is not None)
        unknown = sorted({n.op_type for n, _ in nodes if not hasattr(operators, n.op_type)})
        if unknown:
            raise Unusable("operators that are not translated to PyTorch: " + ", ".join(unknown))
        self.steps = []
        for node, attributes in nodes:
            call = getattr(operators, node.op_type)(node, attributes)
            self.steps.append((call, list(node.input), list(node.output)))
        self.constants, self.inputs = constants, {name: torch.from_numpy(x) for name, x in inputs.items()}
        self.logits = graph.output[0].name
        formats = ["contiguous"]
        if any(node.op_type == "Conv" for node, _ in nodes):
            formats.append("channels_last")
        self.variants = formats
        if self.training and self.training["optimizer"] in ("adam", "adamw"):
            # PyTorch's single-kernel update is faster on some networks.
            self.variants = [f"{layout}{update}" for layout in formats for update in ("", ", fused update")]
        # What is no weight: running statistics of a normalisation, and scalars.
        fixed = {name for n, _ in nodes if n.op_type == "BatchNormalization" for name in n.input[3:]}
        self.trained = [n for n, t in constants.items() if t.is_floating_point() and t.ndim > 0 and n not in fixed]
        self.labels = None
        if self.training:
            import numpy

            self.labels = torch.from_numpy(numpy.load(self.training["labels"]))
        self.calls = {}

    def values(self, variant):
        """Inputs and constants in this memory format, copied."""
        layout = self.torch.channels_last if "channels_last" in variant else self.torch.contiguous_format
        known = {**self.constants, **self.inputs}
        formatted = lambda t: t.clone(memory_format=layout if t.ndim == 4 else self.torch.contiguous_format)
        return {"": None, **{name: formatted(tensor) for name, tensor in known.items()}}

    def call(self, variant):
        if variant not in self.calls:
            self.calls[variant] = self.step(variant) if self.training else self.inference(variant)
        return self.calls[variant]

    def forward(self, known, keep):
        """Runs the nodes; `keep` names what is needed at the end."""
        last = {name: index for index, (_, inputs, _) in enumerate(self.steps) for name in inputs}
        kept = set(known) | set(keep)
        done = [[n for n, at in last.items() if at == index and n not in kept] for index in range(len(self.steps))]

        def run():
            values = dict(known)
            for (call, inputs, outputs), finished in zip(self.steps, done):
                results = call(*[values[name] for name in inputs])
                if isinstance(results, self.torch.Tensor):
                    # Further outputs, such as the mean of a normalisation, are not computed.
                    values[outputs[0]] = results
                else:
                    values.update(zip(outputs, results))
                for name in finished:
                    del values[name]
            return [values[name] for name in keep]

        return run

    def inference(self, variant):
        forward = self.forward(self.values(variant), self.names)

        def run():
            with self.torch.inference_mode():
                return forward()

        return run

    def step(self, variant):
        """Forward, cross entropy, backward, update."""
        torch, known = self.torch, self.values(variant)
        weights = [known[name].requires_grad_() for name in self.trained]
        kind, rate, fused = self.training["optimizer"], self.training["rate"], "fused" in variant
        if kind in ("adam", "adamw"):
            make = torch.optim.Adam if kind == "adam" else torch.optim.AdamW
            optimizer = make(weights, rate, weight_decay=0.0, fused=fused)
        else:
            momentum = 0.0 if kind == "sgd-plain" else 0.9
            optimizer = torch.optim.SGD(weights, rate, momentum=momentum, nesterov=kind == "nesterov")
        forward = self.forward(known, [self.logits])

        def run():
            optimizer.zero_grad()
            logits = forward()[0]
            loss = torch.nn.functional.cross_entropy(logits, self.labels)
            loss.backward()
            optimizer.step()
            return [loss.detach(), logits.detach()]

        return run

    def outputs(self, variant):
        # A step changes the weights: its results are those of the first, from the weights of the file.
        call = self.step(variant) if self.training else self.call(variant)
        return [value.contiguous().numpy() for value in call()]


def plain(function):
    """An operator without attributes, which PyTorch has under a name of its own."""
    return lambda self, node, a: function(self.torch)


class Operators:
    """For each ONNX operator, what makes a call of a node's attributes; constants that a call needs are known."""

    def __init__(self, torch, constants, training=False):
        self.torch, self.f, self.constants, self.training = torch, torch.nn.functional, constants, training

    def known(self, node, place):
        """The values of an input that must be a constant; None where it is absent."""
        if place >= len(node.input) or not node.input[place]:
            return None
        if node.input[place] not in self.constants:
            raise Unusable(f"{node.op_type} {node.name}: input {place} is not a constant: not translated to PyTorch")
        return self.constants[node.input[place]].flatten().tolist()

    def padding(self, node, a, dims):
        """Symmetric padding as PyTorch takes it, and what remains to be padded before."""
        if a.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
            raise Unusable(f"{node.op_type} {node.name}: auto_pad {a['auto_pad']} is not translated to PyTorch")
        pads = list(a.get("pads", [0] * 2 * dims))
        begin, end = pads[:dims], pads[dims:]
        if begin == end:
            return begin, None
        return [0] * dims, [p for pair in zip(reversed(begin), reversed(end)) for p in pair]

    def Conv(self, node, a):
        dims = self.constants[node.input[1]].ndim - 2 if node.input[1] in self.constants else 2
        padding, before = self.padding(node, a, dims)
        conv = [self.f.conv1d, self.f.conv2d, self.f.conv3d][dims - 1]
        rest = dict(stride=a.get("strides", [1] * dims), padding=padding,
                    dilation=a.get("dilations", [1] * dims), groups=a.get("group", 1))
        if before is None:
            return lambda x, w, b=None: conv(x, w, b, **rest)
        return lambda x, w, b=None: conv(self.f.pad(x, before), w, b, **rest)

    def ConvTranspose(self, node, a):
        padding, before = self.padding(node, a, 2)
        if before is not None or "output_shape" in a:
            raise Unusable(f"ConvTranspose {node.name}: uneven pads and output_shape are not translated to PyTorch")
        rest = dict(stride=a.get("strides", [1, 1]), padding=padding, groups=a.get("group", 1),
                    output_padding=a.get("output_padding", [0, 0]), dilation=a.get("dilations", [1, 1]))
        return lambda x, w, b=None: self.f.conv_transpose2d(x, w, b, **rest)

    def MaxPool(self, node, a):
        padding, before = self.padding(node, a, len(a["kernel_shape"]))
        pool = [self.f.max_pool1d, self.f.max_pool2d, self.f.max_pool3d][len(a["kernel_shape"]) - 1]
        rest = dict(stride=a.get("strides", [1] * len(padding)), padding=padding, ceil_mode=bool(a.get("ceil_mode", 0)),
                    dilation=a.get("dilations", [1] * len(padding)))
        lowest = float("-inf")
        if before is None:
            return lambda x: pool(x, a["kernel_shape"], **rest)
        return lambda x: pool(self.f.pad(x, before, value=lowest), a["kernel_shape"], **rest)

    def AveragePool(self, node, a):
        padding, before = self.padding(node, a, 2)
        if before is not None:
            raise Unusable(f"AveragePool {node.name}: uneven pads are not translated to PyTorch")
        rest = dict(stride=a.get("strides", [1, 1]), padding=padding, ceil_mode=bool(a.get("ceil_mode", 0)),
                    count_include_pad=bool(a.get("count_include_pad", 0)))
        return lambda x: self.f.avg_pool2d(x, a["kernel_shape"], **rest)

    def GlobalAveragePool(self, node, a):
        return lambda x: self.f.adaptive_avg_pool2d(x, 1)

    def BatchNormalization(self, node, a):
        # PyTorch's momentum is the share of the new.
        epsilon, new = a.get("epsilon", 1e-5), 1.0 - a.get("momentum", 0.9)
        return lambda x, s, b, m, v: self.f.batch_norm(x, m, v, s, b, self.training, new, epsilon)

    def LayerNormalization(self, node, a):
        epsilon, axis = a.get("epsilon", 1e-5), a.get("axis", -1)
        return lambda x, s, b=None: self.f.layer_norm(x, x.shape[axis:], s, b, epsilon)

    def Gemm(self, node, a):
        torch, (alpha, beta) = self.torch, (a.get("alpha", 1.0), a.get("beta", 1.0))

        def call(x, w, b=None):
            x, w = x.t() if a.get("transA") else x, w.t() if a.get("transB") else w
            if b is None:
                y = x @ w
                return y if alpha == 1.0 else alpha * y
            return torch.addmm(b, x, w, beta=beta, alpha=alpha)

        return call

    def MatMul(self, node, a):
        return self.torch.matmul

    def Softmax(self, node, a):
        return lambda x: self.torch.softmax(x, a.get("axis", -1))

    def Gelu(self, node, a):
        return lambda x: self.f.gelu(x, approximate=a.get("approximate", "none"))

    def Clip(self, node, a):
        if len(node.input) == 1:
            return lambda x: self.torch.clamp(x, a.get("min"), a.get("max"))
        limits = [self.known(node, place) for place in (1, 2)]
        low, high = [None if limit is None else limit[0] for limit in limits]
        return lambda x, *_: self.torch.clamp(x, low, high)

    def HardSigmoid(self, node, a):
        alpha, beta = a.get("alpha", 0.2), a.get("beta", 0.5)
        return lambda x: (alpha * x + beta).clamp_(0, 1)

    def HardSwish(self, node, a):
        return self.f.hardswish

    def LeakyRelu(self, node, a):
        return lambda x: self.f.leaky_relu(x, a.get("alpha", 0.01))

    def Reshape(self, node, a):
        shape = [int(n) for n in self.known(node, 1)]
        if not a.get("allowzero", 0):
            return lambda x, _: x.reshape([x.shape[i] if n == 0 else n for i, n in enumerate(shape)])
        return lambda x, _: x.reshape(shape)

    def Flatten(self, node, a):
        if a.get("axis", 1) != 1:
            raise Unusable(f"Flatten {node.name}: only axis 1 is translated to PyTorch")
        return lambda x: x.flatten(1)

    def Transpose(self, node, a):
        return lambda x: x.permute(a["perm"] if "perm" in a else list(reversed(range(x.ndim))))

    def Concat(self, node, a):
        return lambda *xs: self.torch.cat(xs, a["axis"])

    def Split(self, node, a):
        sizes = a.get("split") or self.known(node, 1)
        if sizes is None:
            parts = len(node.output)
            return lambda x: self.torch.chunk(x, parts, a.get("axis", 0))
        return lambda x, *_: self.torch.split(x, [int(n) for n in sizes], a.get("axis", 0))

    def Squeeze(self, node, a):
        axes = a.get("axes") or self.known(node, 1)
        return lambda x, *_: x.squeeze() if axes is None else x.squeeze([int(n) for n in axes])

    def Unsqueeze(self, node, a):
        axes = sorted(int(n) for n in (a.get("axes") or self.known(node, 1)))

        def call(x, *_):
            for axis in axes:
                x = x.unsqueeze(axis)
            return x

        return call

    def ReduceMean(self, node, a):
        axes = a.get("axes") or self.known(node, 1)
        if axes is None:
            raise Unusable(f"ReduceMean {node.name}: axes are needed for PyTorch")
        return lambda x, *_: x.mean([int(n) for n in axes], keepdim=bool(a.get("keepdims", 1)))

    def Gather(self, node, a):
        axis = a.get("axis", 0)

        def call(x, i):
            chosen = self.torch.index_select(x, axis, i.flatten())
            return chosen.reshape([*x.shape[:axis], *i.shape, *x.shape[axis + 1:]])

        return call

    Add, Sub, Mul, Div, Pow = [plain(lambda t, n=n: getattr(t, n)) for n in ("add", "sub", "mul", "div", "pow")]
    Relu, Sigmoid, Tanh = [plain(lambda t, n=n: getattr(t, n)) for n in ("relu", "sigmoid", "tanh")]
    Erf, Exp, Log, Sqrt, Neg, Abs = [
        plain(lambda t, n=n: getattr(t, n)) for n in ("erf", "exp", "log", "sqrt", "neg", "abs")
    ]
    Identity = Dropout = plain(lambda t: lambda x, *_: x)


PEERS = {"onnxruntime": OnnxRuntime, "torch": Torch, "deepsparse": DeepSparse}


def load(question):
    numpy = needed("numpy", "numpy")
    inputs = {name: numpy.load(path) for name, path in question["inputs"].items()}
    peer = PEERS[question["peer"]](question, inputs)
    return peer, {"version": peer.version, "variants": peer.variants}


def run(peer, question):
    call, samples = peer.call(question["variant"]), []
    call()
    for _ in range(question["runs"]):
        start = time.perf_counter()
        call()
        samples.append((time.perf_counter() - start) * 1e3)
    return {"ms": samples}


def outputs(peer, question):
    import numpy

    files = []
    for index, array in enumerate(peer.outputs(question["variant"])):
        files.append(os.path.join(question["folder"], f"output{index}.npy"))
        numpy.save(files[-1], numpy.asarray(array, order="C"))
    return {"files": files}


def main():
    # Runtimes print on stdout; answers must be alone on it.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    peer = None
    for line in sys.stdin:
        question = json.loads(line)
        try:
            if question["do"] == "load":
                peer, answer = load(question)
            else:
                answer = {"run": run, "outputs": outputs}[question["do"]](peer, question)
        except Unusable as error:
            answer = {"error": str(error), "unusable": True}
        except Exception as error:  # whatever a runtime raises is its answer
            answer = {"error": f"{question.get('peer', 'the peer')}: {type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
