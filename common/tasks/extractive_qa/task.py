"""Extractive question answering as a task: the answer is a span of the context."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from ..interface import Answer, Decision, Example, Figures, Loss, Row, Settings
from ..questions import QuestionTask

if TYPE_CHECKING:
    import numpy as np
    import torch
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

    from ...data.record import DataRecord
    from ...models.bundles import BundleInfo
    from ...models.families import Family
    from ...scoring.calibration import Candidates
    from ..batching import Batch


class ExtractiveQA(QuestionTask):
    """Question and context in, a span of the context out."""

    name = "extractive-qa"
    experiment = "squad-qa"
    registered = "bert-squad-qa"
    served = "serving.extractive_qa"
    description = "Extractive question answering: question and context in, answer out."
    confidence = "probability"
    packs = True
    distils = True
    onnx_outputs = ("start_logits", "end_logits")
    same_answer = ("start", "end", "answer")

    def head(self, kind: str) -> str | None:
        """Every kind of family has one."""
        return "QuestionAnswering"

    def given_back(
        self, tokenizer: "PreTrainedTokenizerBase", examples: Sequence[Example]
    ) -> list[str] | None:
        """As the offsets of its tokens cut it out of the context; "" where no window holds it."""
        from .windows import cut_out

        return cut_out(tokenizer, examples)

    def features(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        config: "PreTrainedConfig",
        examples: Sequence[Example],
        args: Settings,
    ) -> Any:
        """Overlapping windows; the label is 0 where a window does not hold the whole answer."""
        from ...models.families import uses_segment_ids
        from .windows import make_windows

        return make_windows(
            tokenizer,
            examples,
            max_length=args.max_length,
            doc_stride=args.doc_stride,
            segment_ids=uses_segment_ids(config),
        )

    def collator(
        self, tokenizer: "PreTrainedTokenizerBase", config: "PreTrainedConfig"
    ) -> "Callable[[Sequence[Any]], Batch]":
        """Pads to the longest window of a batch."""
        from ..batching import Collator

        return Collator(tokenizer.pad_token_id)

    def loss(self, model: "torch.nn.Module", batch: "Batch", labels: "torch.Tensor") -> "torch.Tensor":
        """Cross-entropy of first and last answer token; labels: (batch, 2)."""
        from .work import span_loss

        return span_loss(model, batch, labels)

    def training_loss(self, features: Any, args: Settings, labels: Sequence[str]) -> Loss:
        """With label smoothing where it is asked for."""
        from .work import smoothed_span_loss

        return smoothed_span_loss(args.label_smoothing) if args.label_smoothing else self.loss

    def unpadded_loss(self, family: "Family", args: Settings) -> Loss:
        """`training_loss` without computing padding, for a family with absolute positions."""
        from .work import unpadded_span_loss

        return unpadded_span_loss(family, args.label_smoothing)

    def outputs(
        self,
        model: "torch.nn.Module",
        features: Any,
        collator: Any,
        args: Settings,
        part: tuple[int, int],
        progress: str | None,
    ) -> Any:
        """The best spans of every window."""
        from .prediction import predict_spans

        return predict_spans(
            model,
            features,
            collator,
            n_best=args.n_best,
            max_answer_length=args.max_answer_length,
            part=part,
            progress=progress,
        )

    def join(self, parts: Sequence[Any]) -> Any:
        """The spans of all windows."""
        from .spans import concatenate

        return concatenate(parts)

    def predictions(
        self, outputs: Any, features: Any, examples: Sequence[Example], args: Settings, decision: float | None
    ) -> list[Any]:
        """The best span of each example's windows. decision: the threshold of "no answer"."""
        from .prediction import decode_spans

        return decode_spans(outputs, features, examples, n_best=args.n_best, null_threshold=decision)

    def decide(self, predictions: Sequence[Any], examples: Sequence[Example], version: str) -> float | None:
        """The threshold above which the answer is "no answer"; on SQuAD v1.1 every question is answered."""
        from .spans import tune_null_threshold

        return tune_null_threshold(predictions, examples) if version == "v2.0" else None

    def decided(self, decision: Decision) -> Figures:
        """The threshold of "no answer"."""
        return {"null_threshold": decision}

    def candidates(self, predictions: Sequence[Any]) -> "Candidates | None":
        """The n best spans of a question, and "no answer" where it competes; their scores are sums of two logits."""
        from ...scoring.calibration import Candidates

        places = [list(zip(p.n_best.start, p.n_best.end, strict=True)) for p in predictions]
        given = [
            place.index((p.start, p.end)) if place else 0
            for p, place in zip(predictions, places, strict=True)
        ]
        return Candidates.of([p.n_best.score for p in predictions], given)

    def taught(self, out: Any) -> "torch.Tensor":
        """The logits of first and last token."""
        from ..distillation import span_logits

        return span_logits(out)

    def divergence(
        self, out: Any, taught: "torch.Tensor", mask: "torch.Tensor", temperature: float
    ) -> "torch.Tensor":
        """Over the real tokens of a window, for first and last token."""
        from ..distillation import span_divergence, span_logits

        return span_divergence(span_logits(out), taught, mask, temperature)

    def carried_over(
        self, taught: "Sequence[np.ndarray]", of: Any, to: Any, args: Settings
    ) -> "Iterator[np.ndarray]":
        """By characters of the context."""
        from .alignment import carried_over

        return carried_over(taught, of, to, args.max_answer_length)

    def row(self, prediction: Any, example: Example) -> dict[str, Any]:
        """Question, answer, its place and probability, and the other candidates."""
        kept = asdict(replace(prediction, n_best=list(prediction.n_best)))
        del kept["id"]
        return {"question": example["question"], "prediction": kept.pop("text"), **kept}

    def stored_settings(self, args: Settings, record: "DataRecord", decision: float | None) -> dict[str, Any]:
        """The settings of windows and of decoding."""
        return {
            "version": record.version,
            "max_length": args.max_length,
            "doc_stride": args.doc_stride,
            "max_answer_length": args.max_answer_length,
            "n_best": args.n_best,
            "null_threshold": decision or 0.0,
        }

    def disagreements(
        self, rows: Sequence[Row], answers: Sequence[Answer], about: "BundleInfo", precision: str
    ) -> list[str]:
        """Another span agrees where the run scored it equally high."""
        from .agreement import TOLERANCE, disagreements

        settings = about.settings
        threshold = settings["null_threshold"] if settings["version"] == "v2.0" else None
        tolerance = TOLERANCE.get(precision, TOLERANCE["fp32"])
        return disagreements(rows, answers, threshold, tolerance, settings.get("temperature", 1.0))
