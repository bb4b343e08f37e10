"""Hostile files: the kept ones, each once found out, and some hundred new ones. `make fuzz` reads 20,000."""

from pathlib import Path

import pytest

from validation.robustness import fuzz

CORPUS = Path(__file__).parent / "corpus"


def test_hostile_files_are_refused_or_read_rightly():
    results = fuzz.fuzz(256, seed=1)
    assert len(results) == 256 and {r["reader"] for r in results} == {r.name for r in fuzz.READERS}
    assert not [r for r in results if "finding" in r], fuzz.report(results)
    assert 25 < sum(r["outcome"] == "read" for r in results) < 128  # neither all nor nothing gets through


def test_the_corpus_stays_small():
    assert sum(p.stat().st_size for p in CORPUS.iterdir()) < 300_000 and len(list(CORPUS.iterdir())) > 15


def test_every_kept_file_is_refused_still():
    """The corpus: READER--WHAT.ending; what the bytes do is in validation/reliability.md."""
    results = fuzz.read_kept(sorted(CORPUS.iterdir()))
    assert not [r for r in results if r["outcome"] != "refused" or "finding" in r], fuzz.report(results)


class Planted:
    """A reader with a fault, for the fuzzer to find."""

    def __init__(self, load):
        self.load = load

    def reader(self):
        sound = {"x.toml": b"a = 1\n"}
        return fuzz.Reader("planted", "toml", "x.toml", lambda: sound, self.load, lambda path, value: None)


def wrong_exception(path):
    raise KeyError("x")


def unnamed(path):
    raise fuzz.PcmrefError("something is wrong")


def writes(path):
    path.with_name("harmed").write_text("x")


def allocates(path):
    bytearray(fuzz.MEMORY_LIMIT + (64 << 20))
    raise fuzz.PcmrefError("x.toml: too large")


def crashes(path):
    fuzz.os.kill(fuzz.os.getpid(), fuzz.signal.SIGKILL)


def hangs(path):
    while True:
        pass


def out_of_memory(path):
    try:
        bytearray(1 << 50)
    except MemoryError as error:
        raise fuzz.PcmrefError("x.toml: too large") from error


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (wrong_exception, "KeyError"),
        (unnamed, "does not name the file"),
        (writes, "wrote"),
        (allocates, "MB of memory"),
        (crashes, "crash"),
        (hangs, "hang"),
        (out_of_memory, "MemoryError"),
    ],
)
def test_the_fuzzer_finds_what_is_planted(load, message, monkeypatch):
    if load is hangs:  # on a slow machine the memory alone takes a second to fill
        monkeypatch.setattr(fuzz, "TIME_LIMIT_S", 1.0)
    results = fuzz.fuzz(1, readers=[Planted(load).reader()])
    assert len(results) == 1 and message in results[0]["finding"]
