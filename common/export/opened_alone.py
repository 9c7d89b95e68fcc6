"""An exported folder, opened as anybody opens it: `checking` runs this file by its path, in a process that has the libraries and
not this package.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import transformers
from peft import PeftModel
from safetensors.torch import save_file


def read(
    model: Any, tokenizer: Any, head: str, rows: Sequence[Sequence[str]], **length: int
) -> dict[str, torch.Tensor]:
    """ "<row>.input_ids" and "<row>.<output>" → what a model with a head reads and gives for each row: one text, or two.

    length: `max_length` in tokens; without it the tokenizer's own counts.
    """
    found: dict[str, torch.Tensor] = {}
    for i, row in enumerate(rows):
        cut: Any = "only_second" if len(row) == 2 else True
        inputs = dict(tokenizer(*row, truncation=cut, return_tensors="pt", **length))
        found[f"{i}.input_ids"] = inputs["input_ids"]
        if head == "Seq2SeqLM":
            inputs["decoder_input_ids"] = torch.tensor([[model.config.decoder_start_token_id]])
        with torch.inference_mode():
            out = model(**inputs)
        names = ("start_logits", "end_logits") if head == "QuestionAnswering" else ("logits",)
        found |= {f"{i}.{name}": out[name].float().contiguous() for name in names}
    return found


class Network:
    """A network of ONNX Runtime, called like a model."""

    def __init__(self, file: str):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def __call__(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        names = [output.name for output in self.session.get_outputs()]
        given = {each.name: inputs[each.name].numpy() for each in self.session.get_inputs()}
        return dict(zip(names, map(torch.from_numpy, self.session.run(names, given)), strict=True))


def opened(request: Mapping[str, Any]) -> tuple[Any, Any]:
    """(model, tokenizer) of a folder. request: `folder`, `head`; `network`, the file of one in ONNX; for an adapter also `base`: its `name`, and on the hub its
    `revision` and `config`."""
    auto = getattr(transformers, f"AutoModelFor{request['head']}")
    tokenizer = transformers.AutoTokenizer.from_pretrained(request["folder"], trust_remote_code=False)
    if network := request.get("network"):
        return Network(network), tokenizer
    base = request.get("base")
    if base is None:
        model = auto.from_pretrained(request["folder"], dtype=torch.float32, trust_remote_code=False)
        return model.eval(), tokenizer
    # JSON has made texts of the numbers of labels.
    config = {
        name: {int(i): label for i, label in value.items()} if name == "id2label" else value
        for name, value in base.get("config", {}).items()
    }
    model = auto.from_pretrained(
        base["name"],
        revision=base.get("revision", "main"),
        dtype=torch.float32,
        trust_remote_code=False,
        **config,
    )
    return PeftModel.from_pretrained(model, request["folder"]).eval(), tokenizer


def main(asked: str, given: str) -> None:
    """asked: JSON file of the request, with `rows`; given: file for the tensors, because a library may print anything."""
    with open(asked, encoding="utf-8") as file:
        request = json.load(file)
    model, tokenizer = opened(request)
    save_file(read(model, tokenizer, request["head"], request["rows"]), given)


if __name__ == "__main__":
    main(*sys.argv[1:])
