"""`fit`: one run from prepared data to a logged model."""

import random
import resource
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from transformers import TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

from . import data, metrics, models, plots, tracking
from .config import RunArgs, Technique, check, check_model, resolved, run_fingerprint
from .errors import UserError
from .families import family_of, uses_segment_ids
from .inference import decode_spans, predict_spans
from .paths import ROOT
from .postprocessing import Spans, concatenate, tune_null_threshold
from .preprocessing import Collator, Windows, make_windows
from .trainer import WEIGHTS, QATrainer
from .workspace import STATE, own, write_json


@dataclass(frozen=True)
class Split:
    """The questions of one part of the data and the windows cut from them."""

    examples: list[dict]
    windows: Windows


def fit(technique: Technique, args: RunArgs) -> str | None:
    """Train, keep the epoch with the best validation F1, score it once on test, log everything; returns the run's id.

    On several processes (torchrun, accelerate launch) the first one alone talks to MLflow; the others return None.
    """
    check(technique, args)
    precision = choose_precision(args.precision)
    tracking.configure()
    splits, record = data.ensure(Path(args.data_dir))
    checkpoint = models.resolve_checkpoint(args.model_checkpoint)
    config = models.load_config(checkpoint)
    family = family_of(config.model_type)
    check_model(technique, args, family, config)

    settings = resolved(technique, args) | {"precision": precision}
    run_key = run_fingerprint(settings, data=record["fingerprint"], checkpoint=checkpoint.name)
    if args.skip_finished and (done := tracking.finished_run(args.experiment_name, run_key)):
        print(f"{technique.name}: run {done} already holds this result; nothing to do.")
        return done
    output_dir = Path(args.output_dir or ROOT / "mlruns" / "checkpoints" / f"{technique.key}-{run_key[:12]}")
    with tempfile.TemporaryDirectory() as scratch, own(output_dir, run_key, args.resume) as state:
        job = Job(
            technique, args, precision, checkpoint, record, settings, run_key, output_dir, Path(scratch)
        )
        if not job.is_main:
            job.train_and_test(splits, _Unlogged())
            return None
        tags = {
            "technique": technique.name,
            "family": family.model_type,
            "task": "extractive-qa",
            "checkpoint": checkpoint.name,
            "checkpoint_requested": args.model_checkpoint,
            "data_name": record["name"],
            "data_version": record["version"],
            "data_fingerprint": record["fingerprint"],
            "run_fingerprint": run_key,
        }
        with tracking.start(
            args.experiment_name, args.run_name or technique.name, tags, state.get("run_id")
        ) as run:
            write_json(output_dir / STATE, {"run_fingerprint": run_key, "run_id": run.id})
            try:
                job.train_and_test(splits, run)
            except (KeyboardInterrupt, SystemExit):
                print(f"\nStopped. To go on: {' '.join(_command())} --resume", file=sys.stderr)
                raise
        shutil.rmtree(output_dir)
        return run.id


def _command() -> list[str]:
    return ["python", *(a for a in sys.argv if a != "--resume")]


class _Unlogged:
    """Stands for the MLflow run in every process but the first."""

    def __getattr__(self, _):
        return lambda *args, **kwargs: None


def choose_precision(precision: str) -> str:
    """fp32, fp16 or bf16 for `auto`: half precision only where the device multiplies it in hardware."""
    if precision == "auto":
        if not torch.cuda.is_available():
            return "fp32"
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if precision == "fp16" and not torch.cuda.is_available():
        raise UserError("--precision fp16 needs a GPU; use --precision fp32.")
    return precision


def sample(examples: list[dict], n: int | None, seed: int) -> list[dict]:
    """`n` examples drawn by the seed, in their order; all of them without a limit. A smaller n draws a subset."""
    if n is None or n >= len(examples):
        return examples
    order = list(range(len(examples)))
    random.Random(seed).shuffle(order)
    return [examples[i] for i in sorted(order[:n])]


