"""Golden vectors, and a checker that tells any backend exactly where it is wrong. See validation/GOLDEN.md."""

from pcmref.golden import mistakes_nn, mistakes_pcm  # noqa: F401 - they fill the table of mistakes
from pcmref.golden.backends import BackendError, Capabilities, NamedBackend, Unsupported, load_backend
from pcmref.golden.check import Recorded, check, exit_status
from pcmref.golden.file import freeze, read, write
from pcmref.golden.reference import Reference
from pcmref.golden.verify import Golden, Verdict, judge

__all__ = [
    "BackendError",
    "Capabilities",
    "Golden",
    "NamedBackend",
    "Recorded",
    "Reference",
    "Unsupported",
    "Verdict",
    "check",
    "exit_status",
    "freeze",
    "judge",
    "load_backend",
    "read",
    "write",
]
