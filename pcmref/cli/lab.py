"""Write lab.html: one page on which to move time, conductance, training noise and compensation, and see what they do.

The page needs no network and no other file: everything it shows is computed here and embedded. It shows sampled devices with
the model's closed forms over them, the drift of a differential pair, the weights of a real layer, ten real images and the
accuracy over time.

examples:
  pcmref lab
  pcmref lab --out course/lab.html
  pcmref lab my-state.npz --data my-images.npz --device my-device.toml

Takes a few minutes. Then open the file in any browser.
"""

import argparse
import base64
import json
import math
import struct
import zlib
from dataclasses import dataclass, replace
from importlib import resources
from itertools import product
from pathlib import Path

import numpy as np
from scipy.special import ndtr, softmax

import pcmref
from pcmref import draws, store
from pcmref.cli import images
from pcmref.cli.device import DEVICE_HELP
from pcmref.cli.progress import ProgressBar
from pcmref.cli.resumed_study import NETWORK, add_force, check_free
from pcmref.errors import SettingError
from pcmref.experiments.driver import COMPENSATIONS
from pcmref.experiments.pictures import COLOURS, LABELS, PALETTE
from pcmref.experiments.retention import retention
from pcmref.experiments.times import STANDARD_TIMES_S, human_time, parse_time
from pcmref.files import networks
from pcmref.files.devices import read_device
from pcmref.files.images import Images
from pcmref.nn.adabs import adabs
from pcmref.nn.resnet import predict
from pcmref.pcm import constants, moments
from pcmref.pcm.chip import Chip
from pcmref.pcm.mapping import crossbars
from pcmref.pcm.model import PCMModel

TIMES = "20s,1min,5min,20min,1h,6h,1d,7d,30d,90d,1y"
TARGETS_US = (0.0, 0.25, 0.5, 1.0, 2.5, 5.0, 7.5, 10.0, 12.5, 15.0, 20.0, 25.0)  # where G_max is 25 uS
NETWORKS = ("resnet8-fashionmnist-baseline", "resnet8-fashionmnist-noise")


