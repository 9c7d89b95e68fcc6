"""A study's YAML → rows, each of which is one run.

Nothing is run or looked up here: the techniques and the sizes of the data are handed in.
"""

import dataclasses
import difflib
import functools
import itertools
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import search
from .config import RunArgs, Technique
from .errors import UserError

_OF_A_SEARCH = ("search", "trials", "scheduler", "resources")
KEYS = ("name", "description", "base", "techniques", "grid", *_OF_A_SEARCH, "seeds", "stages", "smoke")
STAGE_KEYS = ("base", "techniques", "grid", *_OF_A_SEARCH, "seeds", "best_of")
ONLY_STAGE = "runs"
"""Name of the stage of a study that declares none."""

_OF_THE_STUDY = {
    "seed": "list it under `seeds`",
    "parent_run": "the study sets it",
    "run_name": "the study sets it",
    "output_dir": "the study sets it",
    "resume": "a study always goes on where it was",
    "skip_finished": "a study never repeats finished runs",
}
_FIXED = ("task", "experiment_name", "data_dir")
SAMPLES = {
    "max_train_samples": "train",
    "max_validation_samples": "validation",
    "max_test_samples": "test",
}
"""Fields that a study may also give as a share of a split."""

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
        content = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not YAML: {' '.join(str(error).split())}") from None
    return parse(content, str(file), techniques, smoke)


def parse(content, file: str, techniques: Mapping[str, type[Technique]], smoke: bool = False) -> Study:
    """`read` for content that is already loaded; file: what errors call it."""
    _check_keys(content, KEYS, file)
    if smoke:
        if not content.get("smoke"):
            raise UserError(f"{file} has no `smoke` section: run it without --smoke, or write one.")
        _check_keys(content["smoke"], set(KEYS) - {"name", "smoke"}, f"{file}, smoke")
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


