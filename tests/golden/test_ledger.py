"""The ledger: the same code writes the same lines, and a loss is named by its key."""

import json

import numpy as np
import pytest

from tests.golden import ledger


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("ledger") / "ledger.txt"
    assert ledger.main(["write", str(path), "--op", "global_avg_pool"]) == 0
    return path


def test_every_source_has_its_lines_once(written):
    keys = [line.split("\t")[0] for line in written.read_text().splitlines()]
    assert len(keys) == len(set(keys))
    for start in ("direct/float64/generated", "direct/bfloat16/stored", "flush/float32/special", "fft/float32/generated"):
        assert any(key.startswith(f"{start}/global_avg_pool/v1/") and key.endswith(" > y") for key in keys), start
    assert any(" | other inputs > y" in key for key in keys) and any(" | 23 rows > y" in key for key in keys)


def test_a_part_is_compared_with_a_part(written, capsys):
    assert ledger.main(["compare", str(written), str(written)]) == 0
    assert "0 smaller or equal, 0 new, 0 LOSS" in capsys.readouterr().out
    assert ledger.read(written, ["relu"]) == {}


OLD = {"value": "a", "kink": None, "u_max": 0.5, "terms": 3, "scale": [0.0, 6.0, 2.0], "fail": [0.1, 7.0, 3.0]}


@pytest.mark.parametrize(
    ("new", "lost"),
    [
        (OLD, []),
        (OLD | {"scale": [0.0, 5.0, 2.0]}, []),
        (OLD | {"scale": [0.0, 6.0 + 1e-13, 2.0]}, []),
        (OLD | {"scale": [0.0, 6.0 + 1e-9, 2.0]}, ["scale"]),
        (OLD | {"scale": [0.0, 5.0, np.nan]}, ["scale"]),
        (OLD | {"fail": [0.1, 7.0, 4.0], "value": "b"}, ["fail", "value"]),
        (OLD | {"kink": "c"}, ["kink"]),
        (OLD | {"terms": 2}, ["terms"]),
        ({k: v for k, v in OLD.items() if k != "scale"}, ["scale"]),
        (OLD | {"more": 1}, ["more"]),
        (None, ["no bound"]),
    ],
)
def test_what_a_line_has_lost(new, lost):
    assert ledger.worse(OLD, new) == lost
    assert ledger.worse(None, new) == []


def test_shares_may_fall_and_cases_may_come():
    old = {"share": 0.5, "compared": 7}
    assert ledger.worse(old, {"share": 0.4, "compared": 9}) == []
    assert ledger.worse(old, {"share": 0.6, "compared": 6}) == ["compared", "share"]


def test_losses_have_keys(tmp_path, capsys):
    line = "direct/float64/stored/relu/v1/{}\t{}\n".format
    (tmp_path / "old").write_text(
        line("gone", "{}") + line("same", "{}") + line("coarse", json.dumps(OLD)) + line("none", "null")
    )
    (tmp_path / "new").write_text(line("same", "{}") + line("coarse", "null") + line("none", "{}") + line("more", "{}"))
    assert ledger.main(["compare", str(tmp_path / "old"), str(tmp_path / "new")]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == [
        "LOSS direct/float64/stored/relu/v1/gone: the whole line",
        "LOSS direct/float64/stored/relu/v1/coarse: no bound",
    ]
    assert said[2] == "1 equal, 1 smaller or equal, 1 new, 2 LOSS"


def test_one_nan_is_like_another_and_zero_has_a_sign():
    nans = np.array([0x7FF8000000000000, 0xFFF8000000000001], np.uint64).view(np.float64)
    assert ledger.digest(nans[:1]) == ledger.digest(nans[1:])
    assert ledger.digest(np.array(0.0)) != ledger.digest(np.array(-0.0)) != ledger.digest(np.array([0.0]))
