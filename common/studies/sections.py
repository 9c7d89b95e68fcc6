"""The sections of a study's file. What their fields may be depends on the techniques: fields.py checks it."""

import dataclasses
import re
from collections.abc import Collection, Mapping
from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)
from pydantic.dataclasses import dataclass
from pydantic_core import ErrorDetails

from ..scoring.sequential import SEED_SD
from ..training.settings import RunArgs
from .checks import CLOSED, Faults, like, must, quoted, wrong
from .fields import GRID, adapter
from .search import Asha, Resources

MAY_BE_EMPTY = BeforeValidator(lambda declared: {} if declared is None else declared)
"""YAML has no value for a section without lines."""

Section = Annotated[dict[Any, Any], MAY_BE_EMPTY, must("hold 'field: value' lines")]


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class FieldSections:
    """Fields of a run and of its technique: with one value, varied in a grid, or searched."""

    base: Section = field(default_factory=dict)
    grid: Section = field(default_factory=dict)
    search: Section = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class TechniqueSections(FieldSections):
    """What is particular to one of the `techniques`."""

    technique: Annotated[str | None, must("be the key of a technique, such as lora")] = None
    """Its key, where it stands under a name of its own."""


def _split(declared: Any) -> Any:
    """A technique's own fields have no section of their own in the file."""
    if not isinstance(declared, dict):
        return declared
    sections = {name: declared[name] for name in ("grid", "search", "technique") if name in declared}
    return {"base": {name: value for name, value in declared.items() if name not in sections}, **sections}


OwnFields = Annotated[
    TechniqueSections, BeforeValidator(_split), MAY_BE_EMPTY, must("hold 'field: value' lines")
]


@dataclasses.dataclass(frozen=True)
class Techniques:
    """The techniques that a section names, with the fields of each."""

    own: dict[Any, TechniqueSections] = field(default_factory=dict)
    """Name of an entry → its own fields. A technique's key is a name; another name has a `technique`."""
    listed: bool = False
    """They are a list: a stage then trains these alone."""


_OWN = TypeAdapter(
    Annotated[dict[Any, OwnFields], must("be a list of techniques, or map each to its fields")]
)


def _techniques(declared: Any) -> Techniques:
    if not isinstance(declared, list):
        return Techniques(_OWN.validate_python({} if declared is None else declared))
    if unnamed := [each for each in declared if not isinstance(each, str)]:
        raise wrong(f"lists {quoted(unnamed[0])}; map techniques to their fields, or list their names alone")
    return Techniques(_OWN.validate_python(dict.fromkeys(declared)), listed=True)


def _scheduler(declared: Any) -> Any:
    if declared is None:
        return {}
    return {"asha": {}} if declared in ("asha", {"asha": None}) else declared


@dataclass(frozen=True, config=CLOSED)
class Scheduler:
    """What stops trials: `asha`, `{asha: {grace_period: 1, reduction_factor: 3}}`, or nothing."""

    asha: Asha | None = None


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class Stop:
    """Whether seeds are left out that can change nothing that matters: `{when: decided, smallest_difference: 1.0}`."""

    when: Annotated[Literal["decided", "never"], must("be decided or never")] = "decided"
    smallest_difference: Annotated[
        float, Field(strict=True, ge=0, allow_inf_nan=False), must("be a number of points from 0")
    ] = 1.0
    """Points of the deciding validation score; a candidate that is not ahead by as much is no better."""
    error: Annotated[float, Field(strict=True, gt=0, le=0.5), must("be above 0 and up to 0.5")] = 0.05
    """Chance that the best candidate is stopped."""
    seed_sd: Annotated[
        float, Field(strict=True, gt=0, allow_inf_nan=False), must("be a number of points above 0")
    ] = SEED_SD
    """Points; how much a score is believed to vary from seed to seed, before seeds have shown it."""


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class Level(FieldSections):
    """What a study and each of its stages may set. What a stage leaves out is that of the study."""

    techniques: Annotated[Techniques, PlainValidator(_techniques)] = Techniques()
    trials: Annotated[int, Field(strict=True, ge=1), must("be how many points each search tries")] = 0
    scheduler: Annotated[Scheduler | None, BeforeValidator(_scheduler), must("be asha")] = None
    resources: Annotated[Resources | None, MAY_BE_EMPTY, must("be such as {cpus: 2, gpus: 1}")] = None
    stop: Annotated[Stop | None, must("be such as {when: decided, smallest_difference: 1.0}")] = None
    seeds: Annotated[list[int], PlainValidator(adapter(RunArgs, "", "seed", GRID).validate_python)] = field(
        default_factory=list
    )


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class StageSection(Level):
    """One of `stages`."""

    best_of: Annotated[str | None, must("name a stage above this one")] = None
    """The stage whose best points this one trains."""


