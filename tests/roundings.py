"""The bound that tests count: k roundings one after another change a value by at most gamma(k) of the magnitudes in it."""

import numpy as np


def gamma(k: int, dtype=np.float64) -> float:
    """k u/(1 - k u), u half of the dtype's epsilon (Higham 2002, lemma 3.1).

    A sum of n terms has n - 1 roundings in whatever order it is added, so it is off by at most gamma(n - 1) sum |term|.
    """
    ku = k * float(np.finfo(dtype).eps) / 2
    return ku / (1 - ku)
