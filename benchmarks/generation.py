"""Writing answers on a CPU: transformers' `generate` on padded batches in the order of the file, against the suite.

Both ways take turns on the same questions and weights; ratios are taken round by round, and the answers and their
probabilities are compared. The recipe decodes greedily, in batches padded to their longest prompt, the model with its
adapter as PEFT has it. Models have the shapes of GPT-2 and T5 and random weights, which hardly ever end an answer: the
output layer's row for the end is set so that they have 5 tokens on average, as those of the sample with their ends, and
few have 30. Questions are those of the packaged sample, 5 on a context, as in SQuAD's files; contexts are joined to
lengths like those of SQuAD's (181 tokens with the question on average).
"""

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import _path  # noqa: F401
import numpy as np
import torch
from gpu import lengths_like_squad
from table_rows import between, json_flag, write_report
from training import spread, technique_of
from transformers import AutoConfig

from common.cli import guarded
from common.data import questions
from common.data.squad_json import read_squad_json
from common.models import base as models
from common.models.cpu_adapters import updates_held
from common.models.cpu_kernels import keep_memory, quicken
from common.models.families import auto_class, family_of
from common.tasks.generative_qa.writing import Collator, Prompts, Written, begin_of_text, make_prompts, write
from common.tasks.table import TASKS, head_of

SHAPES: dict[str, dict] = {
    "GPT-2": dict(model_type="gpt2"),
    "GPT-2, half as wide and deep": dict(model_type="gpt2", n_embd=384, n_layer=6, n_head=6),
    "T5-small": dict(model_type="t5"),
    "T5-base": dict(model_type="t5", d_model=768, d_ff=3072, num_layers=12, num_heads=12),
    "tiny GPT-2": dict(model_type="gpt2", n_embd=32, n_layer=2, n_head=4),
    "tiny T5": dict(model_type="t5", d_model=32, d_ff=64, d_kv=8, num_layers=2, num_heads=4),
}
"""Name → what differs from the defaults of transformers, which are GPT-2 of 124 million parameters and T5-small."""
SIZES = {"shared": 0.1, "embed_tokens": 0.1, "relative_attention_bias": 100}
"""Part of a T5 parameter's name → its factor: so large, relative positions keep it from writing one word again and again."""
TOKENS, LONGEST = 5, 30
"""Tokens of an answer with its end: on average, and at most."""


def tokenizer_of_sample():
    """The packaged model's, with an end."""
    tokenizer = models.load_tokenizer(models.resolve_checkpoint("embedded"))
    tokenizer.eos_token = tokenizer.sep_token
    return tokenizer


