"""Where public codes disagree: one test a discrepancy, both sides in it (validation/discrepancies.md has the table).

pcmref's side is always computed. aihwkit's is measured where aihwkit is installed: its normal draws are replaced by
given ones, so that its formulas are seen without sampling. Elsewhere the profile `PCMModel.aihwkit()` holds its numbers.
"""

from dataclasses import replace

import numpy as np
import pytest

from pcmref import Chip, PCMModel, ResNet, clip_weights, draws, inject_weight_noise
from pcmref.nn import functional as F
from pcmref.pcm import gdc, moments
from pcmref.pcm.chip import Reading
from pcmref.training import Progress, Recipe, train_step
from tests.helpers.toolkit import inference_tile, near

JOSHI, AK, CS = PCMModel.joshi2020(), PCMModel.aihwkit(), PCMModel.crosssim()
DAY_S = 86_400.0
FLOAT32 = 4e-6  # aihwkit computes in float32: some 30 roundings of 6e-8


# ---------------------------------------------------------------------------------------------------- programming

X = np.array([0.0, 0.5, 1.0])


@pytest.mark.confirms(1)
def test_d01_programming_polynomial():
    assert JOSHI.programming_std_us(25 * X) == near(np.array([0.26348, 0.95271, 1.05538]))
    assert AK.programming_std_us(25 * X) == near(np.array([0.26348, 0.95271, 1.05538]))
    assert CS.programming_std_us(25 * X) == near(np.array([0.28639, 0.95528, 1.06552]))


def test_d01_d02_aihwkit_measured(toolkit):
    np.testing.assert_allclose(toolkit.program(25 * X, 1.0) - 25 * X, [0.26348, 0.95271, 1.05538], atol=1e-5)


def test_d02_sigma_is_in_microsiemens():
    assert JOSHI.programming_std_us(25.0) / 25 == near(0.0422, 4)  # the document's G_T in 0..1 would make it 105 %
    assert sum(JOSHI.programming) == near(1.05538)
    assert replace(JOSHI, g_max_us=50.0).programming_std_us(50.0) / 50 == near(0.0422, 4)


@pytest.mark.confirms(1)
def test_d29_read_noise_at_t0_beside_the_programming_noise_or_in_it():
    """As coded everywhere, a reading at t_0 scatters more than sigma_prog; taken out of it, exactly as much.

    rel: E[G^2] - (E G)^2 loses a factor (E G)^2/Var < 600 of some 20 roundings.
    """
    g = np.array([12.5, 25.0])
    contains = replace(JOSHI, programming_contains_read=True)
    assert np.sqrt(moments.conductance_moments(JOSHI, g, 20.0)[1]) == near(np.array([1.20, 1.40]), 2)
    assert np.sqrt(moments.conductance_moments(contains, g, 20.0)[1]) == pytest.approx(
        JOSHI.programming_std_us(g), rel=600 * 20 * 2.0**-53
    )
    assert JOSHI.programming_std_us(g) == near(np.array([0.95271, 1.05538]))
    assert contains.programming_std_us(g) == near(np.array([0.62036, 0.51600]))
    assert replace(contains, reads_noisily=False).programming_std_us(25.0) == contains.programming_std_us(25.0)


def test_d03_a_device_with_target_0():
    assert moments.programmed_moments(JOSHI, 0.0)[0] == near(0.10511)
    assert moments.programmed_moments(AK, 0.0)[0] == near(0.26348 * np.sqrt(1 / (2 * np.pi)), 12)
    assert CS.programming_std_us(0.25) == near(0.30524)


@pytest.mark.confirms(59)
def test_d03_crosssim_programs_no_device_below_a_quarter_microsiemens():
    chip = Chip.program({"fc.weight": np.array([[1.0, 0.0, -0.5]])}, CS)
    assert chip.g_target_us["fc.weight"].ravel() == pytest.approx([25, 0.25, 0.25, 0.25, 0.25, 12.625])
    exact = Reading(chip, 20.0, 0, chip.g_target_us).state()["fc.weight"]
    np.testing.assert_allclose(exact, [[1.0, 0.0, -0.5]], rtol=1e-15)


