"""PyTorch behind pcmref's backend protocol: its own layers and autograd, its own SGD; float64, float32, bfloat16; CPU and CUDA.

pcmref golden check validation.peers.torch_backend:Backend --level 2
pcmref golden check validation.peers.torch_backend:BFloat16
pcmref golden check validation.peers.torch_backend:Cuda --level 2     # a GPU, float32 without TF32
pcmref golden check validation.peers.torch_backend:CudaAsItComes      # as PyTorch sets it: TF32 in convolutions
"""

from dataclasses import replace

import torch
import torch.nn.functional as F

import pcmref
from pcmref.golden import Unsupported
from validation.peers.autograd import Autograd
from validation.peers.torch_network import torch_resnet


class Backend(Autograd):
    """Gradients come from autograd: each backward operation differentiates PyTorch's own forward."""

    name, version, dtypes, compute, device = "PyTorch", torch.__version__, ("float64", "float32"), None, "cpu"

    def tensor(self, array):
        t = torch.from_numpy(array).to(self.device)
        return t if self.compute is None or array.dtype.kind in "iu" else t.to(self.compute)

    def array(self, tensor):
        tensor = tensor.detach().cpu()
        return (tensor.float() if self.compute is torch.bfloat16 else tensor).contiguous().numpy()

    # ------------------------------------------------------------------------------------------------------ layers

    def conv2d(self, x, w, stride, padding):
        return to_last(F.conv2d(to_first(x), w, stride=stride, padding=padding))

    def batch_norm(self, x, weight, bias, mean, var, eps):
        return to_last(F.batch_norm(to_first(x), mean, var, weight, bias, False, 0.0, eps))

    def batch_norm_train(self, x, weight, bias, eps, running_mean=None, running_var=None, momentum=0.0):
        mean, var = (None if v is None else v.clone() for v in (running_mean, running_var))
        return to_last(F.batch_norm(to_first(x), mean, var, weight, bias, True, momentum, eps)), mean, var

    def relu(self, x):
        return F.relu(x)

    def linear(self, x, w, b):
        return F.linear(x, w, b)

    def global_avg_pool(self, x):
        return F.adaptive_avg_pool2d(to_first(x), 1).flatten(1)

    def max_pool2d(self, x, kernel, stride, padding):
        return to_last(F.max_pool2d(to_first(x), kernel, stride, padding))

    def softmax_cross_entropy(self, logits, labels, smoothing):
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)

    def gradients(self, forward, arrays, dy, names):
        """{gradient: that of forward's output, weighted with dy, in the named input}."""
        leaves = {k: v.clone().requires_grad_() if k in names.values() else v for k, v in arrays.items()}
        forward(leaves).backward(dy)
        return {gradient: leaves[name].grad for gradient, name in names.items()}

    # --------------------------------------------------------------------------------------------- blocks, networks

    def basic_block(self, x, state, stride, train, eps):
        return to_last(block(state, stride, eps).train(train)(to_first(x)))

    def basic_block_backward(self, dy, x, state, stride, eps):
        module, x = block(state, stride, eps).train(), x.clone().requires_grad_()
        to_last(module(to_first(x))).backward(dy)
        return {"dx": x.grad} | {f"grad/{k}": v.grad for k, v in module.named_parameters()}

    def resnet(self, x, state, network, eps):
        return network_of(state, network, eps).eval()(to_first(x))

    def resnet_backward(self, dlogits, x, state, network, eps):
        net, x = network_of(state, network, eps).train(), x.clone().requires_grad_()
        logits = net(to_first(x))
        logits.backward(dlogits)
        return {"logits": logits, "grad/input": x.grad} | {f"grad/{k}": v.grad for k, v in net.named_parameters()}

    def adabs(self, x_calibration, state, network, batch_size, eps):
        """Cumulative averages: momentum n/(images so far), starting from nothing."""
        net, x, seen = network_of(state, network, eps).train(), x_calibration, 0
        for first in range(0, len(x), batch_size):
            batch = x[first : first + batch_size]
            seen += len(batch)
            for module in net.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.momentum = len(batch) / seen
            with torch.no_grad():
                net(to_first(batch))
        return {k: v for k, v in net.named_buffers() if "running_" in k}

    def sgd_step(self, w, grad, learning_rate, momentum, weight_decay, nesterov, velocity=None):
        if momentum == 0:
            raise Unsupported("PyTorch keeps no velocity without momentum")
        w = w.clone().requires_grad_()
        optimiser = torch.optim.SGD([w], learning_rate, momentum, 0.0, weight_decay if w.ndim > 1 else 0.0, nesterov)
        if velocity is not None:
            optimiser.state[w]["momentum_buffer"] = velocity.clone()
        w.grad = grad.clone()
        optimiser.step()
        return w, optimiser.state[w]["momentum_buffer"]


class BFloat16(Backend):
    """The same in bfloat16. One kernel accumulates in float32; what several kernels do is stored as bfloat16 in between.

    Its convolutions take denormals as 0.
    """

    dtypes, compute = ("bfloat16",), torch.bfloat16
    one_kernel = ("conv2d", "linear", "global_avg_pool", "conv2d_backward", "linear_backward", "global_avg_pool_backward")
    accumulate = dict.fromkeys((*one_kernel, "batch_norm", "batch_norm_backward"), "float32")

    def capabilities(self):
        return replace(super().capabilities(), flush_denormals=True)


class Cuda(Backend):
    """The same on a GPU; whether float32 convolutions may run in TF32 is a switch of the process, off for this class."""

    device, tf32 = "cuda", False

    def call(self, op, arguments):
        torch.backends.cudnn.allow_tf32 = self.tf32
        return super().call(op, arguments)

    def capabilities(self):
        return replace(super().capabilities(), deterministic=False, flush_denormals=True)  # seen of cuDNN's gradients


class CudaAsItComes(Cuda):
    """With PyTorch's default: convolutions in TF32, products of matrices not."""

    tf32 = True


def to_first(x):
    """NHWC -> NCHW."""
    return x.permute(0, 3, 1, 2)


def to_last(x):
    """NCHW -> NHWC."""
    return x.permute(0, 2, 3, 1)


def block(state, stride, eps):
    """A residual block of PyTorch's with a state's arrays."""
    c_out, c_in = state["conv1.weight"].shape[:2]
    if stride > 2 or (stride == 1 and c_in != c_out):
        raise Unsupported("torchvision's networks have blocks of stride 1 with the same channels, and of stride 2")
    if stride == 1:
        return loaded(torch_resnet(pcmref.ResNet(c_in, 1, (c_out,), (1,), eps=eps)).layer1[0], state)
    shortcut = "projection" if "downsample.0.weight" in state else "pad"
    return loaded(torch_resnet(pcmref.ResNet(1, 1, (c_in, c_out), (1, 1), shortcut=shortcut, eps=eps)).layer2[0], state)


def network_of(state, network, eps):
    """A whole network of PyTorch's with a state's arrays."""
    return loaded(torch_resnet(pcmref.ResNet(**network, eps=eps)), state)


def loaded(module, state):
    """The module in the dtype of a state, with its arrays."""
    module = module.to(state["conv1.weight"])
    module.load_state_dict({name: state.get(name, value) for name, value in module.state_dict().items()})
    return module
