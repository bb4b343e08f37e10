"""Check a backend against golden vectors; write, list, verify and extend them.

`check` runs a Python backend: on the stored cases, and on generated ones with all the bits of a dtype and sizes up to those of
real layers. `fuzz` looks further, and keeps a small input that fails; `run` runs such a file, or a case, again. For
anything else, `write` cases as HDF5 or JSON, run them in your language, and `verify` the results alone: .npz or .json with
arrays named op/vN/case/output.

Exit status of check, run, fuzz and verify:
  0  at least one case was judged, and all that were passed; operations of which no case could be judged are named
  1  a case failed or crashed, or passed although its failure was expected, or every case was inconclusive
  2  nothing was compared: the backend cannot be loaded or supports nothing of what was asked, or an input is wrong

examples:
  pcmref golden check pcmref.golden:Reference
  pcmref golden check my_backend:Backend --dtype float32 --op conv2d --json report.json
  pcmref golden fuzz my_backend:Backend --ops conv2d,linear --seconds 60
  pcmref golden run fuzz.h5 my_backend:Backend
  pcmref golden write request.h5 --op conv2d
  pcmref golden verify results.npz --dtype float32
  pcmref golden write --json request
  pcmref golden verify results.json --dtype float32 --strict
  pcmref golden list --level 2
  pcmref golden freeze mine.h5 conv2d inputs.npz --params '{"stride": 2, "padding": 1}' --name found_it
"""

import argparse
import hashlib
import json
import shlex
from pathlib import Path

import numpy as np

from pcmref import store
from pcmref.cli.progress import ProgressBar
from pcmref.cli.resumed_study import add_force, check_free
from pcmref.errors import PcmrefError, SettingError
from pcmref.files.foreign import read_npz
from pcmref.golden import design, file, json_vectors, report, special
from pcmref.golden.backends import CONV_ALGORITHMS, Capabilities, check_backend, load_backend
from pcmref.golden.case import Case
from pcmref.golden.check import Recorded, check, exit_status, mark_suspects
from pcmref.golden.ops import DTYPES, OPS
from pcmref.golden.search import fuzz

NO_CASE = "no case fits --level, --op and --case; `pcmref golden list` shows them"
MOST_NUMBERS = 100_000  # in the inputs of a generated case that is written to a file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def options(*parents) -> argparse.ArgumentParser:
        return argparse.ArgumentParser(add_help=False, parents=parents)

    ops, strict, backend, case = (options() for _ in range(4))
    ops.add_argument(
        "--op",
        "--ops",
        action="extend",
        type=_ops,
        metavar="OP",
        help="only this operation, or several with commas (may repeat)",
    )
    selection = options(ops)
    selection.add_argument("--file", help="a golden file (default: the one that ships with pcmref)")
    selection.add_argument(
        "--level", type=int, choices=(1, 2, 3), default=1, help="1: seconds, 2: a minute, 3: ResNet-34's layers too (default 1)"
    )
    selection.add_argument("--case", action="append", metavar="OP/vN/NAME", help="only this case (may repeat)")
    strict.add_argument("--strict", action="store_true", help="exit 1 for a missing result or a partly supported operation too")
    judging = options(strict)
    judging.add_argument("--xfail", metavar="TOML", help="expected failures")
    judging.add_argument("--json", metavar="FILE", help="write the report as JSON")
    judging.add_argument("--markdown", metavar="FILE", help="write the table of operations and dtypes")
    backend.add_argument("backend", help="package.module:Backend")
    drawn = options(backend)
    drawn.add_argument("--dtype", action="append", choices=DTYPES, help="may repeat (default: all the backend has)")
    drawn.add_argument("--seed", type=int, default=0, help="of what is drawn: samples, or the cases of fuzz (default 0)")

    actions.add_parser("check", parents=[drawn, selection, judging], help="run a backend, package.module:Backend")
    case.add_argument("what", metavar="CASE", help="op/vN/name, or a golden file such as fuzz has written")
    actions.add_parser("run", parents=[case, backend, judging], help="run a backend on one case or file, relations included")
    one = actions.add_parser("fuzz", parents=[drawn, ops, strict], help="look for a small input on which a backend is wrong")
    one.add_argument("--seconds", type=float, help="how long to look (default 60, without --examples)")
    one.add_argument("--examples", type=int, help="cases of every operation in every dtype")
    one.add_argument("--out", default="fuzz.h5", metavar="FILE.h5", help="where failing cases go (default fuzz.h5)")
    add_force(one.add_argument)
    one = actions.add_parser("write", parents=[selection], help="write cases to a file")
    one.add_argument("path", nargs="?", metavar="FILE.h5")
    one.add_argument("--json", metavar="FOLDER", help="write JSON for any language, a file an operation, instead of HDF5")
    one.add_argument("--dtype", choices=DTYPES, help="add the generated cases, with all the bits of this dtype")
    one = actions.add_parser("verify", parents=[selection, judging], help="judge a file of results")
    one.add_argument("results", help=".npz or .json with arrays op/vN/case/output")
    one.add_argument("--dtype", choices=DTYPES, default="float64")
    one.add_argument("--accumulate-dtype", choices=DTYPES, help="what sums are kept in (default: the dtype)")
    one.add_argument("--conv-algorithm", choices=CONV_ALGORITHMS, default="direct", help="how convolutions are computed")
    one.add_argument("--libm-ulp", type=float, default=2.0, help="error of exp, log and power (default 2)")
    actions.add_parser("list", parents=[selection], help="list the cases")
    one = actions.add_parser("freeze", help="keep a counterexample: add a case to a file")
    one.add_argument("path", help="golden file, made if it is not there")
    one.add_argument("op", choices=sorted(OPS), metavar="OP")
    one.add_argument("inputs", help=".npz with the operation's inputs; noise as noise/NAME")
    one.add_argument("--params", default="{}", help="JSON")
    one.add_argument("--name", required=True)
    one.add_argument("--why", default="a counterexample")


