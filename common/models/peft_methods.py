"""Any method of PEFT, declared by a file: its `peft_type` and fields, as PEFT's adapter_config.json has them."""

import difflib
import json
import types
import typing
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError, first_line
from ..files import parse_yaml, read_text
from .families import NO_CONV1D, Family
from .peft_kinds import (
    BARRED,
    FROM_DATA,
    IN_INPUT,
    INITS,
    LIKE,
    LINEAR_ONLY,
    PROMPT_TYPES,
    REFUSED,
    SET_BY_SUITE,
    WORKING,
)

if TYPE_CHECKING:
    from peft import PeftConfig

FLAG = "--peft_config"


def content_of(given: str) -> dict[str, Any]:
    """What a file declares, or a JSON text of the same content, checked as far as it can be without a model.

    given: the path of a .yaml or .json file, or the text. UserError names the file, and what is wrong with it.
    """
    is_text = given.lstrip().startswith("{")
    where = FLAG if is_text else f"{FLAG} {given}"
    found = parse_yaml(given if is_text else read_text(Path(given).expanduser()), where)
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise UserError(f"{where} must hold 'name: value' lines.")
    kind = found.get("peft_type")
    if not isinstance(kind, str):
        raise UserError(f"{where} needs a peft_type, such as MISS; docs/MODELS.md lists those that work.")
    kind = kind.upper()
    if reason := REFUSED.get(kind):
        raise UserError(f"{where}: peft_type {kind} cannot be trained here: {reason}.")
    if kind not in WORKING:
        raise UserError(f"{where}: {kind!r} is no peft_type that works here{_near(kind, WORKING)}.")
    fields = {name: value for name, value in found.items() if name != "peft_type"}
    return {"peft_type": kind, **_checked(kind, fields, where)}


def name_of(content: Mapping[str, Any]) -> str:
    """How tables call the method."""
    return f"PEFT {content['peft_type']}"


def virtual_tokens(content: Mapping[str, Any]) -> int:
    """Tokens in front of the input, which take room in its position table."""
    tokens: int = content.get("num_virtual_tokens", 0) if content["peft_type"] in IN_INPUT else 0
    return tokens


def config_of(content: Mapping[str, Any], family: Family) -> "PeftConfig":
    """PEFT's config for a family; without `target_modules`, those of the method. UserError where they do not go together."""
    from peft import PeftConfig

    kind = content["peft_type"]
    reason = family.refusal_of_all(LIKE.get(kind, ""))
    if family.conv1d and kind in LINEAR_ONLY:
        reason = NO_CONV1D
    if (bias := content.get("bias", "none")) != "none":
        family.check_biases(f"bias {bias} of {name_of(content)}")
    if reason:
        raise UserError(
            f"{name_of(content)} does not work with {family.model_type}: {reason}. Choose another peft_type or --model_checkpoint."
        )
    values = dict(content)
    if kind not in PROMPT_TYPES and not values.get("target_modules"):
        values |= _targets(kind, family)
    try:
        config: PeftConfig = PeftConfig.from_peft_type(**values)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{name_of(content)} cannot be set up with these values: {first_line(error)}"
        ) from None
    return config


def _targets(kind: str, family: Family) -> dict[str, Any]:
    """The layers that a method is put on where its file names none."""
    if kind == "TRAINABLE_TOKENS":
        # PEFT finds the embedding of the input.
        return {}
    if kind == "LN_TUNING":
        # The first attention layer of a ModernBERT has a norm that does nothing.
        names = r"LayerNorm|layernorm(_embedding)?|(?<!layers\.0\.attn)_norm|\.norm|ln_\w"
        return {"target_modules": rf".*({names})"}
    if kind == "IA3":
        down = family.matching(family.down)
        return {
            "target_modules": family.matching(family.key, family.value, family.down),
            "feedforward_modules": down,
        }
    return {"target_modules": family.linear_layers}