def test_d03_aihwkit_measured(toolkit):
    z = draws.standard_normal(0, "discrepancy/3", 20_000)
    got = toolkit.program(np.zeros(20_000), z)
    np.testing.assert_allclose(got, AK.program(np.zeros(20_000), z), atol=1e-6)
    variance = moments.programmed_moments(AK, 0.0)[1]
    assert abs(got.mean() - 0.10511) < 5.5 * np.sqrt(variance / 20_000)  # fails by chance once in 2e7


# ------------------------------------------------------------------------------------------- the pair, drift, time

PAIR_US, PAIR_NU = np.array([12.6, 0.3]), np.array([0.05, 0.1])


def net_at(model, t_s):
    """G+ - G- of the pair at t without read noise, as the profile keeps or collapses it."""
    g = PAIR_US if model.pair == "kept" else np.maximum([PAIR_US[0] - PAIR_US[1], PAIR_US[1] - PAIR_US[0]], 0)
    return np.subtract(*model.drift(g, PAIR_NU, t_s))


@pytest.mark.parametrize(("t_s", "kept", "collapsed"), [(DAY_S + 20, 8.1608, 8.0933), (DAY_S, 8.1609, 8.0934)])
def test_d04_kept_or_collapsed_pair(t_s, kept, collapsed):
    assert net_at(JOSHI, t_s) == near(kept, 4) and net_at(AK, t_s) == near(collapsed, 4)


@pytest.mark.confirms(61)
def test_d04_the_chip_keeps_or_collapses_as_its_profile_says():
    state = {"fc.weight": np.array([[0.4, -0.2, 0.0, 1.0]])}
    kept, collapsed = (Chip.program(state, m, seed=1).g_prog_us["fc.weight"] for m in (JOSHI, AK))
    np.testing.assert_array_equal(collapsed[0] - collapsed[1], kept[0] - kept[1])
    assert (collapsed.min(0) == 0).all() and (kept.min(0) > 0).any()


def test_d04_stretched_to_g_max_before_drift():
    """w = [1, .1], z = (1, 0), read at t_0 with z = 1: Q_s is of 2.5 uS times 25/26.05538."""
    weights = {"fc.weight": np.array([[1.0, 0.1]])}
    stretched, plain = (replace(JOSHI, pair="collapsed", q_argument=argument) for argument in ("stretched", "programmed"))
    for model, wanted in ((stretched, 2.92235), (plain, 2.91115)):
        chip = Chip.program(weights, model)
        g_prog = {"fc.weight": np.array([[[25 + 1.05538, 2.5]], [[0.0, 0.0]]])}
        chip = replace(chip, g_prog_us=g_prog)
        g_drift, of = chip.drifted("fc.weight", 20.0)
        assert model.read(g_drift, of, 20.0, 1.0)[0, 0, 1] == near(wanted)
    assert PCMModel.aihwkit().q_argument == "stretched"


def test_d04_aihwkit_measured(toolkit):
    toolkit.model.read_noise_scale = 0.0
    w = toolkit.tensor([[PAIR_US[0] - PAIR_US[1]]]) / 25
    nu = [toolkit.tensor([[v]]) for v in PAIR_NU]
    got = toolkit.call("apply_drift_noise", w, nu, DAY_S, z=[0.0, 0.0]) * 25
    assert float(got) == pytest.approx(net_at(AK, DAY_S + 20), rel=FLOAT32)


