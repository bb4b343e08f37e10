"""The lab page's numbers: every embedded table against pcmref's own functions, and the sampled against the closed forms.

The sampling checks have a family-wise error of 1e-6, split evenly.
"""

import base64
import re
import struct
import sys
import zlib

import numpy as np
import pytest
from scipy import integrate
from scipy.special import log_softmax, ndtr, ndtri
from scipy.stats import chi2

import pcmref
from pcmref import adabs, cli, draws
from pcmref.cli import lab
from pcmref.experiments.driver import COMPENSATIONS
from pcmref.experiments.pictures import COLOURS, PALETTE
from pcmref.files import networks
from pcmref.pcm import moments
from tests.helpers import small_lab

MODEL, SETTINGS, TIMES_S = small_lab.MODEL, small_lab.SETTINGS, small_lab.TIMES_S
FULL = lab.Settings()
CLOSE = {"rel": 1e-5, "abs": 1e-12}  # the page keeps 6 digits


@pytest.fixture(scope="module")
def data():
    return small_lab.embedded(small_lab.page())


# ------------------------------------------------------------------------------------------------------------- devices


@pytest.mark.parametrize(("g", "t_s"), [(0.0, 20.0), (0.25, 86_400.0), (1.0, 3.2e7), (7.5, 3600.0), (25.0, 3.2e7)])
def test_the_distribution_of_a_reading_is_a_double_integral_in_another_order(g, t_s):
    """Given G_P > 0 and nu, G <= c has the chance Phi((c/G_D - 1)/r): quadrature over both, which lab.py never does."""
    r = MODEL.read_noise_std_us(1.0, g, t_s)
    std_us = MODEL.programming_std_us(g)
    mean, variance = moments.conductance_moments(MODEL, g, t_s)
    levels_us = np.array([0.0, *(max(mean + k * np.sqrt(variance), 0.02) for k in (-1.0, 0.5))])
    z_nu, p_nu = np.polynomial.hermite_e.hermegauss(30)
    nodes = list(zip(z_nu, p_nu / p_nu.sum(), strict=True))
    wanted = []
    for c in levels_us:
        empty = ndtr(-g / std_us)

        def given(z, z_n, c=c):
            g_drift_us = MODEL.drift(MODEL.program(g, z), MODEL.drift_exponent(g, z_n), t_s)
            return ndtr((c / g_drift_us - 1) / r) * np.exp(-z * z / 2) / np.sqrt(2 * np.pi)

        low = -g / std_us + 1e-12
        inner = [(p, integrate.quad(given, low, max(low, 0) + 9, args=(z,), limit=200)[0]) for z, p in nodes if p > 1e-12]
        wanted.append(empty + sum(p * part for p, part in inner))
    assert lab.conductance_distribution(MODEL, levels_us, g, t_s) == pytest.approx(wanted, abs=3e-5)


@pytest.mark.parametrize(("g", "t_s"), [(0.0, 3.2e7), (0.5, 20.0), (2.5, 86_400.0), (20.0, 3600.0)])
def test_the_distribution_has_the_exact_mean_and_variance(g, t_s):
    """E G = integral of 1 - F, E G^2 = integral of 2 g (1 - F); g = s^2, as F is steep at 0 for weak devices."""
    mean, variance = moments.conductance_moments(MODEL, g, t_s)
    s = np.linspace(0, np.sqrt(mean + 60 * np.sqrt(variance)), 601)
    above = 1 - lab.conductance_distribution(MODEL, s**2, g, t_s)
    assert integrate.simpson(2 * s * above, x=s) == pytest.approx(mean, rel=1e-4)
    assert integrate.simpson(4 * s**3 * above, x=s) == pytest.approx(variance + mean**2, rel=1e-3)


