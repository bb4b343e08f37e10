"""Speed and memory of every step on this machine, on the paper's ResNet-32 in float32, beside PyTorch's and aihwkit's.

Rows: predict, a noise-injected training step (batch 128), programming and reading a chip, and the retention study. Columns:
images/s or devices/s, the share of the matrix-product rate measured in the same run, the gain of all cores over one worker.
--peers adds PyTorch (channels-last) and aihwkit where they are installed; their ratios come from alternating runs. Quote
ratios: absolute figures drift on shared machines.

examples:
  python -m validation.peers.bench
  python -m validation.peers.bench --peers --rounds 7 --out out
  env -u OPENBLAS_CORETYPE python -m validation.peers.bench     # where such a variable slows NumPy's BLAS down
"""

import argparse
import importlib.metadata
import json
import platform
import re
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

import pcmref
from pcmref import store
from pcmref.experiments import tables
from pcmref.nn import functional as F
from pcmref.threads import count_workers, map_chunks
from pcmref.training import Progress, Recipe, train_step

N_IMAGES, BATCH = 512, 128
UNITS = {"predict": "image", "train step": "image", "program": "device", "read": "device", "retention": "image"}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--peers", action="store_true", help="compare with PyTorch and aihwkit where they are installed")
    add("--rounds", type=int, default=5, help="rounds, each running every task once (default: %(default)s)")
    add("--workers", type=int, default=None, help="threads (default: one per core)")
    add("--out", type=Path, default=Path("out"), help="folder for bench.json (default: %(default)s)")
    add("--peak-memory-of", choices=("predict", "train step"), help=argparse.SUPPRESS)  # what a child process measures
    arguments = parser.parse_args(argv)
    if arguments.peak_memory_of:
        print(_peak_memory_mb(arguments.peak_memory_of))
        return 0
    arguments.out.mkdir(parents=True, exist_ok=True)
    net, x, labels = workload()
    ours = our_tasks(net, x, labels, arguments.workers)
    peers = {}
    if arguments.peers:
        for name, tasks in (("torch", torch_tasks), ("aihwkit", aihwkit_tasks)):
            try:
                peers[name] = tasks(net, x, labels)
            except ImportError as error:
                print(f"{name} is not installed: {error}", file=sys.stderr)
    report = {"machine": machine(arguments.workers, list(peers)), "gemm_gflops": gemm_gflops(arguments.workers), "rows": []}
    single = our_tasks(net, x, labels, 1)
    for name, (task, n_units) in ours.items():
        rivals = {"one worker": single[name][0]} | {p: tasks[name] for p, tasks in peers.items() if name in tasks}
        report["rows"].append(measure(name, task, n_units, rivals, arguments.rounds, report["gemm_gflops"], net))
        print(f"measured {name}", file=sys.stderr, flush=True)
    report["peak_memory_mb"] = {what: _in_child(what) for what in ("predict", "train step")}
    print(table(report))
    store.write_text(arguments.out / "bench.json", json.dumps(report, indent=1) + "\n")
    print(f"\nwritten: {arguments.out / 'bench.json'}")
    return 0


def workload():
    """(joshi32, images [512, 32, 32, 3], labels)."""
    x = pcmref.draws.standard_normal(0, "bench/x", (N_IMAGES, 32, 32, 3)).astype(np.float32)
    return pcmref.ResNet.joshi32(), x, pcmref.draws.integers(0, "bench/labels", 10, (N_IMAGES,))


def our_tasks(net, x, labels, workers) -> dict[str, tuple[Callable, int]]:
    """{row: (what to time, how many images or devices it handles)}."""
    state, model = net.init(), pcmref.PCMModel.joshi2020()
    chip, at = pcmref.Chip.program(state, model), Progress(0, state, {})
    recipe = Recipe(eta=0.038, alpha=2.0)
    study = {"times_s": (20.0, 86_400.0), "n_chips": 1, "x_calibration": x[:200], "workers": workers}
    evaluated = 128 * (1 + 2 * 3 - 1) + 2 * 200  # software, 2 times x 3 less 1 (gdc equals none at t_0), 2 calibrations
    return {
        "predict": (lambda: pcmref.predict(net, state, x, workers=workers), len(x)),
        "train step": (lambda: train_step(net, at, x[:BATCH], labels[:BATCH], 0.05, recipe, workers=workers), BATCH),
        "program": (lambda: pcmref.Chip.program(state, model, workers=workers), chip.n_devices),
        "read": (lambda: chip.read(86_400.0, workers=workers), chip.n_devices),
        "retention": (lambda: pcmref.retention(net, state, model, x[:128], labels[:128], **study), evaluated),
    }


