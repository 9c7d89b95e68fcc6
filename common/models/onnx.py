"""A trained model as ONNX, for CPU serving with ONNX Runtime: exported, quantized to int8, and called like the original.

This needs the `onnx` extra (requirements-onnx.txt), which is imported when it is used.
"""

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedConfig
from transformers.modeling_outputs import ModelOutput

from ..errors import UserError
from .families import FAMILIES, uses_segment_ids

ONNX = "model.onnx"
"""The network of a saved model that ONNX Runtime computes."""

FILES = {"fp32": "model.onnx", "int8": "model.int8.onnx"}


def opened(folder: Path, base: Path) -> "OnnxModel":
    """The network of a saved model, beside the config of its base."""
    return OnnxModel(folder / ONNX, AutoConfig.from_pretrained(base, trust_remote_code=False))


class _Call(torch.nn.Module):
    """A model with positional inputs and a tuple of outputs, which an exporter can trace."""

    def __init__(self, model: torch.nn.Module, inputs: Sequence[str], outputs: Sequence[str]):
        super().__init__()
        self.model, self.inputs, self.outputs = model, inputs, outputs

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        out = self.model(**dict(zip(self.inputs, tensors, strict=True)))
        return tuple(out[name] for name in self.outputs)


def export(model: torch.nn.Module, outputs: Sequence[str], folder: Path) -> dict[str, Path]:
    """Write a model in evaluation mode, adapters merged, as FILES; return precision → file. outputs: names of its outputs.

    Batch and length are free. int8 is dynamic: weights are stored in 8 bits, activations are quantized as they come.
    """
    needed("onnx", "onnxscript")
    if reason := refusal(model.config.model_type):
        raise UserError(f"{model.config.model_type} cannot be exported: {reason}.")
    names = ["input_ids", "attention_mask"] + ["token_type_ids"] * uses_segment_ids(model.config)
    # Two rows and an odd length: the exporter would take a 1 or a padded size for a constant.
    example = tuple(torch.full((2, 11), fill) for fill in (model.config.vocab_size // 2, 1, 0)[: len(names)])
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    folder.mkdir(parents=True, exist_ok=True)
    files = {precision: folder / name for precision, name in FILES.items()}
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            _Call(model, names, outputs),
            example,
            input_names=names,
            output_names=list(outputs),
            dynamic_shapes={"tensors": tuple({0: batch, 1: length} for _ in names)},
            # The older exporter traces, and fixes what depends on the length of its example.
            dynamo=True,
            verbose=False,
        )
        program.save(str(files["fp32"]), external_data=False)
        from onnxruntime.quantization import QuantType, quantize_dynamic

        network = importlib.import_module("onnx").load(str(files["fp32"]))
        # For the head of a classifier the exporter leaves a shape behind that the quantizer's own inference contradicts.
        del network.graph.value_info[:]
        quantize_dynamic(network, files["int8"], weight_type=QuantType.QInt8, per_channel=True)
    return files


def refusal(model_type: str) -> str | None:
    """Why models of a family have no export; None where they have one."""
    family = FAMILIES.get(model_type)
    if family is not None and family.global_question:
        return "which of its tokens see the whole input is decided while it computes"
    return None


class OnnxModel(torch.nn.Module):
    """An exported model that is called like the original; always in evaluation mode, on the CPU."""

    tokens_per_batch = 512
    """Padded tokens that ONNX Runtime is fastest with at once."""

    def __init__(self, file: Path, config: PreTrainedConfig):
        super().__init__()
        self.file = file
        self.sessions: dict[int, Any] = {}
        """By their threads, which are fixed when a session is opened. Each holds the weights."""
        self.open_for([torch.get_num_threads()])
        (session,) = self.sessions.values()
        self.inputs = [entry.name for entry in session.get_inputs()]
        self.outputs = [entry.name for entry in session.get_outputs()]
        self.config = config
        # The device of a model is read from its first parameter.
        self.nothing = torch.nn.Parameter(torch.empty(0), requires_grad=False)
        self.eval()

    def open_for(self, threads: Iterable[int]) -> None:
        """Have a session for each of these numbers of threads, and for no others."""
        runtime, sessions = needed(), {}
        for number in threads:
            if number in self.sessions:
                sessions[number] = self.sessions[number]
                continue
            options = runtime.SessionOptions()
            options.intra_op_num_threads = number
            options.log_severity_level = 3
            sessions[number] = runtime.InferenceSession(
                str(self.file), options, providers=["CPUExecutionProvider"]
            )
        self.sessions = sessions

    def forward(self, **inputs: torch.Tensor) -> ModelOutput:
        """The outputs by name, computed by as many threads as torch would take here, or fewer. inputs: (batch, length)
        integers."""
        most = torch.get_num_threads()
        number = max((each for each in self.sessions if each <= most), default=min(self.sessions))
        found = self.sessions[number].run(self.outputs, {name: inputs[name].numpy() for name in self.inputs})
        return ModelOutput(zip(self.outputs, map(torch.from_numpy, found), strict=True))


def needed(*modules: str) -> ModuleType:
    """onnxruntime; UserError says what to install where it or another of the modules is missing."""
    try:
        for name in ("onnxruntime", *modules):
            importlib.import_module(name)
    except ImportError:
        raise UserError("ONNX needs further packages: run pip install -r requirements-onnx.txt.") from None
    return importlib.import_module("onnxruntime")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the messages of exporter and quantizer, which report every step on both streams and in the log."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logging.disable(logging.WARNING)
            try:
                yield
            finally:
                logging.disable(logging.NOTSET)