def test_every_histogram_of_the_full_page_follows_its_closed_form():
    tables = [lab.device_table(MODEL, g, FULL) for g in FULL.targets_us]
    rows = [(table, row) for table in tables for row in (table["programmed"], *table["read"])]
    n, share = FULL.n_devices, 1e-6 / (3 * len(rows))
    assert len(rows) == 144 and n == 20_000
    for _, row in rows:
        (sampled, exact), (zero, p_zero) = row["shares"], row["zero"]
        rest, p_rest = 1 - zero - sampled.sum(), 1 - p_zero - exact.sum()  # beyond the axis
        counts = n * np.array([zero, rest, *sampled])
        expected = n * np.array([p_zero, p_rest, *exact])
        big = expected >= 10
        counts, expected = (np.append(v[big], v[~big].sum()) for v in (counts, expected))
        if expected[-1] < 5:
            counts, expected = (np.append(v[:-2], v[-2:].sum()) for v in (counts, expected))
        statistic = (np.square(counts - expected) / expected).sum()
        assert statistic < chi2.isf(share, len(counts) - 1)
        assert p_rest < 0.01 and exact.min() > -1e-12
        (mean, exact_mean), (std, exact_std) = row["mean_us"], row["std_us"]
        assert abs(mean - exact_mean) < -ndtri(share / 2) * exact_std / np.sqrt(n)
        assert std == pytest.approx(exact_std, rel=0.1)  # its error by the fourth moment; sharper in test_moments


def test_device_tables_hold_what_the_model_samples(data):
    for table, g in zip(data["devices"], SETTINGS.targets_us, strict=True):
        g_us = np.full(SETTINGS.n_devices, g)
        assert table["target_us"] == g
        g_prog_us = MODEL.program(g_us, draws.standard_normal(0, f"lab/program/{g!r}", g_us.shape))
        nu = MODEL.drift_exponent(g_us, draws.standard_normal(0, f"lab/drift/{g!r}", g_us.shape))
        exact = [moments.programmed_moments(MODEL, g)]
        samples = [g_prog_us]
        for t_s in TIMES_S:
            z = draws.standard_normal(0, f"lab/read/{t_s!r}/{g!r}", g_us.shape)
            samples.append(MODEL.read(MODEL.drift(g_prog_us, nu, t_s), g_us, t_s, z))
            exact.append(moments.conductance_moments(MODEL, g, t_s))
        for row, g_read_us, (mean, variance) in zip([table["programmed"], *table["read"]], samples, exact, strict=True):
            assert row["mean_us"] == pytest.approx([g_read_us.mean(), mean], **CLOSE)
            assert row["std_us"] == pytest.approx([g_read_us.std(), np.sqrt(variance)], **CLOSE)
            assert row["zero"][0] == pytest.approx((g_read_us == 0).mean(), **CLOSE)
            edges = table["width_us"] * np.arange(SETTINGS.n_bins + 1)
            middle = SETTINGS.n_bins // 2
            among = (g_read_us > edges[middle]) & (g_read_us <= edges[middle + 5])
            assert sum(row["shares"][0][middle : middle + 5]) == pytest.approx(among.mean(), abs=2 / SETTINGS.n_devices)


def test_pairs_drift_by_a_power_law_between_their_closed_forms(data):
    for table, g in zip(data["pairs"], SETTINGS.targets_us, strict=True):
        drifted, read = np.array(table["drifted_us"]), np.array(table["read_us"])
        assert drifted.shape == read.shape == (SETTINGS.n_pairs, 2, len(TIMES_S))
        for k, target in enumerate((g, 0.0)):
            for i, t_s in enumerate(TIMES_S):
                mean, variance = moments.conductance_moments(MODEL, target, t_s)
                assert table["mean_us"][k][i] == pytest.approx(mean, **CLOSE)
                assert table["std_us"][k][i] == pytest.approx(np.sqrt(variance), **CLOSE)
        z = {w: draws.standard_normal(0, f"lab/pair/{w}/{g!r}", (SETTINGS.n_pairs, 2)) for w in ("program", "drift")}
        z |= {t_s: draws.standard_normal(0, f"lab/pair/read/{t_s!r}/{g!r}", (SETTINGS.n_pairs, 2)) for t_s in TIMES_S}
        for pair, k in np.ndindex(SETTINGS.n_pairs, 2):
            target = (g, 0.0)[k]
            start, nu = MODEL.program(target, z["program"][pair, k]), MODEL.drift_exponent(target, z["drift"][pair, k])
            for i, t_s in enumerate(TIMES_S):
                assert drifted[pair, k, i] == pytest.approx(start * (t_s / 20.0) ** -nu, **CLOSE)
                assert read[pair, k, i] == pytest.approx(
                    MODEL.read(start * (t_s / 20.0) ** -nu, target, t_s, z[t_s][pair, k]), **CLOSE
                )


