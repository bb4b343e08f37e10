"""Backends that are right and add up in another order, or are sampled: the checker must pass them everywhere."""

from dataclasses import replace

import numpy as np

from pcmref.golden.reference import Reference
from pcmref.nn import functional as F


class Reordered(Reference):
    """Sums over channels, inputs and pixels the other way round."""

    name = "reordered sums"

    def conv2d(self, a, _, p):
        return {"y": F.conv2d(a["x"][..., ::-1], a["w"][:, ::-1], p["stride"], p["padding"])}

    def conv2d_backward(self, a, _, p):
        dx, dw = F.conv2d_backward(a["dy"][..., ::-1], a["x"][..., ::-1], a["w"][::-1, ::-1], p["stride"], p["padding"])
        return {"dx": dx[..., ::-1], "dw": dw[::-1, ::-1]}

    def linear(self, a, _, p):
        return {"y": a["b"] + a["x"][:, ::-1] @ a["w"][:, ::-1].T}

    def global_avg_pool(self, a, _, p):
        return {"y": a["x"].sum((2, 1), dtype=a["x"].dtype) / a["x"][0, :, :, 0].size}

    def batch_norm(self, a, _, p):
        return {"y": (a["x"] - a["mean"]) / np.sqrt(a["var"] + a["var"].dtype.type(p["eps"])) * a["weight"] + a["bias"]}


class Blocked(Reference):
    """Matrix products and convolutions in blocks of two terms, added up one after the other."""

    name = "blocked products"

    def conv2d(self, a, _, p):
        parts = [np.s_[c : c + 2] for c in range(0, a["w"].shape[1], 2)]
        return {"y": sum(F.conv2d(a["x"][..., c], a["w"][:, c], p["stride"], p["padding"]) for c in parts)}

    def linear(self, a, _, p):
        parts = [np.s_[:, c : c + 2] for c in range(0, a["w"].shape[1], 2)]
        return {"y": sum(a["x"][c] @ a["w"][c].T for c in parts) + a["b"]}


class Sampled(Reference):
    """pcmref as a backend that takes no noise."""

    name = "pcmref, sampled"

    def capabilities(self):
        return replace(super().capabilities(), accepts_noise=False)


CORRECT = (Reference, Reordered, Blocked, Sampled)
