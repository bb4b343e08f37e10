"""What a backend is: any object whose methods are operations, or one with `run`; and loading from `package.module:Backend`."""

import importlib
import os
import sys
from dataclasses import dataclass, field
from numbers import Real

import numpy as np

from pcmref.errors import PcmrefError
from pcmref.golden.ops import DTYPES, OPS

CONV_ALGORITHMS = ("direct", "winograd F(2,3)", "winograd F(4,3)", "fft")
LIBM_ULP_MAX = 64  # the widest bound that OpenCL allows a library is 16 ulp, of pow


class Unsupported(Exception):
    """Raise it with a reason where a backend cannot do what it is asked: reported as unsupported, never as a pass."""


class BackendError(PcmrefError, ValueError):
    """A backend cannot be loaded, or what it says of itself makes no sense."""


@dataclass(frozen=True)
class Capabilities:
    """What a backend says of itself.

    ops: the operations it has (an empty tuple: all, those it lacks raise Unsupported). dtypes: of "float64", "float32",
    "float16", "bfloat16"; a bfloat16 backend lists that dtype alone and is handed float32 arrays of bfloat16 values.
    dtypes_of: {operation: dtypes}, of these, where it has fewer.
    accumulate_dtype: what sums and intermediate results are kept in, for all operations or {operation: dtype}; None, and
    operations not named, the dtype itself. accepts_noise: takes the draws of random
    operations; without, they are sampled. conv_algorithm: of CONV_ALGORITHMS. libm_ulp: the
    error of its exp, log and power, above 0 and at most LIBM_ULP_MAX. flush_denormals: takes or gives 0 for numbers below the
    smallest normal one. BackendError where a field is anything else.
    """

    ops: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ("float64",)
    accumulate_dtype: str | dict[str, str] | None = None
    accepts_noise: bool = True
    deterministic: bool = True
    conv_algorithm: str = "direct"
    libm_ulp: float = 2.0
    flush_denormals: bool = False
    dtypes_of: dict[str, tuple[str, ...]] = field(default_factory=dict, hash=False)

    def __post_init__(self):
        _names("ops", self.ops, OPS)
        _names("dtypes", self.dtypes, DTYPES)
        accumulate = self.accumulate_dtype
        if isinstance(accumulate, dict):
            _names("the operations of accumulate_dtype", list(accumulate), OPS)
            _names("the dtypes of accumulate_dtype", list(accumulate.values()), DTYPES)
        elif accumulate is not None:
            _names("accumulate_dtype", [accumulate], DTYPES)
        _names("conv_algorithm", [self.conv_algorithm], CONV_ALGORITHMS)
        if not isinstance(self.dtypes_of, dict):
            raise BackendError(f"Capabilities: dtypes_of must be {{operation: dtypes}}, got {self.dtypes_of!r}")
        _names("the operations of dtypes_of", list(self.dtypes_of), OPS)
        for dtypes in self.dtypes_of.values():
            _names("dtypes_of", dtypes, self.dtypes)
        if not self.dtypes:
            raise BackendError(f"Capabilities: dtypes must name at least one of {DTYPES}")
        for name in ("accepts_noise", "deterministic", "flush_denormals"):
            if not isinstance(getattr(self, name), bool):
                raise BackendError(f"Capabilities: {name} must be True or False, got {getattr(self, name)!r}")
        ulp = self.libm_ulp
        if not isinstance(ulp, Real) or isinstance(ulp, bool) or not 0 < ulp <= LIBM_ULP_MAX:  # a NaN too
            raise BackendError(f"Capabilities: libm_ulp must be a number above 0 and up to {LIBM_ULP_MAX}, got {ulp!r}")


def _names(what: str, names, known) -> None:
    """BackendError unless `names` is a tuple or list of known names."""
    if not isinstance(names, (tuple, list)):
        raise BackendError(f"Capabilities: {what} must be a tuple of names, got {names!r}")
    unknown = [name for name in names if not isinstance(name, str) or name not in known]
    if unknown:
        raise BackendError(f"Capabilities: {what} must be of {', '.join(known)}; got {unknown[0]!r}")


