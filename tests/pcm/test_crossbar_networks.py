"""A whole network on crossbars: ideal converters change nothing but rounding; fresh readings have the model's moments."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from pcmref import Chip, PCMModel, ResNet, adabs, draws, retention
from pcmref.nn import functional as F
from pcmref.pcm.crossbar import Converter, FreshReads, Periphery, multiply
from pcmref.pcm.moments import clipped_normal_moments, read_correlation

JOSHI = PCMModel.joshi2020()
DAY_S = 86_400.0


def normal(name, *shape, seed=0):
    return draws.standard_normal(seed, f"test crossbar/{name}", shape)


def chip_of(net, seed=0, model=JOSHI, dtype=np.float64):
    return Chip.program(net.init(seed=seed, dtype=dtype), model, seed=seed)


BATCH_NORM = ("weight", "bias", "running_mean", "running_var")


class Traced:
    """joshi32 in evaluation, layer by layer: what entered each convolution, what left its batch norm, what each relu gave."""

    def __init__(self, state, x, product=F.matrix_product):
        self.state, self.layers, self.relus, self.product = state, {}, [], product
        y = self.relu(self.conv_bn(x, "conv1", "bn1", 1, 1))
        self.blocks = [f"layer{s}.{b}." for s in (1, 2, 3) for b in range(5)]
        for name in self.blocks:
            stride = 1 if name[5] == "1" or not name.endswith(".0.") else 2
            down = f"{name}downsample.0" if f"{name}downsample.0.weight" in state else None
            shortcut = self.conv_bn(y, down, f"{name}downsample.1", stride, 0) if down else y
            hidden = self.relu(self.conv_bn(y, f"{name}conv1", f"{name}bn1", stride, 1))
            y = self.relu(self.conv_bn(hidden, f"{name}conv2", f"{name}bn2", 1, 1, shortcut))
        self.last, self.features = y, F.global_avg_pool(y)
        self.logits = F.linear(self.features, state["fc.weight"], state["fc.bias"], product)

    def conv_bn(self, x, conv, bn, stride, padding, plus=0):
        z = F.conv2d(x, self.state[f"{conv}.weight"], stride, padding, self.product)
        scale = self.state[f"{bn}.weight"] / np.sqrt(self.state[f"{bn}.running_var"] + F.BN_EPS)
        normalised = F.batch_norm(z, *(self.state[f"{bn}.{entry}"] for entry in BATCH_NORM))
        self.layers[conv] = (x, z, scale, normalised, normalised + plus, stride, padding)
        return normalised + plus

    def relu(self, x):
        self.relus.append(F.relu(x))
        return self.relus[-1]

    def logit_bound(self, u):
        """What the roundings of two such passes, one of them on tiles, can do to each logit: [classes].

        Evaluation is affine between the kinks, so the roundings of a layer reach a logit through its derivative by that layer,
        exactly: sum |d logit / d y| * (what may be lost at y), over all layers. A product is off by `terms` u |x||w|, as in
        `bound`, and four more for the weights' way through the conductances; batch norm's scale, its shift and the sum with the
        shortcut each round once a pass, by 2 u of what they give in both.
        """
        w, relus = self.state["fc.weight"], self.relus[::-1]
        features = abs(self.features)
        total = u * ((2 * w.shape[1] + 14) * (features @ abs(w).T + abs(self.state["fc.bias"])))[0]
        dy = F.global_avg_pool_backward(w, (len(w), *self.last.shape[1:]))
        total += 2 * u * (self.last[0, :, :, 0].size + 1) * (abs(w) @ features[0])

        def back(conv, dy):
            nonlocal total
            x, z, scale, normalised, y, stride, padding = self.layers[conv]
            w = self.state[f"{conv}.weight"]
            terms = 2 * w[0].size + 14
            lost = abs(scale) * (terms * F.conv2d(abs(x), abs(w), stride, padding) + 2 * abs(z))
            lost += 2 * abs(normalised) + 2 * abs(y)
            total += u * (abs(dy) * lost).sum((1, 2, 3))
            return F.conv2d_backward(dy * scale, np.zeros((len(dy), *x.shape[1:])), w, stride, padding)[0]

        for name, out, hidden in zip(self.blocks[::-1], relus[0::2], relus[1::2], strict=False):
            dy = F.relu_backward(dy, out)
            dx = back(f"{name}conv1", F.relu_backward(back(f"{name}conv2", dy), hidden))
            dy = dx + (back(f"{name}downsample.0", dy) if f"{name}downsample.0" in self.layers else dy)
        back("conv1", F.relu_backward(dy, relus[-1]))
        return 1.01 * total


@pytest.mark.confirms(25, 81)
@pytest.mark.parametrize("tile", [(256, 256), (50, 13), (1000, 1)])
def test_ideal_converters_and_any_tiling_leave_joshi32s_logits_within_the_derived_bound(tile):
    """The bound holds while no relu changes its mind, which is looked at; one device off by 10^-8 of its range breaks it."""
    net, x = ResNet.joshi32(), normal("image", 1, 12, 12, 3)
    chip = chip_of(net)
    reading = chip.at(DAY_S, periphery=Periphery(tile))
    tiled, plain = reading.state(), replace(reading, periphery=None).state()
    digital, on_tiles = Traced(plain, x), Traced(tiled, x, multiply)
    limit = digital.logit_bound(2.0**-53)
    np.testing.assert_array_equal(digital.logits, net.forward(plain, x, engine="plain"))
    assert all(np.array_equal(a > 0, b > 0) for a, b in zip(digital.relus, on_tiles.relus, strict=True))
    difference = abs(net.forward(tiled, x, product=multiply) - digital.logits)[0]
    assert (difference <= limit).all() and difference.max() > 0
    assert (limit < 1e-9 * abs(digital.logits).max()).all()
    wrong = reading.g_us["layer2.0.conv1.weight"].copy()
    wrong[0, 3, 2, 1, 1] += 25e-8
    moved = net.forward(replace(reading, g_us=reading.g_us | {"layer2.0.conv1.weight": wrong}).state(), x, product=multiply)
    assert (abs(moved - digital.logits)[0] > limit).any()


@pytest.mark.confirms(81)
def test_layers_take_stride_padding_bias_and_compensation():
    """resnet8's every layer, in training mode as adabs runs it, and GDC: the state of the chip, computed on crossbars."""
    net, x = ResNet.resnet8(in_channels=1), normal("images", 6, 9, 8, 1)
    chip = chip_of(net, seed=1)
    digital_reading = chip.at(DAY_S).compensated()
    reading = replace(digital_reading, periphery=Periphery((20, 5)))
    digital, analog = digital_reading.state(), reading.state()
    np.testing.assert_allclose(net.forward(analog, x, product=multiply), net.forward(digital, x), rtol=1e-10, atol=1e-12)
    few = Periphery((20, 5), Converter(4), Converter(6, 2.0)).crossbars(chip, reading.g_us)
    assert all((bar.tile, bar.dac.steps, bar.adc.steps, bar.g_max_us) == ((20, 5), 4, 6, 25) for bar in few.values())
    assert (analog["fc.bias"] == 0).all() and (digital["fc.bias"] != 0).any()
    a, d = adabs(net, analog, x, product=multiply), adabs(net, digital, x)
    for name in d:
        if "running_" in name:
            np.testing.assert_allclose(a[name], d[name], rtol=1e-10, atol=1e-12)
    baseline, later = (chip.at(t, periphery=Periphery((20, 5))).currents() for t in (20.0, DAY_S))
    for name, alpha in digital_reading.factors.items():
        assert baseline[name] / later[name] == pytest.approx(alpha, rel=1e-13)