def _ops(text: str) -> list[str]:
    """The operations of a list with commas."""
    names = text.split(",")
    if unknown := set(names) - OPS.keys():
        raise argparse.ArgumentTypeError(f"no operation is called {sorted(unknown)[0]!r}; there are {', '.join(sorted(OPS))}")
    return names


def run(arguments: argparse.Namespace) -> int:
    for target in ("out", "path", "json", "markdown"):  # what is written; the JSON of `write` is a folder
        if (path := getattr(arguments, target, None)) and (target, arguments.action) != ("json", "write"):
            store.check_writable(path)
    return globals()[f"_{arguments.action}"](arguments)


def _selected(arguments, special_values=()) -> list[file.Golden]:
    golden = [*file.read(arguments.file or file.SHIPPED), *special_values]
    chosen = [
        g
        for g in golden
        if (arguments.case or g.case.level <= arguments.level)
        and (not arguments.op or g.case.op in arguments.op)
        and (not arguments.case or g.case.key in arguments.case)
    ]
    if not chosen:
        raise SettingError(NO_CASE)
    return chosen


def _check(arguments) -> int:
    backend = load_backend(arguments.backend)
    capabilities = check_backend(backend, arguments.backend)
    dtypes = arguments.dtype or list(capabilities.dtypes)
    generated = [] if arguments.file else _generated(arguments, capabilities, dtypes)
    stored = [] if generated and arguments.case else _selected(arguments, [] if arguments.file else special.cases(capabilities))
    route = _command("check", arguments.backend, file=arguments.file, seed=arguments.seed)
    return _judge(arguments, backend, dtypes, stored, generated, route, seed=arguments.seed)


def _judge(arguments, backend, dtypes, stored, generated, route: str, **options) -> int:
    """Check stored cases and those of generated keys; print and save the report; the exit status."""
    capabilities = backend.capabilities()
    verdicts = check(backend, stored, dtypes, **options)
    with ProgressBar("generated cases", "case") as bar:
        for done, key in enumerate(generated, 1):
            if (one := design.golden(key, capabilities)) is not None:
                verdicts += check(backend, [one], dtypes, related=one.case.op if arguments.case else ())
            bar.update(done, len(generated))
    verdicts = mark_suspects(verdicts)
    if arguments.xfail:
        verdicts = report.expect_failures(verdicts, arguments.xfail)
    about = {} if arguments.file or arguments.case else {"level": arguments.level}
    about |= {"golden_sha256": hashlib.sha256(Path(arguments.file or file.SHIPPED).read_bytes()).hexdigest()}
    made = report.Report(backend.name, backend.version, route, tuple(verdicts), about | report.declared(capabilities))
    print(report.terminal(made))
    if arguments.json:
        store.write_text(arguments.json, report.to_json(made))
    if arguments.markdown:
        store.write_text(arguments.markdown, report.markdown(made) + "\n")
    return exit_status(verdicts, arguments.strict)


def _generated(arguments, capabilities, dtypes) -> list[str]:
    """The keys of the generated cases that are asked for."""
    if arguments.case:
        return [key for key in arguments.case if design.is_key(key)]
    return design.keys(arguments.op or capabilities.ops or OPS, dtypes, arguments.level)


def _run(arguments) -> int:
    is_file = Path(arguments.what).exists()
    options = {"file": arguments.what if is_file else None, "case": None if is_file else [arguments.what]}
    chosen = {"level": 3, "op": None, "dtype": None, "seed": 0} | options
    return _check(argparse.Namespace(**chosen, **{k: v for k, v in vars(arguments).items() if k not in chosen}))


