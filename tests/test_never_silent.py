"""What would be ignored, dropped or passed on as NaN is an error that names it, before the work; results are not lost."""

import fcntl
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import pcmref
from pcmref import draws, store
from pcmref.errors import PcmrefError
from pcmref.experiments.retention import RetentionResult, Row
from pcmref.training import accuracy, clip_weights, inject_weight_noise

NET = pcmref.ResNet(1, 3, (3, 4), (1, 1))
STATE, MODEL = NET.init(0), pcmref.PCMModel.joshi2020()
X = draws.standard_normal(0, "test/silent", (6, 8, 8, 1))
LABELS = np.arange(6) % 3


def with_entry(name, value):
    return STATE | {name: value}


class Tensor:
    """As much of a torch tensor as is looked at."""

    def detach(self):
        return self


MASKED = np.ma.masked_array(STATE["fc.weight"], STATE["fc.weight"] > 0)
PARTS = {
    "masked": (MASKED, "masked array"),
    "torch": (Tensor(), "torch tensor"),
}


@pytest.mark.parametrize("kind", PARTS)
def test_masked_arrays_and_torch_tensors_are_named(tmp_path, kind):
    value, message = PARTS[kind]
    state = with_entry("fc.weight", value)
    for use in (
        lambda: NET.check_state(state),
        lambda: NET.forward(state, X),
        lambda: pcmref.Chip.program(state, MODEL),
        lambda: inject_weight_noise(state),
        lambda: pcmref.save(tmp_path / "n.h5", NET, state),
        lambda: store.write(tmp_path / "n.h5", "x", {}, {"fc.weight": value}),
    ):
        with pytest.raises(PcmrefError, match=rf"fc\.weight.*{message}"):
            use()
    with pytest.raises(PcmrefError, match=message):
        NET.forward(STATE, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("bn1.running_var", -1.0), ("bn1.running_var", np.nan), ("layer2.0.bn1.running_mean", np.nan), ("fc.weight", np.inf)],
)
@pytest.mark.parametrize("engine", ["fast", "plain"])
def test_an_entry_that_makes_logits_nan_is_named_before(name, value, engine):
    array = STATE[name].copy()
    array.flat[-1] = value
    state = with_entry(name, array)
    for use in (
        lambda: NET.forward(state, X, engine=engine),
        lambda: pcmref.predict(NET, state, X, engine=engine),
        lambda: NET.check_state(state),
    ):
        with pytest.raises(PcmrefError, match=re.escape(name)):
            use()


def test_weights_beyond_the_images_dtype_are_named():
    with np.errstate(over="ignore"), pytest.raises(PcmrefError, match=r"fc\.weight.*float16"):
        NET.forward(with_entry("fc.weight", np.full((3, 4), 1e6)), X.astype(np.float16), engine="plain")


@pytest.mark.parametrize("train", [False, True])
def test_an_image_that_is_not_finite_is_named(train):
    x = X.copy()
    x[4, 1, 2, 0] = np.nan
    for engine in ("fast", "plain"):
        with pytest.raises(PcmrefError, match="NaN or infinity, first in image 4"):
            NET.forward(STATE, x, train=train, engine=engine)
    with pytest.raises(PcmrefError, match="NaN or infinity, first in image 4"):
        pcmref.adabs(NET, STATE, x)


def test_a_state_without_a_crossbar_or_with_a_weight_that_fits_none_is_refused():
    for state, message in (
        ({}, "no array of the state"),
        ({"bn1.weight": np.ones(3)}, "no array of the state"),
        (with_entry("encoder.weight", np.zeros((2, 3, 4))), "encoder.weight"),
        (with_entry("volume.weight", np.zeros((2, 3, 4, 1, 1))), "volume.weight"),
    ):
        for use in (lambda s: pcmref.Chip.program(s, MODEL), clip_weights, inject_weight_noise):
            with pytest.raises(PcmrefError, match=message):
                use(state)


def test_labels_of_another_shape_do_not_broadcast():
    right = accuracy(NET, STATE, X, LABELS)
    assert 0 <= right <= 1
    for labels in (LABELS[:, None], LABELS.astype(float), LABELS[:5], LABELS + 1):
        with pytest.raises(PcmrefError, match="labels"):
            accuracy(NET, STATE, X, labels)


@pytest.mark.parametrize(("n", "size", "fine"), [(5, 2, False), (5, 3, True), (4, 2, True), (1, 2, False), (2, 2, True)])
def test_a_last_batch_without_a_variance_is_told_before_the_work(n, size, fine):
    """Two stages: images of 2 pixels end as single ones, of 3 as four; batches of 2."""
    x = X[:n, :size, :size]
    study = {"times_s": (20.0,), "compensations": ("adabs",), "n_chips": 1, "x_calibration": x, "batch_size": 2}
    started = []

    def run():
        pcmref.adabs(NET, STATE, x, batch_size=2)
        pcmref.retention(NET, STATE, MODEL, X, LABELS, **study, progress=lambda *_: started.append(1))

    if fine:
        run()
    else:
        with pytest.raises(PcmrefError, match="one image more or less"):
            run()
        with pytest.raises(PcmrefError, match="one image more or less"):
            pcmref.retention(NET, STATE, MODEL, X, LABELS, **study, progress=lambda *_: started.append(1))
        assert not started


