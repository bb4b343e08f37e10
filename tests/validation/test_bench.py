"""The benchmark: what it counts, what it compares, what it writes."""

import json
import re

import numpy as np
import pytest

import pcmref
from validation.peers import bench

TINY = pcmref.ResNet(1, 3, (3, 4), (1, 2))


def test_operations_of_joshi32_counted_layer_by_layer():
    net, size, total = pcmref.ResNet.joshi32(), 32, 0
    for conv, _, (o, c, k_h, k_w) in net.conv_bn_pairs():
        halvings = max(int(re.match(r"layer(\d)", conv)[1]) - 1, 0) if conv.startswith("layer") else 0
        total += 2 * o * c * k_h * k_w * (size >> halvings) ** 2
    assert bench.flops_per_image(net, size) == total + 2 * 56 * 10


def test_a_ratio_says_how_many_times_faster_we_are(monkeypatch):
    times = {"ours": 0.5, "rival": 2.0}
    monkeypatch.setattr(bench, "seconds", lambda task: times[task()])
    row = bench.measure("program", lambda: "ours", 100, {"rival": lambda: "rival"}, 3, 10.0, TINY)
    assert row["rate"] == 200 and row["milliseconds"] == 500 and row["speed_relative_to"] == {"rival": 4.0}
    assert "share_of_gemm" not in row


def test_the_command_measures_every_row_and_writes_json(tmp_path, capsys, monkeypatch):
    x = np.ones((130, 8, 8, 1), np.float32)
    monkeypatch.setattr(bench, "workload", lambda: (TINY, x, np.zeros(130, int)))
    monkeypatch.setattr(bench, "_in_child", lambda what: 7.0)
    assert bench.main(["--rounds", "1", "--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "bench.json").read_text())
    assert [row["name"] for row in report["rows"]] == list(bench.UNITS) and report["machine"]["versions"][
        "numpy"
    ] == np.__version__
    assert all(row["rate"] > 0 and row["speed_relative_to"]["one worker"] > 0 for row in report["rows"])
    out = capsys.readouterr().out
    assert all(name in out for name in bench.UNITS) and "predict 7 MB" in out
    lines = out.splitlines()[: 1 + len(report["rows"])]
    assert len({len(line) for line in lines}) == 1


@pytest.mark.slow
def test_peak_memory_is_measured_in_a_process_of_its_own():
    assert 0 < bench._in_child("train step") < 2000
