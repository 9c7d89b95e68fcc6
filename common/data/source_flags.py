"""Flags of the command line for what prepared data is read from; which source takes which, `sources.SOURCES` says."""

from argparse import SUPPRESS
from pathlib import Path
from typing import Any, Protocol

from .sources import DATASETS
from .squad_shapes import FORMS


class Group(Protocol):
    """A group of flags, as argparse has it."""

    def add_argument(self, *args: Any, **kwargs: Any) -> Any: ...


def add_source_flags(group: Group) -> None:
    """Add the flags of all sources; one that is not given leaves no value, so that it can be told from its default."""
    _add_files(group)
    group.add_argument(
        "--language",
        metavar="CODE",
        default=SUPPRESS,
        help="of the questions: answers are scored by the rules published for en, es, hi, vi, de, ar, zh (MLQA), ja, ko, or the "
        "conventions korquad, cmrc; others by SQuAD's (files, hub, saved; default: what the files say, else SQuAD's rules)",
    )
    _add_hub(group)
    _add_folders(group)


def _add_files(group: Group) -> None:
    group.add_argument(
        "--train_file",
        nargs="+",
        metavar="FILE",
        default=SUPPRESS,
        help="for train and validation: files and globs (files, text)",
    )
    group.add_argument(
        "--test_file",
        nargs="+",
        metavar="FILE",
        default=SUPPRESS,
        help="for test, the dev set; without it test is carved out of train, by article (files, text)",
    )
    group.add_argument(
        "--columns",
        metavar="FIELD=COLUMN,...",
        default=SUPPRESS,
        help="which column holds what, where its name is not a usual one: question=q,context=text,answer=a, or "
        "label=toxic+obscene for labels that are columns of 0 and 1 (files, text, hub)",
    )
    group.add_argument(
        "--multi_label",
        action="store_true",
        default=SUPPRESS,
        help="a text has any number of labels: a list, a text with | or ; between them, or a column of 0 and 1 for each "
        "(text, hub)",
    )
    group.add_argument(
        "--format",
        choices=FORMS,
        default=SUPPRESS,
        help="the shape of the files; auto detects it (files; default: auto)",
    )


def _add_hub(group: Group) -> None:
    group.add_argument(
        "--dataset",
        metavar="NAME",
        default=SUPPRESS,
        help=f"{', '.join(DATASETS)}, or OWNER/NAME of the hub, or ./FOLDER laid out like its repository "
        f"(hub; default: {DATASETS[0]})",
    )
    group.add_argument(
        "--config", metavar="NAME", default=SUPPRESS, help="one of several sets in a repository (hub)"
    )
    group.add_argument(
        "--revision",
        metavar="REVISION",
        default=SUPPRESS,
        help="a branch, tag or commit of a repository (hub)",
    )
    group.add_argument(
        "--train_split", metavar="SPLIT", default=SUPPRESS, help="the split for train (hub; default: train)"
    )
    group.add_argument(
        "--test_split",
        metavar="SPLIT",
        default=SUPPRESS,
        help="the split for test (hub; default: test, else validation, else carved out of train)",
    )


def _add_folders(group: Group) -> None:
    group.add_argument(
        "--mix",
        metavar="FOLDER[=WEIGHT],...",
        default=SUPPRESS,
        help="prepared folders, one after another; a weight of 0.3 takes 30 percent of the rows of a folder's train, 2 takes each "
        "twice; validation and test are taken whole (mix)",
    )
    group.add_argument(
        "--path",
        type=Path,
        metavar="DIR",
        default=SUPPRESS,
        help="the saved DatasetDict (saved), or aclImdb (aclimdb)",
    )
    group.add_argument(
        "--on_bad_rows",
        choices=("error", "skip"),
        default=SUPPRESS,
        help="error: every fault is listed and nothing is written; skip: faulty questions or texts are left out and listed with "
        "their reasons in skipped.json beside the data (files, text, hub, saved; default: error)",
    )
