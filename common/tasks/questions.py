"""What the tasks with questions on contexts have in common."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from .interface import Answer, Example, Figures, Row, Settings, Task

if TYPE_CHECKING:
    import numpy as np

    from ..data.record import DataRecord
    from ..scoring.squad import Version


def version_of(references: Sequence[Mapping[str, Any]]) -> "Version":
    """The version of SQuAD whose rules these questions follow: v2.0 where one has no answer."""
    return "v2.0" if any(not reference["answers"]["text"] for reference in references) else "v1.1"


class QuestionTask(Task):
    """A task whose examples have `question`, `context` and `answers`; its predictions have `id` and `text`."""

    data = "qa"
    data_dir = "squad_data"
    metrics = ("f1", "exact_match")
    right = "exact match"
    needs_offsets = True

    def check_settings(self, args: Settings) -> None:
        """Windows must be longer than the part that neighbours share."""
        # At most half of a window belongs to the question; the rest must be longer than the part that neighbours share.
        room = args.max_length - args.max_length // 2 - 4
        if not 0 <= args.doc_stride < room:
            raise UserError(
                f"--doc_stride is {args.doc_stride}: with --max_length {args.max_length} it must be at least 0 and below "
                f"{max(room, 1)}."
            )

    def texts(self, example: Example) -> list[str]:
        """Context and question."""
        return [example["context"], example["question"]]

    def data_title(self, version: str) -> str:
        """Such as "SQuAD v2.0"."""
        return f"SQuAD {version}"

    def score(
        self, predictions: Sequence[Any], examples: Sequence[Example], version: str
    ) -> tuple[Figures, dict[str, "np.ndarray"]]:
        """SQuAD's exact match and F1."""
        from ..scoring import squad

        answers = {prediction.id: prediction.text for prediction in predictions}
        rules: squad.Version = "v2.0" if version == "v2.0" else "v1.1"
        return (
            squad.squad_scores(answers, examples, rules),
            squad.score_examples(answers, examples, rules),
        )

    def groups(self, examples: Sequence[Example], record: "DataRecord") -> list[str]:
        """Articles; paragraphs where the data has no articles, so that validation was drawn by paragraph."""
        from ..scoring.groups import groups_of

        single = len({example["title"] for example in examples}) == 1
        by_paragraph = record.validation_by == "paragraph" or (single and record.made_titles)
        return groups_of(examples, "context" if by_paragraph else "title")

    def request(self, example: Example) -> dict[str, str]:
        """Question and context."""
        return {name: example[name] for name in ("question", "context")}

    def served_score(
        self, answers: Sequence[Answer], rows: Sequence[Row], examples: Sequence[Example]
    ) -> float:
        """F1 against the true answers, or against the run's own."""
        from ..scoring.squad import squad_scores

        references: Sequence[Mapping[str, Any]] = examples or [
            {"id": row["id"], "answers": {"text": [row["prediction"]] if row["prediction"] else []}}
            for row in rows
        ]
        predictions = {row["id"]: answer["answer"] for row, answer in zip(rows, answers, strict=True)}
        return float(squad_scores(predictions, references, version_of(references))["f1"])

    def judged(
        self, answers: Sequence[Answer], examples: Sequence[Example]
    ) -> tuple[Figures, dict[str, "np.ndarray"]]:
        """By the rules of v2.0 where a question has no answer."""
        given = [
            SimpleNamespace(id=example["id"], text=answer["answer"])
            for answer, example in zip(answers, examples, strict=True)
        ]
        return self.score(given, examples, version_of(examples))

    def slices(self, example: Example) -> dict[str, str]:
        """By question word, lengths, and whether there is an answer."""
        from ..scoring.slices import question_slices

        return question_slices(example)
