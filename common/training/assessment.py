"""What a run does beside training: its data split, a model tested once, the result logged and printed."""

import sys
import time
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from ..models.cpu_kernels import keep_memory
from ..models.products import hardware_has_bf16, round_products
from ..tracking.run_log import TrainingLog
from . import confidence, results
from .evaluation import Evaluation, Split
from .planning import Plan
from .sampling import subset
from .settings import DATA, RunArgs, Technique

INPUTS = "inputs.json"
"""The artifact that holds what decided a run, part by part."""
NO_BF16 = "Note: this CPU does not multiply bf16 itself, so --precision bf16 takes longer than fp32 here."


@dataclass(frozen=True)
class Judged:
    """The parts of the data that a model is judged by, as it takes them."""

    validation: Split
    test: Split


class Assessment(ABC):
    """A plan whose model is assessed: everything about a run that is not its training.

    scratch: folder for what is logged as files.
    """

    def __init__(self, planned: Plan, scratch: Path):
        self.plan, self.scratch = planned, scratch
        self.technique, self.args, self.task = planned.technique, planned.args, planned.task
        self.record, self.output_dir = planned.record, planned.output_dir
        on_gpu = torch.cuda.is_available()
        # Autocast converts every activation too: on a CPU that costs more than half of what the products gain.
        self.autocast = {"fp16": torch.float16, "bf16": torch.bfloat16 if on_gpu else None}.get(
            planned.precision
        )
        half_products = planned.precision == "bf16" and not on_gpu
        round_products(half_products)
        keep_memory()
        self.arguments = self._arguments()
        # Reading the device is what joins the launcher's processes; until then each believes that it is alone.
        _ = self.arguments.device
        self.is_main = self.arguments.process_index == 0
        if half_products and self.is_main and not hardware_has_bf16():
            print(NO_BF16, file=sys.stderr)

        self.tags: dict[str, str] = {}
        """Further tags of the run."""

    @abstractmethod
    def carry_out(self, log: TrainingLog) -> None:
        """Do all of the run, and log it."""

    def leave_group(self) -> None:
        """End the work with other processes: threads that still wait for them abort an interpreter that ends."""
        if self.arguments.world_size > 1:
            torch.distributed.destroy_process_group()

    def evaluation(self, tokenizer: Any, config: Any) -> Evaluation:
        """How models of this run are asked and scored. tokenizer, config: the model's."""
        return Evaluation(
            self.task,
            self.args,
            self.record.version,
            self.task.collator(tokenizer, config),
            self.autocast,
            self.arguments,
        )

    def judged_by(self, tokenizer: Any, config: Any) -> Judged:
        """The parts of the data that a model is judged by. tokenizer, config: the model's."""
        validation = self._split("validation", self.args.max_validation_samples, tokenizer, config)
        return Judged(validation, self._split("test", self.args.max_test_samples, tokenizer, config))

    def test(
        self,
        model: torch.nn.Module,
        judged: Judged,
        evaluation: Evaluation,
        choices: int,
        validation_outputs: Any = None,
    ) -> results.Tested | None:
        """Decide on validation what is to be decided, then look at test once. None in every process but the first.

        choices: how many models validation chose from. validation_outputs: the model's, where they are known.
        """
        validation, test = judged.validation, judged.test
        outputs = validation_outputs
        if outputs is None:
            outputs = evaluation.outputs(model, validation)
        validated = evaluation.undecided(outputs, validation)
        decision = evaluation.decide(validated, validation)
        if decision is not None:
            validated = evaluation.predictions(outputs, validation, decision)
        started = time.perf_counter()
        outputs = evaluation.outputs(model, test, progress="test")
        predictions = evaluation.predictions(outputs, test, decision)
        seconds = time.perf_counter() - started
        if not self.is_main:
            return None
        test_scores, each = evaluation.scores(predictions, test.examples)
        validation_scores, validated_each = evaluation.scores(validated, validation.examples)
        groups = self.task.groups(validation.examples, self.record)
        fitted = confidence.fit(self.task, validated, validated_each, choices, groups)
        return results.Tested(
            validation=validation,
            test=test,
            decision=decision,
            validation_predictions=validated,
            test_predictions=predictions,
            validation_scores=validation_scores,
            test_scores=test_scores,
            each=each,
            validated_each=validated_each,
            seconds=seconds,
            confidence=confidence.measure(fitted, self.task, predictions, each) if fitted else None,
        )

    def untrained_settings(self) -> dict[str, Any]:
        """Of the plan's settings those that a model without a training has: of its data, its judging, and its own."""
        own = {f.name for f in fields(self.technique)} - {f.name for f in fields(Technique)}
        read = {f.name for f in fields(RunArgs) if f.metadata["group"] == DATA}
        read |= own | {"technique", "task", "seed", "precision"}
        return {name: value for name, value in self.plan.settings.items() if name in read}

    def log_settings(self, log: TrainingLog, settings: dict[str, Any]) -> None:
        """Log settings as parameters beside what the run reads, and its configuration and data as files."""
        log.log_params(
            settings
            | {
                "model_checkpoint": self.plan.checkpoint.name,
                "data": self.record.title,
                "data_dir": self.args.data_dir,
            }
        )
        log.log_dict(asdict(self.technique) | asdict(replace(self.args, resume=False)), "config.yaml")
        log.log_dict(self.plan.inputs, INPUTS)
        log.log_dict(self.record.to_json(), "data_record.json")

    def report(self, tested: results.Tested, saved: results.Saved, log: TrainingLog) -> None:
        """Log the model and its predictions; print the result."""
        figures = results.figures(tested, self.task)
        figures["adapter_mib"] = saved.mib
        log.set_tags({"base_fingerprint": saved.base_fingerprint})
        log.log_model(saved.bundle, saved.base, self.task.request(tested.test.examples[0]), figures)
        folder = self.scratch / "predictions"
        results.write_predictions(tested, self.task, folder)
        log.log_artifact(folder)
        if tested.confidence:
            folder = self.scratch / confidence.FOLDER
            tested.confidence.write(folder, self.task.unit)
            log.log_artifact(folder)
        result = results.sentence(self.plan, figures)
        # The description on the run's page.
        log.set_tags(
            {"mlflow.note.content": f"{result}. Brackets: 95% bootstrap intervals over the test examples."}
        )
        print(f"\n{result}")

    def _arguments(self) -> TrainingArguments:
        """What names the device, and this process among those of a launcher."""
        return TrainingArguments(
            output_dir=str(self.output_dir),
            use_cpu=not torch.cuda.is_available(),
            bf16=self.autocast == torch.bfloat16,
            fp16=self.autocast == torch.float16,
            report_to="none",
        )

    def _split(self, name: str, limit: int | None, tokenizer: Any, config: Any) -> Split:
        examples = self.drawn_of(name, limit).to_list()
        return Split(examples, self.task.features(tokenizer, config, examples, self.args))

    def drawn_of(self, name: str, limit: int | None) -> Any:
        """A part of the data, a `datasets.Dataset`, or what is drawn of it."""
        return subset(self.plan.splits[name], limit, self.args.seed, self.task.balanced_by)
