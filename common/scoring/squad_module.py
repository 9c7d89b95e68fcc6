"""The suite's SQuAD scores as an `evaluate` module that needs no hub.

`evaluate.load` copies this file and those beside it that it names, `squad.py` and `languages.py`, into its own cache; so
they import no other module of the suite.
"""

from typing import Any

import datasets
import evaluate

from .languages import CODE
from .squad import squad_scores

_DESCRIPTION = """\
Exact match and F1 as the official SQuAD evaluation scripts compute them, in percent.
Configurations: "v1.1" (the default) and "v2.0", which adds unanswerable questions."""

_USAGE = """
predictions: dicts of `id` and `prediction_text`; v2.0: also `no_answer_probability`.
references: dicts of `id` and `answers` ({"text": [...], "answer_start": [...]}, empty lists if unanswerable).
language: such as "de": answers are compared by the rules of that language (MLQA's, KorQuAD's, ...); default: SQuAD's.
no_answer_threshold: v2.0 only; predictions of a higher no-answer probability count as "no answer".

>>> metric = evaluate.load("common/scoring/squad_module.py", "v1.1")
>>> metric.compute(
...     predictions=[{"id": "1", "prediction_text": "the Eiffel Tower"}],
...     references=[{"id": "1", "answers": {"text": ["Eiffel Tower"], "answer_start": [0]}}],
... )
{'exact_match': 100.0, 'f1': 100.0}"""

_CITATION = """\
@inproceedings{rajpurkar2016squad,
  title={SQuAD: 100,000+ Questions for Machine Comprehension of Text},
  author={Rajpurkar, Pranav and Zhang, Jian and Lopyrev, Konstantin and Liang, Percy},
  booktitle={EMNLP}, year={2016}
}"""


class SquadMetric(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in ("default", "v1.1", "v2.0"):
            raise KeyError(f'Choose "v1.1" or "v2.0", not {self.config_name!r}')
        prediction = {"id": datasets.Value("string"), "prediction_text": datasets.Value("string")}
        if self.config_name == "v2.0":
            prediction["no_answer_probability"] = datasets.Value("float64")
        answers = {
            "text": datasets.List(datasets.Value("string")),
            "answer_start": datasets.List(datasets.Value("int32")),
        }
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_USAGE,
            features=datasets.Features(
                {
                    "predictions": prediction,
                    "references": {"id": datasets.Value("string"), "answers": answers},
                }
            ),
        )

    def _compute(
        self,
        predictions: list[dict[str, Any]],
        references: list[dict[str, Any]],
        no_answer_threshold: float = 1.0,
        language: str | None = None,
    ) -> dict[str, float]:
        if language is not None:
            if not CODE.fullmatch(language):
                raise ValueError(
                    f"language is {language!r}: name one such as 'de' or 'zh-Hans', or a convention"
                )
            references = [{**reference, "language": language} for reference in references]
        texts = {prediction["id"]: prediction["prediction_text"] for prediction in predictions}
        if self.config_name != "v2.0":
            return squad_scores(texts, references, "v1.1")
        odds = {prediction["id"]: prediction["no_answer_probability"] for prediction in predictions}
        return squad_scores(texts, references, "v2.0", null_odds=odds, null_threshold=no_answer_threshold)
