"""The command line, as a user calls it: output, files, exit status, messages."""

import csv
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import pcmref
from pcmref import cli, draws
from pcmref.cli.progress import ProgressBar
from pcmref.cli.resumed_study import alone
from pcmref.experiments.retention import RetentionResult
from pcmref.files import networks
from tests.helpers import small_files as files

NET = pcmref.ResNet(1, 3, (3, 4), (1, 1))


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A state and images in .npz files, in the current folder."""
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "state.npz", **NET.init(0))
    x = draws.standard_normal(0, "test/cli", (50, 8, 8, 1)).astype(np.float32)
    np.savez(tmp_path / "images.npz", images=x, labels=draws.integers(0, "test/cli", 3, (50,)), calibration=x[:20])
    return tmp_path


def run(capsys, *arguments):
    status = cli.main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_retention_on_ones_own_npz_files(own, capsys):
    arguments = ("retention", "state.npz", "--data", "images.npz", "--times", "20s,1d", "--chips", "2", "--images", "30")
    status, out, err = run(capsys, *arguments)
    assert status == 0 and "30 images, 2 chips" in out
    table = [line for line in out.splitlines() if line.strip().startswith(("time", "20 s", "1 day"))]
    assert table[0].split() == ["time", "software", "none", "gdc", "adabs"] and len(table) == 3
    with open(own / "out" / "retention.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 2 * 2 * 3
    result = RetentionResult.from_hdf5(own / "out" / "retention.h5")
    assert result.name == "state" and result.settings["n_calibration"] == 20
    picture = own / "out" / "retention.png"
    assert ("retention.png" in out) == picture.exists()
    before = (own / "out" / "retention.csv").read_bytes()
    assert run(capsys, *arguments, "--workers", "1", "--force")[0] == 0
    assert (own / "out" / "retention.csv").read_bytes() == before  # the same to the byte, whatever the number of threads


def test_retention_options_of_tiles_and_read_out_reach_the_study(own, capsys):
    arguments = ("retention", "state.npz", "--data", "images.npz", "--times", "1d", "--chips", "1", "--images", "5")
    status, _, err = run(
        capsys, *arguments, "--dac", "7", "--adc", "9", "--tile", "64x32", "--fresh-reads", "--gdc", "per column"
    )
    settings = RetentionResult.from_hdf5(own / "out" / "retention.h5").settings
    periphery = settings["periphery"]
    assert status == 0 and (periphery["tile"], periphery["fresh"]) == ([64, 32], True)
    assert (periphery["dac"]["steps"], periphery["adc"]["steps"], periphery["adc"]["limit"]) == (126, 510, 12.0)
    assert settings["model"]["gdc_read_out"] == "per column"


def test_retention_says_what_fresh_readings_share(own, capsys):
    arguments = ("retention", "state.npz", "--data", "images.npz", "--times", "20s,1d", "--chips", "1", "--images", "5")
    status, out, _ = run(capsys, *arguments, "--fresh-reads")
    assert status == 0 and "an upper bound" in out
    status, out, _ = run(capsys, *arguments, "--fresh-reads", "--products-apart-s", "1e-6", "--force")
    assert status == 0 and "Products 1e-06 s apart" in out and "0.82 at 20 s, 0.88 at 1 day" in out and "upper bound" not in out
    periphery = RetentionResult.from_hdf5(own / "out" / "retention.h5").settings["periphery"]
    assert (periphery["fresh"], periphery["products_apart_s"]) == (True, 1e-6)
    for wrong in (["--products-apart-s", "1"], ["--fresh-reads", "--products-apart-s", "0"]):
        status, _, err = run(capsys, *arguments, *wrong)
        assert status == 2 and "products_apart_s must be seconds above 0" in err


def test_info_on_everything_it_reads(own, capsys):
    assert "fashionmnist-evaluation" in run(capsys, "info")[1]
    assert "weights" in run(capsys, "info", "state.npz")[1]
    pcmref.save("n.h5", NET, NET.init(), {"note": "words", "history": [{"epoch": 1, "loss": 0.5}]})
    out = run(capsys, "info", "n.h5")[1]
    assert "widths (3, 4)" in out and "note: words" in out and "epoch 1, loss 0.5" in out
    weights = sum(NET.init()[n].size for n in NET.synaptic())
    assert f"synaptic weights: {weights:,} on {2 * weights:,} devices" in out
    pcmref.Chip.program(NET.init(), pcmref.PCMModel.joshi2020()).save("c.h5")
    assert "g_prog_us/fc.bias" in run(capsys, "info", "c.h5")[1]
    assert "images" in run(capsys, "info", "images.npz")[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["retention", "missing.h5"], "missing.h5"),
        (["retention", "state.npz", "--data", "missing.npz"], "missing.npz"),
        (["retention", "state.npz", "--data", "images.npz", "--times", "1w"], "1w"),
        (["retention", "state.npz", "--data", "images.npz", "--times", "5s"], "t_0"),
        (["retention", "state.npz", "--data", "images.npz", "--compensations", "magic"], "magic"),
        (["retention", "state.npz", "--data", "images.npz", "--chips", "0"], "n_chips"),
        (["retention", "state.npz", "--data", "images.npz", "--images", "-1"], "--images"),
        (["retention", "state.npz", "--data", "images.npz", "--out", "state.npz/x"], "--out"),
        (["retention", "state.npz", "--data", "few.npz"], "calibration"),
        (["retention", "state.npz", "--data", "classes.npz"], "labels must be 0 to 2, got 7"),
        (["retention", "state.npz", "--data", "nchw.npz"], "images.transpose(0, 2, 3, 1)"),
        (["retention", "three.npz"], "--data names your own images"),
        (["info", "few.txt"], "neither a pcmref file nor"),
        (["train", "few.txt", "--data", "."], "few.txt"),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(own, capsys, arguments, message):
    x = np.zeros((2, 8, 8, 1))
    np.savez("few.npz", images=x, labels=np.zeros(2, int))
    np.savez("classes.npz", images=x, labels=np.array([0, 7]), calibration=x)
    np.savez("nchw.npz", images=np.zeros((2, 1, 8, 8)), labels=np.zeros(2, int), calibration=np.zeros((2, 1, 8, 8)))
    np.savez("three.npz", **pcmref.ResNet(3, 10, (3, 4), (1, 1)).init(0))
    (own / "few.txt").write_text("words, not TOML")
    status, out, err = run(capsys, *arguments)
    assert status == 2 and message in err and out == "" and len(err.strip().splitlines()) == 1
    assert err.startswith(f"pcmref {arguments[0]}: ")


def test_help_has_examples_everywhere(capsys):
    for command in cli.COMMANDS:
        with pytest.raises(SystemExit) as end:
            cli.main([command, "--help"])
        assert end.value.code == 0 and "examples:" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0 and pcmref.__version__ in capsys.readouterr().out


def test_without_matplotlib_the_numbers_still_come(own, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    status, out, err = run(capsys, "retention", "state.npz", "--data", "images.npz", "--chips", "1", "--times", "20s")
    assert status == 0 and "pip install 'pcmref[show]'" in err and "retention: 3 of 3" in err
    assert not (own / "out" / "retention.png").exists() and (own / "out" / "retention.csv").exists()


RECIPE = """
network = "resnet8"
data = "fashion-mnist"
[[stage]]
name = "n"
epochs = 15
batch_size = 8
"""


def test_train_ends_at_a_signal_with_a_checkpoint_and_resumes_to_the_same_bytes(own, capsys):
    files.write_fashion_mnist(own, n_train=16, n_test=8)
    (own / "r.toml").write_text(RECIPE)
    assert run(capsys, "train", "r.toml", "--data", ".", "--out", "whole")[0] == 0
    command = [sys.executable, "-m", "pcmref", "train", "r.toml", "--data", ".", "--out", "parts"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment) as process:
        while not (own / "parts" / "r.checkpoint.h5").exists() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 130
    assert not (own / "parts" / "n.h5").exists()
    status, _, error = run(capsys, "train", "r.toml", "--data", ".", "--out", "parts")
    assert status == 2 and "r.checkpoint.h5 is there, from an earlier run: --resume goes on from it" in error
    status, out, _ = run(capsys, "train", "r.toml", "--data", ".", "--out", "parts", "--resume")
    assert status == 0 and "in software" in out
    assert (own / "parts" / "n.h5").read_bytes() == (own / "whole" / "n.h5").read_bytes()
    assert networks.read_network(own / "parts" / "n.h5").about["recipe"]["epochs"] == 15
    before = (own / "whole" / "n.h5").stat()
    status, _, error = run(capsys, "train", "r.toml", "--data", ".", "--out", "whole")
    assert status == 2 and "n.h5 is there, from an earlier run" in error and (own / "whole" / "n.h5").stat() == before
    with alone(own / "whole", "train"):
        status, _, error = run(capsys, "train", "r.toml", "--data", ".", "--out", "whole", "--resume")
    assert status == 2 and "another `pcmref train` is writing there now" in error
    assert run(capsys, "train", "r.toml", "--data", ".", "--out", "whole", "--force")[0] == 0


def test_without_tqdm_a_line_now_and_then_tells_rate_and_time_left(capsys, monkeypatch):
    """Every tenth, and every half minute where that takes longer; going on from a checkpoint, the rate is this run's."""
    monkeypatch.setitem(sys.modules, "tqdm", None)
    now = iter([0.0, 5.0, 10.0, 41.0, 50.0, 100.0])
    monkeypatch.setattr("pcmref.cli.progress.time.monotonic", lambda: next(now))
    with ProgressBar("stage", "image") as bar:
        for done in (1000, 1010, 3000, 3100, 3200, 10_000):
            bar.update(done, 10_000)
    assert capsys.readouterr().err.splitlines() == [
        "stage: 1,000 of 10,000 images",
        "stage: 3,000 of 10,000 images, 200 images/s, 35 s left",
        "stage: 3,100 of 10,000 images, 51 images/s, 2 min left",
        "stage: 10,000 of 10,000 images, 90 images/s, 0 s left",
    ]


ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}


