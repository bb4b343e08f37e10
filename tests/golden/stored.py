"""What is stored never changes: a case that is computed anew against the one in the file."""

import numpy as np

from pcmref.golden.expected import Expected
from pcmref.golden.twin_ops import TWINS
from pcmref.golden.verify import Golden


def differing(new: Golden, stored: Golden) -> list[str]:
    """The outputs and laws that do not come out as the file has them.

    Everything is the same to the bit, but for a bound that comes from the text now: it follows nn's own steps, and lies between
    half and twice the bound of the twin that wrote the file.
    """
    within = 2.0 if stored.case.op not in TWINS or stored.case.op == "chip" else 1.0
    wrong = [name for name, old in stored.expected.items() if not _agrees(new.expected[name], old, within)]
    laws = (stored.law or {}).items()
    return wrong + [k for k, v in laws if not all(np.array_equal(getattr(new.law[k], n), getattr(v, n)) for n in v._fields)]


def _agrees(new: Expected, old: Expected, within: float) -> bool:
    branches = np.array_equal(np.asarray(new.kink, float), np.asarray(old.kink, float), equal_nan=True)  # None is NaN
    bounds = np.shape(new.scale) == np.shape(old.scale) and (new.scale is None) == (old.scale is None)
    if bounds and old.scale is not None:
        bounds = (old.scale <= within * new.scale).all() and (new.scale <= within * old.scale).all()
    return branches and bounds and new.u_max == old.u_max and np.array_equal(new.value, old.value)
