"""Where public codes disagree on scales, clips and codes: D13, D19 to D22 and D28, both sides (see test_discrepancies.py)."""

import numpy as np
import pytest

from pcmref import PCMModel, clip_weights, map_weights, unmap_weights
from pcmref.pcm.crossbar import Converter, Crossbar
from tests.helpers.toolkit import inference_tile, near

JOSHI = PCMModel.joshi2020()
FLOAT32 = 4e-6  # aihwkit computes in float32: some 30 roundings of 6e-8


@pytest.mark.confirms(12)
def test_d13_scope_of_the_scale():
    w, noise = np.array([[1.0], [0.1]]), []
    for per_tile in (False, True):
        bar = Crossbar.of_weights(w, (1, 1), per_tile)
        noise.append((JOSHI.programming_std_us(bar.g_us[0]) / bar.scale)[1, 0])
    assert noise == near(np.array([0.01793, 0.00422]))


def test_d13_aihwkit_measured(toolkit):
    """A tile is programmed by its own largest weight: z = 1 on the plus device of .1, alone and beside a 1."""
    noise = []
    for w in ([[1.0, 0.1]], [[0.1]]):
        tile = inference_tile(toolkit, np.array(w), drift_compensation=None)
        toolkit.z = iter([1.0, 0.0, 0.0, 0.0])  # plus device, its exponent, minus device, its exponent
        tile.program_weights()
        noise.append(float(tile.programmed_weights[0, -1]) - 0.1)
    assert noise == near(np.array([0.01793, 0.00422]))


W_CLIP = np.array([[1.0, 2.0, 3.0, 4.0]])


@pytest.mark.confirms(38)
def test_d19_sigma_of_the_clip():
    assert clip_weights({"fc.weight": W_CLIP}, 1.0)["fc.weight"].max() == near(1.11803)
    assert (W_CLIP.std(ddof=1), np.sqrt((W_CLIP**2).mean())) == (near(1.29099), near(2.73861))


def test_d19_aihwkit_measured(toolkit):
    parameters = pytest.importorskip("aihwkit.simulator.parameters")
    clip = parameters.WeightClipParameter(type=parameters.WeightClipType.LAYER_GAUSSIAN, sigma=1.0)
    tile = inference_tile(toolkit, W_CLIP, clip=clip)
    tile.post_update_step()
    assert float(tile.get_weights()[0].max()) == near(1.29099)


def toolkit_input(toolkit, x, resolution):
    """x after aihwkit's DAC with bound 1."""
    analog = pytest.importorskip("aihwkit.simulator.tiles.analog_mvm")
    parameters = pytest.importorskip("aihwkit.simulator.parameters")
    io = parameters.IOParameters(inp_res=resolution, inp_bound=1.0, inp_noise=0.0)
    return analog.AnalogMVM._prepare_input(toolkit.tensor(x), 1.0, False, False, io).numpy()


FINE = np.linspace(-1, 1, 20_001)


@pytest.mark.confirms(65)
def test_d20_levels_of_8_bits():
    assert len(np.unique(Converter.of_bits(8).convert(FINE))) == 255
    assert len(np.unique(Converter(256).convert(FINE))) == 257
    no_zero = Converter(255, origin="end").convert(FINE)
    assert len(np.unique(no_zero.round(12))) == 256 and abs(no_zero).min() > 0.0039


def test_d20_aihwkit_measured(toolkit):
    assert [len(np.unique(toolkit_input(toolkit, FINE, 1 / n))) for n in (256, 254)] == [257, 255]


def test_d21_clamp_order():
    x = np.array([1.0])
    assert Converter(255, order="round first").convert(x)[0] == 1.0
    assert Converter(255).convert(x)[0] == near(1.0039216, 7)


def test_d21_aihwkit_measured(toolkit):
    """Above the range it returns the limit, which is no code; at x = 1 itself float32 loses the tie: 127 steps."""
    assert toolkit_input(toolkit, [1.01, 1.0], 1 / 255).tolist() == [1.0, near(0.9960784, 6)]


@pytest.mark.confirms(24)
def test_d22_ties():
    half = Converter(254).step / 2
    assert [Converter(254, rounding=r).convert(np.array([half]))[0] for r in ("half-even", "half-away")] == [0, 2 * half]


def test_d22_aihwkit_measured(toolkit):
    """PyTorch's rounding in the DAC; the C++ weight modifier's in DISCRETIZE (its step there: discrepancy D18)."""
    assert toolkit_input(toolkit, [1 / 4], 1 / 4)[0] == 0
    parameters = pytest.importorskip("aihwkit.simulator.parameters")
    kind = parameters.WeightModifierType.DISCRETIZE
    modifier = parameters.WeightModifierParameter(type=kind, res=0.25, sto_round=False, rel_to_actual_wmax=True)
    perfect = parameters.IOParameters(is_perfect=True)
    tile = inference_tile(toolkit, np.array([[1.0, 0.125, -0.125]]), modifier=modifier, forward=perfect)
    tile.post_update_step()
    modified = tile.tile.forward(toolkit.torch.eye(3), False, False, False, False, False)
    assert modified.ravel().tolist() == [1.0, 0.25, -0.25]


ZEROS = np.zeros((2, 3))


def test_d28_scale_of_a_crossbar_of_zeros():
    """Every target is 0 whatever the scale; it decides what the noise of the devices is worth as a weight."""
    g_us, scale = map_weights(ZEROS, 25.0)
    assert scale == 2.0**1010 and not g_us.any()
    programmed = JOSHI.program(g_us, np.array([1.0, 0.0])[:, None, None])
    assert unmap_weights(programmed, scale) == pytest.approx(np.full(ZEROS.shape, 2.4014e-305), rel=1e-4, abs=0)


def test_d28_aihwkit_measured(toolkit):
    conductance = pytest.importorskip("aihwkit.inference.converter.conductance")
    converter = conductance.SinglePairConductanceConverter(g_max=25.0)
    (plus, minus), how = converter.convert_to_conductances(toolkit.tensor(ZEROS))
    assert float(how["scale_ratio"]) == pytest.approx(2.5e8, rel=FLOAT32) and not plus.any() and not minus.any()
    noisy = toolkit.tensor(toolkit.program(plus.numpy(), 1.0))
    back = converter.convert_back_to_weights([noisy, minus], how).numpy()
    assert back == pytest.approx(np.full(ZEROS.shape, 1.0539e-9), rel=1e-4)
