"""What every script has of a command line: mistakes as one line, exit codes, signals."""

import argparse
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from . import stopping
from .errors import UserError


class Parser(argparse.ArgumentParser):
    """A script's command line; a mistake in it is one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; --help lists the flags.")


def guarded(command: Callable[[], object]) -> int:
    """Run a script's body; turn the errors that a user can mend into a message and an exit code."""
    with stopping.watched():
        # A plain `kill` or a closed terminal must unwind like Ctrl-C does, so that the run is marked as what it is.
        for number in stopping.SIGNALS:
            # Ctrl-C is ignored in the background of a shell script.
            if number != signal.SIGINT or signal.getsignal(number) is signal.default_int_handler:
                signal.signal(number, lambda number, _: stopping.leave(number))
        try:
            command()
        except UserError as error:
            _say(f"error: {error}")
            return 2
        except KeyboardInterrupt:
            _say("interrupted")
            return 130
        return 0


def _say(text: str) -> None:
    """To stderr, on a line of its own even where a progress bar stands."""
    from tqdm import tqdm

    tqdm.write(text, file=sys.stderr)
