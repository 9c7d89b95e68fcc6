"""A plan carried out: a model trained, its best epoch tested once, everything told to the run."""

import resource
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from transformers import TrainingArguments, set_seed

from .. import stopping
from ..errors import UserError
from ..files import write_json
from ..models import base as models
from ..models import bundles, saving
from ..models.cpu_kernels import keep_memory, quicken, updates_held
from ..reports import run_figures
from ..reports.study_curves import gradient_flow
from ..scoring import bootstrap
from ..scoring.names import LABELS
from ..tasks.interface import Extras
from . import checkpoints
from .gradient_norms import split_off
from .planning import Plan
from .sampling import sample
from .trainer import WEIGHTS, TaskTrainer


@dataclass(frozen=True)
class Split:
    """The examples of one part of the data and the model's inputs made of them."""

    examples: list[dict]
    features: torch.utils.data.Dataset


class Job:
    """A plan being carried out."""

    def __init__(self, planned: Plan, scratch: Path):
        self.plan, self.scratch = planned, scratch
        self.technique, self.args, self.task = planned.technique, planned.args, planned.task
        self.record, self.output_dir = planned.record, planned.output_dir
        self.loss = self.task.unpadded_loss(planned.family) if self.args.pack_batches else self.task.loss
        self.chosen_by = f"eval_{self.task.metric}"
        on_gpu = torch.cuda.is_available()
        # Autocast converts every activation too: on a CPU that costs more than half of what the products gain.
        self.autocast = {"fp16": torch.float16, "bf16": torch.bfloat16 if on_gpu else None}.get(
            planned.precision
        )
        half_products = planned.precision == "bf16" and not on_gpu
        torch.set_float32_matmul_precision("medium" if half_products else "highest")
        keep_memory()
        self.arguments = self._arguments()
        # Asking for the device is what joins the launcher's processes; until then each believes that it is alone.
        self.device = self.arguments.device
        self.is_main = self.arguments.process_index == 0

    def _arguments(self) -> TrainingArguments:
        args = self.args
        return TrainingArguments(
            output_dir=str(self.output_dir),
            per_device_train_batch_size=args.batch_size,
            gradient_accumulation_steps=args.gradient_accumulation_steps,
            num_train_epochs=self.technique.num_train_epochs,
            learning_rate=self.technique.learning_rate,
            weight_decay=self.technique.weight_decay,
            warmup_steps=args.warmup_ratio,
            lr_scheduler_type="linear",
            max_grad_norm=args.max_grad_norm,
            seed=args.seed,
            use_cpu=not torch.cuda.is_available(),
            bf16=self.autocast == torch.bfloat16,
            fp16=self.autocast == torch.float16,
            eval_strategy="epoch",
            save_strategy="epoch",
            logging_steps=args.logging_steps,
            logging_first_step=True,
            logging_nan_inf_filter=False,
            remove_unused_columns=False,
            report_to="none",
            ddp_find_unused_parameters=False,
            dataloader_pin_memory=torch.cuda.is_available(),
        )

    def train_and_test(self, run) -> None:
        args, technique, planned = self.args, self.technique, self.plan
        run.log_params(
            planned.settings
            | {
                "model_checkpoint": planned.checkpoint.name,
                "data": self.record.name,
                "data_dir": args.data_dir,
            }
        )
        run.log_dict(asdict(technique) | asdict(replace(args, resume=False)), "config.yaml")
        run.log_dict(self.record.to_json(), "data_record.json")

        set_seed(args.seed)
        model, tokenizer = models.load_base(planned.checkpoint, planned.head, **planned.config)
        family = planned.family
        with self.arguments.main_process_first(desc="tokenizing"):
            train, validation, test = (
                self._split(planned.splits[name], tokenizer, model.config, limit)
                for name, limit in (
                    ("train", args.max_train_samples),
                    ("validation", args.max_validation_samples),
                    ("test", args.max_test_samples),
                )
            )
        train = replace(train, features=self.task.trained(train.features, self.record.version))
        if not len(train.features):
            raise UserError(f"{args.data_dir} has nothing to train on; prepare it again.")
        run.log_data(self.record.to_json(), "training")
        run.log_data(self.record.to_json(), "testing")
        model = quicken(models.apply(technique.peft_config(family), model, family, planned.head))
        run.log_metrics(models.parameter_counts(model))
        if args.torch_compile:
            # In place: parameters keep their names. Batches differ in length.
            model.compile(backend=args.torch_compile, dynamic=True)
        collator = self.task.collator(tokenizer, model.config)
        # Several processes would each stop at a step of their own.
        with stopping.deferred(self.arguments.world_size == 1) as stop:
            trainer = TaskTrainer(
                job=self,
                run=run,
                model=model,
                args=self.arguments,
                data_collator=collator,
                train=train,
                validation=validation,
                stop=stop,
            )
            self._note_memory(reset=True)
            trainer.train_on(checkpoints.newest(self.output_dir) if args.resume else None)
            seconds = trainer.training_seconds
        model = trainer.accelerator.unwrap_model(trainer.model)
        trainer.accelerator.wait_for_everyone()
        models.load_trainable(model, self.output_dir / "best" / WEIGHTS)

        windows_trained = (
            trainer.state.global_step
            * args.batch_size
            * args.gradient_accumulation_steps
            * self.arguments.world_size
        )
        run.log_metrics(
            {
                "training_seconds": seconds,
                "train_samples_per_second": windows_trained / seconds,
                "peak_memory_mib": self._note_memory(),
            }
        )
        self._test(trainer, model, tokenizer, validation, test, run)

    def leave_group(self) -> None:
        """End the work with other processes: threads that still wait for them abort an interpreter that ends."""
        if self.arguments.world_size > 1:
            torch.distributed.destroy_process_group()

    def _split(self, examples, tokenizer, config, limit) -> Split:
        examples = sample(examples.to_list(), limit, self.args.seed, self.task.balanced_by)
        return Split(examples, self.task.features(tokenizer, config, examples, self.args))

    def _note_memory(self, reset: bool = False) -> float:
        """Peak memory in MiB: of the GPU since the last reset, of the whole process on a CPU."""
        if torch.cuda.is_available():
            if reset:
                torch.cuda.reset_peak_memory_stats()
            return torch.cuda.max_memory_allocated() / 2**20
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10

    def predict(self, model, split: Split, collator, decision, progress: str | None = None) -> list:
        """Predictions for a split."""
        return self.decided(self.outputs(model, split, collator, progress), split, decision)

    def outputs(self, model, split: Split, collator, progress: str | None = None):
        """What the model gives for a split; under a launcher each process does its share, and all get the whole."""
        arguments = self.arguments
        with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            with updates_held(model):
                mine = self.task.outputs(
                    model,
                    split.features,
                    collator,
                    self.args,
                    (arguments.process_index, arguments.world_size),
                    progress if self.is_main else None,
                )
        return self.task.join(_gather(mine, arguments.world_size))

    def decided(self, outputs, split: Split, decision) -> list:
        """The predictions that are read off a model's outputs."""
        return self.task.predictions(outputs, split.features, split.examples, self.args, decision)

    def undecided(self, model, validation: Split, collator) -> list:
        """Predictions before anything is tuned: they rank the epochs, and the last decision is made of them."""
        return self.predict(model, validation, collator, self.no_decision)

    @property
    def no_decision(self) -> float | None:
        return 0.0 if self.record.has_unanswerable else None

    def scores(self, predictions, examples) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """(figures in percent, the scores of each example)."""
        return self.task.score(predictions, examples, self.record.version)

    def _test(self, trainer, model, tokenizer, validation: Split, test: Split, run) -> None:
        """Decide on validation what is to be decided, then look at test once."""
        collator, metrics_ = trainer.data_collator, self.task.metrics
        outputs = self.outputs(model, validation, collator)
        chosen = self.decided(outputs, validation, self.no_decision)
        decision = self.task.decide(chosen, validation.examples, self.record.version)
        if decision is not None:
            chosen = self.decided(outputs, validation, decision)
        started = time.perf_counter()
        predictions = self.predict(model, test, collator, decision, progress="test")
        seconds = time.perf_counter() - started
        if not self.is_main:
            return
        summary, each = self.scores(predictions, test.examples)
        final_validation, _ = self.scores(chosen, validation.examples)
        report = {f"test_{name}": value for name, value in summary.items() if name not in ("exact", "total")}
        for name in metrics_:
            report[f"test_{name}_low"], report[f"test_{name}_high"] = bootstrap.bootstrap_interval(
                100 * each[name]
            )
            report[f"best_validation_{name}"] = final_validation[name]
        report |= {
            "evaluation_seconds": seconds,
            "evaluation_samples_per_second": len(test.features) / seconds,
            "test_examples": len(test.examples),
        }
        if decision is not None:
            report["null_threshold"] = decision
        self._log_model(model, tokenizer, test, decision, report, run)
        rows = [
            {"id": example["id"]}
            | {name: float(each[name][i]) for name in metrics_}
            | self.task.row(prediction, example)
            for i, (prediction, example) in enumerate(zip(predictions, test.examples, strict=True))
        ]
        folder = self.scratch / "predictions"
        folder.mkdir()
        write_json(folder / "test.json", rows)
        validated = zip(chosen, validation.examples, strict=True)
        write_json(
            folder / "validation.json", {e["id"]: self.task.row(p, e)["prediction"] for p, e in validated}
        )
        write_extras(self.task.extras(predictions, test.examples), folder)
        run.log_artifact(folder)
        history, norms = split_off(trainer.state.log_history)
        run.log_dict(history, "log_history.json")
        run.log_figure(run_figures.loss_curve(history, self.task.metric), "loss_curve.png")
        if norms:
            run.log_dict(norms, "gradient_norms.json")
            if figure := gradient_flow({self.technique.name: norms}):
                run.log_figure(figure, "gradient_flow.png")
        figures = ", ".join(
            f"{LABELS[name]} {summary[name]:.1f} [{report[f'test_{name}_low']:.1f}, {report[f'test_{name}_high']:.1f}]"
            for name in metrics_
        )
        result = (
            f"{self.technique.name} on {self.record.name} ({len(test.examples)} test examples): {figures}"
        )
        # The description on the run's page.
        run.set_tags(
            {"mlflow.note.content": f"{result}. Brackets: 95% bootstrap intervals over the test examples."}
        )
        print(f"\n{result}")

    def _log_model(self, model, tokenizer, test: Split, threshold, report, run) -> None:
        bundle, base = self.scratch / "bundle", None
        info = bundles.BundleInfo(
            technique=self.technique.name,
            model_type=self.plan.family.model_type,
            checkpoint=self.plan.checkpoint.name,
            base_fingerprint="",
            task=self.task.name,
            head=self.plan.head,
            settings=self.task.stored_settings(self.args, self.record, threshold),
        )
        if self.technique.peft_config(self.plan.family) is not None:
            base = self.scratch / "base"
            print_ = saving.save_base(self.plan.checkpoint, base, self.plan.head, **self.plan.config)
            info = replace(info, base_fingerprint=print_)
        saving.save_bundle(bundle, info, model, tokenizer)
        trained = bundle / ("adapter" if base else "base")
        size = sum(f.stat().st_size for f in trained.glob("*.safetensors"))
        report["adapter_mib"] = size / 2**20
        run.set_tags({"base_fingerprint": info.base_fingerprint})
        run.log_model(bundle, base, self.task.request(test.examples[0]), report)


def write_extras(extras: Extras, folder: Path) -> None:
    """Write further artifacts of a test into a folder."""
    for name, content in extras.documents.items():
        write_json(folder / name, content)
    for name, (counts, names) in extras.confusion.items():
        run_figures.confusion_matrix(counts, names).savefig(folder / name)
    for name, arrays in extras.arrays.items():
        np.savez_compressed(folder / name, **arrays)


def _gather(outputs, processes: int) -> list:
    """The outputs of every process."""
    if processes == 1:
        return [outputs]
    parts = [None] * processes
    torch.distributed.all_gather_object(parts, outputs)
    return parts
