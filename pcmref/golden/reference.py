"""pcmref's own backend: the package's functions behind the backend protocol. Subclass it to override one operation."""

from dataclasses import replace

import numpy as np

import pcmref
from pcmref import draws
from pcmref.golden.backends import Capabilities, Unsupported
from pcmref.golden.ops import OPS
from pcmref.nn import functional as F
from pcmref.nn.blocks import basic_block, basic_block_backward
from pcmref.nn.resnet import ResNet
from pcmref.pcm import gdc
from pcmref.pcm.crossbar import Converter, Crossbar
from pcmref.pcm.model import PCMModel
from pcmref.training import Recipe, sgd_step


class Reference:
    """Each operation is a method of its name: (inputs, noise, params) -> {output: array}."""

    name, version = "pcmref", pcmref.__version__

    def capabilities(self) -> Capabilities:
        return Capabilities(ops=tuple(OPS), dtypes=("float64", "float32"))

    def run(self, op: str, version: int, inputs: dict, noise: dict, params: dict) -> dict[str, np.ndarray]:
        if version != OPS[op].version:
            raise Unsupported(f"{op} version {version}")
        if OPS[op].device and any(a.dtype == np.float32 for a in inputs.values()):
            raise Unsupported("the device model computes in float64")
        return getattr(self, op)(inputs, noise, params)

    # --------------------------------------------------------------------------------------------------- layers

    def conv2d(self, a, _, p):
        return {"y": F.conv2d(a["x"], a["w"], p["stride"], p["padding"])}

    def conv2d_backward(self, a, _, p):
        dx, dw = F.conv2d_backward(a["dy"], a["x"], a["w"], p["stride"], p["padding"])
        return {"dx": dx, "dw": dw}

    def batch_norm(self, a, _, p):
        return {"y": F.batch_norm(a["x"], a["weight"], a["bias"], a["mean"], a["var"], p["eps"])}

    def batch_norm_backward(self, a, _, p):
        grads = F.batch_norm_backward(a["dy"], a["x"], a["weight"], a["mean"], a["var"], p["eps"])
        return dict(zip(("dx", "dweight", "dbias"), grads, strict=True))

    def batch_norm_train(self, a, _, p):
        y, mean, var = F.batch_norm_train(a["x"], a["weight"], a["bias"], p["eps"])
        n = a["x"].size // a["x"].shape[3]
        running = F.running_statistics(a["running_mean"], a["running_var"], mean, var, n, p["momentum"])
        return {"y": y, "running_mean": running[0], "running_var": running[1]}

    def batch_norm_train_backward(self, a, _, p):
        grads = F.batch_norm_train_backward(a["dy"], a["x"], a["weight"], *F.batch_statistics(a["x"]), p["eps"])
        return dict(zip(("dx", "dweight", "dbias"), grads, strict=True))

    def relu(self, a, _, p):
        return {"y": F.relu(a["x"])}

    def relu_backward(self, a, _, p):
        return {"dx": F.relu_backward(a["dy"], F.relu(a["x"]))}

    def linear(self, a, _, p):
        return {"y": F.linear(a["x"], a["w"], a["b"])}

    def linear_backward(self, a, _, p):
        return dict(zip(("dx", "dw", "db"), F.linear_backward(a["dy"], a["x"], a["w"]), strict=True))

    def global_avg_pool(self, a, _, p):
        return {"y": F.global_avg_pool(a["x"])}

    def global_avg_pool_backward(self, a, _, p):
        return {"dx": F.global_avg_pool_backward(a["dy"], a["x"].shape)}

    def max_pool2d(self, a, _, p):
        return {"y": F.max_pool2d(a["x"], p["kernel"], p["stride"], p["padding"])}

    def max_pool2d_backward(self, a, _, p):
        return {"dx": F.max_pool2d_backward(a["dy"], a["x"], p["kernel"], p["stride"], p["padding"])}

    def softmax_cross_entropy(self, a, _, p):
        return {"loss": F.softmax_cross_entropy(a["logits"], a["labels"], p["smoothing"])}

    def softmax_cross_entropy_backward(self, a, _, p):
        return {"dlogits": F.softmax_cross_entropy_backward(a["logits"], a["labels"], p["smoothing"])}

    # ------------------------------------------------------------------------------------------- blocks and networks

    def basic_block(self, a, _, p):
        return {"y": basic_block(a["x"], a, p["stride"], p["train"], p["eps"])[0]}

    def basic_block_backward(self, a, _, p):
        _, tape = basic_block(a["x"], a, p["stride"], True, p["eps"])
        dx, grads = basic_block_backward(a["dy"], a, tape, p["stride"], p["eps"])
        return {"dx": dx} | {f"grad/{name}": value for name, value in grads.items()}

    def resnet(self, a, _, p):
        return {"logits": _network(p).forward(_state(a), a["x"])}

    def resnet_backward(self, a, _, p):
        net, state = _network(p), _state(a)
        logits, tape = net.forward(state, a["x"], train=True)
        return {"logits": logits} | {f"grad/{k}": v for k, v in net.backward(state, tape, a["dlogits"]).items()}

    def adabs(self, a, _, p):
        new = pcmref.adabs(_network(p), _state(a), a["x_calibration"], p["batch_size"])
        return {name: value for name, value in new.items() if "running_" in name}

    # --------------------------------------------------------------------------------------------------- the device

    def map(self, a, _, p):
        g_us, scale = pcmref.map_weights(a["w"], p["g_max_us"])
        return {"g_us": g_us, "scale": np.asarray(scale)}

    def program(self, a, noise, p):
        return {"g_prog_us": _model(p).program(a["g_target_us"], noise["z"])}

    def drift_exponent(self, a, noise, p):
        return {"nu": _model(p).drift_exponent(a["g_target_us"], noise["z"])}

    def drift(self, a, _, p):
        return {"g_drift_us": _model(p).drift(a["g_prog_us"], a["nu"], p["t_s"])}

    def read(self, a, noise, p):
        return {"g_us": _model(p).read(a["g_drift_us"], a["g_target_us"], p["t_s"], noise["z"])}

    def gdc(self, a, _, p):
        at_t0, at_t = (gdc.read_out([a[k]], p["g_max_us"], p["read_out"]) for k in ("g_t0_us", "g_t_us"))
        return {"alpha": np.asarray(gdc.factor(at_t0, at_t))}

    def dac(self, a, _, p):
        return {"q": Converter(**p["converter"]).convert(a["x"])}

    def adc(self, a, _, p):
        return {"q": Converter(**p["converter"]).convert(a["x"])}

    def crossbar_mvm(self, a, _, p):
        dac, adc = (None if p[k] is None else Converter(**p[k]) for k in ("dac", "adc"))
        bar = Crossbar(a["g_us"], p["scale"], tuple(p["tile"]), dac, adc, p["g_max_us"], p["alpha"])
        return {"y": bar.multiply(a["x"])}

    def chip(self, a, _, p):
        """Seed and names are enough: the draws are the package's own."""
        chip = pcmref.Chip.program(_state(a), _model(p), p["seed"])
        state = chip.read(p["t_s"], p["read"], p["gdc"])
        out = {f"g_prog_us/{k}": v for k, v in chip.g_prog_us.items()} | {f"nu/{k}": v for k, v in chip.nu.items()}
        out |= {f"weight/{k}": state[k] for k in chip.nu}
        return out | {"logits": _network(p).forward(state, a["x"])}

    # ------------------------------------------------------------------------------------------- training and draws

    def inject_weight_noise(self, a, _, p):
        return pcmref.inject_weight_noise(a, p["eta"], p["seed"], p["step"])

    def clip_weights(self, a, _, p):
        return pcmref.clip_weights(a, p["alpha"])

    def sgd_step(self, a, _, p):
        recipe = Recipe(momentum=p["momentum"], weight_decay=p["weight_decay"], nesterov=p["nesterov"])
        velocity = {"w": a["velocity"]} if "velocity" in a else {}
        state, velocity = sgd_step({"w": a["w"]}, {"w": a["grad"]}, velocity, p["learning_rate"], recipe)
        return {"w": state["w"], "velocity": velocity["w"]}

    def draws(self, _, __, p):
        seed, name, n = p["seed"], p["name"], p["n"]
        return {
            "raw": draws.raw(seed, name, n),
            "uniform": draws.uniform(seed, name, (n,)),
            "standard_normal": draws.standard_normal(seed, name, (n,)),
            "permutation": draws.permutation(seed, name, n),
            "integers": draws.integers(seed, name, p["high"], (n,)),
        }

    def sample(self, op, version, inputs, params, *, n: int, seed: int) -> dict[str, np.ndarray]:
        """n draws of a random operation; used by subclasses that say they take no noise."""
        if op == "inject_weight_noise":  # n copies of the crossbar on one: the largest weight stays what it is
            many = {name: np.concatenate([w] * n) for name, w in inputs.items()}
            noisy = pcmref.inject_weight_noise(many, params["eta"], seed)
            return {name: noisy[name].reshape(n, *w.shape) for name, w in inputs.items()}
        shape = (n, *inputs[next(iter(inputs))].shape)
        z = draws.standard_normal(seed, f"sample/{op}", shape)
        return self.run(op, version, {k: np.broadcast_to(v, shape) for k, v in inputs.items()}, {"z": z}, params)


def _network(params) -> ResNet:
    return ResNet(**{k: tuple(v) if isinstance(v, list) else v for k, v in params["network"].items()})


def _state(arrays) -> dict[str, np.ndarray]:
    return {name: value for name, value in arrays.items() if "." in name}


def _model(params) -> PCMModel:
    """The profile of a case with the package's own constants; only what a profile leaves open comes from the case."""
    wanted = params["model"]
    if wanted["profile"] == "g_max":
        return PCMModel(g_max_us=wanted["g_max_us"])
    return replace(getattr(PCMModel, wanted["profile"])(), nu_law=wanted["nu_law"])
