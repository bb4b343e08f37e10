"""aihwkit 1.2.0's device functions behind pcmref's backend protocol, called one by one; it draws its own noise.

    pcmref golden check validation.peers.aihwkit_backend:Backend --dtype float32

Conductances in uS; pcmref's t_s counts from programming, aihwkit's t_inference from t_0 = 20 s (D6).
"""

import aihwkit
import numpy as np
import torch
from aihwkit.inference import PCMLikeNoiseModel
from aihwkit.inference.compensation.drift import GlobalDriftCompensation
from aihwkit.inference.converter.conductance import SinglePairConductanceConverter

from pcmref.golden import Capabilities, NamedBackend, Unsupported

T_0_S = 20.0


class Backend(NamedBackend):
    """map, drift, gdc deterministic; program, drift_exponent, read and the weight modifier sampled."""

    name, version = "aihwkit", aihwkit.__version__

    def capabilities(self) -> Capabilities:
        return Capabilities(dtypes=("float32",), accepts_noise=False, deterministic=False)

    def tensor(self, array):
        return torch.from_numpy(np.array(array))

    def map(self, w, g_max_us):
        pair, how = SinglePairConductanceConverter(g_max=g_max_us).convert_to_conductances(w)
        return torch.stack(pair), how["scale_ratio"]

    def drift(self, g_prog_us, nu, model, t_s):
        """The toolkit's power law with its read noise switched off."""
        law = PCMLikeNoiseModel(g_max=model["g_max_us"], read_noise_scale=0.0)
        return law.apply_drift_noise_to_conductance(g_prog_us, nu, t_s - T_0_S)

    def gdc(self, g_t0_us, g_t_us, read_out, g_max_us):
        """Its read-out of the identity matrix, on the matrix of net conductances in units of G_max."""
        if read_out != "one-hot":
            raise Unsupported("the toolkit reads one-hot inputs (D10)")
        at_t0, at_t = (self._read_out((g[0] - g[1]) / g_max_us) for g in (g_t0_us, g_t_us))
        return at_t0 / at_t

    def _read_out(self, w):
        compensation = GlobalDriftCompensation()
        readout = compensation.get_readout_tensor(w.shape[1]) @ w.T
        return compensation.readout(readout)

    def sample(self, op, version, inputs, params, *, n, seed):
        if op not in ("program", "drift_exponent", "read"):
            raise Unsupported(f"not one of the toolkit's device functions: {op}")
        torch.manual_seed(seed)
        a = {k: self.tensor(v) for k, v in inputs.items()}
        model = PCMLikeNoiseModel(g_max=params["model"]["g_max_us"])
        if op == "program":
            return {"g_prog_us": model.apply_programming_noise_to_conductance(repeated(a["g_target_us"], n)).numpy()}
        if op == "drift_exponent":
            return {"nu": model.generate_drift_coefficients(repeated(a["g_target_us"], n)).numpy()}
        g = repeated(a["g_drift_us"], n)  # read: nu = 0, the drifted conductance handed over as the programmed one
        return {"g_us": model.apply_drift_noise_to_conductance(g, torch.zeros_like(g), params["t_s"] - T_0_S).numpy()}


def repeated(values, n):
    return values.expand(n, *values.shape).clone()
