"""The examples of the JSON route in C and JavaScript: right as they are, and a mistake planted in them is found where it is."""

import shutil
import subprocess
from pathlib import Path

import pytest

from pcmref import cli
from tests.helpers import TOP

PEERS = TOP / "validation" / "peers"
OPS = ("conv2d", "batch_norm", "relu", "linear", "drift")
LANGUAGES = [
    pytest.param(
        f"golden_example.{suffix}", id=suffix, marks=pytest.mark.skipif(not shutil.which(tool), reason=f"needs {tool}")
    )
    for suffix, tool in (("c", "cc"), ("mjs", "node"))
]


@pytest.fixture(scope="module")
def request_(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("request")
    assert cli.main(["golden", "write", "--json", str(folder), "--level", "2", *(w for op in OPS for w in ("--op", op))]) == 0
    return folder


def run(source: Path, request: Path, *flags: str) -> Path:
    """The results that an example makes of a request."""
    program, results = ["node", source], source.with_suffix(".json")
    if source.suffix == ".c":
        program = [source.with_suffix("")]
        subprocess.run(["cc", "-std=c99", "-Wall", "-Werror", *flags, source, "-lm", "-o", program[0]], check=True)
    subprocess.run([*program, request, results], check=True)
    return results


def verify(results: Path, capsys, dtype: str = "float64") -> tuple[int, set[str], str]:
    """(exit status, operations that fail, the last line)."""
    capsys.readouterr()
    status = cli.main(["golden", "verify", str(results), "--level", "2", "--op", ",".join(OPS), "--strict", "--dtype", dtype])
    lines = capsys.readouterr().out.splitlines()
    return status, {line.split()[1].split("/")[0] for line in lines if line.startswith("FAIL")}, lines[-1]


@pytest.mark.parametrize("name", LANGUAGES)
def test_the_example_passes(tmp_path, request_, capsys, name):
    source = shutil.copy(PEERS / name, tmp_path)
    status, failed, last = verify(run(Path(source), request_), capsys)
    assert (status, failed) == (0, set()) and "24 pass;" in last


@pytest.mark.parametrize("name", LANGUAGES[:1])
def test_the_example_passes_in_float32(tmp_path, request_, capsys, name):
    results = run(Path(shutil.copy(PEERS / name, tmp_path)), request_, "-DREAL=float")
    assert verify(results, capsys, "float32")[:2] == (0, set())
    assert verify(results, capsys)[0] == 1


@pytest.mark.parametrize("name", LANGUAGES)
@pytest.mark.parametrize(
    ("op", "right", "wrong"),
    [
        ("conv2d", "q * stride + j - padding", "q * stride + j"),
        ("batch_norm", ".data[c] + eps)", ".data[c])"),
        ("relu", "< 0 ? 0 :", "< 0 ? 0.01 :"),
        ("linear", "* w.data[o * C + c]", "* w.data[o * C]"),
        ("drift", "-nu.data[i]", "nu.data[i]"),
    ],
)
def test_a_planted_mistake_is_found(tmp_path, request_, capsys, name, op, right, wrong):
    text = (PEERS / name).read_text(encoding="utf-8")
    assert text.count(right) == 1
    source = tmp_path / name
    source.write_text(text.replace(right, wrong), encoding="utf-8")
    flags = ("-Wno-error=unused-variable", "-Wno-error=unused-but-set-variable")
    assert verify(run(source, request_, *flags), capsys)[:2] == (1, {op})


@pytest.mark.parametrize("name", LANGUAGES[:1])
@pytest.mark.parametrize(
    "text", ["", "{", '{"cases"', '{"cases": {"a": {"inputs": {}}}}', '{"cases": {"a', "[" * 1000, '{"cases": {"a": {}}']
)
def test_the_examples_reader_of_json_ends_well_on_what_is_none(tmp_path, name, text):
    source = Path(shutil.copy(PEERS / name, tmp_path))
    (tmp_path / "conv2d.json").write_text(text)
    program = tmp_path / "program"
    if subprocess.run(["cc", "-fsanitize=address,undefined", source, "-lm", "-o", program]).returncode:
        pytest.skip("the compiler has no sanitizers")
    ended = subprocess.run([program, tmp_path, tmp_path / "r.json"], capture_output=True, text=True)
    assert ended.returncode == 2 and ended.stderr.startswith("golden_example: ")
