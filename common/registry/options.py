"""The command line of the gate: what a champion must do, as options."""

import argparse
from dataclasses import fields
from pathlib import Path

from ..bounds import bounds_of
from .gate import Rules

HELP = (
    ("confidence", float, "SHARE", "of the intervals by which it is compared"),
    ("tolerance", float, "POINTS", "that a cheaper one may be worse by, at that confidence"),
    (
        "cheaper_latency",
        float,
        "SHARE",
        "of the champion's median latency to be saved to count as cheaper, such as 0.3; both are measured now",
    ),
    ("cheaper_size", float, "SHARE", "of the champion's size to be saved to count as cheaper"),
    ("max_latency_ms", float, "MS", "bound for the median latency of single requests on this machine"),
    ("max_slice_loss", float, "POINTS", "that no slice may have lost, at that confidence"),
    ("min_slice", int, "EXAMPLES", "that a slice needs to be judged"),
)
"""Field of Rules, type, metavar and help of each option."""


def add_rules(parser: argparse.ArgumentParser) -> None:
    """Add an option for each field of Rules, and those of the demands beside them."""
    rules = parser.add_argument_group("what a champion must do")
    for name, kind, metavar, text in HELP:
        default, bounds = getattr(Rules(), name), bounds_of(Rules)[name]
        shown = "does not count" if default is None and "cheaper" in name else default
        shown = "none" if shown is None else shown
        rules.add_argument(
            f"--{name}",
            type=kind,
            metavar=metavar,
            default=default,
            help=f"{text} ({bounds}; default: {shown})",
        )
    rules.add_argument(
        "--also_on",
        action="append",
        default=[],
        metavar="FOLDER:POINTS",
        help="prepared data on which it may lose at most so many points against the champion, at that confidence; repeatable",
    )
    rules.add_argument(
        "--must_pass",
        type=Path,
        metavar="FILE",
        help="questions that it has to answer right, all of them: SQuAD's JSON, or JSON Lines of question, context and answers "
        "(a text or a list; [] for no answer), or of text and label",
    )


def rules_of(args: argparse.Namespace) -> Rules:
    """The rules that the options name."""
    return Rules(**{field.name: getattr(args, field.name) for field in fields(Rules)})