def _checked(kind: str, given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The fields that a file sets to another value than their default; UserError names one that it cannot set."""
    declared, hints, defaults = _declared(kind)
    barred = SET_BY_SUITE | BARRED.get(kind, {})
    open_ = [name for name in declared if name not in barred]
    found = {}
    for name, value in given.items():
        if name not in declared:
            raise UserError(f"{where}: {name!r} is no field of {kind}{_near(name, open_)}.")
        if value == defaults.get(name) and type(value) is type(defaults.get(name)):
            continue
        if name in barred:
            raise UserError(f"{where}: {name} is not for a file to set: {barred[name]}. Leave it out.")
        found[name] = _converted(kind, name, value, hints[name], where)
    if kind == "LORA" and found.get("init_lora_weights", True) not in INITS:
        raise UserError(
            f"{where}: init_lora_weights is {found['init_lora_weights']!r}: {FROM_DATA}. Choose true, false, gaussian or orthogonal."
        )
    if kind == "PROMPT_TUNING" and found.get("prompt_tuning_init") == "TEXT":
        raise UserError(
            f"{where}: prompt_tuning_init is TEXT, which is not tried here: choose RANDOM or SAMPLE_VOCAB."
        )
    for name in _needed(kind):
        if not found.get(name):
            raise UserError(f"{where}: {kind} needs {name}.")
    for name in ("token_indices", "trainable_token_indices"):
        if "-" in str(found.get(name)):
            raise UserError(f"{where}: {name} holds a number below 0; tokens count from 0.")
    if kind == "ADALORA":
        _check_schedule(defaults | found, where)
    return found


def _check_schedule(fields: Mapping[str, Any], where: str) -> None:
    """UserError where AdaLoRA could not take ranks away; PEFT would fail in the middle of training."""
    if fields["init_r"] <= fields["target_r"]:
        raise UserError(
            f"{where}: target_r {fields['target_r']} leaves AdaLoRA nothing to take away from init_r {fields['init_r']}: use a "
            "smaller target_r."
        )
    if fields["deltaT"] < 1:
        raise UserError(f"{where}: deltaT is {fields['deltaT']}; it must be 1 or more.")


def _needed(kind: str) -> tuple[str, ...]:
    if kind in PROMPT_TYPES:
        return ("num_virtual_tokens",)
    return {"TRAINABLE_TOKENS": ("token_indices",), "ADALORA": ("total_step",)}.get(kind, ())


def _declared(kind: str) -> tuple[list[str], dict[str, Any], dict[str, Any]]:
    """(names, types and defaults of the fields) of a method's config."""
    import dataclasses

    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
    from peft.utils import PeftType

    config = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(kind)]
    fields = [field for field in dataclasses.fields(config) if field.init and field.name != "peft_type"]
    defaults = {
        field.name: field.default_factory()
        if field.default_factory is not dataclasses.MISSING
        else None
        if field.default is dataclasses.MISSING
        else field.default
        for field in fields
    }
    return [field.name for field in fields], typing.get_type_hints(config), defaults


def _converted(kind: str, name: str, value: Any, hint: Any, where: str) -> Any:
    """A value in the type that PEFT declares: PEFT takes any, and fails later or trains something else."""
    from pydantic import TypeAdapter, ValidationError

    try:
        if isinstance(value, bool) and bool not in _parts(hint):
            raise TypeError
        return TypeAdapter(hint).validate_python(value)
    except (ValidationError, TypeError):
        wanted = str(hint.__name__ if isinstance(hint, type) else hint).replace("typing.", "")
        raise UserError(f"{where}: {name} of {kind} is {value!r}; it must be {wanted}.") from None


def _parts(hint: Any) -> list[Any]:
    """The types of a union, and the type itself otherwise."""
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return [part for each in typing.get_args(hint) for part in _parts(each)] if is_union else [hint]


def _near(name: str, known: Collection[str]) -> str:
    found = difflib.get_close_matches(name, known, 1, 0.5)
    return f"; did you mean {found[0]}?" if found else f"; there are {', '.join(known)}"


def as_text(content: Mapping[str, Any]) -> str:
    """The content in one line, in a form that depends on nothing else; `content_of` reads it."""
    return json.dumps(content, sort_keys=True)
