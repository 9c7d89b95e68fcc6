"""Question answering as transformers' pipeline was called, with this project's windows and exact decoding.

transformers 5.3 dropped the pipeline. Arguments, and the fields of an answer, are those of its last release, 4.57.6;
docs/PYTHON.md lists what differs on purpose.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from .models import Model, load_here
from .question_forms import Example, asked, checked

if TYPE_CHECKING:
    from ..tasks.extractive_qa.spans import Prediction

BLOCK = 256
"""Questions whose windows are made, and sorted by length, together."""

SHORTEST = 16
"""Tokens of the shortest windows."""

Answer = dict[str, Any]
"""`score`, `start`, `end`, `answer`."""

Candidate = tuple[int, int, float]
"""First character, the one behind the last, and the score; (-1, -1, score) is "no answer"."""


@dataclass(frozen=True)
class Options:
    """How questions are answered; None stands for the model's own setting. Lengths are in tokens."""

    top_k: int = 1
    doc_stride: int | None = None
    max_answer_len: int | None = None
    max_seq_len: int | None = None
    max_question_len: int | None = None
    handle_impossible_answer: bool | None = None
    align_to_words: bool = False
    batch_size: int | None = None
    """Windows that are computed at once; None: as many as the device is fastest with."""

    def given(self, arguments: Mapping[str, Any]) -> "Options":
        """These options with arguments in their place; UserError names one that is unknown or out of range.

        An argument of None is not given, as in the pipeline.
        """
        known = [field.name for field in fields(self)]
        for name, value in arguments.items():
            if name not in known:
                near = difflib.get_close_matches(name, [*known, "question", "context"], 1, 0.5)
                hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}."
                raise UserError(f"{name!r} is not an argument of QuestionAnswerer; {hint}")
            if value is None:
                continue
            if name in ("handle_impossible_answer", "align_to_words"):
                if not isinstance(value, bool):
                    raise UserError(f"{name} is {value!r}; it is True or False.")
                continue
            least = 0 if name == "doc_stride" else 1
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UserError(f"{name} is {value!r}; it is a whole number, {least} or more.")
        return replace(self, **{name: value for name, value in arguments.items() if value is not None})


@dataclass(frozen=True)
class Lengths:
    """Of windows, what neighbours share, questions and answers, in tokens."""

    window: int
    stride: int
    question: int
    answer: int


