"""Greedy decoding of many prompts: the tokens that transformers' `generate` writes, in less time.

Prompts of one context begin alike: a decoder reads that part once for all of them. Rows that have ended leave their batch,
and a step writes its keys and values into room that is kept for them; `generate` copies all earlier ones.
docs/PERFORMANCE.md has the figures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.cache_utils import Cache, DynamicLayer, EncoderDecoderCache

from ...models.virtual_tokens import PromptModel, real_positions

ROOM = 2**29
"""Bytes of keys and values of a batch, which a step reads together with all weights: so many rows share a reading of these."""
TOKENS_READ = 4096
"""Padded tokens that are read at once."""
KEPT = 0.75
"""Rows leave when at most this share of a batch goes on: leaving copies the keys and values of those that stay."""

Decoded = tuple[np.ndarray, np.ndarray]
"""The ids that were written behind a prompt, the end included where it was written, and their log-probabilities."""


@dataclass(frozen=True)
class Group:
    """Prompts that begin with the same `shared` tokens; rows: their indices."""

    rows: np.ndarray
    shared: int = 0


@dataclass(frozen=True)
class Limits:
    """When writing ends: after the token `end` or `tokens` tokens. pad: the id that fills up shorter rows."""

    tokens: int
    end: int
    pad: int


def groups_of(model: torch.nn.Module, prompts: Sequence[np.ndarray]) -> list[Group]:
    """Groups of prompts whose common beginning this model reads once; it is at least half of each prompt's tokens.

    Encoders read every token in the light of those behind it, so their prompts share nothing. Neither do those of models
    that see the latest tokens only, because padding parts the beginning from the rest.
    """
    config: Any = model.config
    sliding = "sliding_attention" in (getattr(config, "layer_types", None) or ())
    if config.is_encoder_decoder or sliding or isinstance(model, PromptModel):
        return [Group(np.array([i])) for i in range(len(prompts))]
    groups: list[Group] = []
    members: list[int] = []
    shared = longest = 0
    # By their tokens, so that prompts that begin alike are neighbours.
    for i in sorted(range(len(prompts)), key=lambda i: prompts[i].astype(">u4").tobytes()):
        length = len(prompts[i])
        if members:
            same = min(shared, _alike(prompts[members[0]], prompts[i]))
            if 2 * same >= max(longest, length):
                members, shared, longest = [*members, i], same, max(longest, length)
                continue
            groups.append(_group(members, shared))
        members, shared, longest = [i], length - 1, length
    return [*groups, _group(members, shared)] if members else groups


def _group(members: Sequence[int], shared: int) -> Group:
    return Group(np.array(members), shared if len(members) > 1 else 0)


def _alike(one: np.ndarray, other: np.ndarray) -> int:
    """How many tokens two prompts begin with in common. Each keeps one of its own, whose logits begin its answer."""
    n = min(len(one), len(other)) - 1
    differ = np.flatnonzero(one[:n] != other[:n])
    return int(differ[0]) if len(differ) else n


def batches_of(
    model: torch.nn.Module,
    groups: Sequence[Group],
    lengths: np.ndarray,
    part: tuple[int, int] = (0, 1),
) -> list[list[Group]]:
    """Groups, longest first, in batches that this model has room for, and of at least one row.

    lengths: tokens of each prompt with its answer. Groups without a common beginning get batches of their own. part: (i, n)
    gives the share of the i-th of n processes.
    """
    room = _room(model)
    pieces: list[Group] = []
    for group in groups:
        most = max(1, room[group.shared > 0] // int(lengths[group.rows].max()))
        pieces += [Group(group.rows[i : i + most], group.shared) for i in range(0, len(group.rows), most)]
    pieces.sort(key=lambda group: (group.shared > 0, -lengths[group.rows].max()))
    batches: list[list[Group]] = []
    rows = longest = 0
    for group in pieces[part[0] :: part[1]]:
        rows, longest = rows + len(group.rows), max(longest, int(lengths[group.rows].max()))
        fits = rows * longest <= room[group.shared > 0]
        if batches and fits and bool(batches[-1][0].shared) == bool(group.shared):
            batches[-1].append(group)
        else:
            batches.append([group])
            rows, longest = len(group.rows), int(lengths[group.rows].max())
    return batches


def _room(model: torch.nn.Module) -> dict[bool, int]:
    """How many padded tokens a batch may have: without a common beginning (False) and with one (True)."""
    config: Any = model.config
    if isinstance(model, PromptModel):
        return dict.fromkeys((False, True), TOKENS_READ)
    layers = getattr(config, "decoder_layers", None) or getattr(config, "num_decoder_layers", None)
    # Keys and values in float32, as wide as the states at most.
    fits = ROOM // (8 * (layers or config.num_hidden_layers) * config.hidden_size)
    written = min(max(fits, TOKENS_READ), 4 * TOKENS_READ)
    # A decoder reads whole prompts at once, an encoder-decoder part by part.
    return {False: written if config.is_encoder_decoder else TOKENS_READ, True: written}


def decode(
    model: torch.nn.Module, prompts: Sequence[np.ndarray], batch: Sequence[Group], kind: str, limits: Limits
) -> list[Decoded]:
    """What the model writes behind the prompts of a batch, in the order of its groups' rows. kind: the family's."""
    rows = [prompts[i] for group in batch for i in group.rows]
    device = next(model.parameters()).device
    if isinstance(model, PromptModel):
        return _by_transformers(model, rows, kind, limits, device)
    if kind != "decoder":
        return _of_encoder_decoder(model, rows, limits, device)
    return _of_decoder(model, rows, batch, limits, device)


def _of_encoder_decoder(
    model: torch.nn.Module, rows: Sequence[np.ndarray], limits: Limits, device: torch.device
) -> list[Decoded]:
    """Answers of an encoder-decoder, which writes a text of its own."""
    ids, mask = (tensor.to(device) for tensor in padded(rows, limits.pad, left=False))
    own, across = _cache(limits.tokens), _cache(0)
    cache = EncoderDecoderCache(own, across)
    start = model.generation_config.decoder_start_token_id
    if start is None:
        start = model.config.decoder_start_token_id
    state = {"attention_mask": mask, "encoded": _encoded(model, ids, mask)}

    def step(new: torch.Tensor) -> torch.Tensor:
        return model(
            decoder_input_ids=new,
            encoder_outputs=(state["encoded"],),
            attention_mask=state["attention_mask"],
            past_key_values=cache,
            use_cache=True,
        ).logits[:, -1]

    def keep(kept: torch.Tensor) -> None:
        for layer in (*own.layers, *across.layers):
            layer.batch_select_indices(kept)
        for name in state:
            state[name] = state[name][kept]

    return _written(step, keep, step(torch.full((len(rows), 1), start, device=device)), limits)


def _encoded(model: torch.nn.Module, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(rows, length, width) of an encoder's states, computed for TOKENS_READ tokens at once. Zeros stand for padding."""
    size = max(1, TOKENS_READ // ids.shape[1])
    parts = []
    for begin in range(0, len(ids), size):
        seen = mask[begin : begin + size]
        longest = int(seen.sum(1).max())
        states = model.get_encoder()(ids[begin : begin + size, :longest], attention_mask=seen[:, :longest])[0]
        parts.append(torch.nn.functional.pad(states, (0, 0, 0, ids.shape[1] - longest)))
    return torch.cat(parts)


def _of_decoder(
    model: torch.nn.Module,
    rows: Sequence[np.ndarray],
    batch: Sequence[Group],
    limits: Limits,
    device: torch.device,
) -> list[Decoded]:
    """Answers of a decoder, which goes on with each prompt."""
    shared = [group.shared for group in batch for _ in group.rows]
    ids, mask = (
        tensor.to(device)
        for tensor in padded([row[n:] for row, n in zip(rows, shared, strict=True)], limits.pad, left=True)
    )
    cache = _cache(limits.tokens)
    read = 0
    if any(shared):
        first = np.cumsum([0, *(len(group.rows) for group in batch[:-1])])
        heads = [rows[i][: group.shared] for i, group in zip(first, batch, strict=True)]
        head, head_mask = (tensor.to(device) for tensor in padded(heads, limits.pad, left=True))
        model(
            input_ids=head,
            attention_mask=head_mask,
            position_ids=real_positions(head_mask),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=torch.tensor([], dtype=torch.long, device=device),
        )
        owner = torch.tensor([i for i, group in enumerate(batch) for _ in group.rows], device=device)
        for layer in cache.layers:
            layer.spread(owner, ids.shape[1] + limits.tokens)
        mask, read = torch.cat([head_mask[owner], mask], dim=1), head.shape[1]
    state = {"mask": mask, "count": mask.sum(1, keepdim=True)}

    def forward(new: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        out = model(
            input_ids=new,
            attention_mask=state["mask"],
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            # As indices, which copy: a product with a slice takes several times as long.
            logits_to_keep=torch.tensor([new.shape[1] - 1], device=device),
        )
        return out.logits[:, -1]

    def step(new: torch.Tensor) -> torch.Tensor:
        state["mask"] = torch.nn.functional.pad(state["mask"], (0, 1), value=1)
        positions, state["count"] = state["count"], state["count"] + 1
        return forward(new, positions)

    def keep(kept: torch.Tensor) -> None:
        for layer in cache.layers:
            layer.batch_select_indices(kept)
        for name in state:
            state[name] = state[name][kept]

    return _written(step, keep, forward(ids, real_positions(mask)[:, read:]), limits)


def _written(step: Any, keep: Any, logits: torch.Tensor, limits: Limits) -> list[Decoded]:
    """The most probable token of each row, step by step, until all rows have ended.

    step: (rows, 1) new ids → (rows, vocabulary) logits. keep: leaves only the rows with these indices in the batch. logits:
    those of the first token.
    """
    count = len(logits)
    ids: np.ndarray = np.zeros((count, limits.tokens), dtype=np.int64)
    logs: np.ndarray = np.zeros((count, limits.tokens), dtype=np.float32)
    lengths = np.full(count, limits.tokens)
    rows = np.arange(count)
    going: np.ndarray = np.ones(count, dtype=bool)
    for n in range(limits.tokens):
        scores = logits.float()
        top, new = scores.max(-1)
        chosen = new.cpu().numpy()
        ids[rows[going], n] = chosen[going]
        logs[rows[going], n] = (top - scores.logsumexp(-1)).cpu().numpy()[going]
        ended = going & (chosen == limits.end)
        lengths[rows[ended]] = n + 1
        going &= ~ended
        if not going.any() or n + 1 == limits.tokens:
            break
        if going.mean() <= KEPT:
            kept = torch.from_numpy(np.flatnonzero(going)).to(logits.device)
            keep(kept)
            new, rows, going = new[kept], rows[going], going[going]
        logits = step(new[:, None])
    return [(ids[i, :n], logs[i, :n]) for i, n in enumerate(lengths)]


class _Room(DynamicLayer):
    """Keys and values of a layer, (rows, heads, length, size), with room behind them for those to come."""

    def __init__(self, ahead: int):
        super().__init__()
        self.ahead, self.length = ahead, 0
        self.rooms: list[torch.Tensor] = []

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        begin, self.length = self.length, self.length + key_states.shape[-2]
        new = key_states, value_states
        if not self.rooms and not self.ahead:
            self.keys, self.values = new
            self.rooms = list(new)
        else:
            if not self.rooms or self.rooms[0].shape[-2] < self.length:
                self._move(self.length + self.ahead, new)
            for room, states in zip(self.rooms, new, strict=True):
                room[:, :, begin : self.length] = states
            self.keys, self.values = (room[:, :, : self.length] for room in self.rooms)
        self.is_initialized = True
        return self.keys, self.values

    def _move(self, length: int, like: Sequence[torch.Tensor]) -> None:
        """Take room for `length` tokens, with those that are there."""
        old = self.rooms or [states[:, :, :0] for states in like]
        self.rooms = [states.new_empty(*states.shape[:2], length, states.shape[3]) for states in like]
        for room, states in zip(self.rooms, old, strict=True):
            room[:, :, : states.shape[2]] = states

    def spread(self, owner: torch.Tensor, more: int) -> None:
        """Give each row what its owner has, and room for `more` tokens. owner: (rows,)."""
        kept = [room[:, :, : self.length] for room in self.rooms]
        self.rooms = []
        for states in kept:
            room = states.new_empty(len(owner), states.shape[1], self.length + more, states.shape[3])
            for row, which in enumerate(owner.tolist()):
                room[row, :, : self.length] = states[which]
            self.rooms.append(room)
        self.keys, self.values = (room[:, :, : self.length] for room in self.rooms)

    def get_seq_length(self) -> int:
        return self.length

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        self.rooms = [room[indices] for room in self.rooms]
        self.keys, self.values = (room[:, :, : self.length] for room in self.rooms)


def _cache(ahead: int) -> Cache:
    return Cache(layer_class_to_replicate=partial(_Room, ahead))


def padded(rows: Sequence[np.ndarray], value: int, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, mask), both (rows, length of the longest row)."""
    return pad(rows, value, left), pad([np.ones_like(row) for row in rows], 0, left)


def pad(rows: Sequence[np.ndarray], value: int, left: bool) -> torch.Tensor:
    """(batch, length of the longest row), filled up with `value`."""
    full = torch.full((len(rows), max(map(len, rows))), value)
    for i, row in enumerate(rows):
        place = slice(full.shape[1] - len(row), None) if left else slice(len(row))
        full[i, place] = torch.from_numpy(row)
    return full


class _Recorder(LogitsProcessor):
    """Records the log-probability of each token that greedy decoding takes; keeping the logits would take gigabytes."""

    def __init__(self) -> None:
        self.steps: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.steps.append(scores.float().log_softmax(-1).amax(-1))
        return scores


def _by_transformers(
    model: torch.nn.Module, rows: Sequence[np.ndarray], kind: str, limits: Limits, device: torch.device
) -> list[Decoded]:
    """What `generate` writes."""
    ids, mask = padded(rows, limits.pad, left=kind == "decoder")
    recorder = _Recorder()
    found = model.generate(
        input_ids=ids.to(device),
        attention_mask=mask.to(device),
        max_new_tokens=limits.tokens,
        do_sample=False,
        num_beams=1,
        eos_token_id=limits.end,
        pad_token_id=limits.pad,
        logits_processor=LogitsProcessorList([recorder]),
    )
    new = found[:, -len(recorder.steps) :].cpu().numpy()
    taken = torch.stack(recorder.steps, dim=1).cpu().numpy()
    decoded = []
    for written, logs in zip(new, taken, strict=True):
        # The tokens behind the first end are padding, which may look like it.
        ends = np.flatnonzero(written == limits.end)
        n = int(ends[0]) + 1 if len(ends) else len(written)
        decoded.append((written[:n], logs[:n]))
    return decoded
