"""nn's operations, fast; `pcmref.fast:Backend` has each as a method, to be judged."""

from pcmref.fast.backend import Backend

__all__ = ["Backend"]
