"""A study's YAML → rows, each of which is one run.

Nothing is run or looked up here: the caller gives the techniques and the sizes of the data.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import read_yaml
from ..training.settings import RunArgs, Technique
from . import fields as study_fields
from . import search, sections
from .checks import Faults, Place, quoted, shown
from .sections import FieldSections, Level, StageSection, StudyFile

ONLY_STAGE = "runs"
"""The name of the only stage of a study without `stages`."""

SMOKE = "This is its smoke variant: it shows that the study runs, and its scores mean nothing."

Point = dict[str, Any]
"""Axis → value."""

Size = Callable[[str, str | None, str], int]
"""(task, data_dir, split) → how many examples the split of that data holds."""


@dataclass(frozen=True)
class Stage:
    """One pass of a study: for each technique, its fixed fields and its grid."""

    name: str
    best_of: str | None
    seeds: tuple[int, ...]
    fields: dict[str, dict[str, Any]]
    """Entry → field → value."""
    grids: dict[str, dict[str, list[Any]]]
    """Entry → axis → values; without the axes that `best_of` decides."""
    searches: dict[str, dict[str, search.Space]]
    """Entry → axis → the values that may be proposed; an entry has a grid or a search."""
    trials: int
    """How many points each search tries."""
    scheduler: search.Asha | None
    resources: search.Resources
    stop: sections.Stop | None = None
    """When seeds are left out; None trains all of them."""

    def candidates(self, key: str) -> list[Point]:
        """The points of an entry's grid, or the corners of its search."""
        return search.corners(self.searches[key]) if self.searches[key] else points(self.grids[key])


@dataclass(frozen=True)
class Study:
    """What a study's file declares, checked against the fields of its techniques."""

    name: str
    description: str
    file: str
    task: str
    stages: tuple[Stage, ...]
    techniques: Mapping[str, type[Technique]]
    """Entry → its class. An entry is one of the study's `techniques`: a key, or a name of its own with a key inside."""

    @property
    def axes(self) -> list[str]:
        """Every field that a grid or search varies, in the order of declaration."""
        varied = [v for s in self.stages for key in s.fields for v in (s.grids[key], s.searches[key])]
        return list(dict.fromkeys(axis for axes in varied for axis in axes))

    @property
    def asks_for_ray(self) -> str:
        """Which section needs Ray Tune: "search", "scheduler", or "" if none does."""
        asked = {"search": any(any(s.searches.values()) for s in self.stages)}
        asked["scheduler"] = any(stage.scheduler for stage in self.stages)
        return next((name for name, is_so in asked.items() if is_so), "")

    def stage(self, name: str) -> Stage:
        """The stage of this name."""
        return next(stage for stage in self.stages if stage.name == name)


@dataclass(frozen=True)
class Row:
    """One run of a study."""

    stage: str
    name: str
    """Readable, unique within the study, and usable as a folder's name."""
    entry: str
    """Which of the study's `techniques` it is a row of."""
    technique: Technique
    args: RunArgs
    point: Point

    @property
    def title(self) -> str:
        """The name of its technique in tables and figures: the entry's own, if it has one."""
        return self.technique.name if self.entry == self.technique.key else self.entry

    def __getitem__(self, field: str) -> Any:
        """A field of the technique or of the run; None if there is no such field."""
        return getattr(self.technique, field, getattr(self.args, field, None))


def read(file: Path, techniques: Mapping[str, type[Technique]], smoke: bool = False) -> Study:
    """The study that a YAML file declares; UserError names the file, and the place and remedy of each fault.

    smoke: with its `smoke` section laid over the rest, under the name NAME-smoke.
    """
    return parse(read_yaml(Path(file)), str(file), techniques, smoke)


def parse(content: Any, file: str, techniques: Mapping[str, type[Technique]], smoke: bool = False) -> Study:
    """`read` for content that is already loaded; file: what errors call it.

    All faults of a kind are reported at once: first those of sections, then those of fields, then those between sections.
    """
    faults = Faults(file)
    declared = sections.read(content, techniques, faults)
    if smoke:
        if not declared.smoke:
            raise UserError(f"{file} has no `smoke` section: run it without --smoke, or write one.")
        declared = sections.read(_overlay(content, declared.smoke), techniques, faults)
    kinds = {entry: techniques[own.technique or entry] for entry, own in declared.techniques.own.items()}
    stages: list[Stage] = []
    for name, own in (declared.stages or {ONLY_STAGE: StageSection()}).items():
        stages.append(_stage(name, own, declared, kinds, faults))
    faults.refuse()
    for i, stage in enumerate(stages):
        _check(stage, stages[:i], ("stages", stage.name) if declared.stages else (), kinds, faults)
    tasks = {fields.get("task", RunArgs.task) for stage in stages for fields in stage.fields.values()}
    if len(tasks) > 1:
        faults.add(("task",), f"must be one for the whole study, not {', '.join(sorted(tasks))}")
    if not smoke:
        # One seed is enough to see that a study runs.
        _check_stop(declared, stages, faults)
    faults.refuse()
    return Study(
        f"{declared.name}-smoke" if smoke else declared.name,
        f"{declared.description} {SMOKE}" if smoke else declared.description,
        file,
        tasks.pop(),
        tuple(stages),
        kinds,
    )


