"""What the suite is measured against: algorithms of other projects, rewritten from their published descriptions."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np


def postprocess_qa_predictions(
    examples: Sequence[Mapping],
    features: Sequence[Mapping],
    logits: tuple[np.ndarray, np.ndarray],
    version_2_with_negative: bool = False,
    n_best_size: int = 20,
    max_answer_length: int = 30,
    null_score_diff_threshold: float = 0.0,
) -> tuple[dict[str, str], dict[str, list[dict]], dict[str, float]]:
    """Hugging Face's algorithm of the question-answering examples: answers, n-best lists and null differences by id.

    examples: dicts of id and context. features: dicts of example_id and offset_mapping, a list with a pair of
    character offsets for each context token and None for every other. logits: start and end, (features, length).
    All pairs of the `n_best_size` highest start and end logits of a feature are looked at, one by one.
    """
    start_logits_of_all, end_logits_of_all = logits
    features_of_example = defaultdict(list)
    for index, feature in enumerate(features):
        features_of_example[feature["example_id"]].append(index)

    answers, n_best_lists, null_differences = {}, {}, {}
    for example in examples:
        minimal_null = None
        candidates = []
        for index in features_of_example[example["id"]]:
            start_logits, end_logits = start_logits_of_all[index], end_logits_of_all[index]
            offset_mapping = features[index]["offset_mapping"]
            max_context = features[index].get("token_is_max_context", None)

            feature_null_score = start_logits[0] + end_logits[0]
            if minimal_null is None or minimal_null["score"] > feature_null_score:
                minimal_null = {
                    "offsets": (0, 0),
                    "score": feature_null_score,
                    "start_logit": start_logits[0],
                    "end_logit": end_logits[0],
                }

            start_indexes = np.argsort(start_logits)[-1 : -n_best_size - 1 : -1].tolist()
            end_indexes = np.argsort(end_logits)[-1 : -n_best_size - 1 : -1].tolist()
            for start_index in start_indexes:
                for end_index in end_indexes:
                    if (
                        start_index >= len(offset_mapping)
                        or end_index >= len(offset_mapping)
                        or offset_mapping[start_index] is None
                        or len(offset_mapping[start_index]) < 2
                        or offset_mapping[end_index] is None
                        or len(offset_mapping[end_index]) < 2
                    ):
                        continue
                    if end_index < start_index or end_index - start_index + 1 > max_answer_length:
                        continue
                    if max_context is not None and not max_context.get(str(start_index), False):
                        continue
                    candidates.append(
                        {
                            "offsets": (offset_mapping[start_index][0], offset_mapping[end_index][1]),
                            "score": start_logits[start_index] + end_logits[end_index],
                            "start_logit": start_logits[start_index],
                            "end_logit": end_logits[end_index],
                        }
                    )
        if version_2_with_negative and minimal_null is not None:
            candidates.append(minimal_null)
            null_score = minimal_null["score"]

        n_best = sorted(candidates, key=lambda candidate: candidate["score"], reverse=True)[:n_best_size]
        if (
            version_2_with_negative
            and minimal_null is not None
            and not any(candidate["offsets"] == (0, 0) for candidate in n_best)
        ):
            n_best.append(minimal_null)
        for candidate in n_best:
            begin, end = candidate.pop("offsets")
            candidate["text"] = example["context"][begin:end]
        if not n_best or (len(n_best) == 1 and n_best[0]["text"] == ""):
            n_best.insert(0, {"text": "empty", "start_logit": 0.0, "end_logit": 0.0, "score": 0.0})

        scores = np.array([candidate.pop("score") for candidate in n_best])
        weights = np.exp(scores - np.max(scores))
        for probability, candidate in zip(weights / weights.sum(), n_best, strict=True):
            candidate["probability"] = probability

        if not version_2_with_negative:
            answers[example["id"]] = n_best[0]["text"]
        else:
            best = next(candidate for candidate in n_best if candidate["text"] != "")
            difference = null_score - best["start_logit"] - best["end_logit"]
            null_differences[example["id"]] = float(difference)
            answers[example["id"]] = "" if difference > null_score_diff_threshold else best["text"]

        n_best_lists[example["id"]] = [
            {
                key: float(value) if isinstance(value, np.float16 | np.float32 | np.float64) else value
                for key, value in candidate.items()
            }
            for candidate in n_best
        ]
    return answers, n_best_lists, null_differences


def windows(tokenizer, examples: Mapping[str, list], max_length: int, stride: int) -> Mapping:
    """The windows of the Hugging Face documentation's way: every one padded to `max_length`."""
    return tokenizer(
        [question.strip() for question in examples["question"]],
        examples["context"],
        max_length=max_length,
        truncation="only_second",
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        padding="max_length",
    )


def training_features(tokenizer, examples: Mapping[str, list], max_length: int, stride: int) -> Mapping:
    """Windows with the first and the last token of their answers, for `datasets.map`."""
    made = windows(tokenizer, examples, max_length, stride)
    sample, offsets_of_all = made.pop("overflow_to_sample_mapping"), made.pop("offset_mapping")
    starts, ends = [], []
    for i, offsets in enumerate(offsets_of_all):
        answer = examples["answers"][sample[i]]
        if isinstance(answer, list):
            answer = {name: [a[name] for a in answer] for name in ("text", "answer_start")}
        kinds = made.sequence_ids(i)
        first, last = kinds.index(1), len(kinds) - 1 - kinds[::-1].index(1)
        start = end = 0
        if answer["answer_start"]:
            begin = answer["answer_start"][0]
            finish = begin + len(answer["text"][0])
            if offsets[first][0] <= begin and offsets[last][1] >= finish:
                start = next(k for k in range(last, first - 1, -1) if offsets[k][0] <= begin)
                end = next(k for k in range(first, last + 1) if offsets[k][1] >= finish)
        starts.append(start)
        ends.append(end)
    made["start_positions"], made["end_positions"] = starts, ends
    return made


def test_features(tokenizer, examples: Mapping[str, list], max_length: int, stride: int) -> Mapping:
    """Windows with what `postprocess_qa_predictions` needs, for `datasets.map`."""
    made = windows(tokenizer, examples, max_length, stride)
    sample = made.pop("overflow_to_sample_mapping")
    made["example_id"] = [examples["id"][s] for s in sample]
    made["offset_mapping"] = [
        [o if kind == 1 else None for o, kind in zip(offsets, made.sequence_ids(i), strict=True)]
        for i, offsets in enumerate(made["offset_mapping"])
    ]
    return made