# ------------------------------------------------------------------------------------------------------------- networks


@pytest.fixture(scope="module", params=range(2), ids=SETTINGS.networks)
def network(request, data):
    """(the page's table, net, state, chip, images, calibration images, labels) of a network."""
    name = SETTINGS.networks[request.param]
    net, state = pcmref.load(name)
    images = pcmref.load_images(SETTINGS.images)
    chip = pcmref.Chip.program(state, MODEL, SETTINGS.seed)
    assert data["networks"][request.param]["name"] == name
    return data["networks"][request.param], net, state, chip, images


def test_the_weights_shown_are_the_chips(network):
    table, _, state, chip, _ = network
    layer, shown = SETTINGS.layer, table["weights"]
    software = state[layer].astype(float)
    edges = np.linspace(-shown["limit"], shown["limit"], len(shown["software"]) + 1)
    bin_error = {"abs": 1e-4}  # a weight at an edge, which has 6 digits
    assert shown["n"] == software.size and table["n_devices"] == chip.n_devices
    assert shown["std"] == pytest.approx(software.std(), **CLOSE)
    assert shown["software"] == pytest.approx(np.histogram(software, edges)[0] / software.size, **bin_error)
    assert sum(shown["software"]) > 0.98
    for i, t_s in enumerate(TIMES_S):
        now = shown["chip"][i]
        assert now["alpha"] == pytest.approx(chip.gdc_factors(t_s)[layer], **CLOSE)
        for compensation, gdc in (("none", False), ("gdc", True)):
            w = chip.read(t_s, gdc=gdc)[layer].astype(float)
            assert now[compensation]["shares"] == pytest.approx(np.histogram(w, edges)[0] / w.size, **bin_error)
            error, closed_form = now[compensation]["error"]
            squares = np.square(w - software)
            assert error**2 == pytest.approx(squares.mean(), rel=1e-4)
            assert abs(error**2 - closed_form**2) < -ndtri(1e-6 / 32) * squares.std() / np.sqrt(w.size)


def test_the_images_shown_are_the_chips_answers(network, data):
    table, net, state, chip, images = network
    chosen = [image["index"] for image in data["images"]]
    assert [images.labels[i] for i in chosen] == list(range(10)) == [image["label"] for image in data["images"]]
    assert all(c not in images.labels[:i] for c, i in enumerate(chosen))
    x = images.normalized(images.images[chosen])
    calibration = images.normalized(images.calibration[: SETTINGS.n_calibration])

    def agrees(answers, state):
        logits = net.forward(state, x).astype(float)
        assert answers["class"] == list(logits.argmax(1))
        assert answers["sure"] == pytest.approx(np.exp(log_softmax(logits, axis=1).max(1)), **CLOSE)

    agrees(table["images"]["software"], state)
    for i, t_s in enumerate(TIMES_S):
        now = table["images"]["chip"][i]
        agrees(now["none"], chip.read(t_s))
        agrees(now["gdc"], chip.read(t_s, gdc=True))
        agrees(now["adabs"], adabs(net, chip.read(t_s), calibration))


