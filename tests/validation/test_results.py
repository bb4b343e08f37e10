"""What the experiments' documents say is of the networks that ship, and is what their tools write of the kept results."""

import hashlib
import json

import numpy as np
import pytest

from pcmref.files import networks
from tests.helpers import TOP
from validation.experiments import calibration_size, cifar10, noise_and_clipping, retention

VALIDATION = TOP / "validation"
KEPT = [path for path in sorted((VALIDATION / "results").glob("*.json")) if "about" in json.loads(path.read_text())]


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_results_are_of_the_networks_as_they_ship(path):
    about, shipped = json.loads(path.read_text())["about"], networks.shipped()
    if about["network"] in shipped:
        assert about["sha256"] == hashlib.sha256(shipped[about["network"]].read_bytes()).hexdigest()
    else:
        trained_for_a_row = f"sweep-{about['network']}", f"arm-{about['network'].removeprefix('arm-')}"
        of_others = [
            f"cifar10-{kind}-{about['network']}"
            for kind in ("calibration", "retention", "recalibration", "reclassified", "sensitivity")
        ]
        assert path.stem in (*trained_for_a_row, *of_others)


def test_retention_md_and_the_readmes_comparison_are_current():
    """`python -m validation.experiments.retention report` writes both from what is kept."""
    assert (VALIDATION / "retention.md").read_text(encoding="utf-8") == retention.document()
    assert f"<!-- comparison -->\n{retention.comparison()}\n<!-- end -->" in (TOP / "README.md").read_text(encoding="utf-8")
    assert all((VALIDATION / name).is_file() for name in ("retention.png", "calibration.png"))


def test_a_cpu_counts_what_a_gpu_counted():
    """Of one chip under 400 conditions, each of 10,000 images: 399 are equal, one differs by an image."""
    cpu = json.loads((VALIDATION / "results" / "cpu-and-h200.json").read_text())
    gpu = json.loads((VALIDATION / "results" / "cifar10-sensitivity-resnet32-cifar10-baseline.json").read_text())
    assert "CPU" in cpu["about"]["evaluated by"] and "H200" in gpu["about"]["evaluated by"]
    images = np.round(10_000 * np.subtract(cpu["values"]["chip 5"], gpu["values"]["chip 5"]))
    assert sorted(images) == [-1.0] + [0.0] * 399


def test_how_many_calibration_images_serve_better(monkeypatch):
    """cifar10.md has what calibration_size.py prints of the training images that were held back, on chips of their own."""
    few, many, less = calibration_size.table().replace("0.", ".").splitlines()[-1].strip("| ").split(" | ")
    median, mean = ([cell.split()[i] for cell in (few, many)] for i in (0, -1))
    said = f"there 1,280 lose {median[0]} points (median; mean {mean[0]}) and 5,000 {median[1]} ({mean[1]}), less by {less} ("
    assert said in (VALIDATION / "cifar10.md").read_text(encoding="utf-8")


def test_noise_and_clipping_md_is_current(monkeypatch):
    """`python -m validation.experiments.noise_and_clipping report` writes it from what is kept: five trainings an arm."""
    assert (VALIDATION / "noise_and_clipping.md").read_text(encoding="utf-8") == noise_and_clipping.document()
    assert noise_and_clipping.measured("resnet8")["gdc"].shape == (2, 2, 5, 5)


def test_the_published_chips_images_and_conditions():
    """Both networks on 20 chips, each read 5 times at eight times under three compensations, on the first 500 test images."""
    for name in retention.NETWORKS:
        result = retention.result_of(f"retention-{name}", name)
        cells = {row[1:5] for row in result.rows}
        assert len(cells) == len(result.rows) == 3 * 8 * 20 * 5 and result.settings["images"] == 500


def test_cifar10_md_and_the_readmes_table_are_current(monkeypatch):
    """`python -m validation.experiments.cifar10 report` writes both from what is kept."""
    results = [cifar10.result_of(f"cifar10-retention-{name}") for name in cifar10.measured("retention")]
    assert f"<!-- cifar10 -->\n{cifar10.lost_in_a_day(results)}\n<!-- end -->" in (TOP / "README.md").read_text(
        encoding="utf-8"
    )
    assert f"<!-- decides -->\n{cifar10.sensitivity.decides(cifar10.kept_costs())}\n<!-- end -->" in (
        TOP / "README.md"
    ).read_text(encoding="utf-8")
    assert f"<!-- paper -->\n{cifar10.beside_the_paper(results)}\n<!-- end -->" in cifar10.DOCUMENT.read_text(encoding="utf-8")
    assert f"<!-- sensitivity -->\n{cifar10.what_costs()}\n<!-- end -->" in cifar10.DOCUMENT.read_text(encoding="utf-8")
    assert (VALIDATION / "cifar10.png").is_file()