def _fuzz(arguments) -> int:
    check_free(Path(_hdf5(arguments.out)), arguments.force)
    backend = load_backend(arguments.backend)
    capabilities = check_backend(backend, arguments.backend)
    seconds = 60.0 if arguments.seconds is None and arguments.examples is None else arguments.seconds
    options = {"seconds": seconds, "examples": arguments.examples, "seed": arguments.seed}
    with ProgressBar("fuzz", "second" if seconds is not None else "case") as bar:
        dtypes = arguments.dtype or capabilities.dtypes
        found = fuzz(backend, capabilities, dtypes, arguments.op, **options, progress=bar.update)
    for _, verdict in found.failures:
        print(report.line(verdict))
    print(found.line())
    if found.failures:  # what was found is printed whether or not it can be kept
        file.write(arguments.out, [golden for golden, _ in found.failures])
        print(f"repeat: {_command('run', arguments.out, arguments.backend)}")
    return exit_status(list(found.judged), arguments.strict)


def _command(*words, **options) -> str:
    """The command line of a run, quoted for a shell; options that were not given are left out."""
    words = ["pcmref", "golden", *words]
    for name, value in options.items():
        words += [] if value is None else [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)


def _hdf5(path: str) -> str:
    """The path, whose name must say that it is HDF5; SettingError."""
    if Path(path).suffix != ".h5":
        raise SettingError(f"{path}: this is written as HDF5, so its name must end in .h5; `write --json FOLDER` writes JSON")
    return path


def _write(arguments) -> int:
    if (arguments.path is None) == (arguments.json is None):
        raise SettingError("write needs either FILE.h5 or --json FOLDER")
    if arguments.path is not None:
        _hdf5(arguments.path)
    generated = _generated_values(arguments) if arguments.dtype else []
    golden = [*([] if generated and arguments.case else _selected(arguments)), *generated]
    if arguments.json is not None:
        written = json_vectors.write(arguments.json, golden)
    else:
        file.write(arguments.path, golden)
        written = [Path(arguments.path)]
    size = sum(path.stat().st_size for path in written)
    print(f"{arguments.json or arguments.path}: {len(golden)} cases, {size / 1e6:.2f} MB")
    return 0


def _generated_values(arguments) -> list[file.Golden]:
    """The generated cases that are asked for, but those too large for a file, which are named."""
    capabilities = Capabilities(dtypes=(arguments.dtype,))
    made = (design.golden(key, capabilities) for key in _generated(arguments, capabilities, [arguments.dtype]))
    fit, large = [], []
    for one in (one for one in made if one is not None):
        (fit if sum(v.size for v in one.case.inputs.values()) <= MOST_NUMBERS else large).append(one)
    if large:
        print(f"left out, as they hold over {MOST_NUMBERS:,} numbers: {', '.join(one.case.key for one in large)}")
    return fit


def _verify(arguments) -> int:
    declared = {name: getattr(arguments, name) for name in ("accumulate_dtype", "conv_algorithm", "libm_ulp")}
    path, capabilities = Path(arguments.results), Capabilities(dtypes=(arguments.dtype,), **declared)
    results = json_vectors.read_results(path) if path.suffix == ".json" else read_npz(path)
    backend = Recorded(str(path), results, capabilities)
    stored = {g.case.key: g for g in file.read(arguments.file or file.SHIPPED)}
    generated = [key for key in backend.results if key not in stored and not arguments.file and design.is_key(key)]
    if unknown := backend.results.keys() - stored.keys() - set(generated):
        raise SettingError(f"{path}: no case is called {sorted(unknown)[0]!r}; `pcmref golden list --level 2` shows them")

    def is_asked(key: str, level: int = 0) -> bool:
        if arguments.case:
            return key in arguments.case
        return (not arguments.op or key.split("/")[0] in arguments.op) and (level <= arguments.level or key in backend.results)

    chosen, generated = [g for key, g in stored.items() if is_asked(key, g.case.level)], [*filter(is_asked, generated)]
    if not (chosen or generated):
        raise SettingError(NO_CASE)
    route = _command("verify", arguments.results, file=arguments.file, **declared)
    return _judge(arguments, backend, [arguments.dtype], chosen, generated, route, related=())


def _list(arguments) -> int:
    for golden in _selected(arguments, [] if arguments.file else special.cases(Capabilities())):
        print(file.describe(golden))
    return 0


def _freeze(arguments) -> int:
    try:
        params = json.loads(arguments.params)
    except ValueError as error:
        raise SettingError(f"--params must be JSON: {error}") from error
    if not isinstance(params, dict) or not arguments.name.replace("_", "").replace("-", "").isalnum():
        raise SettingError("--params must be a JSON object, --name of letters, digits, - and _")
    arrays = read_npz(Path(arguments.inputs))
    noise = {k.removeprefix("noise/"): v for k, v in arrays.items() if k.startswith("noise/")}
    inputs = {k: np.asarray(v) for k, v in arrays.items() if not k.startswith("noise/")}
    try:
        golden = file.freeze(_hdf5(arguments.path), Case(arguments.op, arguments.name, arguments.why, inputs, noise, params))
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise SettingError(f"the inputs or params do not fit {arguments.op}: {error!r}; see validation/GOLDEN.md") from error
    except PcmrefError as error:
        raise SettingError(f"cannot be kept: {error}") from error
    print(f"{arguments.path}: {file.describe(golden)}")
    return 0
