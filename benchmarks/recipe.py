"""The question-answering recipe of the Hugging Face documentation, as a peer: run by end_to_end.py, never imported.

Windows padded to max_length by `datasets.map`, `Trainer` with its defaults, the documentation's post-processing; the
technique from PEFT as its documentation shows (`--library peft`) or from the adapters library (`--library adapters`).
Runs in an environment of its own and knows nothing of the suite. Prints one line of JSON: seconds of each phase.
"""

import time

STARTED = time.perf_counter()

import argparse  # noqa: E402
import json  # noqa: E402
import resource  # noqa: E402
from pathlib import Path  # noqa: E402

import datasets  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from peers import postprocess_qa_predictions, test_features, training_features  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForQuestionAnswering,
    AutoTokenizer,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    default_data_collator,
)

datasets.disable_progress_bars()
transformers.logging.set_verbosity_error()
LINEAR = ["query", "key", "value", "dense"]


def with_technique(model, library: str, technique: str):
    if library == "none":
        return model
    if library == "adapters":
        import adapters

        adapters.init(model)
        config = {
            "lora": lambda: adapters.LoRAConfig(
                r=16,
                alpha=32,
                attn_matrices=["q", "k", "v"],
                intermediate_lora=True,
                output_lora=True,
            ),
            "prefix": lambda: adapters.PrefixTuningConfig(prefix_length=20, flat=True),
            "ia3": lambda: adapters.IA3Config(),
        }[technique]()
        model.add_adapter("qa", config=config)
        model.train_adapter("qa")
        model.qa_outputs.requires_grad_(True)
        return model
    import peft

    kind = {"task_type": "QUESTION_ANS"}
    config = {
        "lora": lambda: peft.LoraConfig(r=16, lora_alpha=32, target_modules=LINEAR, **kind),
        "loha": lambda: peft.LoHaConfig(r=8, alpha=16, target_modules=LINEAR, **kind),
        "ia3": lambda: peft.IA3Config(
            target_modules=["key", "value", "output.dense"], feedforward_modules=["output.dense"], **kind
        ),
        "prefix": lambda: peft.PrefixTuningConfig(num_virtual_tokens=20, **kind),
        "prompt": lambda: peft.PromptEncoderConfig(num_virtual_tokens=20, **kind),
    }[technique]()
    return peft.get_peft_model(model, config)


class FirstStep(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 1:
            self.after = time.perf_counter() - STARTED


def questions(file: Path) -> datasets.Dataset:
    rows = [
        {"id": qa["id"], "context": p["context"], "question": qa["question"], "answers": qa["answers"]}
        for article in json.loads(file.read_text())["data"]
        for p in article["paragraphs"]
        for qa in p["qas"]
    ]
    return datasets.Dataset.from_list(rows)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--library", choices=("none", "peft", "adapters"), required=True)
    p.add_argument("--technique", required=True)
    p.add_argument("--model", required=True)
    p.add_argument("--train", type=Path, required=True)
    p.add_argument("--test", type=Path, required=True)
    p.add_argument("--output", type=Path, required=True)
    p.add_argument("--max_length", type=int, default=384)
    p.add_argument("--doc_stride", type=int, default=128)
    p.add_argument("--batch_size", type=int, default=16)
    p.add_argument("--epochs", type=int, default=1)
    p.add_argument("--learning_rate", type=float, default=2e-5)
    p.add_argument("--seed", type=int, default=42)
    args = p.parse_args()
    torch.manual_seed(args.seed)
    tokenizer = AutoTokenizer.from_pretrained(args.model, trust_remote_code=False)
    model = AutoModelForQuestionAnswering.from_pretrained(args.model, trust_remote_code=False)
    model = with_technique(model, args.library, args.technique)
    train, test = questions(args.train), questions(args.test)

    def training_windows(examples):
        return training_features(tokenizer, examples, args.max_length, args.doc_stride)

    def test_windows(examples):
        return test_features(tokenizer, examples, args.max_length, args.doc_stride)

    begun = time.perf_counter()
    to_train = train.map(training_windows, batched=True, remove_columns=train.column_names)
    to_test = test.map(test_windows, batched=True, remove_columns=test.column_names)
    seconds = {"tokenization": time.perf_counter() - begun}

    first = FirstStep()
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            str(args.output / "checkpoints"),
            per_device_train_batch_size=args.batch_size,
            per_device_eval_batch_size=args.batch_size,
            num_train_epochs=args.epochs,
            learning_rate=args.learning_rate,
            seed=args.seed,
            save_strategy="no",
            disable_tqdm=True,
            report_to="none",
            label_names=["start_positions", "end_positions"],
        ),
        train_dataset=to_train,
        data_collator=default_data_collator,
        callbacks=[first],
    )
    begun = time.perf_counter()
    trainer.train()
    seconds["training"] = time.perf_counter() - begun
    begun = time.perf_counter()
    logits = trainer.predict(to_test.remove_columns(["example_id", "offset_mapping"])).predictions
    seconds["evaluation"] = time.perf_counter() - begun
    begun = time.perf_counter()
    answers, _, _ = postprocess_qa_predictions(test, to_test, logits[:2])
    seconds["decoding"] = time.perf_counter() - begun
    (args.output / "predictions.json").write_text(json.dumps(answers))
    trainer.save_model(str(args.output / "model"))
    files = [
        f.stat().st_size for f in (args.output / "model").rglob("*") if f.suffix in (".safetensors", ".bin")
    ]
    print(
        json.dumps(
            {
                "seconds": seconds | {"first_step": first.after, "process": time.perf_counter() - STARTED},
                "train_windows": len(to_train) * args.epochs,
                "test_windows": len(to_test),
                "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10,
                "size_mib": sum(files) / 2**20,
                "transformers": transformers.__version__,
            }
        )
    )


if __name__ == "__main__":
    main()