def model_of(shape: str, technique: str, tokenizer, prompts: Prompts) -> torch.nn.Module:
    """A model with random weights and a technique on it whose updates are not zero, which ends answers now and then."""
    ids = dict(pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id)
    config = AutoConfig.for_model(**SHAPES[shape], **ids)
    config.bos_token_id, config.decoder_start_token_id = tokenizer.cls_token_id, tokenizer.pad_token_id
    torch.manual_seed(0)
    family = family_of(config.model_type)
    head = head_of(TASKS["generative-qa"], family)
    model = auto_class(head).from_config(config, trust_remote_code=False)
    output = torch.nn.Linear(model.lm_head.in_features, config.vocab_size)
    # Not the words' own weights: with these a model repeats its last word.
    torch.nn.init.normal_(output.weight, std=0.1)
    torch.nn.init.zeros_(output.bias)
    model.lm_head = output
    model = models.apply(technique_of(technique).method(family), model, family, head)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02)
            elif parameter.dim() > 1 and "lora" not in name and "lm_head" not in name:
                # Of a size at which the next token depends on every token before, and on its place.
                parameter.mul_(next((factor for part, factor in SIZES.items() if part in name), 3))
    model.eval()
    collator = Collator(tokenizer, family.kind)
    batch = collator.prompts(prompts.prompts[:: max(1, len(prompts) // 16)][:16])
    end_now_and_then(model, batch, config.eos_token_id)
    return model


@torch.inference_mode()
def end_now_and_then(model: torch.nn.Module, batch: dict[str, torch.Tensor], end: int) -> None:
    """Set the output layer's row for the end so that answers have TOKENS tokens on average."""
    output = model.get_output_embeddings()
    output.bias[end] = -1e4
    states: list[torch.Tensor] = []
    hook = output.register_forward_pre_hook(lambda _, args: states.append(args[0][:, -1]))
    model.generate(**batch, max_new_tokens=LONGEST, do_sample=False)
    hook.remove()
    # (answers, steps, width); what the end lacks at each of them. The tokens before an end do not depend on its row.
    found = torch.stack(states, dim=1)
    common, _ = torch.linalg.qr(found.mean(0).T)
    # What all answers have in common at a step does not end them, or many would end at the first one.
    row = output.weight[end] - common @ (common.T @ output.weight[end])
    output.weight[end] = 2 * row
    output.bias[end] = 0.0
    logits = output(found)
    ends = logits[..., end].clone()
    logits[..., end] = -torch.inf
    lacking = logits.amax(-1) - ends
    # Between two of these values, so that no answer hangs on a tie.
    values = lacking.flatten().sort().values
    between_two = ((values[1:] + values[:-1]) / 2).tolist()
    output.bias[end] = min(between_two, key=lambda bias: abs(mean_length(lacking, bias) - TOKENS))


def examples_like_squad(tokenizer, count: int) -> list[dict]:
    """Questions of the sample, at most 5 on a context, which is made of neighbouring contexts up to the length of SQuAD's."""
    by_context: dict[str, list[dict]] = {}
    for example in read_squad_json(questions.SAMPLE / "test-v2.0.json").examples:
        by_context.setdefault(example["context"], []).append(example)
    contexts = list(by_context)
    lengths = lengths_like_squad(len(contexts), 384)
    examples = []
    for i, (context, length) in enumerate(zip(contexts, lengths, strict=True)):
        text = " ".join(contexts[i:] + contexts[:i])[:4000]
        offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)[
            "offset_mapping"
        ]
        # A window of SQuAD holds a question of about 20 tokens too.
        end = offsets[int(length) - 20][1]
        examples += [example | {"context": text[:end]} for example in by_context[context][:5]]
    return examples[:count]


def mean_length(lacking: torch.Tensor, bias: float) -> float:
    """Tokens that answers have on average with a bias for the end; lacking: (answers, steps) what it needs at each step."""
    ends = lacking <= bias
    return float(torch.where(ends.any(1), ends.int().argmax(1) + 1, lacking.shape[1]).float().mean())


@torch.inference_mode()
def recipe(
    model: torch.nn.Module, prompts: Prompts, collator: Collator, size: int, limit: int
) -> tuple[Written, list[int]]:
    """Texts and their probabilities by `generate`, a batch after the other in the order of the prompts; how many tokens
    each has with its end."""
    tokenizer = collator.tokenizer
    if collator.kind == "encoder-decoder":
        limit += len(begin_of_text(tokenizer))
    text, score, tokens = [], [], []
    for begin in range(0, len(prompts), size):
        batch = collator.prompts(prompts.prompts[begin : begin + size])
        found = model.generate(
            **batch,
            max_new_tokens=limit,
            do_sample=False,
            num_beams=1,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            output_scores=True,
            return_dict_in_generate=True,
        )
        new = found.sequences[:, -len(found.scores) :]
        logs = torch.stack([scores.log_softmax(-1).amax(-1) for scores in found.scores], dim=1)
        for ids, each in zip(new.tolist(), logs, strict=True):
            n = ids.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in ids else len(ids)
            text.append(tokenizer.decode(ids[:n], skip_special_tokens=True).strip())
            score.append(float(each[: n + 1].sum()))
            tokens.append(min(n + 1, len(ids)))
    return Written(text, np.array(score), np.arange(len(prompts))), tokens


def differing(one: Written, other: Written) -> int:
    """How many prompts have another text, or one of another probability."""
    by = [dict(zip(w.window.tolist(), zip(w.text, w.score, strict=True), strict=True)) for w in (one, other)]
    return sum(
        by[0][i][0] != by[1][i][0] or not np.isclose(by[0][i][1], by[1][i][1], rtol=1e-3, atol=1e-3)
        for i in by[0]
    )


def run(shape: str, technique: str, args) -> dict:
    tokenizer = tokenizer_of_sample()
    examples = examples_like_squad(tokenizer, args.questions)
    kind = family_of(SHAPES[shape]["model_type"]).kind
    prompts = make_prompts(
        tokenizer,
        examples,
        kind=kind,
        max_length=384,
        doc_stride=128,
        max_answer_length=args.max_answer_length,
    )
    collator = Collator(tokenizer, kind)
    plain = model_of(shape, technique, tokenizer, prompts)
    suite = quicken(copy.deepcopy(plain))
    seconds: dict[str, list[float]] = {"recipe": [], "suite": []}
    for round_ in range(args.rounds + 1):
        # The first round warms up.
        asked = prompts if round_ else first(prompts, args.batch_size)
        found = {}
        for way in seconds:
            keep_memory(way == "suite")
            started = time.perf_counter()
            if way == "recipe":
                found[way], tokens = recipe(plain, asked, collator, args.batch_size, args.max_answer_length)
            else:
                with updates_held(suite):
                    found[way] = write(suite, asked, collator, max_answer_length=args.max_answer_length)
            if round_:
                seconds[way].append(time.perf_counter() - started)
    return {
        "shape": shape,
        "technique": technique_of(technique).name,
        "questions_per_second": {
            way: round(len(examples) / statistics.median(s), 2) for way, s in seconds.items()
        },
        "ratio": spread([a / b for a, b in zip(seconds["recipe"], seconds["suite"], strict=True)]),
        "differing": differing(found["recipe"], found["suite"]),
        "different_answers": len(set(found["recipe"].text)),
        "answer_tokens": round(statistics.mean(tokens), 1),
        "questions": len(examples),
        "prompt_tokens": round(float(prompts.prompt_lengths.mean()), 1),
        "batch_size": args.batch_size,
        "rounds": args.rounds,
        "threads": torch.get_num_threads(),
    }


def first(prompts: Prompts, count: int) -> Prompts:
    """The first prompts."""
    return Prompts(
        prompts.prompts[:count], prompts.targets[:count], prompts.holds[:count], prompts.example_index[:count]
    )


def rows(results: list[dict]) -> Iterator[dict]:
    """For --json: questions a second, the ratio, and how many answers differ."""
    for found in results:
        yield {
            "shape": found["shape"],
            "technique": found["technique"],
            **found["questions_per_second"],
            **between("times", found["ratio"]),
            "differing": found["differing"],
            "questions": found["questions"],
        }


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--shapes", nargs="+", choices=SHAPES, default=["GPT-2", "T5-small"])
    p.add_argument("--techniques", nargs="+", default=["standard", "lora"], help="keys of scripts")
    p.add_argument("--questions", type=int, default=40, help="of the sample's test file, 5 on a context")
    p.add_argument("--batch_size", type=int, default=16, help="of the recipe")
    p.add_argument("--max_answer_length", type=int, default=LONGEST, help="in tokens")
    p.add_argument("--rounds", type=int, default=2)
    p.add_argument("--output", type=Path, help="also write the JSON here")
    json_flag(p)
    args = p.parse_args()
    found = [run(shape, technique, args) for shape in args.shapes for technique in args.techniques]
    write_report(
        args,
        list(rows(found)),
        found,
        data=f"{args.questions} questions of the packaged sample; random weights",
    )


if __name__ == "__main__":
    sys.exit(guarded(main))
