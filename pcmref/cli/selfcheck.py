"""Check the checker: pcmref and reordered sums must pass, every planted error must fail at its operation.

Exit status 0 when all findings are as they must be, else 1.

examples:
  pcmref selfcheck
  pcmref selfcheck --verbose
"""

import argparse

from pcmref.cli.progress import ProgressBar
from pcmref.golden import file
from pcmref.golden.selfcheck import selfcheck


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--verbose", action="store_true", help="say what each planted error did")


def run(arguments: argparse.Namespace) -> int:
    with ProgressBar("selfcheck", "check") as bar:
        findings = selfcheck(file.read(), bar.update)
    for finding in findings:
        if arguments.verbose or not finding.right:
            print(f"{'ok   ' if finding.right else 'WRONG'} {finding.what} ({finding.detail})")
    wrong = sum(not finding.right for finding in findings)
    print(f"{len(findings)} findings, {wrong} wrong")
    return 1 if wrong else 0
