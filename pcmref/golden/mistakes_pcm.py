"""Mistakes of the device, of training and of the draws; each docstring says the effect, then whom it hits."""

import numpy as np

from pcmref.golden.mistakes import changed, mistake, without


@mistake("device", "map crossbar_mvm")
def pair_swapped(own, **a):
    """exchanges plus and minus devices: every weight has the other sign
    Hits: hardware with the other order of columns"""
    return own(g_us=a["g_us"][::-1]) if "g_us" in a else (out := own()) | {"g_us": out["g_us"][::-1].copy()}


@mistake("device", "map")
def scale_from_the_largest(own, w, **_):
    """scales by the largest weight, not the largest magnitude: conductances beyond G_max are cut
    Hits: mappings tested with positive extremes"""
    top = w.max(initial=0)
    return own(w=np.clip(w, -top, top)) if top > 0 else own()


@mistake("range", "map")
def empty_crossbar(own, w, g_max_us, **_):
    """takes a scale of 1e8 G_max where all weights are 0
    Hits: pruned networks"""
    return own() | ({} if w.any() else {"scale": np.asarray(1e8 * g_max_us, w.dtype)})


@mistake("constants", "program drift_exponent read inject_weight_noise")
def sigma_off(own, **a):
    """has noise 2 % too wide
    Hits: coefficients recalled, rounded or in other units"""
    return own(z=1.02 * a["z"]) if "z" in a else own(eta=1.02 * a["eta"])


@mistake("device", "program read")
def negative_conductance(own, z, **a):
    """leaves conductances below 0 where the noise is larger than the target
    Hits: vectorised samplers without a clip"""
    centre = a.get("g_drift_us", a["g_target_us"])
    return {name: np.where(v == 0, 2 * centre - own(z=-z)[name], v) for name, v in own().items()}


@mistake("statistics", "program drift_exponent read")
def draws_correlated(own, z, **_):
    """gives the last two devices of a row the same draw
    Hits: generators seeded alike in every thread"""
    z = np.array(z)
    z[..., -2:] = z[..., -1:]
    return own(z=z)


@mistake("device", "drift_exponent")
def exponent_folded(own, **_):
    """takes the magnitude of the drift exponent (D7, D26)
    Hits: toolkits, which differ here"""
    return {"nu": np.abs(own()["nu"])}


@mistake("device", "drift_exponent")
def exponent_of_the_other_sign(own, **_):
    """gives the drift exponent with the other sign
    Hits: code that carries the sign in the exponent"""
    return {"nu": -own()["nu"]}


@mistake("device", "drift")
def times_swapped(own, nu, **_):
    """(t_0/t)^-nu: conductances grow
    Hits: code that carries the sign in nu and in the ratio"""
    return own(nu=-nu)


@mistake("convention", "drift")
def time_from_t0(own, t_s, model, **_):
    """counts time from t_0, not from programming (D6)
    Hits: toolkits that take t_inference"""
    return own(t_s=t_s + model["t_0_s"])


@mistake("device", "read")
def noise_of_the_wrong_conductance(own, g_drift_us, model, **_):
    """takes Q_s from the drifted conductance instead of the target (D5)
    Hits: toolkits, whose devices forget their targets"""
    return own(g_target_us=np.minimum(g_drift_us, model["g_max_us"]))


@mistake("device", "read")
def noise_of_another_time(own, model, **_):
    """takes read noise as constant in time
    Hits: models measured at one time"""
    return own(t_s=model["t_0_s"])


@mistake("device", "gdc")
def compensation_inverted(own, g_t0_us, g_t_us, **_):
    """multiplies with what it should divide by
    Hits: drift compensation moved from one toolkit to another"""
    return own(g_t0_us=g_t_us, g_t_us=g_t0_us)


@mistake("device", "gdc")
def read_out_of_another_kind(own, read_out, **_):
    """compensates drift by another sum of currents (D10)
    Hits: drift compensation moved from one toolkit to another"""
    return own(read_out="ones" if read_out == "device sum" else "device sum")


