"""What the command lines of all scripts share: errors as one line, exit codes, signals."""

import argparse
import gc
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from . import stopping
from .errors import UserError


class Parser(argparse.ArgumentParser):
    """A script's command line: the help keeps the lines of the description, a flag is written out, an error is one line."""

    def __init__(self, *args: Any, **kwargs: Any):
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; --help lists the flags.")


def guarded(command: Callable[[], object]) -> int:
    """Run a script's body; turn errors that the user can fix into a message and an exit code."""
    with stopping.watched():
        # A plain `kill` or a closed terminal must unwind like Ctrl-C does, so that the run is marked as what it is.
        for number in stopping.SIGNALS:
            # Ctrl-C is ignored in the background of a shell script.
            if number != signal.SIGINT or signal.getsignal(number) is signal.default_int_handler:
                signal.signal(number, lambda number, _: stopping.leave(number))
        try:
            command()
        except UserError as error:
            _report(f"error: {error}")
            return 2
        except KeyboardInterrupt:
            _report("interrupted")
            return 130
        return 0


@contextmanager
def importing() -> Iterator[None]:
    """For a block that imports large packages, in a process of this project's own: the garbage collector never looks at what is
    there by the end of it.

    Modules stay until the process ends. The collector would look at all of them again and again while their number grows, and
    in every full collection later, of which there is one before the first step.
    """
    on, before = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > before:
            gc.freeze()
        if on:
            gc.enable()


def _report(text: str) -> None:
    """Print to stderr, on a line of its own even while a progress bar is shown."""
    from tqdm import tqdm

    tqdm.write(text, file=sys.stderr)