def test_d04_aihwkit_resplit_stretches_to_g_max_measured(toolkit):
    """Not in any document: the second split takes the largest programmed weight for G_max, so Q_s sees other x."""
    w, nu, t_inference = toolkit.tensor([[1.1, 0.11]]), [toolkit.tensor([[0.0, 0.0]])] * 2, DAY_S
    got = toolkit.call("apply_drift_noise", w, nu, t_inference, z=[1.0, 0.0])[0, 1] / 0.11 - 1
    band = np.sqrt(np.log((DAY_S + 20) / 500e-9))
    assert float(got) == pytest.approx(float(AK.read_noise_q(2.5)) * band, rel=20 * FLOAT32)
    assert float(got) > 1.05 * float(AK.read_noise_q(2.75)) * band


def test_d04_a_layer_with_the_same_draws_measured(monkeypatch):
    """Programming, drift, read noise and the stretch between them, in float64: some ten roundings of weights below 2."""
    torch, module = pytest.importorskip("torch"), pytest.importorskip("aihwkit.inference.noise.pcm")
    w = draws.standard_normal(1, "layer", (4, 6))
    chip = Chip.program({"fc.weight": w}, AK, seed=3)
    program, drift, read = (
        draws.standard_normal(3, f"{name}/fc.weight", (2, 4, 6)) for name in ("program", "drift", f"read/0/{DAY_S!r}")
    )
    z = iter([program[0], drift[0], program[1], drift[1], *read])
    monkeypatch.setattr(module, "randn_like", lambda g: torch.tensor(next(z)))
    theirs = module.PCMLikeNoiseModel(g_max=25.0)
    programmed, nu = theirs.apply_programming_noise(torch.tensor(w))
    got = theirs.apply_drift_noise(programmed, nu, DAY_S - 20)
    np.testing.assert_allclose(got.numpy(), chip.read(DAY_S)["fc.weight"], rtol=0, atol=10 * 2.0**-53 * 2)


@pytest.mark.confirms(8)
def test_d05_argument_of_q():
    q = JOSHI.read_noise_q(25 * np.array([1.0, 0.1, 0.01, 0.0081, 0.0]))
    assert q == near(np.array([0.0088, 0.039308, 0.175583, 0.2, 0.2]), 6)
    assert JOSHI.read_noise_q(25 * 0.0083) < 0.2
    state = {"fc.weight": np.array([[0.4, -0.01, 0.0, 1.0]])}
    for model, takes in ((JOSHI, "g_target_us"), (replace(AK, q_argument="programmed"), "g_prog_us")):
        chip = Chip.program(state, model, seed=2)
        z = draws.standard_normal(2, f"read/0/{DAY_S!r}/fc.weight", (2, 1, 4))
        g_drift = model.drift(chip.g_prog_us["fc.weight"], chip.nu["fc.weight"], DAY_S)
        wanted = model.read(g_drift, getattr(chip, takes)["fc.weight"], DAY_S, z)
        np.testing.assert_array_equal(chip.at(DAY_S).g_us["fc.weight"], wanted)


@pytest.mark.parametrize("x", [1.0, 0.1, 0.01, 0.004])
def test_d05_aihwkit_measured(toolkit, x):
    """It is given the programmed conductance only; sigma/G is our Q_s of it times the band."""
    got = toolkit.read(25 * x, 0.0, DAY_S, 1.0) / (25 * x) - 1
    assert got == pytest.approx(float(AK.read_noise_std_us(1.0, 25 * x, DAY_S + 20)), rel=20 * FLOAT32, abs=4e-7)


@pytest.mark.confirms(87)
def test_d30_read_noise_of_another_exponent_has_the_band_of_one_over_f_at_t0():
    gamma = replace(JOSHI, noise_exponent=1.21)
    assert gamma.read_band(20.0) == pytest.approx(JOSHI.read_band(20.0), rel=1e-14)
    assert gamma.read_band(DAY_S) / JOSHI.read_band(DAY_S) == near(4.00822)
    assert replace(JOSHI, noise_exponent=1 + 1e-9).read_band(DAY_S) == pytest.approx(JOSHI.read_band(DAY_S), rel=1e-6)


