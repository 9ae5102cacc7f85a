"""How a setting is declared: a field of a frozen dataclass that knows its type, and says what it does and why."""

import dataclasses
from dataclasses import field
from typing import Any

from flashpol.config.setting_types import SettingType


def setting(default: Any, kind: SettingType, does: str, why: str, example: Any = None) -> Any:
    """A field with a default.

    does: one sentence, what the setting does, with its unit. why: the second one, why this default. Both are printed by
    `flashpol config --defaults`, flashpol.toml(5) and docs/reference.md. example: printed where there is no default.
    """
    return field(default=default, metadata={"type": kind, "does": does, "why": why, "example": example})


def required(kind: SettingType, does: str, why: str, example: Any) -> Any:
    """A field without a default."""
    return field(metadata={"type": kind, "does": does, "why": why, "example": example})


def settings_of(owner: Any) -> dict[str, "dataclasses.Field[Any]"]:
    """The settings of a class in its order; `metadata` of each has `type`, `does`, `why`, `example`."""
    return {f.name: f for f in dataclasses.fields(owner) if "type" in f.metadata}


def type_of(owner: Any, name: str) -> SettingType:
    """How a setting is written."""
    found: SettingType = settings_of(owner)[name].metadata["type"]
    return found


def describe(field_: "dataclasses.Field[Any]") -> str:
    """The two sentences of a setting."""
    return f"{field_.metadata['does']} {field_.metadata['why']}"