@mistake("device", "dac adc")
def codes_off_by_one(own, converter, **_):
    """has one level more (D20)
    Hits: converters described by their bits"""
    return own(converter=converter | {"steps": converter["steps"] + 1})


@mistake("rounding", "dac adc")
def ties_the_other_way(own, converter, **_):
    """rounds values in the middle of two codes away from 0 instead of to even, or the reverse (D22)
    Hits: round() of C against rint() and NumPy"""
    return own(converter=converter | {"rounding": "half-away" if converter["rounding"] == "half-even" else "half-even"})


@mistake("convention", "dac adc")
def clip_after_rounding(own, converter, **_):
    """clips after rounding instead of before, or the reverse (D21)
    Hits: converters with an odd number of steps"""
    return own(converter=converter | {"order": "round first" if converter["order"] == "clip first" else "clip first"})


@mistake("device", "crossbar_mvm")
def one_converter_for_all_tiles(own, g_us, **_):
    """adds up tiles before the ADC: fewer quantisation errors than hardware has
    Hits: simulators that convert a layer's result"""
    return own(tile=list(g_us.shape[1:]))


@mistake("device", "crossbar_mvm chip")
def compensation_forgotten(own, **a):
    """leaves out the drift compensation
    Hits: digital post-processing moved between layers"""
    return own(gdc=False) if "gdc" in a else own(alpha=1.0)


@mistake("draws", "chip inject_weight_noise draws")
def stream_of_another_array(own, seed, **_):
    """takes the draws of another seed: right statistics, another chip
    Hits: replays in another language"""
    return own(seed=seed + 1)


@mistake("constants", "program drift_exponent read map crossbar_mvm")
def g_max_hard_coded(own, **a):
    """takes 25 uS for G_max
    Hits: code from one device"""
    return own(model=a["model"] | {"profile": "joshi2020", "g_max_us": 25.0}) if "model" in a else own(g_max_us=25.0)


@mistake("range", "drift read")
def year_at_most(own, t_s, **_):
    """is wrong for times beyond a year: seconds in 32 bits, tables that end
    Hits: retention studies of ten years"""
    return own(t_s=min(t_s, 31_536_000.0))


# --------------------------------------------------------------------------------------------------------- training and draws


@mistake("convention", "inject_weight_noise clip_weights")
def crossbar_cut_apart(own, state, **_):
    """gives weights and bias of the last layer each their own scale or deviation
    Hits: code that goes parameter by parameter"""
    return {name: own(state={name: w})[name] for name, w in state.items()}


@mistake("statistics", "clip_weights")
def sample_deviation(own, state, alpha, **_):
    """clips at a multiple of the sample standard deviation (D19)
    Hits: torch.std, whose default is the sample's"""
    n = sum(w.size for w in state.values())
    return own(alpha=alpha * (n / (n - 1)) ** 0.5)


@mistake("convention", "sgd_step")
def momentum_of_another_kind(own, nesterov, **_):
    """takes Nesterov's momentum for heavy ball, or the reverse
    Hits: optimisers of frameworks, which differ here"""
    return own(nesterov=not nesterov)


@mistake("convention", "sgd_step")
def decay_forgotten(own, **_):
    """leaves the weight decay out
    Hits: optimisers whose default is none"""
    return own(weight_decay=0.0)


@mistake("draws", "draws")
def counter_from_zero(own, n, **_):
    """starts Philox at block 0
    Hits: generators of other libraries"""
    out = own()
    return out | {"raw": np.concatenate([np.zeros(4, np.uint64), out["raw"]])[:n]}


@mistake("draws", "draws")
def seed_cut(own, seed, **_):
    """cuts a seed to 64 bits
    Hits: C, in which large integers are not what they are here"""
    return own(seed=seed % 2**64)


@mistake("indexing", "program drift_exponent drift read")
def index_of_16_bits(own, **_):
    """is wrong for more than 65,536 devices
    Hits: simulators tested on small crossbars"""
    return changed(own(), lambda v: without(0, 65_536)(v.reshape(-1)).reshape(v.shape))
