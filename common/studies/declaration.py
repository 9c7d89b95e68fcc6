"""A study's YAML → rows, each of which is one run.

Nothing is run or looked up here: the techniques and the sizes of the data are handed in.
"""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from ..files import read_text
from ..training.settings import RunArgs, Technique
from . import fields as study_fields
from . import search

_OF_A_SEARCH = ("search", "trials", "scheduler", "resources")
KEYS = ("name", "description", "base", "techniques", "grid", *_OF_A_SEARCH, "seeds", "stages", "smoke")
STAGE_KEYS = ("base", "techniques", "grid", *_OF_A_SEARCH, "seeds", "best_of")
ONLY_STAGE = "runs"
"""Name of the stage of a study that declares none."""

SMOKE = "This is its smoke variant: it shows that the study runs, and its scores mean nothing."

Size = Callable[[str, str | None, str], int]
"""(task, data_dir, split) → how many examples the split of that data holds."""


@dataclass(frozen=True)
class Stage:
    """One pass of a study: for each technique, its fixed fields and its grid."""

    name: str
    best_of: str | None
    seeds: tuple[int, ...]
    fields: dict[str, dict]
    """Technique key → field → value."""
    grids: dict[str, dict[str, list]]
    """Technique key → axis → values; without the axes that `best_of` decides."""
    searches: dict[str, dict[str, search.Space]]
    """Technique key → axis → the values that may be proposed, of techniques that have no grid."""
    trials: int
    """How many points each search tries."""
    scheduler: search.Asha | None
    resources: search.Resources

    def candidates(self, key: str) -> list[dict]:
        """The points of a technique's grid, or those that stand for its search."""
        return search.corners(self.searches[key]) if self.searches[key] else points(self.grids[key])


@dataclass(frozen=True)
class Study:
    """What a study's file declares, checked against the fields that its techniques have."""

    name: str
    description: str
    file: str
    task: str
    stages: tuple[Stage, ...]
    techniques: Mapping[str, type[Technique]]

    @property
    def axes(self) -> list[str]:
        """Every field that some grid or search varies, in the order of declaration."""
        varied = [v for s in self.stages for key in s.fields for v in (s.grids[key], s.searches[key])]
        return list(dict.fromkeys(axis for axes in varied for axis in axes))

    @property
    def asks_for_ray(self) -> str:
        """What of it only Ray Tune can do, "" if nothing is."""
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
    """Readable, unique in its study, and fit for a folder's name."""
    technique: Technique
    args: RunArgs
    point: dict
    """Axis → value."""

    def __getitem__(self, field: str):
        """A field of the technique or of the run; None where it has none of this name."""
        return getattr(self.technique, field, getattr(self.args, field, None))


def read(file: Path, techniques: Mapping[str, type[Technique]], smoke: bool = False) -> Study:
    """The study that a YAML file declares; UserError names the file, the place in it, and the remedy.

    smoke: with its `smoke` section laid over the rest, under the name NAME-smoke.
    """
    import yaml

    try:
        content = yaml.safe_load(read_text(Path(file)))
    except yaml.YAMLError as error:
        raise UserError(f"{file} is not YAML: {' '.join(str(error).split())}") from None
    return parse(content, str(file), techniques, smoke)


def parse(content, file: str, techniques: Mapping[str, type[Technique]], smoke: bool = False) -> Study:
    """`read` for content that is already loaded; file: what errors call it."""
    study_fields.check_keys(content, KEYS, file)
    if smoke:
        if not content.get("smoke"):
            raise UserError(f"{file} has no `smoke` section: run it without --smoke, or write one.")
        study_fields.check_keys(content["smoke"], set(KEYS) - {"name", "smoke"}, f"{file}, smoke")
        said = {key: content.get(key) for key in ("name", "description")}
        content = _overlay(content, content["smoke"]) | {"name": f"{said['name']}-smoke"}
        if said["description"]:
            content["description"] = f"{said['description']} {SMOKE}"
    for key in ("name", "description"):
        if not isinstance(content.get(key), str) or not content[key].strip():
            raise UserError(f"{file}: `{key}` is missing; every study has one.")
    if not re.fullmatch(r"\w[\w.-]*", content["name"]):
        raise UserError(f"{file}: name {content['name']!r} must be letters, digits, `_`, `-` and `.` alone.")
    declared = content.get("stages", {ONLY_STAGE: {}})
    if not isinstance(declared, dict) or not declared:
        raise UserError(f"{file}: `stages` must map the name of each stage to what is particular to it.")
    stages: list[Stage] = []
    for name, own in declared.items():
        stages.append(_stage(str(name), own or {}, content, stages, file, techniques))
    tasks = {fields.get("task", RunArgs.task) for stage in stages for fields in stage.fields.values()}
    if len(tasks) > 1:
        raise UserError(f"{file}: `task` must be one for the whole study, not {', '.join(sorted(tasks))}.")
    return Study(
        content["name"], content["description"].strip(), file, tasks.pop(), tuple(stages), techniques
    )


