"""The command line of the gate: what a champion must do, as options."""

import argparse
from dataclasses import fields
from pathlib import Path

from ..bounds import bounds_of
from .gate import Rules

HELP = (
    ("confidence", float, "SHARE", "confidence of the intervals by which it is compared"),
    ("tolerance", float, "POINTS", "points that a cheaper candidate may lose, at that confidence"),
    ("cheaper_latency", float, "SHARE", "share of the median latency that a cheaper candidate saves"),
    ("cheaper_size", float, "SHARE", "share of the champion's size that a cheaper candidate saves"),
    ("max_latency_ms", float, "MS", "bound for the median latency of single requests on this machine"),
    ("max_slice_loss", float, "POINTS", "most points that a slice may lose, at that confidence"),
    ("min_slice", int, "EXAMPLES", "least number of examples in a slice that is judged"),
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
        help="questions that it has to answer right, all of them, in any format of prepare_data.py: SQuAD's JSON, or JSON Lines of "
        "question, context and answers (a text or a list; [] for no answer), or of text and label",
    )


def rules_of(args: argparse.Namespace) -> Rules:
    """The rules that the options name."""
    return Rules(**{field.name: getattr(args, field.name) for field in fields(Rules)})