@pytest.mark.confirms(7)
def test_d06_time():
    assert AK.drift(1.0, 0.049, 60 + 20.0) == near(0.93433)  # aihwkit's t_inference of 60 s
    assert JOSHI.drift(1.0, 0.049, 60.0) == near(0.94759)
    assert replace(JOSHI, t_0_s=27.36).drift(1.0, 0.049, 60.0) == near(0.96225)


def test_d06_aihwkit_measured(toolkit):
    toolkit.model.read_noise_scale = 0.0
    assert toolkit.read(1.0, 0.049, 60.0, 0.0) == near(0.93433)


@pytest.mark.confirms(4, 6)
def test_d07_law_of_nu():
    assert JOSHI.drift_exponent(0.0, -3.0) == near(-0.035, 12) and AK.drift_exponent(0.0, -3.0) == near(0.035, 12)


def test_d07_aihwkit_measured(toolkit):
    assert toolkit.exponent(0.0, -3.0) == pytest.approx(0.035, rel=FLOAT32)
    z = draws.standard_normal(0, "discrepancy/7", 300)
    g = 25 * draws.uniform(1, "discrepancy/7", 300)
    np.testing.assert_allclose(toolkit.exponent(g, z), AK.drift_exponent(g, z), atol=1e-6)


@pytest.mark.confirms(3, 5)
def test_d08_natural_logarithm_of_the_normalised_conductance():
    assert JOSHI.drift_exponent_mean(2.5) == near(0.06009)  # ln of uS and log10 both end at the lower bound, .049


def test_d08_aihwkit_measured(toolkit):
    assert toolkit.exponent(2.5, 0.0) == near(0.06009)


SIGMA_OVER_G = [(1.0, 20.0, 0.036818), (0.1, 20.0, 0.164458), (1.0, DAY_S, 0.044764)]


@pytest.mark.confirms(9)
@pytest.mark.parametrize(("x", "t_s", "ratio"), SIGMA_OVER_G)
def test_d09_full_read_noise_at_t_0(x, t_s, ratio):
    assert JOSHI.read_noise_std_us(1.0, 25 * x, t_s) == near(ratio, 6)
    assert JOSHI.drift(3.0, 0.1, 20.0) == 3.0


@pytest.mark.parametrize(("x", "t_s", "ratio"), SIGMA_OVER_G)
def test_d09_aihwkit_measured(toolkit, x, t_s, ratio):
    nu = 0.3 if t_s == 20 else 0.0
    assert toolkit.read(25 * x, nu, t_s - 20, 1.0) / (25 * x) - 1 == pytest.approx(ratio, abs=1e-6)


# ------------------------------------------------------------------------------------------- drift compensation

W_T0, W_T = np.array([[0.5, -0.4], [0.2, -0.1]]), np.array([[0.4, -0.36], [0.1, -0.08]])
ALPHAS = {"one-hot": 1.27660, "ones": 3.33333, "per column": np.array([1.18421, 1.66667])}


@pytest.mark.confirms(14)
@pytest.mark.parametrize("kind", ALPHAS)
def test_d10_read_out(kind):
    at = [gdc.read_out([np.maximum([25 * w, -25 * w], 0)], 25.0, kind) for w in (W_T0, W_T)]
    assert gdc.factor(*at) == near(ALPHAS[kind])
    assert (JOSHI.gdc_read_out, AK.gdc_read_out) == ("device sum", "one-hot")


def test_d10_aihwkit_measured(toolkit):
    drift = pytest.importorskip("aihwkit.inference.compensation.drift")
    for scheme, kind in ((drift.GlobalDriftCompensation(), "one-hot"), (drift.PerColumnDriftCompensation(), "per column")):
        inputs = scheme.get_readout_tensor(2)
        at = [scheme.readout(inputs @ toolkit.tensor(w).T) for w in (W_T0, W_T)]
        assert (at[0] / at[1]).numpy() == near(ALPHAS[kind])
    floor = drift.GlobalDriftCompensation().readout(toolkit.tensor(np.zeros((2, 2))))
    assert float(floor) == pytest.approx(gdc.read_out([np.zeros((2, 2, 2))], 25.0, "one-hot") / 25)