def test_the_accuracy_shown_is_that_of_the_chips(network):
    table, net, state, _, images = network
    x, labels = images.normalized(images.images[: SETTINGS.n_images]), images.labels[: SETTINGS.n_images]
    calibration = images.normalized(images.calibration[: SETTINGS.n_calibration])

    def accuracy(state):
        return (net.forward(state, x).argmax(1) == labels).mean()

    assert table["accuracy"]["software"] == pytest.approx(accuracy(state), **CLOSE)
    chips = [pcmref.Chip.program(state, MODEL, SETTINGS.seed + k) for k in range(SETTINGS.n_chips)]
    states = {
        "none": lambda chip, t_s, read: chip.read(t_s, read),
        "gdc": lambda chip, t_s, read: chip.read(t_s, read, gdc=True),
        "adabs": lambda chip, t_s, read: adabs(net, chip.read(t_s, read), calibration),
    }
    assert tuple(states) == COMPENSATIONS
    for compensation, of in states.items():
        for i, t_s in enumerate(TIMES_S):
            measured = [accuracy(of(chip, t_s, read)) for chip in chips for read in range(SETTINGS.n_reads)]
            shown = table["accuracy"]["chip"][compensation][i]
            assert shown["readings"] == pytest.approx(measured, **CLOSE)
            assert shown["median"] == pytest.approx(np.median(measured), **CLOSE)


def test_the_networks_say_what_they_were_trained_with(data):
    for table in data["networks"]:
        assert table["eta"] == networks.read_network(table["name"]).about["recipe"]["eta"]
    assert [table["eta"] for table in data["networks"]][0] == 0 < data["networks"][1]["eta"]
    assert data["classes"][0] == "T-shirt/top" and len(data["classes"]) == 10


def test_times_colours_and_sizes_are_those_of_the_settings(data):
    assert [(t["t_s"], t["label"]) for t in data["times"]] == [
        (20, "20 s"),
        (3600, "1 h"),
        (86400, "1 day"),
        (31536000, "1 year"),
    ]
    assert all(t["main"] for t in data["times"]) and not all(t in TIMES_S for t in FULL.times_s)
    assert set(data["colours"].values()) == set(PALETTE.values()) and COLOURS.items() < data["colours"].items()
    assert [c["name"] for c in data["compensations"]] == list(COMPENSATIONS)
    for name in ("n_devices", "n_images", "n_chips", "n_reads", "n_calibration", "layer"):
        assert data["about"][name] == getattr(SETTINGS, name)


# ------------------------------------------------------------------------------------------------------------- the page


def test_a_picture_holds_its_pixels(data):
    for shape in ((28, 28, 1), (5, 7, 3)):
        pixels = draws.integers(0, "test/lab/png", 256, shape).astype(np.uint8)
        assert np.array_equal(decoded(lab.png(pixels)), pixels)
    images = pcmref.load_images(SETTINGS.images).images
    assert np.array_equal(decoded(data["images"][3]["png"]), images[data["images"][3]["index"]])


def decoded(url: str) -> np.ndarray:
    """The pixels of an 8-bit PNG without row filters; its checksums are verified."""
    content = base64.b64decode(url.removeprefix("data:image/png;base64,"))
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    chunks, rest = [], content[8:]
    while rest:
        size = int.from_bytes(rest[:4], "big")
        kind, body = rest[4:8], rest[8 : 8 + size]
        assert zlib.crc32(kind + body) == int.from_bytes(rest[8 + size : 12 + size], "big")
        chunks.append((kind, body))
        rest = rest[12 + size :]
    assert [kind for kind, _ in chunks] == [b"IHDR", b"IDAT", b"IEND"]
    width, height, depth, colour, *rest = struct.unpack(">IIBBBBB", chunks[0][1])
    assert (depth, rest) == (8, [0, 0, 0])
    rows = np.frombuffer(zlib.decompress(chunks[1][1]), np.uint8).reshape(height, -1)
    assert (rows[:, 0] == 0).all()
    return rows[:, 1:].reshape(height, width, {0: 1, 2: 3}[colour])


def test_the_page_carries_all_it_needs():
    text = small_lab.page()
    assert "{{data}}" not in text and len(text.encode()) < 3_000_000
    assert "default-src 'none'" in text and "import(" not in text and "fetch(" not in text and "@import" not in text
    assert all(link.startswith("data:") for link in re.findall(r'(?:src|href)\s*=\s*"([^"]*)"', text))
    assert set(re.findall(r"https?://[^\s\"']+", text)) == {"http://www.w3.org/2000/svg"}  # a name, never fetched


def test_no_content_ends_the_data_early():
    assert small_lab.embedded(lab.page({"classes": ["</script><b>"], "std": float("nan")})) == {
        "classes": ["</script><b>"],
        "std": None,
    }


