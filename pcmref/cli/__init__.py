"""The command line: `pcmref COMMAND ...`, one file a command."""

import argparse
import importlib
import os
import sys

import pcmref
from pcmref.errors import PcmrefError, printable

COMMANDS = ("retention", "train", "lab", "bench", "info", "import", "export", "golden", "selfcheck")


def main(argv: list[str] | None = None) -> int:
    """Run one command; 0 when it did what was asked, 2 for an error the user can mend, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="pcmref", description=pcmref.__doc__.splitlines()[0])
    parser.add_argument("--version", action="version", version=f"pcmref {pcmref.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        module = importlib.import_module(f"pcmref.cli.{'import_' if name == 'import' else name}")
        command = commands.add_parser(
            name,
            help=module.__doc__.splitlines()[0],
            description=module.__doc__,
            epilog=module.EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    arguments = parser.parse_args(argv)
    try:
        return arguments.run(arguments)
    except PcmrefError as error:
        print(f"pcmref {arguments.command}: {printable(str(error))}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print(f"pcmref {arguments.command}: interrupted", file=sys.stderr)
        return 130