class Job:
    """One training, with everything it needs settled."""

    def __init__(
        self, technique, args, precision, checkpoint, record, settings, run_key, output_dir, scratch
    ):
        self.technique, self.args, self.precision = technique, args, precision
        self.checkpoint, self.record, self.settings = checkpoint, record, settings
        self.run_key, self.output_dir, self.scratch = run_key, output_dir, scratch
        self.version = record["version"]
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
            bf16=self.precision == "bf16",
            fp16=self.precision == "fp16",
            eval_strategy="epoch",
            save_strategy="epoch",
            save_total_limit=2,
            logging_steps=args.logging_steps,
            logging_first_step=True,
            logging_nan_inf_filter=False,
            remove_unused_columns=False,
            report_to="none",
            ddp_find_unused_parameters=False,
            dataloader_pin_memory=torch.cuda.is_available(),
        )

    def train_and_test(self, splits, run) -> None:
        args, technique = self.args, self.technique
        run.log_params(
            self.settings
            | {
                "model_checkpoint": self.checkpoint.name,
                "data": self.record["name"],
                "data_dir": args.data_dir,
            }
        )
        run.log_dict(asdict(technique) | asdict(replace(args, resume=False)), "config.yaml")
        run.log_dict(self.record, "data_record.json")

        set_seed(args.seed)
        model, tokenizer = models.load_base(self.checkpoint)
        family = family_of(model.config.model_type)
        with self.arguments.main_process_first(desc="cutting windows"):
            train, validation, test = (
                self._split(splits[name], tokenizer, model.config, limit)
                for name, limit in (
                    ("train", args.max_train_samples),
                    ("validation", args.max_validation_samples),
                    ("test", args.max_test_samples),
                )
            )
        if not len(train.windows):
            raise UserError(f"{args.data_dir} has no question to train on; prepare it again.")
        run.log_data(self.record, "training")
        run.log_data(self.record, "testing")
        model = models.apply(technique.peft_config(family), model, family)
        run.log_metrics(models.parameter_counts(model))

        collator = Collator(tokenizer.pad_token_id)
        trainer = QATrainer(
            job=self,
            run=run,
            model=model,
            args=self.arguments,
            data_collator=collator,
            train=train,
            validation=validation,
        )
        last = get_last_checkpoint(str(self.output_dir)) if args.resume else None
        self._note_memory(reset=True)
        started = time.perf_counter()
        trainer.train(resume_from_checkpoint=last)
        seconds = time.perf_counter() - started - trainer.evaluation_seconds
        trained = trainer.state.global_step - trainer.first_step
        model = trainer.accelerator.unwrap_model(trainer.model)
        trainer.accelerator.wait_for_everyone()
        models.load_trainable(model, self.output_dir / "best" / WEIGHTS)

        windows_trained = (
            trained * args.batch_size * args.gradient_accumulation_steps * self.arguments.world_size
        )
        run.log_metrics(
            {
                "training_seconds": seconds,
                "train_samples_per_second": windows_trained / seconds,
                "peak_memory_mib": self._note_memory(),
            }
        )
        self._test(trainer, model, tokenizer, validation, test, run)

    def _split(self, examples, tokenizer, config, limit) -> Split:
        examples = sample(examples.to_list(), limit, self.args.seed)
        windows = make_windows(
            tokenizer,
            examples,
            max_length=self.args.max_length,
            doc_stride=self.args.doc_stride,
            segment_ids=uses_segment_ids(config),
        )
        return Split(examples, windows)

    def _note_memory(self, reset: bool = False) -> float:
        """Peak memory in MiB: of the GPU since the last reset, of the whole process on a CPU."""
        if torch.cuda.is_available():
            if reset:
                torch.cuda.reset_peak_memory_stats()
            return torch.cuda.max_memory_allocated() / 2**20
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10

    def predict(
        self, model, split: Split, collator, null_threshold: float | None, progress: str | None = None
    ):
        """Predictions for a split; under a launcher each process does its share, and all get the whole."""
        arguments = self.arguments
        with torch.autocast(self.device.type, self._autocast_type(), enabled=self.precision != "fp32"):
            spans = predict_spans(
                model,
                split.windows,
                collator,
                n_best=self.args.n_best,
                max_answer_length=self.args.max_answer_length,
                part=(arguments.process_index, arguments.world_size),
                progress=progress if self.is_main else None,
            )
        return decode_spans(
            _gather(spans, arguments.world_size),
            split.windows,
            split.examples,
            n_best=self.args.n_best,
            null_threshold=null_threshold,
        )

    def _autocast_type(self):
        return torch.float16 if self.precision == "fp16" else torch.bfloat16

    def scores(self, predictions, examples) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """(the official figures in percent, the scores of each question)."""
        answers = {prediction.id: prediction.text for prediction in predictions}
        return (
            metrics.squad_scores(answers, examples, self.version),
            metrics.score_examples(answers, examples, self.version),
        )

    def _test(self, trainer, model, tokenizer, validation: Split, test: Split, run) -> None:
        """Tune what is tuned on validation, then look at test once."""
        threshold, collator = None, trainer.data_collator
        if self.version == "v2.0":
            guesses = self.predict(model, validation, collator, 0.0)
            threshold = tune_null_threshold(guesses, validation.examples)
        chosen = self.predict(model, validation, collator, threshold)
        started = time.perf_counter()
        predictions = self.predict(model, test, collator, threshold, progress="test")
        seconds = time.perf_counter() - started
        if not self.is_main:
            return
        summary, each = self.scores(predictions, test.examples)
        final_validation, _ = self.scores(chosen, validation.examples)
        report = {f"test_{name}": value for name, value in summary.items() if name not in ("exact", "total")}
        for name in ("exact_match", "f1"):
            report[f"test_{name}_low"], report[f"test_{name}_high"] = metrics.bootstrap_interval(
                100 * each[name]
            )
        report |= {
            "best_validation_f1": final_validation["f1"],
            "best_validation_exact_match": final_validation["exact_match"],
            "evaluation_seconds": seconds,
            "evaluation_windows_per_second": len(test.windows) / seconds,
            "test_questions": len(test.examples),
        }
        if threshold is not None:
            report["null_threshold"] = threshold
        model_uri = self._log_model(model, tokenizer, test, threshold, report, run)
        write_json(
            self.scratch / "test.json", [_row(*row) for row in _zipped(predictions, test.examples, each)]
        )
        write_json(self.scratch / "validation.json", {p.id: p.text for p in chosen})
        run.log_artifact(self.scratch / "test.json", "predictions")
        run.log_artifact(self.scratch / "validation.json", "predictions")
        run.log_dict(trainer.state.log_history, "log_history.json")
        run.log_figure(plots.loss_curve(trainer.state.log_history), "loss_curve.png")
        print(
            f"\n{self.technique.name} on {self.record['name']} ({len(test.examples)} test questions): "
            f"EM {summary['exact_match']:.1f}, F1 {summary['f1']:.1f} "
            f"[{report['test_f1_low']:.1f}, {report['test_f1_high']:.1f}]; model {model_uri}"
        )

    def _log_model(self, model, tokenizer, test: Split, threshold, report, run) -> str:
        from . import serving

        bundle, base = self.scratch / "bundle", None
        info = models.BundleInfo(
            technique=self.technique.name,
            model_type=model.config.model_type,
            checkpoint=self.checkpoint.name,
            base_fingerprint="",
            version=self.version,
            max_length=self.args.max_length,
            doc_stride=self.args.doc_stride,
            max_answer_length=self.args.max_answer_length,
            n_best=self.args.n_best,
            null_threshold=threshold or 0.0,
        )
        if self.technique.peft_config(family_of(model.config.model_type)) is not None:
            base = self.scratch / "base"
            info = replace(info, base_fingerprint=models.save_base(self.checkpoint, base))
        models.save_bundle(bundle, info, model, tokenizer)
        trained = bundle / ("adapter" if base else "base")
        size = sum(f.stat().st_size for f in trained.glob("*.safetensors"))
        report["adapter_mib"] = size / 2**20
        run.set_tags({"base_fingerprint": info.base_fingerprint})
        example = {name: test.examples[0][name] for name in ("question", "context")}
        return serving.log_model(run, bundle, base, example, report)


def _zipped(predictions, examples, each):
    return zip(predictions, examples, each["exact_match"], each["f1"], strict=True)


def _row(prediction, example, exact_match, f1) -> dict:
    row = asdict(prediction) | {"n_best": list(prediction.n_best)}
    return {
        "id": row.pop("id"),
        "question": example["question"],
        "prediction": row.pop("text"),
        "exact_match": float(exact_match),
        "f1": float(f1),
        **row,
    }


def _gather(spans: Spans, processes: int) -> Spans:
    if processes == 1:
        return spans
    parts = [None] * processes
    torch.distributed.all_gather_object(parts, spans)
    return concatenate(parts)