def expand(
    study: Study,
    stage: Stage,
    size: Size,
    best: Mapping[str, dict] | None = None,
    proposed: Mapping[str, Sequence[dict]] | None = None,
) -> list[Row]:
    """The rows of a stage, in the order in which they run.

    best: technique key → the point that `best_of` decided on; techniques that it leaves out have no rows. Without it,
    such a stage gives a row for every point that may yet be decided on. A technique that was not swept keeps its fields.
    proposed: technique key → the points that its search has proposed; without it, those that stand for them.
    """
    rows = []
    for key, fields in stage.fields.items():
        decided = [{}]
        if stage.best_of and key in study.stage(stage.best_of).fields:
            swept = study.stage(stage.best_of).candidates(key)
            decided = swept if best is None else [best[key]] if key in best else []
        own = stage.candidates(key)
        if stage.searches[key] and proposed is not None:
            own = proposed.get(key, [])
        for first, second in itertools.product(decided, own):
            for seed in stage.seeds:
                rows.append(_row(study, stage, key, fields, first | second, seed, size))
    return rows


def points(grid: Mapping[str, Sequence]) -> list[dict]:
    """Every combination of the values of a grid's axes; the last axis varies fastest. No axes: one empty point."""
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def _row(study, stage, key, fields, point, seed, size) -> Row:
    parts = [stage.name] * (len(study.stages) > 1) + [key]
    parts += [f"{axis}={study_fields.shown(value)}" for axis, value in point.items()] + [f"seed={seed}"]
    name = re.sub(r"[^\w.=+-]+", "_", "-".join(parts))
    values = fields | point | {"seed": seed}
    task, folder = values.get("task", RunArgs.task), values.get("data_dir")
    for field, split in study_fields.SAMPLES.items():
        if (share := study_fields.share_of(values.get(field))) is not None:
            values[field] = max(1, round(share * size(task, folder, split)))
    kind = study.techniques[key]
    try:
        return Row(
            stage.name,
            name,
            kind(**{f: v for f, v in values.items() if f in study_fields.types_of(kind)}),
            RunArgs(**{f: v for f, v in values.items() if f in study_fields.types_of(RunArgs)}),
            {axis: values[axis] for axis in point},
        )
    except UserError as error:
        raise UserError(f"{study.file}, row {name}: {error}") from None


