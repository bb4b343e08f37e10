"""What a backend is: the protocol, what it says of itself, and how one is loaded from `package.module:Backend`."""

import importlib
import os
import sys
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pcmref.errors import PcmrefError
from pcmref.golden.ops import DTYPES


class Unsupported(Exception):
    """Raise it with a reason where a backend cannot do what it is asked: reported as unsupported, never as a pass."""


class BackendError(PcmrefError, ValueError):
    """A backend cannot be loaded, or what it says of itself makes no sense."""


@dataclass(frozen=True)
class Capabilities:
    """What a backend says of itself.

    ops: the operations it has (an empty tuple: all, those it lacks raise Unsupported). dtypes: of "float64", "float32",
    "float16", "bfloat16"; a bfloat16 backend lists that dtype alone and is handed float32 arrays of bfloat16 values.
    accumulate_dtype: what sums and intermediate results are kept in, for all operations or {operation: dtype}; None, and
    operations not named, the dtype itself. accepts_noise: takes the draws of random
    operations; without, they are sampled. conv_algorithm: "direct", "winograd F(2,3)" or "winograd F(4,3)". libm_ulp: the
    error of its exp, log and power.
    """

    ops: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ("float64",)
    accumulate_dtype: str | dict[str, str] | None = None
    accepts_noise: bool = True
    deterministic: bool = True
    conv_algorithm: str = "direct"
    libm_ulp: float = 2.0


class Backend(Protocol):
    """An implementation to be checked. `sample` is called only where `accepts_noise` is False."""

    name: str
    version: str

    def capabilities(self) -> Capabilities: ...

    def run(self, op: str, version: int, inputs: dict, noise: dict, params: dict) -> dict[str, np.ndarray]:
        """{output: array in the inputs' dtype}; arrays in have the dtype under test, labels int64."""

    def sample(self, op: str, version: int, inputs: dict, params: dict, *, n: int, seed: int) -> dict[str, np.ndarray]:
        """{output: n independent draws of it, [n, *shape]}."""


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
        backend = found() if callable(found) else found
    except Exception as error:  # whatever a stranger's module raises while it is loaded
        raise BackendError(f"backend {name!r} cannot be loaded: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(os.getcwd())
    check_backend(backend, name)
    return backend


def check_backend(backend, name: str) -> Capabilities:
    """The backend's capabilities; BackendError where a part of the protocol is missing or a value is unknown."""
    missing = [part for part in ("name", "version", "capabilities", "run") if not hasattr(backend, part)]
    if missing:
        raise BackendError(f"backend {name!r} lacks {missing}; see the Backend protocol in pcmref.golden.backends")
    capabilities = backend.capabilities()
    if not isinstance(capabilities, Capabilities):
        raise BackendError(f"backend {name!r}: capabilities() must return Capabilities, got {type(capabilities).__name__}")
    accumulate = capabilities.accumulate_dtype or {}
    kept_in = (accumulate,) if isinstance(accumulate, str) else tuple(accumulate.values())
    unknown = [d for d in (*capabilities.dtypes, *kept_in) if d not in DTYPES]
    algorithms = ("direct", "winograd F(2,3)", "winograd F(4,3)")
    if unknown or not capabilities.dtypes or capabilities.conv_algorithm not in algorithms or not capabilities.libm_ulp > 0:
        raise BackendError(
            f"backend {name!r}: all dtypes must be some of {DTYPES}, conv_algorithm one of {algorithms}, libm_ulp above 0; got "
            f"{capabilities}"
        )
    if not capabilities.accepts_noise and not hasattr(backend, "sample"):
        raise BackendError(f"backend {name!r} takes no noise and has no `sample`: its random operations cannot be checked")
    return capabilities