@pytest.mark.parametrize(("converters", "changes"), [({}, False), ({"dac": Converter(4), "adc": Converter(8, 12.0)}, True)])
def test_a_study_on_crossbars(converters, changes):
    """Ideal converters leave every accuracy as it is; five and nine levels do not."""
    net = ResNet.resnet8(in_channels=1)
    x, state = normal("study", 48, 8, 8, 1).astype(np.float32), net.init(dtype=np.float32)
    labels = net.forward(state, x).argmax(1)
    settings = {"times_s": [20.0, DAY_S], "n_chips": 1, "x_calibration": x[:20], "batch_size": 10}
    plain = retention(net, state, JOSHI, x, labels, **settings)
    tiled = retention(net, state, JOSHI, x, labels, **settings, periphery=Periphery((24, 32), **converters))
    assert ([r.accuracy for r in plain.rows] != [r.accuracy for r in tiled.rows]) == changes
    assert tiled.settings["periphery"]["tile"] == (24, 32) and plain.settings["periphery"] is None


# ---------------------------------------------------------------------------------------------------- fresh readings


@pytest.mark.confirms(40)
@pytest.mark.parametrize(("apart_s", "devices"), [(None, 1), (1e-6, 1), (1e-3, 3)])
def test_fresh_readings_have_the_moments_of_readings(apart_s, devices):
    """Many products of one input: mean and variance of clipped readings to first principles, and independent of each other.

    Given what products 1 us or 1 ms apart share, which is the reading's own draw; with several devices a sign their mean.
    The family-wise error of the three times eleven checks is 1e-6. Some devices are weak enough for the clip at 0 to matter.
    """
    net, n = ResNet(1, 3, (3,), (1,)), 40_000
    model = replace(JOSHI, q_max=0.9, devices_per_weight=devices)
    chip = Chip.program(net.init(dtype=np.float64), model, seed=2)
    around = Periphery((2, 2), fresh=True, products_apart_s=apart_s)
    layer = chip.at(DAY_S, 1, periphery=around).state()["fc.weight"]
    assert (layer.bar.fresh.seed, layer.bar.fresh.label) == (2, "product/1/86400.0/fc.weight")
    v = np.array([0.3, -1.0, 0.6])
    y = multiply(np.tile(v, (n, 1)), layer)
    names, scale = ("fc.weight", "fc.bias"), chip.scale["fc.weight"]
    weights = [chip.state[name] for name in names]

    def matrix(arrays):  # [devices, 2, O, K]
        return np.concatenate([a.reshape(-1, 2, 3, w.size // 3) for a, w in zip(arrays, weights, strict=True)], -1)

    g_drift = matrix([chip.drifted(name, DAY_S)[0] for name in names])
    g_target = matrix([chip.g_target_us[name] for name in names])
    slow = matrix([draws.standard_normal(2, f"read/1/86400.0/{name}", chip.nu[name].shape) for name in names])
    c = 0 if apart_s is None else read_correlation(JOSHI, DAY_S, DAY_S + apart_s)
    z = np.sqrt(c) * slow + np.sqrt(1 - c) * normal("fresh", 2000, *g_drift.shape)
    each = model.read(g_drift, g_target, DAY_S, z)
    assert (each == 0).any()
    readings, std = each.mean(1), model.read_noise_std_us(g_drift, g_target, DAY_S)
    mean, variance = clipped_normal_moments(g_drift + np.sqrt(c) * std * slow, np.sqrt(1 - c) * std)
    mean, variance = mean.mean(0), variance.mean(0) / devices
    inputs = np.append(v, 1.0)
    y_mean, y_variance = (mean[0] - mean[1]) @ inputs / scale, (variance.sum(0) @ inputs**2) / scale**2
    limit = stats.norm.isf(1e-6 / (2 * 33))
    assert (abs(y.mean(0) - y_mean) <= limit * np.sqrt(y_variance / n)).all()
    assert (abs(y.var(0) / y_variance - 1) <= limit * np.sqrt(2 / n)).all()
    sampled = (readings[:, 0] - readings[:, 1]) @ inputs / scale
    assert (abs(sampled.mean(0) - y_mean) <= limit * np.sqrt(y_variance / 2000)).all()
    assert abs(np.corrcoef(y[:-1, 0], y[1:, 0])[0, 1]) <= limit / np.sqrt(n) >= abs(np.corrcoef(y.T)[0, 1])


@pytest.mark.confirms(40)
def test_fresh_noise_is_replayed_from_its_name():
    """z is the draw named after layer, time, inputs and tile; other inputs, other noise; no noise where v is 0."""
    noise = FreshReads(np.array([[4.0, 9.0], [1.0, 0.0]]), 3, "product/60.0/fc.weight")
    x = np.array([[1.0, 0.0], [0.0, 0.0], [0.6, 0.8]])
    part = slice(0, 2), slice(0, 2)
    got = noise.noise_us(x)(x, part)
    z = draws.standard_normal(3, f"product/60.0/fc.weight/{hashlib.sha256(x.tobytes()).hexdigest()}/0/0", (3, 2))
    np.testing.assert_allclose(got, z * np.array([[2, 3], [0, 0], [np.sqrt(0.36 * 4 + 0.64), 1.8]]), rtol=1e-14)
    assert (noise.noise_us(2 * x)(x, part)[0] != got[0]).all()


def test_a_study_with_fresh_readings_repeats_and_is_plain_where_nothing_is_noisy():
    """The same to the bit for any number of workers; without read noise the study on tiles, with it another one."""
    net = ResNet.resnet8(in_channels=1)
    x, state = normal("study", 48, 8, 8, 1).astype(np.float32), net.init(dtype=np.float32)
    labels = net.forward(state, x).argmax(1)
    settings = {"x": x, "labels": labels, "times_s": [DAY_S], "n_chips": 1, "x_calibration": x[:20], "batch_size": 10}
    chip = Chip.program(state, JOSHI, seed=0)
    for model in (replace(JOSHI, reads_noisily=False), JOSHI):
        tiled, fresh = (retention(net, state, model, **settings, periphery=Periphery(fresh=f)) for f in (False, True))
        assert (tiled.rows == fresh.rows) == (not model.reads_noisily)
    at_day = chip.at(DAY_S, periphery=Periphery(fresh=True)).compensated().state()
    one, two = (net.forward(at_day, x, workers=workers, product=multiply) for workers in (1, 2))
    np.testing.assert_array_equal(one, two)