@pytest.mark.parametrize("options", ["-OO", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_without_docstrings_and_with_closed_streams_a_command_does_its_work(own, options):
    python, streams = (options, "") if options == "-OO" else ("", options)
    command = f"exec {sys.executable} {python} -m pcmref export state.npz copy.npz {streams}"
    assert subprocess.run(["sh", "-c", command], env=ENVIRONMENT, capture_output=True).returncode == 0
    with np.load("copy.npz") as copy, np.load("state.npz") as state:
        assert all(np.array_equal(copy[name], state[name]) for name in state)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_ends_a_command_leaves_no_temporary_file(own, number):
    """Here while it writes; a signal that is ignored, as under nohup, stays so."""
    code = (
        "import signal, sys, time; from pcmref import cli, store\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "[signal.signal(s, signal.SIG_DFL) for s in (signal.SIGTERM, signal.SIGHUP)]  # inherited: ignored under nohup\n"
        "def write(self, _): self.write_bytes(b'half'), print('half', flush=True), [time.sleep(0.1) for _ in range(600)]\n"
        "store.Path.write_bytes, own = write, store.Path.write_bytes\n"
        "sys.exit(cli.main(['export', 'state.npz', 'net.h5']))"
    )
    code = code.replace("self.write_bytes(b'half')", "own(self, b'half')")
    with subprocess.Popen([sys.executable, "-c", code], env=ENVIRONMENT, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"half\n" and len(list(own.glob(".net.h5.*"))) == 1
        process.send_signal(number)
        assert process.wait(30) == 130
    assert sorted(p.name for p in own.iterdir()) == ["images.npz", "state.npz"]


def test_a_report_that_cannot_be_written_is_said_before_the_work(own, capsys, monkeypatch):
    monkeypatch.setattr("pcmref.cli.golden.load_backend", lambda _: pytest.fail("worked first"))
    for option in ("--json", "--markdown"):
        status, _, err = run(capsys, "golden", "check", "pcmref.golden:Reference", option, "nowhere/report")
        assert status == 2 and "cannot write nowhere/report" in err
    assert run(capsys, "golden", "write", "nowhere/request.h5")[0] == 2


def test_a_picture_that_cannot_be_drawn_is_left_out(own, capsys, monkeypatch):
    def broken(*_):
        raise RuntimeError("no font")

    monkeypatch.setattr(RetentionResult, "plot", broken)
    status, out, err = run(capsys, "retention", "state.npz", "--data", "images.npz", "--chips", "1", "--times", "20s")
    assert status == 0 and "no picture: no font" in err and "written: out/retention.csv, out/retention.h5" in out
    assert sorted(os.listdir("out")) == ["retention.csv", "retention.h5"]


def test_a_name_that_is_no_utf8_and_a_folder_that_takes_no_files(own, capsys, monkeypatch):
    name = os.fsdecode(b"n\xff.npz")
    os.rename("state.npz", name)
    arguments = ("retention", name, "--data", "images.npz", "--chips", "1", "--times", "20s")
    assert run(capsys, *arguments)[0] == 0
    assert (
        RetentionResult.from_hdf5("out/retention.h5").name == r"n\udcff"
        and r"n\udcff," in (own / "out/retention.csv").read_text()
    )
    monkeypatch.setattr("pcmref.experiments.driver.Study.measure", lambda *_: pytest.fail("measured first"))
    status, _, err = run(capsys, *arguments, "--out", "/proc")
    assert status == 2 and "--out /proc: cannot be made or written to" in err


def test_images_and_normalisation_are_named(own, capsys):
    with np.load("images.npz") as arrays:
        pixels = {
            "images": np.full((9, 8, 8, 1), 3, np.uint8),
            "labels": arrays["labels"][:9],
            "calibration": np.zeros((1, 8, 8, 1)),
        }
    np.savez("pixels.npz", **pixels)
    given = ("--mean", ".1307", "--std", ".3081")
    arguments = ("retention", "state.npz", "--data", "pixels.npz", "--chips", "1", "--times", "20s", *given)
    status, out, err = run(capsys, *arguments)
    assert status == 0 and "\nimages: the first 9 of pixels, normalised by mean [0.1307], std [0.3081]\n" in out
    assert "adabs: the statistics of 1 image are hardly those of the data" in err
    status, out, _ = run(capsys, "sensitivity", *arguments[1:4], "--chips", "1", *given)
    assert status == 0 and "\nimages: the first 9 of pixels, normalised by" in out
