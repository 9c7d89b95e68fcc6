"""`reproduce`: whether a run's result comes out again."""

from os import PathLike
from typing import TYPE_CHECKING

from .technique_scripts import techniques

if TYPE_CHECKING:
    from ..training.reproduction import Reproduction


def reproduce(run_id: str, data_dir: "str | PathLike[str] | None" = None) -> "Reproduction":
    """Train a finished run again from its logged settings, record nothing, and compare weights, predictions and figures.

    data_dir: the prepared data; default: the folder that the run was trained from. UserError where the run cannot be trained
    again.
    """
    from ..training import reproduction

    folder = None if data_dir is None else str(data_dir)
    return reproduction.reproduce(run_id, techniques().values(), folder)


def report(found: "Reproduction") -> str:
    """What came out, in lines."""
    from ..scoring.names import LABELS

    weights = {True: "equal", False: "different", None: "not compared: the run has no record of them"}
    lines = [
        f"{found.technique}, run {found.run_id}, trained again with its settings:",
        f"  weights       {weights[found.weights]}",
        f"  predictions   {found.same_answers:,} of {found.answers:,} equal"
        + ("" if found.predictions or found.same_answers < found.answers else ", with other scores"),
    ]
    for name, figure in found.figures.items():
        moved = figure.now - figure.logged
        where = "in" if figure.within else "outside of"
        interval = f", {where} [{figure.low:.1f}, {figure.high:.1f}]" if figure.known else ""
        change = f"{moved:+.2f} points{interval}" if moved else "equal"
        lines.append(f"  {LABELS[name]:<13} {figure.logged:.2f} then, {figure.now:.2f} now: {change}")
    lines += (
        ["Inputs that differ:", *(f"  {line}" for line in found.differences)] if found.differences else []
    )
    lines += [f"Not compared: {line}." for line in found.unknown]
    return "\n".join([*lines, _verdict(found)])


def _verdict(found: "Reproduction") -> str:
    if found.equal:
        return "Bit-equal."
    if found.weights is None and found.predictions and found.metrics:
        return (
            "All predictions and figures are equal to the last digit; whether the weights are is not known."
        )
    unheld = any(not figure.within and not figure.known for figure in found.figures.values())
    outside = any(not figure.within and figure.known for figure in found.figures.values())
    if outside:
        verdict = "Not reproduced: a score lies outside of its logged 95% interval."
    elif unheld:
        verdict = "Not reproduced: a score moved, and the run has no interval to hold it against."
    else:
        verdict = "Not bit-equal; every score is equal or lies in its logged 95% interval."
    if not found.differences:
        verdict += " No recorded input differs: a computation on this device is not deterministic, or an input is not recorded."
    return verdict