def _stage(name, own, content, earlier, file, techniques) -> Stage:
    where = f"{file}, stages, {name}" if "stages" in content else file
    study_fields.check_keys(own, STAGE_KEYS, where)
    best_of = own.get("best_of")
    if best_of is not None and best_of not in [stage.name for stage in earlier]:
        raise UserError(f"{where}: best_of is {best_of!r}; it must name a stage above this one.")
    inherited = study_fields.techniques_of(content.get("techniques"), file, techniques)
    if not inherited:
        raise UserError(
            f"{file}: `techniques` names none; choose of {', '.join(techniques)}, as a list or with their fields."
        )
    particular = study_fields.techniques_of(own.get("techniques"), where, techniques)
    if new := [key for key in particular if key not in inherited]:
        raise UserError(
            f"{where}, techniques: {new[0]} is not among the study's own `techniques`; add it there."
        )
    chosen = list(particular) if isinstance(own.get("techniques"), list) else list(inherited)
    fields, grids, searches = {}, {}, {}
    kinds = {key: techniques[key] for key in chosen}
    for key in chosen:
        layers = [(content, inherited.get(key, {}), file), (own, particular.get(key, {}), where)]
        fields[key], grids[key], searches[key] = {}, {}, {}
        for level, of_technique, at in layers:
            specific, only = f"{at}, techniques, {key}", {key: techniques[key]}
            fields[key] |= study_fields.values(level.get("base"), f"{at}, base", kinds, key)
            without = {f: v for f, v in of_technique.items() if f not in ("grid", "search")}
            fields[key] |= study_fields.values(without, specific, only, key)
            if best_of and level is content:
                continue
            grids[key] |= study_fields.grid(level.get("grid"), f"{at}, grid", kinds, key)
            grids[key] |= study_fields.grid(of_technique.get("grid"), f"{specific}, grid", only, key)
            searches[key] |= study_fields.spaces(level.get("search"), f"{at}, search", kinds, key)
            searches[key] |= study_fields.spaces(of_technique.get("search"), f"{specific}, search", only, key)
        if grids[key] and searches[key]:
            raise UserError(
                f"{where}: {key} has both a grid and a search; write {', '.join(grids[key])} into the search, as a choice."
            )
    if best_of:
        swept = next(stage for stage in earlier if stage.name == best_of)
        for key in chosen:
            before = swept.grids.get(key, {}).keys() | swept.searches.get(key, {}).keys()
            if twice := (grids[key].keys() | searches[key].keys()) & before:
                raise UserError(
                    f"{where}: {sorted(twice)[0]} is decided by best_of: {best_of}; take it out of this stage's grid."
                )
    seeds = own.get("seeds", content.get("seeds", [RunArgs.seed]))
    at = f"{where if 'seeds' in own else file}, seeds"
    seeds = study_fields.seeds(seeds, at)
    # Where a later stage takes the best of a search, the search is not its own.
    above = {} if best_of else {key: content[key] for key in ("trials", "scheduler") if key in content}
    above |= {key: own[key] for key in ("trials", "scheduler") if key in own}
    trials = search.trials(above["trials"], where) if "trials" in above else 0
    asha = search.scheduler(above.get("scheduler"), where)
    _check_search(where, searches, trials, asha, seeds)
    if asha:
        for key in chosen:
            _check_epochs(where, key, techniques[key], fields[key] | grids[key] | searches[key], asha)
    asked = search.resources(own.get("resources", content.get("resources")), where)
    return Stage(name, best_of, seeds, fields, grids, searches, trials, asha, asked)


def _check_search(where, searches, trials, asha, seeds) -> None:
    if any(searches.values()) and not trials:
        raise UserError(f"{where}: `trials` is missing: how many points the search tries.")
    if trials and not any(searches.values()):
        raise UserError(f"{where}: `trials` is for a `search`, and there is none.")
    if len(seeds) > 1 and (asha or any(searches.values())):
        what = "search" if any(searches.values()) else "scheduler"
        raise UserError(
            f"{where}: a {what} compares trials of one seed, not of {len(seeds)}; train the best with more seeds in a later "
            "stage (best_of)."
        )


def _check_epochs(where, key, kind, varied, asha) -> None:
    """A trial that is over before it can be compared would never be stopped."""
    epochs = varied.get("num_train_epochs", kind.num_train_epochs)
    epochs = epochs.values if isinstance(epochs, search.Space) else epochs
    longest = max(epochs) if isinstance(epochs, list | tuple) else epochs
    if longest <= asha.grace_period:
        raise UserError(
            f"{where}: scheduler: asha stops trials between epochs, after {asha.grace_period} at the earliest, and {key} trains "
            f"for {longest:g}; raise its num_train_epochs, or take the scheduler out."
        )


def _overlay(below, above):
    """Mappings are merged; anything else is replaced, but for a list of techniques, which chooses of those below."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        if key == "techniques" and isinstance(value, list) and isinstance(under, dict):
            value = {name: under.get(name) for name in value}
        elif key == "techniques" and isinstance(value, dict) and isinstance(under, list):
            value = _overlay({name: {} for name in under}, value)
        elif isinstance(value, dict) and isinstance(under, dict):
            value = _overlay(under, value)
        merged[key] = value
    return merged
