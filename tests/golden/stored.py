"""What is stored never changes: a case that is computed anew against the one in the file."""

import numpy as np

from pcmref.golden.expected import Expected
from pcmref.golden.twin import TWINS
from pcmref.golden.verify import Golden


def differing(new: Golden, stored: Golden) -> list[str]:
    """The outputs and laws that do not come out as the file has them.

    Values are the same to the bit. So are bounds of the twin, but for the order in which they are added up; one that comes from
    the text now follows the steps of nn, and lies between half and twice the bound of the twin that wrote the file.
    """
    within = 2.0 if stored.case.op not in TWINS or stored.case.op == "chip" else 1 + 2.0**-40
    wrong = [name for name, old in stored.expected.items() if not _agrees(new.expected[name], old, within)]
    laws = (stored.law or {}).items()
    return wrong + [k for k, v in laws if not all(map(_same, new.law[k], v))]


def _agrees(new: Expected, old: Expected, within: float) -> bool:
    branches = np.array_equal(np.asarray(new.kink, float), np.asarray(old.kink, float), equal_nan=True)  # None is NaN
    bounds = np.shape(new.scale) == np.shape(old.scale) and (new.scale is None) == (old.scale is None)
    if bounds and old.scale is not None:
        bounds = (old.scale <= within * new.scale).all() and (new.scale <= within * old.scale).all()
    return branches and bounds and new.u_max == old.u_max and np.array_equal(new.value, old.value)


def _same(new, old) -> bool:
    """Of two fields of a law; the spread of weight noise is a difference of two float64 in the file."""
    return new == old if isinstance(old, str) else np.allclose(new, old, rtol=2.0**-48, atol=0)