def torch_tasks(net, x, labels) -> dict:
    """{"predict", "train step"}: callables of PyTorch, channels-last, on the same images."""
    import torch

    from validation.peers.torch_network import torch_resnet

    def images():
        return torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).contiguous(memory_format=torch.channels_last)

    evaluated, batch = torch_resnet(net).to(memory_format=torch.channels_last).eval(), images()
    predict = torch.no_grad()(lambda: [evaluated(part) for part in batch.split(128)])
    trained = torch_resnet(net).to(memory_format=torch.channels_last)
    return {"predict": predict, "train step": _torch_step(trained, images()[:128], labels[:128])}


def _torch_step(model, x, labels, optimiser=None):
    import torch

    optimiser = optimiser or torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    targets = torch.from_numpy(labels)

    def step():
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(x), targets).backward()
        optimiser.step()

    return step


def aihwkit_tasks(net, x, labels) -> dict:
    """{"predict", "train step", "program", "read"}: InferenceRPUConfig with converters; its fastest tile for training."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from aihwkit.inference import GlobalDriftCompensation, PCMLikeNoiseModel
        from aihwkit.nn.conversion import convert_to_analog
        from aihwkit.optim import AnalogSGD
        from aihwkit.simulator.configs import InferenceRPUConfig, TorchInferenceRPUConfig
        from aihwkit.simulator.parameters.enums import WeightClipType, WeightModifierType

        from validation.peers.torch_network import torch_resnet

        def analog(config, perfect):
            config.forward.is_perfect = perfect
            config.noise_model, config.drift_compensation = noise, GlobalDriftCompensation()
            config.modifier.type, config.modifier.std_dev = WeightModifierType.ADD_NORMAL, 0.038
            config.clip.type, config.clip.sigma = WeightClipType.LAYER_GAUSSIAN, 2.0
            return convert_to_analog(torch_resnet(net), config)

        noise = PCMLikeNoiseModel(g_max=25.0)
        images = torch.from_numpy(x.transpose(0, 3, 1, 2)[:128].copy())
        evaluated = analog(InferenceRPUConfig(), False).eval()
        evaluated.program_analog_weights()
        evaluated.drift_analog_weights(86_400.0)
        trained = analog(TorchInferenceRPUConfig(), True).train()
        optimiser = AnalogSGD(trained.parameters(), lr=0.05)
        weights = torch.randn(sum(p.numel() for n, p in torch_resnet(net).named_parameters() if "bn" not in n)) * 0.1
        programmed, nu = noise.apply_programming_noise(weights)
    return {
        "predict": torch.no_grad()(lambda: evaluated(images)),
        "train step": _torch_step(trained, images, labels[:128], optimiser),
        "program": lambda: noise.apply_programming_noise(weights),
        "read": lambda: noise.apply_drift_noise(programmed, nu, 86_400.0),
    }


def seconds(task: Callable) -> float:
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


def measure(name, task, n_units, rivals, rounds, peak_gflops, net) -> dict:
    """Median rate of a task, its share of the matrix-product rate, and its ratio to each rival, pair by pair."""
    for warm in (task, *rivals.values()):
        warm()
    ours, pairs = [], {rival: [] for rival in rivals}
    for _ in range(rounds):
        for rival, other in rivals.items():
            mine, theirs = seconds(task), seconds(other)
            if name == "predict" and rival == "aihwkit":
                theirs *= n_units / BATCH  # aihwkit is given one batch of the images
            ours.append(mine)
            pairs[rival].append(theirs / mine)
    rate = n_units / statistics.median(ours)
    row = {"name": name, "unit": UNITS[name], "rate": rate, "milliseconds": 1e3 * statistics.median(ours)}
    if name in ("predict", "train step"):
        passes = 1 if name == "predict" else 3  # backward: one product for the input's gradient, one for the weights'
        row["share_of_gemm"] = rate * passes * flops_per_image(net, 32) / (1e9 * peak_gflops)
    return row | {"speed_relative_to": {rival: statistics.median(r) for rival, r in pairs.items()}}


def flops_per_image(net, size: int) -> float:
    """Floating-point operations of the forward pass's matrix products: two a multiplication, small-stem networks."""
    total, c_in = 2 * 9 * net.in_channels * net.widths[0] * size**2, net.widths[0]
    for s, (c_out, count) in enumerate(zip(net.widths, net.blocks, strict=True)):
        pixels = (size // 2**s) ** 2
        total += 2 * pixels * c_out * (9 * c_in + (c_in if s else 0) + 9 * c_out * (2 * count - 1))
        c_in = c_out
    return total + 2 * c_in * net.num_classes


def gemm_gflops(workers: int | None) -> float:
    """The float32 matrix-product rate of all workers together, each on products of 512 x 512 x 512 of its own."""
    a = np.ones((512, 512), np.float32)
    blocks = range(4 * count_workers(workers))

    def product(_):
        for _ in range(20):
            a @ a

    best = min(seconds(lambda: map_chunks(product, blocks, workers)) for _ in range(3))
    return len(blocks) * 20 * 2 * 512**3 / best / 1e9


def machine(workers: int | None, peers: list[str]) -> dict:
    """What the figures were measured on."""
    versions = {name: importlib.metadata.version(name) for name in ("numpy", "scipy", "h5py", *peers)}
    info = Path("/proc/cpuinfo")
    model = re.search(r"^model name\s*: (.*)$", info.read_text() if info.exists() else "", re.M)
    cpu = model[1] if model else platform.processor()
    return {"cpu": cpu, "workers": count_workers(workers), "python": platform.python_version(), "versions": versions}


def _in_child(what: str) -> float:
    """Peak memory beyond the images and the idle process, in MB, measured in a process of its own."""
    command = [sys.executable, "-m", "validation.peers.bench", "--peak-memory-of", what]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _peak_memory_mb(what: str) -> float:
    net, state = pcmref.ResNet.joshi32(), pcmref.ResNet.joshi32().init()
    x, labels = np.ones((10_000 if what == "predict" else BATCH, 32, 32, 3), np.float32), np.zeros(BATCH, int)
    F.conv2d(x[:1], state["conv1.weight"], 1, 1)  # loads the BLAS
    before = peak_kb()
    if what == "predict":
        pcmref.predict(net, state, x)
    else:
        train_step(net, Progress(0, state, {}), x, labels, 0.05, Recipe(eta=0.038, alpha=2.0))
    return (peak_kb() - before) / 1024


def peak_kb() -> int:
    """The process's own peak so far: VmHWM on Linux, where ru_maxrss would count the parent it was forked from."""
    path = Path("/proc/self/status")
    if path.exists():
        return int(re.search(r"^VmHWM:\s*(\d+)", path.read_text(), re.M)[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def table(report: dict) -> str:
    """The report as an aligned table."""
    rivals = list(dict.fromkeys(r for row in report["rows"] for r in row["speed_relative_to"]))
    lines = [["step", "rate", "time", "of GEMM peak", *(f"x {r}" for r in rivals)]]
    for row in report["rows"]:
        share = f"{100 * row['share_of_gemm']:.0f} %" if "share_of_gemm" in row else ""
        ratios = [f"{row['speed_relative_to'][r]:.2f}" if r in row["speed_relative_to"] else "" for r in rivals]
        lines.append([row["name"], f"{row['rate']:,.0f} {row['unit']}s/s", f"{row['milliseconds']:,.1f} ms", share, *ratios])
    memory = ", ".join(f"{what} {mb:,.0f} MB" for what, mb in report["peak_memory_mb"].items())
    of = f"predict: 10,000 images; train step: {BATCH}"
    gemm = f"matrix products: {report['gemm_gflops']:.0f} GFLOP/s on {report['machine']['workers']} worker(s)"
    return f"{tables.aligned(lines)}\n\n{gemm}; peak memory beyond the images: {memory} ({of})"


if __name__ == "__main__":
    sys.exit(main())
