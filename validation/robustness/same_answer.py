"""The same answer everywhere: one study, training, chip and export under many circumstances, compared byte by byte.

python -m validation.robustness.same_answer [--other-python /path/to/another/environment/bin/python]

The circumstances: 1, 2 and 4 workers; threads and processes; two hash seeds, locales and time zones
(tests/cli/test_executors.py has Dask, and kills one of its workers). With --other-python the same is made in another
environment, with other versions of the libraries: the draws' raw words and uniforms must be equal to the bit there, every
golden case must lie within its bound, and how far the study's results are apart is printed.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import pcmref
from pcmref import cli, draws
from pcmref.experiments.retention import RetentionResult

TOP = Path(__file__).parents[2]
STUDY = ["retention", "resnet8-fashionmnist-noise", "--images", "200", "--calibration", "200", "--times", "20s,1d"]
RECIPE = """
network = "resnet8"
data = "fashion-mnist"
[[stage]]
name = "n"
epochs = 1
batch_size = 32
eta = 0.038
alpha = 2.0
crop = 2
flip = true
validation = 32
"""


def make(folder: Path, workers: int, executor: str | None) -> None:
    """Everything that is compared, into a folder."""
    folder.mkdir()
    extra = [] if executor is None else ["--executor", executor]
    study = [*STUDY, "--chips", "4", "--workers", str(workers), "--out", str(folder), *extra]
    if cli.main(study):
        raise RuntimeError("the study failed")
    if executor is not None:
        return
    from tests.helpers import small_files

    (folder / "r.toml").write_text(RECIPE)
    small_files.write_fashion_mnist(folder, n_train=160, n_test=32)
    if cli.main(["train", str(folder / "r.toml"), "--data", str(folder), "--out", str(folder), "--workers", str(workers)]):
        raise RuntimeError("the training failed")
    net, state = pcmref.load("resnet8-fashionmnist-noise")
    chip = pcmref.Chip.program(state, pcmref.PCMModel.joshi2020(), 3, workers=workers)
    chip.save(folder / "chip.h5")
    x = draws.standard_normal(0, "same/x", (300, 28, 28, 1)).astype(np.float32)
    recalibrated = pcmref.adabs(net, chip.read(86_400.0, gdc=True, workers=workers), x, workers=workers)
    np.save(folder / "logits.npy", pcmref.predict(net, recalibrated, x, workers=workers))
    np.save(folder / "uniform.npy", draws.uniform(7, "same/u", (10_000,)))
    np.save(folder / "raw.npy", draws.raw(7, "same/u", 10_000))
    np.save(folder / "normal.npy", draws.standard_normal(7, "same/u", (10_000,)))


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 by file; the picture is matplotlib's, the inputs are no results."""
    results = [p for p in sorted(folder.iterdir()) if p.suffix in (".csv", ".h5", ".npy")]
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in results}


def made(folder: Path, workers: int = 1, executor: str | None = None, python: str = sys.executable, **variables) -> dict:
    """The digests of what a process with these environment variables makes."""
    environment = os.environ | {"PYTHONPATH": str(TOP), "PYTHONHASHSEED": "0", "LC_ALL": "C", "TZ": "UTC"} | variables
    pool = ["--executor", executor] if executor else []
    command = [python, "-m", "validation.robustness.same_answer", "--make", str(folder), "--workers", str(workers), *pool]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    if ran.returncode:
        raise RuntimeError(f"{command}: {ran.stderr[-2000:]}")
    return digests(folder)


def compare(name: str, base: dict, found: dict) -> bool:
    """Print whether what was found is the base's, byte by byte, as far as it was made."""
    different = [file for file in found if found[file] != base[file]]
    print(
        f"{name:44} {len(found)} files, {'different: ' + ', '.join(different) if different else 'the same bytes'}", flush=True
    )
    return not different


def other_environment(folder: Path, base: Path, python: str) -> bool:
    """Bits of the draws, the golden bounds, and the distances of the rest, in another environment."""
    made(folder, python=python)
    versions = "import numpy, scipy, h5py; print(numpy.__version__, scipy.__version__, h5py.__version__)"
    run = {"env": os.environ | {"PYTHONPATH": str(TOP)}, "capture_output": True, "text": True}
    print(f"numpy, scipy, h5py there: {subprocess.run([python, '-c', versions], **run).stdout.strip()}")
    bits = all((base / f).read_bytes() == (folder / f).read_bytes() for f in ("uniform.npy", "raw.npy"))
    a, b = (np.load(f / "normal.npy") for f in (base, folder))
    z_ulp = float((np.abs(a - b) / np.spacing(np.abs(a))).max())
    golden = subprocess.run([python, "-m", "pcmref", "golden", "check", "pcmref.golden:Reference"], **run)
    a, b = (np.load(f / "logits.npy") for f in (base, folder))
    rows, theirs = (RetentionResult.from_hdf5(f / "retention.h5").rows for f in (base, folder))
    apart = max(abs(r.accuracy - s.accuracy) for r, s in zip(rows, theirs, strict=True))
    print(
        f"draws: raw words and uniforms {'the same bits' if bits else 'DIFFERENT'}, normal draws {z_ulp:.0f} ulp apart at most"
    )
    print(f"golden cases: exit status {golden.returncode}, {golden.stdout.strip().splitlines()[-1]}")
    print(f"logits of a recalibrated chip, float32: {np.abs(a - b).max() / np.abs(a).max():.1e} of the largest apart at most")
    print(f"accuracies of the study: {apart:.4f} apart at most")
    return bits and z_ulp <= 4 and golden.returncode == 0 and np.abs(a - b).max() <= 1e-4 * np.abs(a).max()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other-python", help="the interpreter of another environment")
    for hidden in ("--make", "--executor", "--workers"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.make:
        make(Path(arguments.make), int(arguments.workers), arguments.executor)
        return 0
    with tempfile.TemporaryDirectory(prefix="pcmref-same-") as name:
        place = Path(name)
        base, same = made(place / "base"), []
        print(f"{'1 worker':44} {len(base)} files")
        for workers in (2, 4):
            same.append(compare(f"{workers} workers", base, made(place / f"workers{workers}", workers)))
        for workers, executor in ((2, "threads"), (4, "threads"), (2, "processes")):
            found = made(place / f"{executor}{workers}", workers, executor)
            same.append(compare(f"--executor {executor}, {workers}", base, found))
        for variables in ({"PYTHONHASHSEED": "12345"}, {"LC_ALL": "C.UTF-8"}, {"LC_ALL": "POSIX"}, {"TZ": "Asia/Kathmandu"}):
            said = ", ".join(f"{k}={v}" for k, v in variables.items())
            same.append(compare(said, base, made(place / said.replace("/", "-"), **variables)))
        if arguments.other_python:
            same.append(other_environment(place / "other", place / "base", arguments.other_python))
    return 0 if all(same) else 1


if __name__ == "__main__":
    sys.exit(main())