@dataclass(frozen=True)
class Settings:
    """What is computed: the times, target conductances and networks to choose from, and how much of each is sampled."""

    times_s: tuple[float, ...] = tuple(parse_time(t) for t in TIMES.split(","))
    targets_us: tuple[float, ...] = TARGETS_US
    networks: tuple[str, ...] = NETWORKS
    layer: str = "layer3.0.conv2.weight"
    images: str = "fashionmnist-evaluation"
    constants: tuple | None = None  # mean and std to normalise by, None for the images' own
    n_devices: int = 20_000  # sampled for each target conductance
    n_bins: int = 48
    n_pairs: int = 5
    n_chips: int = 4
    n_reads: int = 3
    n_images: int = 500
    n_calibration: int = 400
    seed: int = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", nargs="?", help=f"{NETWORK} (default: {' and '.join(NETWORKS)})")
    images.add_arguments(parser.add_argument, Settings().n_images, Settings().n_calibration)
    parser.add_argument("--device", default=constants.PAPER, help=f"{DEVICE_HELP} (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("lab.html"), help="the page to write (default: %(default)s)")
    add_force(parser.add_argument)


def run(arguments: argparse.Namespace) -> int:
    own = {} if arguments.network is None else _own(arguments)
    model = read_device(arguments.device)
    laws = (model.nu_law, model.q_argument, model.pair, model.reads_noisily)
    if laws != ("gaussian", "target", "kept", True) or any(model.stuck):
        raise SettingError(f"{model.name}: the page needs Gaussian nu, Q_s of the target, pairs that are kept and read noise")
    times_s = (model.t_0_s, *(t_s for t_s in Settings().times_s if t_s > model.t_0_s))
    targets_us = tuple(g_us * (model.g_max_us / 25.0) for g_us in Settings().targets_us)
    settings = replace(Settings(), times_s=times_s, targets_us=targets_us, **own)
    store.check_writable(arguments.out)
    check_free(arguments.out, arguments.force)
    with ProgressBar("lab", "step") as bar:
        text = page(compute(settings, model, bar.update))
    store.write_text(arguments.out, text)
    print(f"written: {arguments.out} ({len(text.encode()) / 1e6:.2f} MB); open it in a browser")
    return 0


def _own(arguments: argparse.Namespace) -> dict:
    """What differs in the settings for one's own network and images; its largest layer, where the usual one is not there."""
    file = networks.read_network(arguments.network)
    evaluation = images.evaluation(arguments, file, True)
    images.say_if_near_chance(arguments.network, file, evaluation)
    print(evaluation.about)
    layers = sorted((name for names in crossbars(file.state).values() for name in names), key=lambda n: -file.state[n].size)
    layer = Settings().layer if Settings().layer in layers else layers[0]
    own = {"networks": (arguments.network,), "layer": layer, "images": arguments.data, "constants": evaluation.constants}
    return own | {"n_images": len(evaluation.x), "n_calibration": len(evaluation.calibration)}


def page(data: dict) -> str:
    """The page with the data of `compute` in it; each number with 6 significant digits."""
    template = resources.files("pcmref.cli").joinpath("lab.html").read_text(encoding="utf-8")
    text = json.dumps(_rounded(data), sort_keys=True, allow_nan=False, separators=(",", ":"))
    return template.replace("{{data}}", text.replace("<", "\\u003c"))


def _rounded(value):
    """Arrays as lists, numbers to 6 significant digits, and None for what is not a number (the spread of one chip)."""
    if isinstance(value, dict):
        return {key: _rounded(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(v) for v in value]
    if isinstance(value, np.ndarray | np.generic):
        return _rounded(value.tolist())
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def compute(settings: Settings, model: PCMModel, progress=lambda done, total: None) -> dict:
    """Everything the page shows, as plain values and arrays. `progress(done, total)` is called after each step."""
    n_times, n_compensations = len(settings.times_s), len(COMPENSATIONS)
    steps_a_network = n_times * (n_compensations * settings.n_chips * settings.n_reads + 1)
    total = len(settings.targets_us) + len(settings.networks) * steps_a_network
    devices, pairs = [], []
    for g_us in settings.targets_us:
        devices.append(device_table(model, g_us, settings))
        pairs.append(pair_table(model, g_us, settings))
        progress(len(devices), total)
    data = pcmref.load_images(settings.images)
    measured = []
    for name in settings.networks:
        done = len(devices) + len(measured) * steps_a_network
        measured.append(network_table(model, name, data, settings, lambda n, done=done: progress(done + n, total)))
    first = networks.read_network(settings.networks[0])
    about = {"version": pcmref.__version__, "device": model.name, "images": data.name}
    about |= {"n_devices": settings.n_devices, "layer": settings.layer}
    about |= {name: getattr(settings, name) for name in ("n_images", "n_chips", "n_reads", "n_calibration")}
    chosen = first_of_each_class(data.labels)
    classes = first.about.get("classes") or data.about.get("classes") or [str(i) for i in range(first.net.num_classes)]
    return {
        "about": about,
        "colours": COLOURS | {"plus": PALETTE["purple"], "minus": PALETTE["orange"]},
        "compensations": [{"name": c, "label": LABELS[c]} for c in COMPENSATIONS],
        "times": [{"t_s": t, "label": human_time(t), "main": t in STANDARD_TIMES_S} for t in settings.times_s],
        "devices": devices,
        "pairs": pairs,
        "networks": measured,
        "classes": classes,
        "images": [{"png": png(_pixels(data.images[i])), "label": data.labels[i], "index": i} for i in chosen],
    }


# ------------------------------------------------------------------------------------------------------------- devices


def conductance_distribution(model: PCMModel, g_us: np.ndarray, g_target_us: float, t_s: float) -> np.ndarray:
    """P(G(t) <= g) of a device programmed to g_target_us and read at t_s: g_us [M], each from 0 -> [M].

    G = G_P D R, with G_P = max(G_T + sigma z, 0), D = (t/t_0)^-nu and R = max(1 + r z, 0) independent. Given D and R > 0, it is
    Phi((g/(D R) - G_T)/sigma); the mean over D by Gauss's and over R by the trapezoidal rule, to 3e-5. At g = 0 in closed form.
    """
    z_nu, p_nu = np.polynomial.hermite_e.hermegauss(24)
    z_read = np.linspace(-8, 8, 401)
    p_read = np.exp(-np.square(z_read) / 2)
    decay = model.drift(1.0, model.drift_exponent(g_target_us, z_nu), t_s)
    reading = model.read(1.0, g_target_us, t_s, z_read)
    factor = np.outer(decay, reading)
    weight = np.outer(p_nu / p_nu.sum(), p_read / p_read.sum())
    std_us, live = model.programming_std_us(g_target_us), factor > 0
    below = weight[~live].sum() + ndtr((g_us[:, None] / factor[live] - g_target_us) / std_us) @ weight[live]
    empty, dead = ndtr(-g_target_us / std_us), ndtr(-1 / model.read_noise_std_us(1.0, g_target_us, t_s))
    return np.where(g_us > 0, below, empty + dead - empty * dead)


def device_table(model: PCMModel, g_target_us: float, settings: Settings) -> dict:
    """Devices of one target conductance, as programmed and as read at each time: samples beside what the model implies."""
    n, seed, times_s = settings.n_devices, settings.seed, settings.times_s
    g_us = np.full(n, g_target_us)
    g_prog_us = model.program(g_us, draws.standard_normal(seed, f"lab/program/{g_target_us!r}", n))
    nu = model.drift_exponent(g_us, draws.standard_normal(seed, f"lab/drift/{g_target_us!r}", n))
    exact_moments = [moments.programmed_moments(model, g_target_us)]
    exact_moments += [moments.conductance_moments(model, g_target_us, t_s) for t_s in times_s]
    edges_us = np.linspace(0, max(mean + 4.5 * np.sqrt(variance) for mean, variance in exact_moments), settings.n_bins + 1)
    std_us = model.programming_std_us(g_target_us)
    programmed = ndtr((edges_us - g_target_us) / std_us)
    rows = [_compared(g_prog_us, edges_us, programmed, exact_moments[0])]
    for t_s, exact in zip(times_s, exact_moments[1:], strict=True):
        z = draws.standard_normal(seed, f"lab/read/{t_s!r}/{g_target_us!r}", n)
        g_read_us = model.read(model.drift(g_prog_us, nu, t_s), g_us, t_s, z)
        rows.append(_compared(g_read_us, edges_us, conductance_distribution(model, edges_us, g_target_us, t_s), exact))
    return {"target_us": g_target_us, "width_us": edges_us[1], "programmed": rows[0], "read": rows[1:]}


def _compared(samples_us: np.ndarray, edges_us: np.ndarray, distribution: np.ndarray, exact) -> dict:
    """Shares of the devices in each bin (from 0 on, without those at exactly 0), at 0, mean and spread: [sampled, exact]."""
    counts = np.histogram(samples_us[samples_us > 0], edges_us)[0]
    mean, variance = exact
    return {
        "shares": [counts / len(samples_us), np.diff(distribution)],
        "zero": [np.mean(samples_us == 0), distribution[0]],
        "mean_us": [samples_us.mean(), mean],
        "std_us": [samples_us.std(), np.sqrt(variance)],
    }


def pair_table(model: PCMModel, g_target_us: float, settings: Settings) -> dict:
    """Pairs with targets (g_target_us, 0) over time: drifted and as read [n_pairs, 2, times], mean and spread [2, times]."""
    times_s, seed = settings.times_s, settings.seed
    targets_us = np.array([g_target_us, 0.0])
    exact = np.array([moments.conductance_moments(model, targets_us, t_s) for t_s in times_s])  # [times, 2, plus and minus]
    each_us = np.tile(targets_us, (settings.n_pairs, 1))

    def z(what):
        return draws.standard_normal(seed, f"lab/pair/{what}/{g_target_us!r}", each_us.shape)

    g_prog_us, nu = model.program(each_us, z("program")), model.drift_exponent(each_us, z("drift"))
    drifted = [model.drift(g_prog_us, nu, t_s) for t_s in times_s]
    read = [model.read(g, each_us, t_s, z(f"read/{t_s!r}")) for g, t_s in zip(drifted, times_s, strict=True)]
    return {
        "drifted_us": np.moveaxis(drifted, 0, -1),
        "read_us": np.moveaxis(read, 0, -1),
        "mean_us": exact[:, 0].T,
        "std_us": np.sqrt(exact[:, 1]).T,
    }


# ------------------------------------------------------------------------------------------------------------- networks


def network_table(model: PCMModel, name: str, data: Images, settings: Settings, progress) -> dict:
    """A network in software and on chips: one layer's weights, ten images, accuracy over time. `progress(done)`."""
    file = networks.read_network(name)
    times_s, seed = settings.times_s, settings.seed
    x, labels = data.normalized(data.images[: settings.n_images], settings.constants), data.labels[: settings.n_images]
    calibration = data.normalized(data.calibration[: settings.n_calibration], settings.constants)
    shown = data.normalized(data.images[first_of_each_class(data.labels)], settings.constants)
    chip = Chip.program(file.state, model, seed)  # the first of the chips whose accuracy is measured below
    weights, seen = [], []
    for done, t_s in enumerate(times_s):
        reading = chip.at(t_s)
        compensated, raw = reading.compensated(), reading.state()
        states = {"none": raw, "gdc": compensated.state(), "adabs": adabs(file.net, raw, calibration)}
        weights.append(weight_table(chip, states, compensated.factors[settings.layer], t_s, settings))
        seen.append({c: answers(file.net, states[c], shown) for c in COMPENSATIONS})
        progress(done + 1)

    def measured(done: int, _: int) -> None:
        if done:  # before the first measurement stands what was counted above
            progress(len(times_s) + done)

    study = {"x_calibration": calibration, "name": name, "reads": settings.n_reads, "progress": measured}
    design = (times_s, COMPENSATIONS, settings.n_chips, seed)
    result = retention(file.net, file.state, model, x, labels, *design, **study)
    readings = {cell: [row.accuracy for row in result.rows if row[1:3] == cell] for cell in product(COMPENSATIONS, times_s)}
    accuracy = {c: [{"median": np.median(readings[c, t]), "readings": readings[c, t]} for t in times_s] for c in COMPENSATIONS}
    software = file.state[settings.layer]
    return {
        "name": name,
        "eta": (file.about.get("recipe") or {}).get("eta"),
        "n_devices": chip.n_devices,
        "weights": {
            "limit": _limit(software),
            "n": software.size,
            "std": np.std(software, dtype=float),
            "software": _weight_shares(software, software),
            "chip": weights,
        },
        "images": {"software": answers(file.net, file.state, shown), "chip": seen},
        "accuracy": {"software": result.software_accuracy, "chip": accuracy},
    }


def weight_table(chip: Chip, states: dict[str, dict], alpha: float, t_s: float, settings: Settings) -> dict:
    """One layer's weights at t_s without and with GDC: histogram, root mean square error sampled and in closed form, alpha.

    Closed form: the mean over the layer of alpha^2 Var w(t) + (alpha E w(t) - w)^2, alpha taken as measured.
    """
    name, table = settings.layer, {"alpha": alpha}
    software = np.asarray(chip.state[name], float)
    mean, variance = moments.weight_moments(chip.model, chip.g_target_us[name], chip.scale[name], t_s, name)
    for compensation, factor in (("none", 1.0), ("gdc", alpha)):
        held = np.asarray(states[compensation][name], float)
        sampled = np.sqrt(np.mean(np.square(held - software)))
        exact = np.sqrt(np.mean(factor**2 * variance + np.square(factor * mean - software)))
        table[compensation] = {"shares": _weight_shares(held, software), "error": [sampled, exact]}
    return table


def _limit(software: np.ndarray) -> float:
    """Half the range of the histogram of a layer: a little beyond its weights in software, at most four standard deviations."""
    return min(1.4 * float(np.abs(software).max()), 4 * float(np.std(software, dtype=float)))


def _weight_shares(w: np.ndarray, software: np.ndarray) -> np.ndarray:
    """The share of a layer's weights in each of 61 bins; the middle one holds 0."""
    limit = _limit(software)
    return np.histogram(w, np.linspace(-limit, limit, 62))[0] / w.size


def answers(net, state: dict, x: np.ndarray) -> dict:
    """What a network answers for images [N, H, W, C]: classes [N], and how sure it is of each (softmax) [N]."""
    p = softmax(predict(net, state, x).astype(float), axis=1)
    return {"class": p.argmax(1), "sure": p.max(1)}


def first_of_each_class(labels: np.ndarray) -> list[int]:
    """The index of the first image of every class, of ten classes at most: a choice that nobody made."""
    return [int(np.flatnonzero(labels == c)[0]) for c in np.unique(labels)[:10]]


def _pixels(image: np.ndarray) -> np.ndarray:
    """An image [H, W, C] to be shown: floating-point values are spread over 0..255."""
    if image.dtype == np.uint8:
        return image
    low, high = image.min(), image.max()
    return np.round(255 * (image - low) / max(high - low, 1e-9)).astype(np.uint8)


def png(pixels: np.ndarray) -> str:
    """A picture [H, W, 1 or 3] uint8 as a data URL (PNG, ISO/IEC 15948: every row unfiltered)."""
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2}[channels], 0, 0, 0)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + content).decode()
