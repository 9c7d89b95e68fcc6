"""Question answering in free text: examples → prompts, prompts → written texts, and which answer is kept.

The one path that evaluation and serving both take.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from ...errors import UserError
from ...models.virtual_tokens import real_positions
from ..batching import Batch, evaluating
from . import greedy
from .greedy import pad, padded

UNANSWERABLE = "unanswerable"
"""The text to write where the context does not hold the answer: T5's word for it."""

HEAD, CONTEXT, QUESTION, ANSWER = "context:", " {context}", " question: {question} answer:", " {answer}"
"""A prompt's parts, in order, and the answer that is written behind them. Each begins with a space, so that its tokens do not
depend on the text before it. The question stands last, because a window can then be cut from the context alone."""

MIN_CONTEXT = 16
"""Least room for tokens of context in a window; a question that leaves less is refused, never cut."""

IGNORED = -100
"""Label of a token that is not trained."""


@dataclass(frozen=True)
class Prompts(torch.utils.data.Dataset):
    """W prompts over E examples, each on a window of its example's context.

    prompts: W arrays of token ids. targets: W arrays of the token ids to write, with the end-of-text token last: those of
    the example's first answer where the window's text holds it, otherwise those of UNANSWERABLE; None where the answer is
    longer than a model may write. holds: (W,) whether the window's text holds the answer, False for an example without
    answers. example_index: (W,) the example that each window was cut from.
    """

    prompts: list[np.ndarray]
    targets: list[np.ndarray | None]
    holds: np.ndarray
    example_index: np.ndarray

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, i: int) -> dict[str, np.ndarray | None]:
        return {"prompt": self.prompts[i], "target": self.targets[i]}

    @property
    def lengths(self) -> np.ndarray:
        """(W,) tokens of prompt and target."""
        ends = [0 if target is None else len(target) for target in self.targets]
        return self.prompt_lengths + np.array(ends, dtype=np.int64)

    @property
    def prompt_lengths(self) -> np.ndarray:
        """(W,) tokens of the prompt."""
        return np.array([len(prompt) for prompt in self.prompts], dtype=np.int64)


def make_prompts(
    tokenizer: PreTrainedTokenizerBase,
    examples: Iterable[Mapping[str, Any]],
    *,
    kind: str,
    max_length: int,
    doc_stride: int,
    max_answer_length: int,
) -> Prompts:
    """Prompts of at most `max_length` tokens for examples (`id`, `question`, `context`, `answers`).

    A context that is too long is cut into windows that share `doc_stride` tokens, or half of their room where the
    question leaves less. Texts begin with what the tokenizer puts before them. kind: the family's; an encoder reads an
    end-of-text token behind its input.
    UserError where a question is so long that no window has room for its context.
    """
    if not tokenizer.is_fast:
        raise UserError(f"{tokenizer.name_or_path} has no fast tokenizer, which windows of the context need.")
    opening, end = begin_of_text(tokenizer), [tokenizer.eos_token_id]
    head, unanswerable = _ids(tokenizer, [HEAD, ANSWER.format(answer=UNANSWERABLE)])
    head = opening + head
    columns: dict[str, list[Any]] = {name: [] for name in ("prompts", "targets", "holds", "example_index")}
    examples = list(examples)
    for begin in range(0, len(examples), 1000):
        chunk = examples[begin : begin + 1000]
        first = [next(iter((example.get("answers") or {}).get("text") or []), "") for example in chunk]
        tails = _ids(tokenizer, [QUESTION.format(question=example["question"].strip()) for example in chunk])
        answers = _ids(tokenizer, [ANSWER.format(answer=answer.strip()) for answer in first])
        texts = [CONTEXT.format(context=example["context"]) for example in chunk]
        encoded = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
        for i, example in enumerate(chunk):
            tail = tails[i] + (end if kind == "encoder-decoder" else [])
            context, offsets = encoded["input_ids"][i], encoded["offset_mapping"][i]
            room = max_length - len(head) - len(tail)
            if room < min(MIN_CONTEXT, len(context)):
                raise UserError(
                    f"The question {example['id']} has {len(tails[i])} tokens, so that no window of {max_length} has room "
                    "for its context: use a greater --max_length, or leave the question out."
                )
            for start, stop in windows(len(context), room, doc_stride):
                holds = bool(first[i]) and first[i] in covered(texts[i], offsets, start, stop)
                answer = answers[i] if holds else unanswerable
                # An encoder-decoder writes a text of its own, a decoder goes on with the prompt.
                begun = opening if kind == "encoder-decoder" else []
                target = np.array(begun + answer + end, dtype=np.int64)
                columns["prompts"].append(np.array(head + context[start:stop] + tail, dtype=np.int64))
                columns["targets"].append(target if len(answer) <= max_answer_length else None)
                columns["holds"].append(holds)
                columns["example_index"].append(begin + i)
    return Prompts(
        columns["prompts"],
        columns["targets"],
        np.array(columns["holds"], dtype=bool),
        np.array(columns["example_index"], dtype=np.int64),
    )


