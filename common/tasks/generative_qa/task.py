"""Generative question answering as a task: a model writes the answer, token by token, behind a prompt."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ..interface import Answer, Example, Loss, Row, Settings
from ..questions import QuestionTask

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

    from ...data.record import DataRecord
    from ...models.bundles import BundleInfo
    from ...scoring.calibration import Candidates
    from ..batching import Batch

HEADS = {"decoder": "CausalLM", "encoder-decoder": "Seq2SeqLM"}
"""Kind of family → head. Encoders cannot write."""


class GenerativeQA(QuestionTask):
    """Question and context in, a written answer out."""

    name = "generative-qa"
    experiment = "generative-qa"
    registered = "generative-qa"
    suffix = "-generative"
    served = "serving.generative_qa"
    description = "Generative question answering: question and context in, written answer out."
    confidence = "score"

    def head(self, kind: str) -> str | None:
        """The head that writes; encoders have none."""
        return HEADS.get(kind)

    def further_tokens(self, args: Settings, kind: str) -> dict[str, int]:
        """A decoder writes its answer, and the answer's end, behind the prompt."""
        if kind != "decoder":
            return {}
        return {f"an answer of {args.max_answer_length} tokens": args.max_answer_length + 1}

    def given_back(
        self, tokenizer: "PreTrainedTokenizerBase", examples: Sequence[Example]
    ) -> list[str] | None:
        """The text that its tokens decode to."""
        golds = [" " + example["answers"]["text"][0] for example in examples]
        rows = tokenizer(golds, add_special_tokens=False, verbose=False)["input_ids"] if golds else []
        return [tokenizer.decode(ids, skip_special_tokens=True) for ids in rows]

    def features(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        config: "PreTrainedConfig",
        examples: Sequence[Example],
        args: Settings,
    ) -> Any:
        """A prompt for every window of every example's context; `trained` chooses those to train on."""
        from ...models.families import family_of
        from .writing import make_prompts

        return make_prompts(
            tokenizer,
            examples,
            kind=family_of(config.model_type).kind,
            max_length=args.max_length,
            doc_stride=args.doc_stride,
            max_answer_length=args.max_answer_length,
        )

    def trained(self, features: Any, version: str) -> Any:
        """The prompts whose window holds the answer, and on SQuAD v2.0 those without an answer."""
        from .writing import trained

        return trained(features, version)

    def collator(
        self, tokenizer: "PreTrainedTokenizerBase", config: "PreTrainedConfig"
    ) -> "Callable[[Sequence[Any]], Batch]":
        """Pads on the side that the kind of family needs."""
        from ...models.families import family_of
        from .writing import Collator

        return Collator(tokenizer, family_of(config.model_type).kind)

    def loss(self, model: "torch.nn.Module", batch: "Batch", labels: "torch.Tensor") -> "torch.Tensor":
        """Cross-entropy of the answers' tokens, their ends included."""
        from .work import answer_loss

        return answer_loss(model, batch, labels)

    def training_loss(self, features: Any, args: Settings, labels: Sequence[str]) -> Loss:
        """With label smoothing where it is asked for."""
        from .work import answer_loss

        return partial(answer_loss, smoothing=args.label_smoothing) if args.label_smoothing else self.loss

    def outputs(
        self,
        model: "torch.nn.Module",
        features: Any,
        collator: Any,
        args: Settings,
        part: tuple[int, int],
        progress: str | None,
    ) -> Any:
        """The texts that the model writes behind every prompt."""
        from .writing import write

        return write(
            model,
            features,
            collator,
            max_answer_length=args.max_answer_length,
            part=part,
            progress=progress,
        )

    def join(self, parts: Sequence[Any]) -> Any:
        """All written texts."""
        from .writing import join

        return join(parts)

    def predictions(
        self, outputs: Any, features: Any, examples: Sequence[Example], args: Settings, decision: float | None
    ) -> list[Any]:
        """The most probable answer of each example's windows."""
        from .writing import choose

        return choose(outputs, features.example_index, [example["id"] for example in examples])

    def candidates(self, predictions: Sequence[Any]) -> "Candidates | None":
        """What was written, and everything else that could have been written: two candidates."""
        from .work import candidates

        return candidates(predictions)

    def row(self, prediction: Any, example: Example) -> dict[str, Any]:
        """Question, written answer and its probability."""
        return {
            "question": example["question"],
            "prediction": prediction.text,
            "score": prediction.score,
        }

    def stored_settings(self, args: Settings, record: "DataRecord", decision: float | None) -> dict[str, Any]:
        """The settings of windows and of writing."""
        return {
            "max_length": args.max_length,
            "doc_stride": args.doc_stride,
            "max_answer_length": args.max_answer_length,
        }

    def disagreements(
        self, rows: Sequence[Row], answers: Sequence[Answer], about: "BundleInfo", precision: str
    ) -> list[str]:
        """Another answer agrees where it is equally probable."""
        from .agreement import TOLERANCE, rewritten

        tolerance = TOLERANCE.get(precision, TOLERANCE["fp32"])
        return rewritten(rows, answers, tolerance, about.settings.get("temperature", 1.0))
