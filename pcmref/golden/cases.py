"""All cases, in the order of the operations."""

from pcmref.golden import cases_nn, cases_pcm
from pcmref.golden.case import Case


def all_cases(level: int = 2) -> list[Case]:
    """Every case up to a level."""
    return [case for case in (*cases_nn.cases(), *cases_pcm.cases()) if case.level <= level]