def expand(
    study: Study,
    stage: Stage,
    size: Size,
    best: Mapping[str, Point] | None = None,
    proposed: Mapping[str, Sequence[Point]] | None = None,
) -> list[Row]:
    """The rows of a stage, in the order in which they run.

    best: entry → the point that `best_of` chose; entries without one have no rows. Without `best`, such a stage has a row
    for every point that may still be chosen. An entry that was not swept keeps its fields.
    proposed: entry → the points that its search has proposed; without it, the corners of the search.
    """
    rows = []
    for key in stage.fields:
        decided: list[Point] = [{}]
        if stage.best_of and key in study.stage(stage.best_of).fields:
            swept = study.stage(stage.best_of).candidates(key)
            decided = swept if best is None else [best[key]] if key in best else []
        own: Sequence[Point] = stage.candidates(key)
        if stage.searches[key] and proposed is not None:
            own = proposed.get(key, [])
        for first, second in itertools.product(decided, own):
            for seed in stage.seeds:
                rows.append(_row(study, stage, key, first | second, seed, size))
    return rows


def points(grid: Mapping[str, Sequence[Any]]) -> list[Point]:
    """Every combination of the values of a grid's axes; the last axis varies fastest. No axes: one empty point."""
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def _row(study: Study, stage: Stage, key: str, point: Point, seed: int, size: Size) -> Row:
    parts = [stage.name] * (len(study.stages) > 1) + [key]
    parts += [f"{axis}={shown(value)}" for axis, value in point.items()] + [f"seed={seed}"]
    name = sections.folder_name("-".join(parts))
    values = stage.fields[key] | point | {"seed": seed}
    task, folder = values.get("task", RunArgs.task), values.get("data_dir")
    for field, split in study_fields.SAMPLES.items():
        if (share := study_fields.share_of(values.get(field))) is not None:
            values[field] = max(1, round(share * size(task, folder, split)))
    kind: type = study.techniques[key]
    try:
        return Row(
            stage.name,
            name,
            key,
            kind(**{f: v for f, v in values.items() if f in study_fields.types_of(kind)}),
            RunArgs(**{f: v for f, v in values.items() if f in study_fields.types_of(RunArgs)}),
            {axis: values[axis] for axis in point},
        )
    except UserError as error:
        raise UserError(f"{study.file}, row {name}: {error}") from None


def _stage(
    name: str, own: StageSection, study: StudyFile, entries: Mapping[str, type[Technique]], faults: Faults
) -> Stage:
    """A stage with what it takes from the study; the faults of its fields are noted."""
    chosen = own.techniques.own if own.techniques.listed else study.techniques.own
    kinds = {key: entries[key] for key in chosen}
    levels: list[tuple[Place, Level]] = [((), study), (("stages", name) if study.stages else (), own)]

    def each(use: str) -> dict[str, dict[str, Any]]:
        # What the study varies is what an earlier stage decides, where there is one.
        varied = own.best_of and use != study_fields.VALUE
        return {key: _fields(use, key, kinds, levels[1:] if varied else levels, faults) for key in kinds}

    scheduler = own.scheduler or (None if own.best_of else study.scheduler)
    seeds, stop = tuple(own.seeds or study.seeds or [RunArgs.seed]), own.stop or study.stop
    return Stage(
        name,
        own.best_of,
        seeds,
        each(study_fields.VALUE),
        each(study_fields.GRID),
        each(study_fields.SEARCH),
        own.trials or (0 if own.best_of else study.trials),
        scheduler.asha if scheduler else None,
        own.resources or study.resources or search.Resources(),
        stop if stop and stop.when == "decided" and len(seeds) > 1 else None,
    )


def _fields(
    use: str,
    key: str,
    kinds: Mapping[str, type[Technique]],
    levels: Sequence[tuple[Place, Level]],
    faults: Faults,
) -> dict[str, Any]:
    """Field → what the levels, from far to near, say of it for an entry; the nearer one wins.

    use: one of `fields.USES`. kinds: entry → class of all techniques of the stage.
    """
    found: dict[str, Any] = {}
    for place, level in levels:
        own: FieldSections = level.techniques.own.get(key, FieldSections())
        within: Place = (*place, "techniques", key)
        inside = within if use == study_fields.VALUE else (*within, use)
        found |= study_fields.read(getattr(level, use), use, (*place, use), kinds, key, faults)
        found |= study_fields.read(getattr(own, use), use, inside, {key: kinds[key]}, key, faults)
    return found