def test_d11_noise_in_the_baseline():
    """Ours is a reading at t_0, so it changes with the read index; the exact one is the current of the targets."""
    chip = Chip.program({"fc.weight": draws.standard_normal(0, "discrepancy/11", (4, 5))}, JOSHI)
    readings = [chip.at(20.0, read=r).currents()["fc.weight"] for r in range(3)]
    exact = Reading(chip, 20.0, 0, chip.g_target_us).currents()["fc.weight"]
    assert len(set(readings)) == 3 and all(0 < abs(r / exact - 1) < 0.5 for r in readings)
    for baseline, g_us in (("target", chip.g_target_us), ("programmed", chip.g_prog_us)):
        kept = Chip.program(chip.state, replace(JOSHI, gdc_baseline=baseline))
        later = kept.at(DAY_S, read=1).currents()["fc.weight"]
        assert kept.gdc_factors(DAY_S, read=1) == {"fc.weight": Reading(kept, 20.0, 1, g_us).currents()["fc.weight"] / later}
    later = chip.at(DAY_S, read=1).currents()["fc.weight"]
    assert chip.gdc_factors(DAY_S, read=1) == {"fc.weight": readings[1] / later}


def test_d11_aihwkit_measured(toolkit):
    """Devices without programming noise, yet the baseline differs from one programming to the next by default."""
    drift = pytest.importorskip("aihwkit.inference.compensation.drift")
    toolkit.model.prog_noise_scale = 0.0
    spread = []
    for scheme in (drift.GlobalDriftCompensation(), drift.GlobalDriftCompensationWithExactReference()):
        tile = inference_tile(toolkit, W_T0, drift_compensation=scheme)
        baselines = []
        for _ in range(4):
            toolkit.z = iter([0.0] * 4)
            tile.program_weights()
            baselines.append(float(tile.drift_baseline))
        spread.append(np.ptp(baselines))
    assert spread[0] > 0 and spread[1] == 0


# ------------------------------------------------------------------------------------------------------- training


def test_d26_clamped_law_of_nu():
    clamped = replace(JOSHI, nu_law="clamped")
    z = draws.standard_normal(0, "discrepancy/26", 20_000)
    nu = clamped.drift_exponent(np.full(20_000, 25.0), z)
    assert nu.min() == 0.049 and (JOSHI.drift_exponent(25.0, z) < 0.049).any()
    assert moments.drift_exponent_moments(clamped, 25.0)[0] == near(0.05219)
    assert moments.drift_exponent_moments(JOSHI, 25.0)[0] == near(0.049)


def test_d27_what_is_clipped_in_training():
    """Ours: the clean weights after the update, and never w + noise in the forward pass; the other code does the reverse."""
    net, x = ResNet(1, 2, (2,), (1,)), draws.standard_normal(0, "discrepancy/27", (4, 5, 5, 1))
    labels, start = np.array([0, 1, 0, 1]), Progress(0, net.init(seed=0, dtype=np.float64), {})
    (clipped, _, loss), (free, _, loss_free) = (
        train_step(net, start, x, labels, 0.05, Recipe(eta=0.3, alpha=alpha)) for alpha in (1.0, 0.0)
    )
    assert loss == loss_free
    for name, value in clip_weights(free, 1.0).items():
        np.testing.assert_array_equal(clipped[name], value)
    noisy = inject_weight_noise(start.state, 0.3)
    other = net.forward(clip_weights(noisy, 1.0), x, train=True)[0]
    assert F.softmax_cross_entropy(other, labels) != loss
    assert abs(free["conv1.weight"]).max() > abs(clipped["conv1.weight"]).max()
