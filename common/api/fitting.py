"""`fit`: a technique's script as a function."""

import dataclasses
import difflib
import json
from collections.abc import Iterable, Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..training.refusals import check
from ..training.settings import RunArgs, Technique, settled
from .pages import html_table, html_text
from .technique_scripts import technique_of

if TYPE_CHECKING:
    import pandas as pd

    from ..tracking.run_summary import RunSummary
    from .asking import Model


@dataclasses.dataclass(frozen=True, repr=False)
class Run:
    """A finished training and its figures; a notebook shows it as a table."""

    summary: "RunSummary"

    @property
    def run_id(self) -> str:
        """The id of the MLflow run."""
        return self.summary.run_id

    @property
    def scores(self) -> "dict[str, Any]":
        """Metric (`f1`, `exact_match` or `accuracy`) → its Score on the test data: `value`, `low` and `high`, in percent."""
        return dict(self.summary.scores)

    @property
    def model_uri(self) -> str:
        """What MLflow and `load` know the trained model by."""
        return f"runs:/{self.run_id}/model"

    @property
    def url(self) -> str | None:
        """The page of the run where MLflow is a server; None for a local store, which `mlflow ui` shows."""
        return self.summary.url

    def load(self) -> "Model":
        """The trained model, ready to be asked."""
        from .asking import load

        return load(self.model_uri)

    def predictions(self) -> "pd.DataFrame":
        """What the model answered to each test example, with its scores from 0 to 1."""
        import pandas as pd

        from ..tracking import runs

        return pd.DataFrame(runs.predictions(self.run_id))

    def __repr__(self) -> str:
        return f"{self.summary.sentence()}; run {self.run_id}"

    def _repr_html_(self) -> str:
        summary = self.summary
        rows = [[name, *score.cells()] for name, score in summary.named_scores()]
        place = (
            f'<a href="{html_text(self.url)}">{self.run_id}</a>'
            if self.url
            else f"<code>{self.run_id}</code>"
        )
        table = html_table(["", "%", "95% interval"], rows)
        return f"<p><b>{html_text(summary.title())}</b></p>{table}<p>MLflow run {place}</p>"


def fit(technique: str | type[Technique], **settings: Any) -> Run | None:
    """Train with a technique, keep the epoch with the best validation score, test it once, log everything to MLflow.

    technique: its key (`techniques()` lists them) or its class. settings: what the technique's script takes as flags, under
    the same names, with the same defaults and bounds; `config` names a YAML file of them. None stands for a default.

    Interrupted (Ctrl-C, or a notebook's stop button), the training ends after its current step with a checkpoint, and
    raises KeyboardInterrupt; the same call with `resume=True` continues it. UserError says in one line what is wrong with a
    setting, the data or the store. Among several processes (torchrun) only the first one gets a Run, the others None.
    """
    from ..training.command_line import parse

    kind = technique_of(technique)
    chosen, args = parse(kind, _flags(kind, settings))
    # Before the libraries are imported, which takes seconds.
    check(chosen, settled(args))
    from ..tracking.run_summary import summary
    from ..training import fit as training

    run_id = training.fit(chosen, args, again=_call(kind, settings | {"resume": True}))
    return None if run_id is None else Run(summary(run_id))


def _flags(kind: type[Technique], settings: dict[str, Any]) -> list[str]:
    """Settings as a command line, so that they are converted and refused as flags are. UserError names an unknown one."""
    known = {field.name for each in (kind, RunArgs) for field in dataclasses.fields(each)} | {"config"}
    words = []
    for name, value in settings.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f": there are {', '.join(sorted(known))}."
            raise UserError(f"{name!r} is not a setting of {kind.__name__}{hint}")
        if value is None:
            continue
        if isinstance(value, Mapping):
            words.append(f"--{name}={json.dumps(value)}")
        elif isinstance(value, Iterable) and not isinstance(value, str | PathLike):
            words += [f"--{name}", *map(str, value)]
        else:
            words.append(f"--{name}={value}")
    return words


def _call(kind: type[Technique], settings: dict[str, Any]) -> str:
    """The call of `fit` with these settings, as it is typed."""
    shown = {name: str(value) if isinstance(value, PathLike) else value for name, value in settings.items()}
    return f"fit({', '.join([repr(kind.key), *(f'{name}={value!r}' for name, value in shown.items())])})"