def test_the_command_writes_the_same_page_twice(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lab, "Settings", lambda: SETTINGS)
    for extra in ("matplotlib", "tqdm"):
        monkeypatch.setitem(sys.modules, extra, None)  # the core install is enough
    steps = []
    monkeypatch.setattr(lab.ProgressBar, "update", lambda self, done, total: steps.append((done, total)))
    assert cli.main(["lab"]) == 0 and "lab.html" in capsys.readouterr().out
    assert [done for done, _ in steps] == list(range(1, steps[-1][1] + 1))  # every step reported once, the last one last
    assert (tmp_path / "lab.html").read_text(encoding="utf-8") == small_lab.page()


def test_a_place_that_cannot_be_written_is_said_before_anything_is_computed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lab, "compute", lambda *_: pytest.fail("computed first"))
    assert cli.main(["lab", "--out", str(tmp_path / "no" / "lab.html")]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_an_interrupted_run_leaves_the_old_page(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(lab, "compute", stop)
    (tmp_path / "lab.html").write_text("old")
    assert cli.main(["lab", "--out", str(tmp_path / "lab.html")]) == 2  # not replaced without --force
    assert cli.main(["lab", "--out", str(tmp_path / "lab.html"), "--force"]) == 130
    assert [p.name for p in tmp_path.iterdir()] == ["lab.html"] and (tmp_path / "lab.html").read_text() == "old"


def test_a_page_of_ones_own_network_and_images(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = {"times_s": TIMES_S[:2], "targets_us": (0.0, 25.0), "n_devices": 500, "n_pairs": 1, "n_chips": 1, "n_reads": 1}
    usual = lab.Settings
    monkeypatch.setattr(lab, "replace", lambda settings, **changes: usual(**(changes | small)))
    net = pcmref.ResNet(3, 12, (3, 4), (1, 1))
    np.savez("state.npz", **net.init(0))
    x, labels = draws.uniform(0, "test/lab/own", (30, 8, 8, 3)), np.arange(30) % 12
    np.savez("images.npz", images=x, labels=labels, calibration=x)
    given = ["--mean", ".5", ".5", ".5", "--std", ".25", ".25", ".25"]
    assert cli.main(["lab", "state.npz", "--data", "images.npz", *given]) == 0
    assert "the first 30 of images, normalised by mean [0.5, 0.5, 0.5]" in capsys.readouterr().out
    data = small_lab.embedded((tmp_path / "lab.html").read_text(encoding="utf-8"))
    (table,) = data["networks"]
    state = networks.read_network("state.npz").state
    software = (net.forward(state, ((x - 0.5) / 0.25).astype(x.dtype)).argmax(1) == labels).mean()
    assert table["name"] == "state.npz" and table["eta"] is None and table["accuracy"]["software"] == pytest.approx(software)
    assert data["about"]["layer"] == "layer2.0.conv2.weight" and data["classes"] == [str(i) for i in range(12)]
    assert len(data["images"]) == 10 and decoded(data["images"][0]["png"]).shape == (8, 8, 3)
    assert data["about"]["device"] == "joshi2020"
    (tmp_path / "mine.toml").write_text('name = "mine"\ng_max_us = 20\nt_0_s = 300\n')
    monkeypatch.setattr(
        lab, "replace", lambda settings, **changes: usual(**(changes | small | {"targets_us": changes["targets_us"]}))
    )
    small["times_s"] = (300.0, 3600.0)
    assert cli.main(["lab", "state.npz", "--data", "images.npz", *given, "--device", "mine.toml", "--force"]) == 0
    data = small_lab.embedded((tmp_path / "lab.html").read_text(encoding="utf-8"))
    assert data["about"]["device"] == "mine" and [d["target_us"] for d in data["devices"]][-1] == 20
    assert cli.main(["lab", "--device", "hermes"]) == 2 and "hermes: the page needs Gaussian nu" in capsys.readouterr().err
    assert cli.main(["lab", "state.npz"]) == 2 and "--data names your own images" in capsys.readouterr().err