def _without_name(smoke: dict[Any, Any]) -> dict[Any, Any]:
    if found := [key for key in ("name", "smoke") if key in smoke]:
        raise wrong(f"cannot hold {found[0]!r}")
    return smoke


StageName = Annotated[str, BeforeValidator(str)]


def _names_differ(stages: Any) -> Any:
    """1 and '1' are two keys in YAML, and one name."""
    if isinstance(stages, dict):
        once: set[str] = set()
        for name in map(str, stages):
            if name in once:
                raise wrong(f"names {quoted(name)} twice; give each stage a name of its own")
            once.add(name)
    return stages


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class StudyFile(Level):
    """A whole file."""

    name: Annotated[str, Field(pattern=r"^\w[\w.-]*$"), must("be letters, digits, `_`, `-` and `.` alone")]
    description: Annotated[
        str, StringConstraints(strip_whitespace=True, min_length=1), must("be a text that is not empty")
    ]
    stages: Annotated[
        dict[StageName, Annotated[StageSection, MAY_BE_EMPTY, must("hold 'name: value' lines")]],
        Field(min_length=1),
        must("map the name of each stage to what is particular to it"),
        BeforeValidator(_names_differ),
    ] = field(default_factory=dict)
    smoke: Annotated[Section, AfterValidator(_without_name)] = field(default_factory=dict)


_INNER: dict[str | int, type[Any]] = {
    "resources": Resources,
    "scheduler": Scheduler,
    "asha": Asha,
    "stop": Stop,
}
"""Sections of the same name at any level."""

_FILE = TypeAdapter(Annotated[StudyFile, must("hold 'name: value' lines")])


def read(content: Any, techniques: Collection[str], faults: Faults) -> StudyFile:
    """The sections of a file's content; UserError lists every key that is not known and every setting that is not possible.

    techniques: the keys of all that there are.
    """
    try:
        declared = _FILE.validate_python(content)
    except ValidationError as error:
        for fault in error.errors(include_url=False):
            faults.add(fault["loc"], _reason(fault))
        faults.refuse()
        raise
    if not declared.techniques.own:
        known = ", ".join(techniques)
        faults.add(("techniques",), f"names none; choose from {known}, as a list or with their fields")
    _check_entries(declared.techniques.own, techniques, faults)
    for stage, section in declared.stages.items():
        for name, own in section.techniques.own.items():
            where = ("stages", stage, "techniques", name)
            if name in declared.techniques.own:
                if own.technique is not None:
                    faults.add((*where, "technique"), "is set among the study's own `techniques`, once")
            elif own.technique is None and name not in techniques:
                faults.add(where, _no_technique(name, dict.fromkeys([*declared.techniques.own, *techniques])))
            else:
                faults.add(where, "is not among the study's own `techniques`; add it there")
    faults.refuse()
    return declared


ENTRY = re.compile(r"\w[\w .,:=+()%-]{0,59}")
"""A name for a technique with settings of its own."""


def folder_name(name: str) -> str:
    """A name as rows and their folders have it."""
    return re.sub(r"[^\w.=+-]+", "_", name)


def _check_entries(own: Mapping[Any, TechniqueSections], techniques: Collection[str], faults: Faults) -> None:
    """Note the faults of the names under which techniques stand in a study."""
    folders: dict[str, str] = {}
    for name, sections in own.items():
        where, key = ("techniques", name), sections.technique
        if key is None and name not in techniques:
            faults.add(where, _no_technique(name, techniques))
        elif key is not None and key not in techniques:
            faults.add((*where, "technique"), f"is {quoted(key)}: it {_no_technique(key, techniques)}")
        elif key is not None and name in techniques and name != key:
            faults.add(where, f"is {key} under the key of another technique; name it otherwise")
        elif not isinstance(name, str) or not ENTRY.fullmatch(name):
            faults.add(where, "is no name; take up to 60 letters, digits, spaces and `.,:=+()%-`")
        elif (other := folders.setdefault(folder_name(name), name)) != name:
            faults.add(where, f"is too much like {other!r} for the names of folders; name one otherwise")


def _no_technique(name: object, known: Collection[str]) -> str:
    return f"is no technique{like(name, known)}; there are {', '.join(known)}"


def _reason(fault: ErrorDetails) -> str:
    """What is wrong with a key, or what `must` says of a value."""
    if fault["type"] == "missing":
        return "is missing; every study has one"
    if fault["type"] not in ("unexpected_keyword_argument", "invalid_key"):
        return fault["msg"]
    *place, key = fault["loc"]
    in_stage = len(place) == 2 and place[0] == "stages"
    section = StageSection if in_stage else _INNER[place[-1]] if place else StudyFile
    known = [each.name for each in dataclasses.fields(section)]
    return f"is not known here{like(key, known) or '; choose from ' + ', '.join(known)}"
