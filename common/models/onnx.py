"""A trained model as ONNX, for CPU serving with ONNX Runtime: exported, quantized to int8, and called like the original.

The `onnx` extra (requirements-onnx.txt) is needed, and imported when it is used.
"""

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoConfig
from transformers.modeling_outputs import ModelOutput

from ..errors import UserError
from .families import uses_segment_ids

ONNX = "model.onnx"
"""The network of a saved model that ONNX Runtime computes."""

FILES = {"fp32": "model.onnx", "int8": "model.int8.onnx"}


def opened(folder: Path, base: Path) -> "OnnxModel":
    """The network of a saved model, beside the config of its base."""
    return OnnxModel(folder / ONNX, AutoConfig.from_pretrained(base, trust_remote_code=False))


class _Call(torch.nn.Module):
    """A model by positional inputs, with its outputs as a tuple: what an exporter can trace."""

    def __init__(self, model, inputs, outputs):
        super().__init__()
        self.model, self.inputs, self.outputs = model, inputs, outputs

    def forward(self, *tensors):
        out = self.model(**dict(zip(self.inputs, tensors, strict=True)))
        return tuple(out[name] for name in self.outputs)


def export(model, outputs: Sequence[str], folder: Path) -> dict[str, Path]:
    """Write a model in evaluation mode, adapters merged, as FILES; precision → file. outputs: names of those it is to give.

    Batch and length are free. int8 is dynamic: weights are stored in 8 bits, activations quantized as they come.
    """
    needed("onnx", "onnxscript")
    names = ["input_ids", "attention_mask"] + ["token_type_ids"] * uses_segment_ids(model.config)
    # Two rows and an odd length, lest the exporter take a 1 or a padded size for a constant.
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
            # The older exporter, by tracing, fixes what depends on the length of its example.
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


class OnnxModel(torch.nn.Module):
    """An exported model that is called like the one it was made of; always in evaluation mode, on the CPU."""

    tokens_per_batch = 512
    """Padded tokens that ONNX Runtime is fastest with at once."""

    def __init__(self, file: Path, config):
        super().__init__()
        runtime = needed()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        self.session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self.inputs = [entry.name for entry in self.session.get_inputs()]
        self.outputs = [entry.name for entry in self.session.get_outputs()]
        self.config = config
        # What asks a model where it lies looks at its first parameter.
        self.nothing = torch.nn.Parameter(torch.empty(0), requires_grad=False)
        self.eval()

    def forward(self, **inputs):
        """inputs: (batch, length) integers."""
        found = self.session.run(self.outputs, {name: inputs[name].numpy() for name in self.inputs})
        return ModelOutput(zip(self.outputs, map(torch.from_numpy, found), strict=True))


def needed(*modules: str):
    """onnxruntime, and an error that says what to install where it or another module is missing."""
    try:
        for name in ("onnxruntime", *modules):
            importlib.import_module(name)
    except ImportError:
        raise UserError("ONNX needs further packages: run pip install -r requirements-onnx.txt.") from None
    return importlib.import_module("onnxruntime")


@contextlib.contextmanager
def _quiet():
    """Exporter and quantizer tell of every step, on both streams and in the log."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logging.disable(logging.WARNING)
            try:
                yield
            finally:
                logging.disable(logging.NOTSET)
