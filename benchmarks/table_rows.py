"""`--json` of every benchmark whose table stands in docs/: it writes the rows to the table's file, and `make tables` the page."""

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import _path  # noqa: F401

from common.paths import ROOT
from common.reports import result_tables
from common.tracking import provenance


def json_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="also write the rows here with where they come from: docs/results/NAME.json, then `make tables`",
    )


def save_rows(file: Path | None, rows: Iterable[Mapping[str, Any]], **known: Any) -> None:
    """Write rows to the file of --json, where one is named. known: what provenance holds beside command, machine and
    versions, such as data and seeds."""
    if file:
        result_tables.save(file, list(rows), provenance.of_command() | known)


def checkout_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of a benchmark that compares two checkouts."""
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="folder of another checkout")
    parser.add_argument("--output", type=Path, help="also write the JSON here")
    json_flag(parser)


def checkouts(against: Path | None) -> dict[str, Path]:
    """Name → folder of what is compared."""
    return {"this": ROOT} | ({"other": against.resolve()} if against else {})


def write_report(
    args: argparse.Namespace, rows: list[dict[str, Any]], measured: list[Any], data: str
) -> None:
    """Print rows and what they are made of as JSON, and write what the flags of `checkout_flags` name."""
    where = provenance.of_command()
    text = json.dumps({"rows": rows, "measured": measured, "provenance": where}, indent=1)
    print(text)
    if args.output:
        args.output.write_text(text + "\n")
    save_rows(args.json, rows, data=data)


def between(name: str, ratio: Mapping[str, float] | None) -> dict[str, float]:
    """A median with the lowest and highest round as the fields of a row; nothing where there is no ratio."""
    return (
        {} if ratio is None else dict(zip((name, f"{name}_low", f"{name}_high"), ratio.values(), strict=True))
    )