class NamedBackend:
    """A backend's operations by name: each is a method, its arguments are named as in GOLDEN.md's table.

    What an object lacks of this class, `adapted` gives it: it need not be a base class. A backend that takes no noise has a
    method sample(op, version, inputs, params, *, n, seed) besides, which gives {output: n independent draws, [n, *shape]}.

    Inputs, noise and params come as keywords; what stands in braces there (`{param}`) as one dict, `state` or `noise`.
    A method returns its output, a tuple of all outputs in the table's order, or {output: array}. `dtypes` are the backend's,
    `tensor` and `array` turn NumPy's arrays (copies, in C order and the machine's byte order) into its own and back.
    """

    name, version, dtypes = "unnamed", "0", ("float64",)
    tensor, array = staticmethod(np.asarray), staticmethod(np.asarray)

    def capabilities(self) -> Capabilities:
        return Capabilities(ops=tuple(op for op in OPS if hasattr(self, op)), dtypes=self.dtypes)

    def run(self, op: str, version: int, inputs: dict, noise: dict, params: dict) -> dict[str, np.ndarray]:
        """{output: array in the inputs' dtype}; arrays in have the dtype under test, labels int64."""
        if version != OPS[op].version:
            raise Unsupported(f"{self.name} has no {op} version {version}")
        inputs, noise = ({name: self._handed(value) for name, value in given.items()} for given in (inputs, noise))
        arguments = params | by_name("state", inputs, OPS[op].inputs) | by_name("noise", noise, OPS[op].noise)
        return {name: self.array(value) for name, value in self.call(op, arguments).items()}

    def _handed(self, array: np.ndarray):
        """The array as the backend's own; a framework's `tensor` gets a copy in C order and this machine's byte order."""
        framework = self.tensor is not np.asarray
        return self.tensor(np.array(array, array.dtype.newbyteorder("="), order="C") if framework else array)

    def call(self, op: str, arguments: dict) -> dict:
        """{output: value} of the operation's method; Unsupported where there is none."""
        if not hasattr(self, op):
            raise Unsupported(f"{self.name} has no {op}")
        found = getattr(self, op)(**arguments)
        if not isinstance(found, dict):
            found = dict(zip(OPS[op].outputs, found if isinstance(found, tuple) else (found,), strict=True))
        return found


def by_name(rest: str, given: dict, table: dict) -> dict:
    """The arrays by name; where the table has names in braces, all that it does not name as one dict called `rest`."""
    if not any("{" in name for name in table):
        return given
    return {k: v for k, v in given.items() if k in table} | {rest: {k: v for k, v in given.items() if k not in table}}


def adapted(found):
    """The object as a backend: one that has operations and no `run` has them called by name, as NamedBackend's are.

    Its name and version are its class's and its package's where it has none.
    """
    if hasattr(found, "run") or not any(hasattr(found, op) for op in OPS):
        return found
    backend, package = NamedBackend(), sys.modules.get(type(found).__module__.partition(".")[0])
    own = {name: getattr(found, name) for name in dir(found) if not name.startswith("_")}
    vars(backend).update({"name": type(found).__name__, "version": getattr(package, "__version__", "0")} | own)
    return backend


def load_backend(name: str):
    """The backend meant by `package.module:Backend`: an instance, or a class or function that makes one.

    Modules are looked for in the current directory too. BackendError says what went wrong.
    """
    module_name, colon, attribute = name.partition(":")
    if not (colon and module_name and attribute):
        raise BackendError(f"{name!r} does not name a backend; write package.module:Backend, such as pcmref.golden:Reference")
    sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module_name), attribute)
        backend = adapted(found() if callable(found) else found)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a stranger's module raises while it is loaded, sys.exit among it
        raise BackendError(f"backend {name!r} cannot be loaded: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(os.getcwd())
    check_backend(backend, name)
    return backend


def check_backend(backend, name: str) -> Capabilities:
    """The backend's capabilities; BackendError where a part of the protocol is missing or a value is unknown."""
    missing = [part for part in ("name", "version", "capabilities", "run") if not hasattr(backend, part)]
    if missing:
        found = "no method is named like an operation, such as conv2d, and " if "run" in missing else ""
        raise BackendError(f"backend {name!r}: {found}it lacks {missing}; see pcmref.golden.NamedBackend")
    if not (isinstance(backend.name, str) and isinstance(backend.version, str)):
        raise BackendError(f"backend {name!r}: its name and version must be texts, got {backend.name!r}, {backend.version!r}")
    try:
        capabilities = backend.capabilities()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a stranger's code
        raise BackendError(f"backend {name!r}: capabilities() raised {type(error).__name__}: {error}") from error
    if not isinstance(capabilities, Capabilities):
        raise BackendError(f"backend {name!r}: capabilities() must return Capabilities, got {type(capabilities).__name__}")
    if not capabilities.accepts_noise and not hasattr(backend, "sample"):
        raise BackendError(f"backend {name!r} takes no noise and has no `sample`: its random operations cannot be checked")
    return capabilities
