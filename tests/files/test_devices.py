"""Device files: what they say is what the model is, what is wrong in them is named, and `pcmref device show` writes them."""

import tomllib
from dataclasses import replace

import pytest

from pcmref import PCMModel, RetentionResult
from pcmref.cli import main
from pcmref.errors import FileError
from pcmref.files.devices import described, read_device
from pcmref.pcm import constants


@pytest.fixture
def written(tmp_path):
    def write(text: str):
        path = tmp_path / "mine.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize("name", constants.profiles())
def test_what_is_shown_of_a_profile_is_the_profile(name, written):
    text = described(name)
    assert read_device(written(text)) == PCMModel.profile(name)
    listed = [line for line in text.splitlines() if " = " in line and not line.startswith("name = ")]
    assert [line.split(" = ")[0] for line in listed] == [constant for constant, *_ in PCMModel.constants()]
    assert all("; " in line.split("  # ")[1] for line in listed)


def test_a_file_changes_what_it_says_and_nothing_else(written):
    path = written('name = "mine"\nbased_on = "hermes"\nt_0_s = 60\ndevices_per_weight = { "conv1.weight" = 4 }\n')
    changed = {"t_0_s": 60, "devices_per_weight": {"conv1.weight": 4}, "pair": "kept"}
    with pytest.raises(FileError, match="mine.toml: a pair collapsed to its net is one device a sign"):
        read_device(path)
    path.write_text(path.read_text() + 'pair = "kept"\n')
    assert read_device(path) == replace(PCMModel.profile("hermes"), name="mine", **changed)
    assert 'devices_per_weight = { "conv1.weight" = 4 }' in described(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name = ", "cannot be read as TOML"),
        ("t_0_s = 60", "needs a name"),
        ('name = "\\u001b[31mmine"', "needs a name, a line of text"),
        ('name = "mine"\nsource = [1]', "needs a source, a line of text"),
        ('name = "mine"\nbased_on = "nobody"', "one of .'joshi2020', 'aihwkit', 'crosssim', 'hermes'"),
        ('name = "mine"\nbased_on = ["hermes"]', "device must be one of"),
        ('name = "mine"\nq_maximum = 1', "unknown constants .'q_maximum'"),
        ('name = "mine"\nprogramming = [1, 2, 3, 4, 5]', "programming must be 1 or 2 or 3 or 4 finite numbers"),
        ('name = "mine"\nprogramming = [nan]', "programming must be"),
        ('name = "mine"\ng_max_us = "25"', "g_max_us must be a finite number; got '25'"),
        ('name = "mine"\ng_max_us = -1', "g_max_us must be above 0, got -1"),
        ('name = "mine"\nnu_law = "normal"', "nu_law must be one of"),
        ('name = "mine"\n[g_max_us]\na = 1', "g_max_us must be a finite number"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(written, text, says):
    with pytest.raises(FileError, match=f"mine.toml.*{says}"):
        read_device(written(text))


def test_a_device_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileError, match="joshi.*one of.*hermes.*ends in .toml"):
        read_device("joshi")
    with pytest.raises(FileError, match="none.toml"):
        read_device(tmp_path / "none.toml")


def test_a_digest_is_of_the_constants_alone():
    joshi = PCMModel.joshi2020()
    digest = constants.digest
    assert digest(joshi) == digest(replace(joshi, name="other")) == digest(replace(joshi, t_0_s=20))
    assert digest(joshi) != digest(replace(joshi, t_0_s=20.5))


def test_the_command_shows_lists_and_writes(capsys, tmp_path):
    assert main(["device", "show"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == constants.profiles()
    assert main(["device", "show", "hermes"]) == 0
    assert tomllib.loads(capsys.readouterr().out)["g_max_us"] == 20.7
    path = tmp_path / "copy.toml"
    assert main(["device", "show", "aihwkit", "--out", str(path)]) == 0
    assert read_device(path) == PCMModel.aihwkit()
    assert main(["device", "show", "nobody"]) == 2 and "nobody" in capsys.readouterr().err


def test_experiments_run_on_a_device_of_ones_own(tmp_path, capsys, written):
    """hermes starts at 300 s: the times of the experiment begin there; the result says which device it is of."""
    path = written('name = "mine"\nbased_on = "hermes"\nq_max = 0.03\n')
    command = [
        "retention",
        "resnet8-fashionmnist-noise",
        "--images",
        "50",
        "--chips",
        "1",
        "--compensations",
        "gdc",
        "--workers",
        "1",
    ]
    assert main([*command, "--device", str(path), "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert f"device mine ({constants.digest(read_device(path))})" in out and "5 min" in out and "20 s" not in out
    result = RetentionResult.from_hdf5(tmp_path / "retention.h5")
    assert result.settings["device_digest"] == constants.digest(read_device(path)) and result.rows[0].t_s == 300.0
    assert main([*command, "--device", "nobody", "--out", str(tmp_path)]) == 2
    assert "one of ['joshi2020'" in capsys.readouterr().err
