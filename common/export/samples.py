"""The code samples of model cards: programs that ask an exported folder, with its own libraries alone."""

import json
from collections.abc import Mapping
from string import Template
from typing import Any

from transformers import PreTrainedTokenizerBase

from ..models.bundles import BundleInfo
from ..tasks.generative_qa.writing import (
    ANSWER,
    CONTEXT,
    HEAD,
    MIN_CONTEXT,
    QUESTION,
    UNANSWERABLE,
    begin_of_text,
)
from .source import Stored

ASKED = "When was the first engine built?"
TEXT = "The first engine was built in 1712, and it pumped water out of a coal mine."

_OPEN = {
    "merged": """\
import torch
from transformers import $model_class, AutoTokenizer

name = "$name"
tokenizer = AutoTokenizer.from_pretrained(name)
model = $model_class.from_pretrained(name).eval()
""",
    "adapter": """\
import torch
from peft import PeftModel
from transformers import $model_class, AutoTokenizer
$fetching
name = $place
tokenizer = AutoTokenizer.from_pretrained(name)
base = $model_class.from_pretrained($base)
model = PeftModel.from_pretrained(base, name).eval()
""",
    "onnx": """\
from types import SimpleNamespace

import onnxruntime
import torch
from transformers import AutoConfig, AutoTokenizer
$fetching
name = $place
tokenizer = AutoTokenizer.from_pretrained(name)
session = onnxruntime.InferenceSession(f"{name}/model.onnx")


def model(**inputs):
    given = {each.name: inputs[each.name].numpy() for each in session.get_inputs()}
    names = [each.name for each in session.get_outputs()]
    found = map(torch.from_numpy, session.run(names, given))
    return SimpleNamespace(**dict(zip(names, found)))

""",
}

_SPAN = """
question = "$asked"
context = "$text"
# A context that is too long is read in overlapping windows.
windows = tokenizer(
    question, context, truncation="only_second", stride=$stride, padding=True,
    return_overflowing_tokens=True, return_offsets_mapping=True, return_tensors="pt",
)
places = windows.pop("offset_mapping").tolist()
windows.pop("overflow_to_sample_mapping")
with torch.inference_mode():
    out = model(**windows)
spans = []
for i, place in enumerate(places):
    start, end = out.start_logits[i].tolist(), out.end_logits[i].tolist()
    inside = [k for k, part in enumerate(windows.sequence_ids(i)) if part == 1]
    for k, a in enumerate(inside):
        for b in inside[k : k + $longest]:
            spans.append((start[a] + end[b], place[a][0], place[b][1]))
score, begin, stop = max(spans)
answer = context[begin:stop].strip()
${nothing}\
print(answer)
"""

_NOTHING = """\
# The context may not hold the answer: the threshold was chosen on validation.
nothing = (out.start_logits[:, 0] + out.end_logits[:, 0]).min().item()
if nothing - score > $threshold:
    answer = ""
"""

_LABEL = """
texts = ["$text", "No."]
inputs = tokenizer($asking, truncation=True, padding=True, return_tensors="pt")
with torch.inference_mode():
    probabilities = $probabilities
labels = $config.id2label
for each in probabilities:
$printing
"""

_ONE = "    print(labels[int(each.argmax())], round(each.max().item(), 4))"
_SEVERAL = """\
    # A label is given from its threshold on, which was chosen on validation.
    print([labels[i] for i, (p, least) in enumerate(zip(each.tolist(), $thresholds)) if p >= least])"""

_WRITTEN = """
question = "$asked"
context = "$text"
parts = [$parts]
head, read, tail = tokenizer(parts, add_special_tokens=False)["input_ids"]
head, tail = $opening + head, tail$ending
# A context that is too long is read in overlapping windows.
room = tokenizer.model_max_length - len(head) - len(tail)
if room < min($least, len(read)):
    raise SystemExit("The question leaves no room for its context.")
step = room - min($stride, room // 2)
answers = []
for begin in range(0, len(read), step):
    prompt = torch.tensor([head + read[begin : begin + room] + tail])
    with torch.inference_mode():
        out = model.generate(
            input_ids=prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=$longest, do_sample=False,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
            output_scores=True, return_dict_in_generate=True,
        )
    text = tokenizer.decode(out.sequences[0][-len(out.scores) :], skip_special_tokens=True).strip()
    if text and text.rstrip(".").lower() != "$unanswerable":
        answers.append((sum(each.log_softmax(-1).max().item() for each in out.scores), text))
    if begin + room >= len(read):
        break
# The most probable answer counts; a window without one does not count against it.
print(max(answers)[1] if answers else "")
"""


