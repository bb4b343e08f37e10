"""The examples in the docstrings run and show what is so; every public name has one."""

import doctest
import inspect
from importlib import import_module

import numpy as np
import pytest

import pcmref

MODULES = (
    "draws",
    "errors",
    "training",
    "experiments.driver",
    "experiments.retention",
    "experiments.sensitivity",
    "experiments.statistics",
    "experiments.tables",
    "fast.resnet",
    "files.devices",
    "files.images",
    "files.networks",
    "nn.adabs",
    "nn.resnet",
    "pcm.chip",
    "pcm.mapping",
    "pcm.model",
)
METHODS = {
    "ResNet": "joshi32 resnet8 imagenet34 init forward backward updated_state",
    "PCMModel": "joshi2020 aihwkit crosssim constants programming_std_us program drift_exponent_mean drift_exponent_std "
    "drift_exponent drift read_noise_q read",
    "Chip": "program n_devices at read gdc_factors",
    "RetentionResult": "summary table to_csv to_hdf5 plot",
    "draws": "raw uniform standard_normal permutation integers",
}
OF_OWNERS = {f"{owner}.{name}" for owner, names in METHODS.items() for name in names.split()}
PUBLIC = sorted({*pcmref.__all__, *OF_OWNERS} - {"draws"})
ASSUMED = {"np": np, "pcmref": pcmref}  # as NumPy's own examples do; the package's docstring says so
FOUND = [
    test
    for name in MODULES
    for test in doctest.DocTestFinder().find(import_module(f"pcmref.{name}"), f"pcmref.{name}", globs=ASSUMED)
    if test.examples
]


def find(name: str):
    """The object that a public name means."""
    thing = pcmref
    for part in name.split("."):
        thing = inspect.getattr_static(thing, part) if inspect.isclass(thing) else getattr(thing, part)
    return getattr(thing, "__func__", thing)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_an_example_that_shows_a_value(name):
    examples = doctest.DocTestParser().get_examples(find(name).__doc__ or "")
    writes = name == "save" or name.endswith(".plot")  # a file, no value
    assert examples and (writes or any(e.want for e in examples)), f"the docstring of pcmref.{name} shows none"
    home = getattr(find(name), "fget", find(name))
    assert f"{home.__module__}.{home.__qualname__}" in {test.name for test in FOUND}, "its module is not among MODULES"


@pytest.mark.parametrize("test", FOUND, ids=lambda test: test.name.removeprefix("pcmref."))
def test_examples_run(test, tmp_path, monkeypatch):
    if test.name.endswith(".plot"):
        pytest.importorskip("matplotlib", reason="matplotlib is not installed: its example skipped")
    monkeypatch.chdir(tmp_path)
    report = []
    doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=report.append)
    assert not report, "".join(report)