def shown(value) -> str:
    """A field's value as tables, names and sentences have it."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _row(study, stage, key, fields, point, seed, size) -> Row:
    parts = [stage.name] * (len(study.stages) > 1) + [key]
    parts += [f"{axis}={shown(value)}" for axis, value in point.items()] + [f"seed={seed}"]
    name = re.sub(r"[^\w.=+-]+", "_", "-".join(parts))
    values = fields | point | {"seed": seed}
    task, folder = values.get("task", RunArgs.task), values.get("data_dir")
    for field, split in SAMPLES.items():
        if (share := _share(values.get(field))) is not None:
            values[field] = max(1, round(share * size(task, folder, split)))
    kind = study.techniques[key]
    try:
        return Row(
            stage.name,
            name,
            kind(**{f: v for f, v in values.items() if f in _types(kind)}),
            RunArgs(**{f: v for f, v in values.items() if f in _types(RunArgs)}),
            {axis: values[axis] for axis in point},
        )
    except UserError as error:
        raise UserError(f"{study.file}, row {name}: {error}") from None


def _stage(name, own, content, earlier, file, techniques) -> Stage:
    where = f"{file}, stages, {name}" if "stages" in content else file
    _check_keys(own, STAGE_KEYS, where)
    best_of = own.get("best_of")
    if best_of is not None and best_of not in [stage.name for stage in earlier]:
        raise UserError(f"{where}: best_of is {best_of!r}; it must name a stage above this one.")
    inherited = _techniques(content.get("techniques"), file, techniques)
    if not inherited:
        raise UserError(
            f"{file}: `techniques` names none; choose of {', '.join(techniques)}, as a list or with their fields."
        )
    particular = _techniques(own.get("techniques"), where, techniques)
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
            fields[key] |= _values(level.get("base"), f"{at}, base", kinds, key)
            without = {f: v for f, v in of_technique.items() if f not in ("grid", "search")}
            fields[key] |= _values(without, specific, only, key)
            if best_of and level is content:
                continue
            grids[key] |= _grid(level.get("grid"), f"{at}, grid", kinds, key)
            grids[key] |= _grid(of_technique.get("grid"), f"{specific}, grid", only, key)
            searches[key] |= _search(level.get("search"), f"{at}, search", kinds, key)
            searches[key] |= _search(of_technique.get("search"), f"{specific}, search", only, key)
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
    seeds = tuple(_list(seeds, "seed", int, at))
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


def _techniques(declared, where, techniques) -> dict[str, dict]:
    """Technique key → its own fields, of a list of keys or a mapping."""
    if isinstance(declared, list):
        declared = {key: {} for key in declared}
    if declared is None:
        return {}
    if not isinstance(declared, dict):
        raise UserError(f"{where}: `techniques` must be a list of techniques, or map each to its fields.")
    for key, fields in declared.items():
        if key not in techniques:
            raise UserError(
                f"{where}, techniques: there is no {key!r}{_like(key, techniques)}; there are {', '.join(techniques)}."
            )
        if not isinstance(fields or {}, dict):
            raise UserError(f"{where}, techniques, {key}: must hold 'field: value' lines.")
    return {key: fields or {} for key, fields in declared.items()}


def _values(declared, where, kinds, key) -> dict:
    """Field → value of its declared type."""
    if not isinstance(declared or {}, dict):
        raise UserError(f"{where}: must hold 'field: value' lines.")
    return {
        field: _value(value, field, _declared(field, where, kinds, key), where)
        for field, value in (declared or {}).items()
    }


def _grid(declared, where, kinds, key) -> dict[str, list]:
    """Axis → its values, of their declared type."""
    if not isinstance(declared or {}, dict):
        raise UserError(f"{where}: must hold 'field: [values]' lines.")
    found = {}
    for axis, values in (declared or {}).items():
        if axis in _FIXED:
            raise UserError(f"{where}: {axis} cannot vary within a study; set it in `base`.")
        found[axis] = _list(values, axis, _declared(axis, where, kinds, key), where)
    return found


def _search(declared, where, kinds, key) -> dict[str, search.Space]:
    """Axis → the values that may be proposed for it."""
    if not isinstance(declared or {}, dict):
        raise UserError(f"{where}: must hold 'field: {{kind: [values]}}' lines.")
    found = {}
    for axis, space in (declared or {}).items():
        if axis in _FIXED:
            raise UserError(f"{where}: {axis} cannot vary within a study; set it in `base`.")
        type_ = _declared(axis, where, kinds, key)
        convert = functools.partial(_value, field=axis, declared=type_, where=where)
        found[axis] = search.space(space, axis, _plain(type_), convert, where)
    return found


def _list(values, field, declared, where) -> list:
    if not isinstance(values, list) or not values:
        raise UserError(f"{where}: {field} is {values!r}; it must be a list of at least one value.")
    found = [_value(value, field, declared, where) for value in values]
    if len({shown(value) for value in found}) < len(found):
        raise UserError(f"{where}: {field} lists a value twice: {values}.")
    return found


def _types(kind) -> dict:
    # Not the fields' own `type`, which transformers' argument parser overwrites.
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _declared(field, where, kinds, key):
    """The declared type of a field that every one of these techniques must have."""
    if field in _OF_THE_STUDY:
        raise UserError(f"{where}: {field} is not for a row to set: {_OF_THE_STUDY[field]}.")
    run = _types(RunArgs)
    if field in run:
        return run[field]
    have = [k for k, kind in kinds.items() if field in _types(kind)]
    if not have:
        known = [name for kind in kinds.values() for name in _types(kind)] + list(run)
        raise UserError(
            f"{where}: no field is called {field!r}{_like(field, known)}; the scripts' --help lists them."
        )
    if missing := [k for k in kinds if k not in have]:
        raise UserError(
            f"{where}: {missing[0]} has no field {field!r}; set it below `techniques`, {' and '.join(have)}."
        )
    return _types(kinds[key])[field]


def _value(value, field, declared, where):
    """A value of the declared type; a whole number is a float too, and YAML takes 1e-3 for a text."""
    optional, kind = isinstance(declared, types.UnionType), _plain(declared)
    if optional and value is None or kind is not float and type(value) is kind:
        return value
    if field in SAMPLES and _share(value) is not None:
        return value
    if typing.get_origin(kind) is list:
        (element,) = typing.get_args(kind)
        if isinstance(value, list) and all(type(each) is element for each in value):
            return value
        raise UserError(f"{where}: {field} is {value!r}; it must be a list.")
    if kind is float and not isinstance(value, bool):
        try:
            return float(value)
        except (TypeError, ValueError):
            pass
    wanted = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}[kind]
    share = ", or a share of the data such as 10%" if field in SAMPLES else ""
    raise UserError(f"{where}: {field} is {value!r}; it must be {wanted}{share}.")


def _plain(declared) -> type:
    """A declared type without its None."""
    if not isinstance(declared, types.UnionType):
        return declared
    return next(kind for kind in typing.get_args(declared) if kind is not type(None))


def _share(value) -> float | None:
    """0.1 for "10%"; None for anything that is no share above 0 and up to all."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", value) if isinstance(value, str) else None
    share = float(match[1]) / 100 if match else 0.0
    return share if 0 < share <= 1 else None


def _check_keys(content, keys, where) -> None:
    if not isinstance(content, dict):
        raise UserError(f"{where}: must hold 'name: value' lines.")
    for key in content:
        if key not in keys:
            raise UserError(f"{where}: there is no {key!r} here{_like(str(key), keys)}.")


def _like(word: str, known) -> str:
    close = difflib.get_close_matches(str(word), list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


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
