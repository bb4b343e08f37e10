"""PyTorch behind pcmref's backend protocol: its own layers and autograd, its own SGD; float64, float32, bfloat16.

cd validation/peers && pcmref golden check torch_backend:Backend --level 2
cd validation/peers && pcmref golden check torch_backend:BFloat16
"""

import numpy as np
import torch
import torch.nn.functional as F
from autograd import Autograd

import pcmref
from pcmref.golden import Capabilities
from pcmref.peers import torch_resnet


class Backend(Autograd):
    """Gradients come from autograd: each backward operation differentiates PyTorch's own forward."""

    name, version = "PyTorch", torch.__version__
    dtypes, compute, accumulate = ("float64", "float32"), None, None

    def capabilities(self) -> Capabilities:
        return Capabilities(dtypes=self.dtypes, accumulate_dtype=self.accumulate)

    def tensor(self, array):
        t = torch.from_numpy(np.ascontiguousarray(array)).reshape(np.shape(array))  # NumPy makes a scalar one-dimensional
        return t if self.compute is None or array.dtype.kind in "iu" else t.to(self.compute)

    def array(self, tensor):
        tensor = tensor.detach()
        return (tensor.float() if self.compute is torch.bfloat16 else tensor).contiguous().numpy()

    # ------------------------------------------------------------------------------------------------------ layers

    def conv2d(self, a, p):
        return {"y": to_last(F.conv2d(to_first(a["x"]), a["w"], stride=p["stride"], padding=p["padding"]))}

    def batch_norm(self, a, p):
        y = F.batch_norm(to_first(a["x"]), a["mean"], a["var"], a["weight"], a["bias"], False, 0.0, p["eps"])
        return {"y": to_last(y)}

    def batch_norm_train(self, a, p):
        mean, var = (a[k].clone() if k in a else None for k in ("running_mean", "running_var"))  # its backward has none
        y = F.batch_norm(to_first(a["x"]), mean, var, a["weight"], a["bias"], True, p.get("momentum", 0.0), p["eps"])
        return {"y": to_last(y), "running_mean": mean, "running_var": var}

    def relu(self, a, p):
        return {"y": F.relu(a["x"])}

    def linear(self, a, p):
        return {"y": F.linear(a["x"], a["w"], a["b"])}

    def global_avg_pool(self, a, p):
        return {"y": F.adaptive_avg_pool2d(to_first(a["x"]), 1).flatten(1)}

    def max_pool2d(self, a, p):
        return {"y": to_last(F.max_pool2d(to_first(a["x"]), p["kernel"], p["stride"], p["padding"]))}

    def softmax_cross_entropy(self, a, p):
        return {"loss": F.cross_entropy(a["logits"], a["labels"], label_smoothing=p["smoothing"])}

    def gradients(self, forward, arrays, dy, names):
        """{gradient: that of forward's output, weighted with dy, in the named input}."""
        leaves = {k: v.clone().requires_grad_() if k in names.values() else v for k, v in arrays.items()}
        forward(leaves).backward(dy)
        return {gradient: leaves[name].grad for gradient, name in names.items()}

    # --------------------------------------------------------------------------------------------- blocks, networks

    def _block(self, a, p):
        c_out, c_in = a["conv1.weight"].shape[:2]
        if p["stride"] == 1:
            block = torch_resnet(pcmref.ResNet(c_in, 1, (c_out,), (1,))).layer1[0]
        else:
            block = torch_resnet(pcmref.ResNet(1, 1, (c_in, c_out), (1, 1))).layer2[0]
        return loaded(block, a, a["x"].dtype)

    def basic_block(self, a, p):
        return {"y": to_last(self._block(a, p).train(p["train"])(to_first(a["x"])))}

    def basic_block_backward(self, a, p):
        block = self._block(a, p).train()
        x = a["x"].clone().requires_grad_()
        to_last(block(to_first(x))).backward(a["dy"])
        return {"dx": x.grad} | {f"grad/{k}": v.grad for k, v in block.named_parameters()}

    def _network(self, a, p):
        net = pcmref.ResNet(**{k: tuple(v) if isinstance(v, list) else v for k, v in p["network"].items()})
        return loaded(torch_resnet(net), a, next(iter(a.values())).dtype)

    def resnet(self, a, p):
        return {"logits": self._network(a, p).eval()(to_first(a["x"]))}

    def resnet_backward(self, a, p):
        net, x = self._network(a, p).train(), a["x"].clone().requires_grad_()
        logits = net(to_first(x))
        logits.backward(a["dlogits"])
        return {"logits": logits, "grad/input": x.grad} | {f"grad/{k}": v.grad for k, v in net.named_parameters()}

    def adabs(self, a, p):
        """Cumulative averages: momentum n/(images so far), starting from nothing."""
        net, x, seen = self._network(a, p).train(), a["x_calibration"], 0
        for first in range(0, len(x), p["batch_size"]):
            batch = x[first : first + p["batch_size"]]
            seen += len(batch)
            for module in net.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.momentum = len(batch) / seen
            with torch.no_grad():
                net(to_first(batch))
        return {k: v for k, v in net.named_buffers() if "running_" in k}

    def sgd_step(self, a, p):
        w = a["w"].clone().requires_grad_()
        decay = p["weight_decay"] if w.ndim > 1 else 0.0
        optimiser = torch.optim.SGD([w], p["learning_rate"], p["momentum"], 0.0, decay, p["nesterov"])
        if "velocity" in a:
            optimiser.state[w]["momentum_buffer"] = a["velocity"].clone()
        w.grad = a["grad"].clone()
        optimiser.step()
        return {"w": w, "velocity": optimiser.state[w]["momentum_buffer"]}


class BFloat16(Backend):
    """The same in bfloat16. One kernel accumulates in float32; what several kernels do is stored as bfloat16 in between."""

    dtypes, compute = ("bfloat16",), torch.bfloat16
    one_kernel = ("conv2d", "linear", "global_avg_pool", "conv2d_backward", "linear_backward", "global_avg_pool_backward")
    accumulate = dict.fromkeys((*one_kernel, "batch_norm", "batch_norm_backward"), "float32")


def to_first(x):
    """NHWC -> NCHW."""
    return x.permute(0, 3, 1, 2)


def to_last(x):
    """NCHW -> NHWC."""
    return x.permute(0, 2, 3, 1)


def loaded(module, a, dtype):
    """A module in the dtype with a state's arrays."""
    module = module.to(dtype)
    own = module.state_dict()
    module.load_state_dict({k: a.get(k, v) for k, v in own.items()})
    return module
