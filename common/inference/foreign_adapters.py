"""Anybody's adapter, as PEFT saves one, merged into its base: a plain model, which is asked and logged like any other.

Only `adapter_config.json` and `adapter_model.safetensors` are read. Pickled weights, and fields that name code to import, are
refused.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError, first_line

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ..models.base import Checkpoint
    from ..models.families import Family

CONFIG, WEIGHTS, PICKLED = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"

HEADS = {"QUESTION_ANS": "QuestionAnswering", "SEQ_CLS": "SequenceClassification"}
"""PEFT's kind of task → the head of its models."""

MODULES = {"QuestionAnswering": ("qa_outputs",), "SequenceClassification": ("classifier", "score")}
"""Head → the modules that PEFT trains and saves beside the adapter, whatever its config lists."""

PREFIX = "base_model.model."
"""In front of the base's own names in an adapter's weights."""


class Adapter:
    """An adapter's files, read and checked. UserError names what cannot be used."""

    def __init__(self, folder: Path):
        self.folder = folder.expanduser()
        self.name = f"The adapter {folder}"
        self.config = self._config()
        self.weights = self._weights()
        kind = self.config.get("task_type")
        if kind not in (*HEADS, None, "FEATURE_EXTRACTION"):
            raise UserError(
                f"{self.name} was trained for {kind}: adapters that mark answers (QUESTION_ANS) or classify texts (SEQ_CLS) can be "
                "used."
            )
        self.head = HEADS.get(str(kind), "")
        """The head that it was trained with; "" until its base is known, where its config does not say."""

    @property
    def base(self) -> str:
        """The base that its config names."""
        if found := self.config.get("base_model_name_or_path"):
            return str(found)
        raise UserError(f"{self.name}: its {CONFIG} names no base: name one beside the adapter.")

    @property
    def content(self) -> str:
        """The sha256 of what is read of it."""
        import hashlib

        from ..files import sha256

        digests = [sha256(self.folder / name) for name in (CONFIG, WEIGHTS)]
        return hashlib.sha256(" ".join(digests).encode()).hexdigest()

    def _config(self) -> dict[str, Any]:
        file = self.folder / CONFIG
        if not file.is_file():
            raise UserError(
                f"{self.name} holds no {CONFIG}: name the folder that save_pretrained of a PEFT model wrote."
            )
        try:
            config = json.loads(file.read_text(encoding="utf-8"))
            kind = config["peft_type"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{self.name}: its {CONFIG} cannot be read ({type(error).__name__}: {first_line(error)})."
            ) from None
        from ..models.peft_kinds import CANNOT_MERGE, PROMPT_TYPES, WORKING

        if "prompt_type" in config or "method" in config:
            raise UserError(
                f"{self.name} was saved by this project: name its run (runs:/RUN_ID/model) in place of a base and an adapter."
            )
        if kind in PROMPT_TYPES:
            raise UserError(
                f"{self.name} is {kind}: virtual tokens are no part of a base's weights, so it cannot be merged."
            )
        if kind not in WORKING or kind in CANNOT_MERGE:
            raise UserError(f"{self.name} is {kind}, which cannot be merged into the weights of a base.")
        for field in ("auto_map", "megatron_config"):
            if config.get(field):
                raise UserError(f"{self.name}: its {CONFIG} names code to run ({field}), which is never run.")
        return config

    def _weights(self) -> "dict[str, torch.Tensor]":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        if not (file := self.folder / WEIGHTS).is_file():
            pickled = (self.folder / PICKLED).is_file()
            raise UserError(
                f"{self.name} holds its weights as {PICKLED}, a pickle, which could run code: save it again with "
                "safe_serialization=True."
                if pickled
                else f"{self.name} holds no {WEIGHTS}: copy the whole folder."
            )
        try:
            return load_file(file)
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"{self.name}: its {WEIGHTS} is damaged ({first_line(error)}); copy it again."
            ) from None

    def _head(self, family: "Family") -> str:
        """The head of a family whose last module it holds. UserError where that is none, or several."""
        last = {head: modules[-1] for head, modules in family.heads.items() if head in MODULES}
        found = [head for head, module in last.items() if any(f".{module}." in name for name in self.weights)]
        if len(found) > 1:
            raise UserError(
                f"{self.name}: its config does not say what it was trained for (task_type), and a {family.model_type} has the same "
                "modules for each task: write QUESTION_ANS or SEQ_CLS there."
            )
        if not found:
            raise UserError(
                f"{self.name} says neither what it was trained for (task_type) nor holds the weights of a head "
                f"({', '.join(sorted({*last.values()}))})."
            )
        return found[0]

    @property
    def labels(self) -> int:
        """The numbers that its head gives; 0 where it brings no head."""
        for name, tensor in self.weights.items():
            module = name.removesuffix(".weight").rpartition(".")[2]
            if name.endswith(".weight") and module in (*MODULES[self.head], "out_proj"):
                return int(tensor.shape[0])
        return 0

    def merged(self, checkpoint: "Checkpoint") -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
        """(the base with the adapter in its weights, in float32; the base's tokenizer).

        UserError where its tensors are not those that its config makes on this base, or the head is neither's.
        """
        from ..models import base
        from ..models.families import FAMILIES, uses_segment_ids

        config = base.load_config(checkpoint)
        family = FAMILIES.get(config.model_type)
        if family:
            self.head = self.head or self._head(family)
        if not family or self.head not in family.heads:
            raise UserError(
                f"{self.name}: its base {checkpoint.name} is of a family that is not trained here ({config.model_type}): merge the "
                "adapter with PEFT (merge_and_unload), save the model, and name its folder."
            )
        if checkpoint.distil and not self.labels:
            raise UserError(f"{self.name} holds no trained head, and neither does {checkpoint.name}.")
        brought = {name.removeprefix(PREFIX) for name in self.weights}
        model, tokenizer = base.load_base(
            checkpoint, self.head, trained_head=True, brought=brought, **self._fields(config)
        )
        plain = self._put_on(model, checkpoint.name)
        if self.config.get("task_type") == "QUESTION_ANS" and uses_segment_ids(plain.config):
            # PEFT's model for question answering never passes segment ids on: it was trained with the first one alone.
            base.keep_first_segment(plain)
            names = [name for name in tokenizer.model_input_names if name != "token_type_ids"]
            tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = names
        return plain, tokenizer

    def _fields(self, config: Any) -> dict[str, Any]:
        """Fields of the base's config that the adapter decides."""
        if self.head == "QuestionAnswering" or not self.labels or self.labels == config.num_labels:
            return {}
        return {"num_labels": self.labels}

    def _put_on(self, model: "PreTrainedModel", base: str) -> "PreTrainedModel":
        from peft import PeftConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict

        from ..models import peft_corrections
        from ..models.bundles import quietly

        peft_corrections.install()
        try:
            config = quietly(PeftConfig.from_pretrained, str(self.folder))
            # PEFT's generic model: the one for question answering drops inputs.
            config.task_type, config.inference_mode = None, True
            if hasattr(config, "modules_to_save"):
                config.modules_to_save = sorted({*(config.modules_to_save or ()), *self._own_modules()})
            adapted = quietly(PeftModel, model, config)
            made = quietly(get_peft_model_state_dict, adapted, save_embedding_layers=False)
            self._check(made, base)
            quietly(set_peft_model_state_dict, adapted, self.weights)
            plain: PreTrainedModel = peft_corrections.merged(adapted)
        except peft_corrections.FAULTS as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            reason = next((line for line in lines if "size mismatch" in line), first_line(error))
            raise UserError(f"{self.name} does not fit {base}: {reason}") from None
        return plain

    def _own_modules(self) -> list[str]:
        """The modules of the head that it holds in full."""
        full = {name.removeprefix(PREFIX) for name in self.weights if "lora_" not in name}
        return [
            module
            for module in MODULES[self.head]
            if any(name.startswith(f"{module}.") or f".{module}." in name for name in full)
        ]

    def _check(self, made: "Mapping[str, torch.Tensor]", base: str) -> None:
        """UserError where the tensors do not have the names that the config makes on this base."""
        for what, names in (
            ("lacks", made.keys() - self.weights.keys()),
            ("has what its config does not make there:", self.weights.keys() - made.keys()),
        ):
            if names:
                raise UserError(
                    f"{self.name} does not fit {base}: it {what} {min(names)} (and {len(names) - 1} more tensors)."
                )
