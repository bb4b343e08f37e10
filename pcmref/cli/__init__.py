"""The command line: `pcmref COMMAND ...`, one file a command; its help is the file's docstring."""

import argparse
import importlib
import os
import signal
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from threading import current_thread, main_thread

import pcmref
from pcmref.errors import PcmrefError, printable

COMMANDS = ("retention", "sensitivity", "train", "lab", "device", "info", "import", "export", "golden")


class _Output:
    """A stream whose reader may go away or whose disk may fill: what it does not take is dropped, and the command goes on.

    So results are written and the exit status is the command's. Characters that the stream has not are escaped.
    """

    def __init__(self, stream):
        self.stream, self.error = stream, None

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        encoding = self.stream.encoding or "utf-8"
        self._try(lambda: self.stream.write(text.encode(encoding, "backslashreplace").decode(encoding)))
        return len(text)

    def flush(self) -> None:
        self._try(self.stream.flush)

    def _try(self, action) -> None:
        try:
            if self.error is None:
                action()
        except OSError as error:
            self.error = error
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())  # where the interpreter's last flush goes


def main(argv: list[str] | None = None) -> int:
    """Run one command; 0 when it did what was asked, 2 for an error the user can mend, 130 when interrupted."""
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass  # a standard stream that is closed stays nobody's: no file of ours is to take its number
    os.close(handle)
    with open(os.devnull, "w") as closed, _ends_by_exception():
        out, error = _Output(sys.stdout or closed), _Output(sys.stderr or closed)
        with redirect_stdout(out), redirect_stderr(error):
            return _status(argv, out)


def _status(argv: list[str] | None, out: _Output) -> int:
    status = _run(argv)
    out.flush()
    if out.error is not None and not isinstance(out.error, BrokenPipeError):
        print(f"pcmref: cannot write to the standard output: {out.error.strerror}", file=sys.stderr)
        status = status or 2
    return status


@contextmanager
def _ends_by_exception():
    """What ends a process ends it as Ctrl-C does, by an exception: no temporary file is left. What is ignored stays ignored."""
    numbers = {signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)} if current_thread() is main_thread() else ()
    previous = {number: signal.getsignal(number) for number in numbers}
    ours = [number for number, handler in previous.items() if handler == signal.SIG_DFL]
    for number in ours:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _run(argv: list[str] | None) -> int:
    parser = argparse.ArgumentParser(prog="pcmref", description=(pcmref.__doc__ or "").partition("\n")[0])
    parser.add_argument("--version", action="version", version=f"pcmref {pcmref.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        module = importlib.import_module(f"pcmref.cli.{'import_' if name == 'import' else name}")
        about, examples, rest = (module.__doc__ or "no help under -OO").partition("examples:\n")
        texts = {"help": about.splitlines()[0], "description": about, "epilog": examples + rest}
        command = commands.add_parser(name, **texts, formatter_class=argparse.RawDescriptionHelpFormatter)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    arguments = parser.parse_args(argv)
    try:
        return arguments.run(arguments)
    except PcmrefError as error:
        print(f"pcmref {arguments.command}: {printable(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"pcmref {arguments.command}: interrupted", file=sys.stderr)
        return 130