def test_files_are_read_where_nothing_can_be_locked(tmp_path):
    pcmref.save(tmp_path / "n.h5", NET, STATE)
    with open(tmp_path / "n.h5", "rb+") as held:  # a lock that is held refuses as a file system does that has none
        fcntl.flock(held, fcntl.LOCK_EX)
        assert pcmref.load(tmp_path / "n.h5")[0] == NET
    if os.getuid():
        (tmp_path / "n.h5").chmod(0o400)
        assert pcmref.load(tmp_path / "n.h5")[0] == NET


@pytest.mark.parametrize(
    ("kind", "meta", "arrays", "message"),
    [
        ("k", [1], {"a": X}, "must be a dict"),
        (5, {}, {"a": X}, "the kind a text"),
        *(
            ("k", {}, {name: X}, "cannot be an array's name")
            for name in ("/a", "a//b", ".", "a/./b", "", "a/", "a\0b", "\udc80")
        ),
        ("k", {}, {"/".join("abcdefghij"): X}, "cannot be an array's name"),
        ("k", {}, {"a": X, "a/b": X}, "cannot write"),
        ("k", {}, {f"{i}": X[0, 0, 0] for i in range(10_000)}, "too many"),
    ],
)
def test_what_a_reader_refuses_is_not_written(tmp_path, kind, meta, arrays, message):
    with pytest.raises(PcmrefError, match=message):
        store.write(tmp_path / "x.h5", kind, meta, arrays)
    assert not (tmp_path / "x.h5").exists()
    store.write(tmp_path / "x.h5", "k", {}, {"/".join("abcdefghi"): X})
    assert list(store.read(tmp_path / "x.h5", "k")[1]) == ["/".join("abcdefghi")]


def test_a_chip_of_a_state_with_counters_comes_back(tmp_path):
    chip = pcmref.Chip.program(with_entry("bn1.num_batches_tracked", np.array(7)), MODEL)
    chip.save(tmp_path / "c.h5")
    assert pcmref.Chip.load(tmp_path / "c.h5").state["bn1.num_batches_tracked"] == 7


def test_a_single_time_is_drawn_without_a_warning(tmp_path):
    pytest.importorskip("matplotlib")
    result = RetentionResult("n", (Row("n", "none", 86_400.0, 0, 0, 0.5),), 0.9, {"n_images": 4})
    with warnings.catch_warnings(action="error"):
        result.plot(tmp_path / "r.png")


SCRIPT = """
import sys
from pcmref import cli
options = "--data i.npz --times 20s,1d --chips 2 --compensations none"
sys.exit(cli.main(["retention", "é.npz", *options.split()]))
"""


@pytest.mark.parametrize("into", ["closed", "/dev/full", "ascii"])
def test_results_and_exit_status_outlive_the_reader_of_stdout(tmp_path, into):
    np.savez(tmp_path / "é.npz", **STATE)
    np.savez(tmp_path / "i.npz", images=X, labels=LABELS)
    environment = os.environ | {"PYTHONIOENCODING": "ascii" if into == "ascii" else "utf-8", "PYTHONUNBUFFERED": "1"}
    environment["PYTHONPATH"] = str(Path(pcmref.__file__).parents[1])
    read, write = os.pipe()
    out = {"closed": write, "/dev/full": os.open("/dev/full", os.O_WRONLY), "ascii": subprocess.PIPE}[into]
    os.close(read)
    run = subprocess.run([sys.executable, "-c", SCRIPT], cwd=tmp_path, env=environment, stdout=out, stderr=subprocess.PIPE)
    os.close(write)
    assert run.returncode == (2 if into == "/dev/full" else 0), run.stderr
    assert (b"No space left" in run.stderr) == (into == "/dev/full") and b"Traceback" not in run.stderr
    assert len((tmp_path / "out" / "retention.csv").read_text().splitlines()) == 5
    assert into != "ascii" or b"\\xe9: accuracy" in run.stdout


def test_a_failing_check_fails_with_nobody_reading(tmp_path):
    wrong = (
        "from pcmref.golden.reference import Reference\nclass Wrong(Reference):\n    def relu(self, x):\n        return x + 1\n"
    )
    (tmp_path / "bad.py").write_text(wrong)
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "pcmref", "golden", "check", "bad:Wrong", "--op", "relu", "--json", "j.json"]
    environment = os.environ | {"PYTHONPATH": str(Path(pcmref.__file__).parents[1])}
    run = subprocess.run(command, cwd=tmp_path, env=environment, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert run.returncode == 1 and (tmp_path / "j.json").exists(), run.stderr
