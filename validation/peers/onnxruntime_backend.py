"""ONNX Runtime behind pcmref's backend protocol: each operation as ONNX nodes, whole networks as one graph that it may fuse.

pcmref golden check validation.peers.onnxruntime_backend:Backend --level 2

ONNX keeps epsilon as float32. In float64 its batch norm is therefore another one, by 2.5e-8 of epsilon, and rightly outside the
bound: the adapter declines float64 where epsilon is no float32. What the CPU provider has no kernel for, it declines too.
"""

import numpy as np
import onnxruntime
from onnx import helper, numpy_helper
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel

import pcmref
from pcmref.golden import NamedBackend, Unsupported
from pcmref.nn.resnet import part

OPSET = 20


class Graph:
    """Nodes in the order they were added; every array that is handed over is a constant of the graph but the input "x"."""

    def __init__(self, x):
        self.x, self.nodes, self.constants = np.ascontiguousarray(x), [], []

    def add(self, kind, *inputs, **attributes) -> str:
        """The name of a node's output; inputs are names of others, or arrays."""
        names = [v if isinstance(v, str) else self.constant(v) for v in inputs]
        output = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, names, [output], **attributes))
        return output

    def constant(self, array) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array).reshape(np.shape(array)), name))
        return name

    def run(self, output: str) -> np.ndarray:
        kind = helper.np_dtype_to_tensor_dtype(self.x.dtype)
        given, wanted = (helper.make_tensor_value_info(*what) for what in (("x", kind, self.x.shape), (output, kind, None)))
        graph = helper.make_graph(self.nodes, "graph", [given], [wanted], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 4
        try:
            session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        except NoKernel as error:
            raise Unsupported(f"no kernel: {str(error).split(':')[-1].strip()}") from error
        return session.run([output], {"x": self.x})[0]


class Backend(NamedBackend):
    """Forwards only: ONNX Runtime's inference has no gradients."""

    name, version, dtypes = "ONNX Runtime", onnxruntime.__version__, ("float64", "float32")
    tensor = staticmethod(np.array)  # its own copy, in the machine's byte order

    def conv2d(self, x, w, stride, padding):
        g = Graph(to_first(x))
        return to_last(g.run(conv(g, "x", w, stride, padding)))

    def batch_norm(self, x, weight, bias, mean, var, eps):
        g = Graph(to_first(x))
        return to_last(g.run(batch_norm(g, "x", weight, bias, mean, var, eps)))

    def relu(self, x):
        g = Graph(x)
        return g.run(g.add("Relu", "x"))

    def linear(self, x, w, b):
        g = Graph(x)
        return g.run(g.add("Gemm", "x", w, b, transB=1))

    def global_avg_pool(self, x):
        g = Graph(to_first(x))
        return g.run(g.add("GlobalAveragePool", "x"))[:, :, 0, 0]

    def max_pool2d(self, x, kernel, stride, padding):
        g = Graph(to_first(x))
        return to_last(g.run(max_pool(g, "x", kernel, stride, padding)))

    def softmax_cross_entropy(self, logits, labels, smoothing):
        if smoothing:
            raise Unsupported("ONNX has no label smoothing")
        g = Graph(logits)
        return g.run(g.add("SoftmaxCrossEntropyLoss", "x", labels))

    def drift(self, g_prog_us, nu, model, t_s):
        g = Graph(nu)
        ratio = np.asarray(t_s / model["t_0_s"], nu.dtype)
        return g.run(g.add("Mul", g_prog_us, g.add("Pow", ratio, g.add("Neg", "x"))))

    def basic_block(self, x, state, stride, train, eps):
        if train:
            raise Unsupported("inference only")
        g = Graph(to_first(x))
        return to_last(g.run(block(g, "x", x.shape[3], state, (stride, 1), eps)))

    def resnet(self, x, state, network, eps):
        g, net = Graph(to_first(x)), pcmref.ResNet(**network)
        small = net.stem == "small"
        y = g.add("Relu", conv_bn(g, "x", state, "conv1", "bn1", 1 if small else 2, eps))
        if not small:
            y = max_pool(g, y, 3, 2, 1)
        for name, c_in, _, strides in net._blocks():
            y = block(g, y, c_in, part(state, name), strides, eps)
        y = g.add("Flatten", g.add("GlobalAveragePool", y))
        return g.run(g.add("Gemm", y, state["fc.weight"], state["fc.bias"], transB=1))


def conv(g, x, w, stride, padding):
    return g.add("Conv", x, w, strides=[stride] * 2, pads=[padding] * 4)


def batch_norm(g, x, weight, bias, mean, var, eps):
    if g.x.dtype == np.float64 and float(np.float32(eps)) != eps:
        raise Unsupported(f"ONNX keeps epsilon as float32, where {eps} is {np.float32(eps):.9g}")
    return g.add("BatchNormalization", x, weight, bias, mean, var, epsilon=eps)


def conv_bn(g, x, state, conv_name, bn, stride, eps):
    w = state[f"{conv_name}.weight"]
    z = conv(g, x, w, stride, w.shape[2] // 2)
    return batch_norm(g, z, *(state[f"{bn}.{entry}"] for entry in ("weight", "bias", "running_mean", "running_var")), eps)


def block(g, x, c_in, state, strides, eps):
    """A residual block of two or three layers."""
    if "downsample.0.weight" in state:
        shortcut = conv_bn(g, x, state, "downsample.0", "downsample.1", max(strides), eps)
    else:
        new = len(state[f"bn{len(strides)}.bias"]) - c_in
        starts, ends, axes, steps = (np.array(v) for v in ([0, 0], [1 << 30] * 2, [2, 3], [max(strides)] * 2))
        kept = g.add("Slice", x, starts, ends, axes, steps)
        shortcut = g.add("Pad", kept, np.array([0, new // 2, 0, 0, 0, new - new // 2, 0, 0]))
    y = x
    for i, stride in enumerate(strides, 1):
        y = conv_bn(g, y, state, f"conv{i}", f"bn{i}", stride, eps)
        y = g.add("Relu", y if i < len(strides) else g.add("Add", y, shortcut))
    return y


def max_pool(g, x, kernel, stride, padding):
    return g.add("MaxPool", x, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[padding] * 4)


def to_first(x):
    return x.transpose(0, 3, 1, 2)


def to_last(x):
    return x.transpose(0, 2, 3, 1)