class QuestionAnswerer:
    """Answers questions about texts; called as transformers' question-answering pipeline was.

    `from_pretrained` makes one. Threads may share it.
    """

    def __init__(self, model: Model, **defaults: Any):
        """model: one that `models.load_here` gave. defaults: arguments of a call."""
        from ..serving.extractive_qa import Answerer

        answerer = getattr(model.served, "answerer", None)
        if not isinstance(answerer, Answerer):
            raise UserError(
                f"{model.name} does not mark answers in a text: name one model for extractive question answering "
                "(common.api.load asks models of every kind)."
            )
        # The model may hold the folder that its weights are mapped from.
        self._model, self._answerer = model, answerer
        self._options = Options().given(defaults)
        # A default that does not fit is refused here, not at the first question.
        self._lengths(self._options)

    @classmethod
    def from_pretrained(cls, name: Any, **defaults: Any) -> "QuestionAnswerer":
        """The answerer of a folder, a model of the hub, a run or its id, or a URI (models:/NAME@ALIAS, models:/NAME/VERSION,
        runs:/ID/model).

        defaults: arguments that every call has unless it gives its own, such as max_answer_len=15. A model of the store is
        held against its record, and opened by this library's code. UserError where there is no such model, a file was
        changed, it does not mark answers in a text, or a default does not fit it.
        """
        return cls(load_here(str(getattr(name, "model_uri", name))), **defaults)

    def __call__(
        self,
        *inputs: Any,
        question: str | Sequence[str] | None = None,
        context: str | Sequence[str] | None = None,
        **arguments: Any,
    ) -> Any:
        """The answer to a question, or the list of answers to several.

        An answer has `score` (the probability of its first token times that of its last one, over the tokens of the whole
        context and "no answer"; what several windows hold counts once), `start` and `end` in characters of the context, and `answer`; "no
        answer" is "" from 0 to 0. With `top_k` above 1 each question gets a list of answers, best first.

        question, context: two texts; two lists of the same length; or a list and a text that belongs to each of its items.
        In their place, positional: a question and a context, dicts with both, or an iterable of such dicts. A list gives a
        list, an iterator gives an iterator, which answers block by block. arguments: those of `Options`. UserError names
        the question that cannot be answered, or the argument.
        """
        options = self._options.given(arguments)
        lengths = self._lengths(options)
        examples, form = asked(inputs, question, context)
        answers = self._answers(examples, options, lengths)
        if form == "one":
            return next(answers)
        return answers if form == "stream" else list(answers)

    def _answers(
        self, examples: Iterable[Any], options: Options, lengths: Lengths
    ) -> Iterator[Answer | list[Answer]]:
        numbered = enumerate(examples)
        while block := [checked(each, number) for number, each in islice(numbered, BLOCK)]:
            for found in self._block(block, options, lengths):
                yield found[0] if options.top_k == 1 else found

    def _lengths(self, options: Options) -> Lengths:
        """UserError where they do not fit each other, or the model."""
        settings = self._answerer.info.settings
        window = options.max_seq_len or settings["max_length"]
        limit = self._longest_window()
        if window < SHORTEST or (limit is not None and window > limit):
            bound = (
                "" if limit is None else f" to {limit}, which is what {self._model.name} has positions for"
            )
            raise UserError(
                f"max_seq_len is {window}: choose {SHORTEST} tokens{bound or ' or more'}, or leave it out."
            )
        # The question may take half of a window; the rest must be longer than what neighbours share.
        room = window - window // 2 - 4
        stride = options.doc_stride
        if stride is None:
            stride = settings["doc_stride"] if settings["doc_stride"] < room else window // 4
        if stride >= room:
            raise UserError(
                f"doc_stride is {stride}: with windows of {window} tokens (max_seq_len) it must be below {room}."
            )
        question = min(options.max_question_len or window, window // 2)
        return Lengths(window, stride, question, options.max_answer_len or settings["max_answer_length"])

    def _longest_window(self) -> int | None:
        from ..models.families import FAMILIES, usable_positions
        from ..models.foreign import limits

        config = self._answerer.model.config
        if config.model_type in FAMILIES:
            return usable_positions(config)
        return min(limits(self._answerer.model, self._answerer.tokenizer), default=None)

    def _block(
        self, examples: Sequence[Example], options: Options, lengths: Lengths
    ) -> Iterator[list[Answer]]:
        """For each example its answers, best first: at least one, at most top_k."""
        from ..models.families import uses_segment_ids
        from ..tasks.extractive_qa.prediction import decode_spans
        from ..tasks.extractive_qa.windows import make_windows, shorten
        from . import span_scores, words

        answerer, tokenizer = self._answerer, self._answerer.tokenizer
        with answerer.tokenizing:
            cut = [
                {
                    "id": str(i),
                    "question": shorten(tokenizer, example["question"].lstrip(), lengths.question),
                    "context": example["context"],
                }
                for i, example in enumerate(examples)
            ]
            windows = make_windows(
                tokenizer,
                cut,
                max_length=lengths.window,
                doc_stride=lengths.stride,
                segment_ids=uses_segment_ids(answerer.model.config, tokenizer),
            )
            contexts = {e["context"]: None for e in cut} if options.align_to_words else {}
            found_words = {context: words.words(tokenizer, context) for context in contexts}
        # Candidates that become one when they are widened to words leave room for others.
        n_best = max(
            answerer.info.settings["n_best"], options.top_k * (2 if options.align_to_words else 1) + 10
        )
        spans, totals = span_scores.predict(
            answerer.model,
            windows,
            answerer.collator,
            examples=len(cut),
            n_best=n_best,
            max_answer_length=lengths.answer,
            batch_size=options.batch_size,
        )
        predictions = decode_spans(
            spans, windows, cut, n_best=n_best, null_threshold=self._threshold(options)
        )
        for prediction, total, example in zip(predictions, totals.tolist(), examples, strict=True):
            candidates = span_scores.scored(prediction.n_best, total)
            if options.align_to_words:
                candidates = words.aligned(candidates, found_words[example["context"]])
            yield _ranked(example["context"], candidates, prediction)[: options.top_k]

    def _threshold(self, options: Options) -> float | None:
        """By how much "no answer" must be better than the best answer; None where there always is an answer."""
        info = self._answerer.info
        possible = options.handle_impossible_answer
        if not (info.has_unanswerable if possible is None else possible):
            return None
        return info.settings["null_threshold"] if info.has_unanswerable else 0.0

    def __repr__(self) -> str:
        return f"<QuestionAnswerer of {self._model.name}>"


def _ranked(context: str, candidates: Sequence[Candidate], prediction: "Prediction") -> list[Answer]:
    """The given answer, then the others by score."""
    ranked = sorted(candidates, key=lambda each: -each[2])
    # The model's threshold decides whether there is an answer, whatever the scores are.
    given = next((i for i, each in enumerate(ranked) if (each[0] < 0) == (prediction.start < 0)), None)
    if given is not None:
        ranked.insert(0, ranked.pop(given))
    return [
        {"score": score, "start": start, "end": end, "answer": context[start:end]}
        for start, end, score in ((max(a, 0), max(b, 0), score) for a, b, score in ranked)
    ] or [{"score": 0.0, "start": 0, "end": 0, "answer": ""}]