def _check(
    stage: Stage,
    earlier: Sequence[Stage],
    place: Place,
    techniques: Mapping[str, type[Technique]],
    faults: Faults,
) -> None:
    """Note what does not fit together in a stage; earlier: the stages above it."""
    is_search = any(stage.searches.values())
    swept = {above.name: above for above in earlier}.get(str(stage.best_of))
    if stage.best_of is not None and not swept:
        faults.add((*place, "best_of"), f"is {quoted(stage.best_of)}; it must name a stage above this one")
    for key in stage.fields:
        grid, space = stage.grids[key], stage.searches[key]
        if grid and space:
            reason = f"has both a grid and a search; write {', '.join(grid)} into the search, as a choice"
            faults.add((*place, "techniques", key), reason)
        before = swept.grids.get(key, {}).keys() | swept.searches.get(key, {}).keys() if swept else set()
        for axis in sorted((grid.keys() | space.keys()) & before):
            reason = f"is decided by best_of: {quoted(stage.best_of)}; take it out of this stage's {'grid' if axis in grid else 'search'}"
            faults.add((*place, axis), reason)
        if stage.scheduler:
            varied = stage.fields[key] | grid | space
            _check_epochs(key, techniques[key], varied, stage.scheduler, place, faults)
    if is_search and not stage.trials:
        faults.add((*place, "trials"), "is missing: how many points the search tries")
    if stage.trials and not is_search:
        faults.add((*place, "trials"), "is for a `search`, and there is none")
    if len(stage.seeds) > 1 and (stage.scheduler or is_search):
        reason = f"lists {len(stage.seeds)}, and a {'search' if is_search else 'scheduler'} compares trials of one seed; "
        faults.add((*place, "seeds"), reason + "train the best with more seeds in a later stage (best_of)")


def _check_epochs(
    key: str,
    kind: type[Technique],
    varied: Mapping[str, Any],
    asha: search.Asha,
    place: Place,
    faults: Faults,
) -> None:
    """A trial that ends before it can be compared would never be stopped."""
    epochs = varied.get("num_train_epochs", kind.num_train_epochs)
    epochs = epochs.values if isinstance(epochs, search.Space) else epochs
    longest = max(epochs) if isinstance(epochs, list | tuple) else epochs
    if longest <= asha.grace_period:
        faults.add(
            (*place, "scheduler"),
            f"stops trials between epochs, after {asha.grace_period} at the earliest, and {key} trains for {longest:g}; raise "
            "its num_train_epochs, or take the scheduler out",
        )


def _check_stop(declared: StudyFile, stages: Sequence[Stage], faults: Faults) -> None:
    """A `stop` without seeds that it could leave out is a mistake."""
    stopping = [stage.name for stage in stages if stage.stop]
    asked: dict[Place, bool] = {
        ("stop",): bool(declared.stop and declared.stop.when == "decided" and not stopping)
    }
    for name, own in declared.stages.items():
        asked[("stages", name, "stop")] = bool(
            own.stop and own.stop.when == "decided" and name not in stopping
        )
    for place in (place for place, is_idle in asked.items() if is_idle):
        faults.add(
            place,
            "leaves out seeds, and no stage that it holds for has more than one; list two or more under `seeds`",
        )


def with_smallest_difference(study: Study, points: float) -> Study:
    """The study with another `smallest_difference`; UserError if nothing in it stops or the value is none."""
    if not any(stage.stop for stage in study.stages):
        raise UserError(
            f"--smallest_difference is for studies that stop when they know: {study.file} needs `stop: {{when: decided}}` and "
            "two seeds or more (with --smoke, those of `smoke`)."
        )
    if not 0 <= points < math.inf:
        raise UserError(f"--smallest_difference is {points:g}; it must be a number of points from 0.")
    return dataclasses.replace(
        study,
        stages=tuple(
            dataclasses.replace(stage, stop=dataclasses.replace(stage.stop, smallest_difference=points))
            if stage.stop
            else stage
            for stage in study.stages
        ),
    )


def _overlay(below: Mapping[Any, Any], above: Mapping[Any, Any]) -> dict[Any, Any]:
    """`above` laid over `below`: mappings are merged, anything else is replaced. A list of techniques chooses from those below."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        if key == "techniques" and isinstance(value, list) and isinstance(under, dict):
            if all(isinstance(name, str) for name in value):
                value = {name: under.get(name) for name in value}
        elif key == "techniques" and isinstance(value, dict) and isinstance(under, list):
            value = _overlay({name: {} for name in under}, value)
        elif isinstance(value, dict) and isinstance(under, dict):
            value = _overlay(under, value)
        merged[key] = value
    return merged