def sample(
    stored: Stored,
    format: str,
    tokenizer: PreTrainedTokenizerBase,
    name: str = ".",
    base: Mapping[str, Any] | None = None,
) -> str:
    """A program that opens an exported folder and asks it. name: of the repository; ".": the folder itself. base: name,
    revision and config of an adapter's base on the hub; None: it lies in the folder."""
    info = stored.info
    fetched = name != "." and (format == "onnx" or base is None)
    values = {
        "model_class": f"AutoModelFor{info.head}",
        "name": name,
        "fetching": "from huggingface_hub import snapshot_download\n" if fetched else "",
        "place": f'snapshot_download("{name}")' if fetched else f'"{name}"',
        "base": 'f"{name}/base"' if base is None else _arguments(base),
        "asked": ASKED,
        "text": TEXT,
    }
    body = {"QuestionAnswering": _span, "SequenceClassification": _label}.get(info.head, _written)
    opening = _OPEN[format]
    if format == "onnx" and info.head != "SequenceClassification":
        opening = opening.replace("AutoConfig, ", "")
    text = opening + body(info, format, tokenizer)
    return Template(text).substitute(values)


def _arguments(base: Mapping[str, Any]) -> str:
    given = {"revision": base["revision"]} | base["config"]
    return ", ".join([json.dumps(base["name"]), *(f"{key}={value!r}" for key, value in given.items())])


def _span(info: BundleInfo, format: str, tokenizer: PreTrainedTokenizerBase) -> str:
    settings = info.settings
    nothing = _NOTHING if info.has_unanswerable else ""
    return Template(_SPAN).safe_substitute(
        stride=settings["doc_stride"],
        longest=settings["max_answer_length"],
        nothing=nothing.replace("$threshold", str(settings.get("null_threshold"))),
    )


def _label(info: BundleInfo, format: str, tokenizer: PreTrainedTokenizerBase) -> str:
    settings = info.settings
    temperature = settings.get("temperature", 1.0)
    logits = "model(**inputs).logits" + (f" / {temperature}" if temperature != 1.0 else "")
    several = "thresholds" in settings
    function = "sigmoid()" if several else "softmax(-1)"
    return Template(_LABEL).safe_substitute(
        asking="texts, texts[::-1]" if settings.get("pairs") else "texts",
        probabilities=f"({logits}).{function}" if "/" in logits else f"{logits}.{function}",
        printing=_SEVERAL.replace("$thresholds", str(list(settings.get("thresholds", []))))
        if several
        else _ONE,
        config={"merged": "model.config", "adapter": "base.config"}.get(
            format, "AutoConfig.from_pretrained(name)"
        ),
    )


def _written(info: BundleInfo, format: str, tokenizer: PreTrainedTokenizerBase) -> str:
    opening, end = begin_of_text(tokenizer), tokenizer.eos_token_id
    decoder = info.head == "CausalLM"
    parts = [HEAD, CONTEXT, QUESTION]
    assert ANSWER.startswith(" ")
    return Template(_WRITTEN).safe_substitute(
        parts=", ".join(f'f"{part}"' if "{" in part else f'"{part}"' for part in parts),
        opening=str(opening),
        ending="" if decoder else f" + [{end}]",
        # An encoder-decoder writes what its tokenizer puts before a text, too.
        longest=info.settings["max_answer_length"] + (0 if decoder else len(opening)),
        stride=info.settings["doc_stride"],
        least=MIN_CONTEXT,
        unanswerable=UNANSWERABLE,
    )