def begin_of_text(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The special tokens that a tokenizer puts before a text: <s> for BART and Llama, none for GPT-2 and T5."""
    with_them, plain = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (True, False))
    return with_them[: next(i for i in range(len(with_them)) if with_them[i : i + len(plain)] == plain)]


def covered(text: str, offsets: Sequence[tuple[int, int]], start: int, stop: int) -> str:
    """The part of a text that tokens `start` to `stop` (exclusive) come from.

    Characters around it that no token has (accents, spaces, zero-width characters) belong to it: an answer may begin or end
    with them.
    """
    if start == stop:
        return ""
    begin = min(offsets[start - 1][1], offsets[start][0]) if start else 0
    end = max(offsets[stop - 1][1], offsets[stop][0]) if stop < len(offsets) else len(text)
    return text[begin:end]


def _ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    return tokenizer(list(texts), add_special_tokens=False)["input_ids"]


def windows(length: int, room: int, shared: int) -> list[tuple[int, int]]:
    """(begin, end) of the windows of at most `room` tokens that cover `length` tokens, neighbours sharing `shared`."""
    if length <= room:
        return [(0, length)]
    step = room - min(shared, room // 2)
    begins = range(0, length - room + step, step)
    return [(begin, min(begin + room, length)) for begin in begins]


def trained(prompts: Prompts, version: str) -> Prompts:
    """The windows that are trained on: those that hold their answer, and on SQuAD v2.0 those with the target UNANSWERABLE.

    Every question of v1.1 has an answer, so a window without it teaches nothing. Answers that are longer than a model may
    write are left out, not cut.
    """
    kept = [
        i
        for i, target in enumerate(prompts.targets)
        if target is not None and (prompts.holds[i] or version == "v2.0")
    ]
    return replace(
        prompts,
        prompts=[prompts.prompts[i] for i in kept],
        targets=[prompts.targets[i] for i in kept],
        holds=prompts.holds[kept],
        example_index=prompts.example_index[kept],
    )


@dataclass(frozen=True)
class Collator:
    """Batches of prompts, padded to the longest one. kind: the family's.

    A decoder gets prompt and target in one row, padded on the left, as generation needs it: every row ends where its text
    ends, and positions count from its first token. An encoder-decoder gets the prompt, padded on the right, and the target
    as labels, which it shifts itself.
    """

    tokenizer: PreTrainedTokenizerBase
    kind: str

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> Batch:
        """`input_ids`, `attention_mask` and, for a decoder, `position_ids`: (batch, length); `labels`: (batch, length) for a
        decoder, (batch, longest target) for an encoder-decoder, IGNORED on all but the targets."""
        prompts, targets = [item["prompt"] for item in items], [item["target"] for item in items]
        if self.kind != "decoder":
            return self.prompts(prompts) | {"labels": pad(targets, IGNORED, left=False)}
        batch = self.prompts([np.concatenate(pair) for pair in zip(prompts, targets, strict=True)])
        batch["labels"] = torch.full_like(batch["input_ids"], IGNORED)
        for row, target in enumerate(targets):
            batch["labels"][row, -len(target) :] = torch.from_numpy(target)
        return batch | {"position_ids": real_positions(batch["attention_mask"])}

    def prompts(self, rows: Sequence[np.ndarray]) -> Batch:
        """`input_ids` and `attention_mask`, (batch, length); only padding is masked."""
        ids, mask = padded(rows, self.tokenizer.pad_token_id, left=self.kind == "decoder")
        return {"input_ids": ids, "attention_mask": mask}


@dataclass(frozen=True)
class Written:
    """The texts that a model wrote behind W prompts.

    text: W strings, without special tokens. score: (W,) the logarithm of the text's probability, its end included.
    window: (W,) the prompt's index.
    """

    text: list[str]
    score: np.ndarray
    window: np.ndarray


def join(parts: Sequence[Written]) -> Written:
    """Several parts as one."""
    return Written(
        [text for part in parts for text in part.text],
        *(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Written)[1:]),
    )


@torch.inference_mode()
def write(
    model: torch.nn.Module,
    prompts: Prompts,
    collator: Collator,
    *,
    max_answer_length: int,
    part: tuple[int, int] = (0, 1),
    progress: str | None = None,
) -> Written:
    """The texts that the model writes, greedily, behind every prompt: at most `max_answer_length` tokens each.

    part: (i, n) takes the i-th of n shares of the prompts. progress: label of a progress bar. The model keeps its mode
    (training or evaluation).
    """
    tokenizer, end = collator.tokenizer, collator.tokenizer.eos_token_id
    begun = len(begin_of_text(tokenizer)) if collator.kind == "encoder-decoder" else 0
    limits = greedy.Limits(begun + max_answer_length, end, tokenizer.pad_token_id)
    groups = greedy.groups_of(model, prompts.prompts)
    batches = greedy.batches_of(model, groups, prompts.prompt_lengths + max_answer_length, part)
    text: list[str] = []
    score: list[float] = []
    order: list[int] = []
    with evaluating(model):
        for batch in tqdm(batches, desc=progress, disable=progress is None, leave=False):
            for ids, logs in greedy.decode(model, prompts.prompts, batch, collator.kind, limits):
                ended = len(ids) > 0 and ids[-1] == end
                answer = tokenizer.decode(ids[: len(ids) - ended], skip_special_tokens=True)
                # The limit may fall between the bytes of a character.
                text.append((answer if ended else answer.rstrip("\ufffd")).strip())
                score.append(float(logs.sum()))
            order += [int(i) for group in batch for i in group.rows]
    return Written(text, np.array(score, dtype=np.float64), np.array(order, dtype=np.int64))


@dataclass(frozen=True)
class Answer:
    """One question's answer; `text` is "" where there is none. score: the probability of the written text, 0 to 1."""

    id: str
    text: str
    score: float


def tempered(score: float, temperature: float) -> float:
    """How likely an answer is right whose probability is `score`, 0 to 1: its log odds are divided by the temperature, as in a
    softmax over the answer and everything else that could have been written. 1.0 gives the score as it is."""
    if temperature == 1.0 or not 0.0 < score < 1.0:
        return score
    odds = (np.log(score) - np.log1p(-score)) / temperature
    return float(np.exp(-np.logaddexp(0.0, -odds)))


def choose(written: Written, example_index: np.ndarray, ids: Sequence[str]) -> list[Answer]:
    """One answer for each example, in the order of `ids`: the most probable one of its windows.

    The result is "no answer" only where no window answers. A window that is sure of "no answer" does not count against
    another's answer, because a window without the answer is right to be sure; the score is that of the least sure window.
    """
    answers: list[list[tuple[float, str]]] = [[] for _ in ids]
    for text, score, window in zip(written.text, written.score.tolist(), written.window, strict=True):
        declined = text.rstrip(".").lower() == UNANSWERABLE
        answers[example_index[window]].append((score, "" if declined else text))
    chosen = []
    for id_, found in zip(ids, answers, strict=True):
        given = [answer for answer in found if answer[1]]
        score, text = max(given) if given else min(found)
        chosen.append(Answer(id_, text, float(np.exp(score))))
    return chosen
