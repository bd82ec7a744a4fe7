"""Typed settings in nested dataclasses: read from YAML, overridden, checked, upgraded. Knows no setting by name."""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hmhi.errors import UserError


class ConfigError(UserError):
    """A setting is unknown, of the wrong type, or contradicts another one."""


_BOUNDS = {"above": operator.gt, "at_least": operator.ge, "below": operator.lt, "at_most": operator.le}


@dataclass(frozen=True, kw_only=True)
class Section:
    """Base of all sections: every number in them is finite and within the bounds of its field.

    Bounds stand in the field's metadata: any of ``above``, ``at_least``, ``below``, ``at_most``, for lists of each
    element. A field without bounds must be at least 0.
    """

    prefix: ClassVar[str] = ""
    """How the keys of the section begin, for messages."""

    def __post_init__(self) -> None:
        for key in dataclasses.fields(self):
            bounds = key.metadata or {"at_least": 0}
            rule = " and ".join(f"{name.replace('_', ' ')} {limit}" for name, limit in bounds.items())
            for value in _numbers(getattr(self, key.name)):
                within = all(_BOUNDS[name](value, limit) for name, limit in bounds.items())
                if not (within and math.isfinite(value)):
                    raise ConfigError(f"{self.prefix}{key.name} must be {rule}, got {value}")


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, list | tuple):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def check_size(key: str, size: Sequence[int]) -> None:
    """Raise ConfigError unless a setting has two numbers."""
    if len(size) != 2:
        raise ConfigError(f"{key} must be [height, width], got {list(size)}")


Tree = TypeVar("Tree", bound=Section)


def build(schema: type[Tree], values: Mapping[str, Any], overrides: Sequence[str], source: str) -> Tree:
    """A checked tree of sections.

    Args:
        schema: Its root, of which every field has a default.
        values: What differs from the defaults, nested.
        overrides: ``key.sub=value`` strings, applied in order.
        source: Where the values come from, for messages.

    Raises:
        ConfigError: Unknown key, wrong type, out of bounds, or what a section's ``__post_init__`` refuses.
    """
    for item in overrides:
        if "=" not in item.lstrip("-") or item.startswith("-"):
            raise ConfigError(f"override {item!r} is not of the form key.sub=value")
    if "${" in str(values) or any("${" in item for item in overrides):
        raise ConfigError(f"{source}: interpolations (${{...}}) are not supported; write the value itself")
    if odd := [item for item in overrides if not item.isprintable()]:
        raise ConfigError(f"{source}: {odd[0]!a} holds control characters or bytes that are no UTF-8")
    try:
        merged = OmegaConf.merge(
            OmegaConf.structured(schema),
            OmegaConf.create(dict(values)),
            OmegaConf.from_dotlist(list(overrides)),
        )
        tree = OmegaConf.to_object(merged)
    except ConfigError as error:  # raised by a __post_init__
        raise ConfigError(f"{source}: {error}") from None
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise ConfigError(f"{source}: {_short(error)}") from None
    except TypeError:  # "Cannot merge incompatible container types", without the key
        raise ConfigError(
            f"{source}: a list is given where a section is due, or the reverse; write lists whole, "
            f"such as data.image_size=[512,512]"
        ) from None
    assert isinstance(tree, schema)
    return tree


def upgraded(values: Mapping[str, Any], former: Mapping[str, str | None]) -> tuple[dict[str, Any], list[str]]:
    """Settings of an older version in the names of today.

    Args:
        values: Nested mapping; left as it is.
        former: Dotted key of then -> key of today, or None for a setting that is gone.

    Returns:
        The settings, and the keys of those that are gone.
    """
    values, gone = _merge(values, {}), []
    for old, new in former.items():
        section, name = _section_of(values, old)
        if name not in section:
            continue
        value = section.pop(name)
        if new is None:
            gone.append(old)
        else:
            section, name = _section_of(values, new)
            section.setdefault(name, value)
    return values, gone


def _section_of(values: dict[str, Any], key: str) -> tuple[dict[str, Any], str]:
    """The mapping that holds a dotted key, made where it is absent, and the key's last part."""
    *sections, name = key.split(".")
    for section in sections:
        inner = values.setdefault(section, {})
        values = inner if isinstance(inner, dict) else {}  # of a wrong type, which the check reports
    return values, name


def read_yaml(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The sections of a YAML file, over those of the file that its key ``base`` names.

    Raises:
        ConfigError: Bad YAML, a duplicate key, or a ``base`` that leads back.
        FileNotFoundError: The file or its base does not exist.
    """
    if path.resolve() in seen:
        raise ConfigError(f"{path}: 'base' leads back to this file")
    if not path.is_file():
        raise FileNotFoundError(f"config file not found: {path}")
    try:
        loaded = OmegaConf.load(path)  # unlike PyYAML: 6e-5 is a float, duplicate keys are refused
        values = OmegaConf.to_container(loaded) if loaded is not None else {}
    except (OmegaConfBaseException, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {_short(error)}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of sections at the top level")
    sections = {str(key): value for key, value in values.items()}
    base = sections.pop("base", None)
    if base is None:
        return sections
    return _merge(read_yaml(path.parent / str(base), (*seen, path.resolve())), sections)


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `base`, at every depth, with what `over` holds put over it."""
    merged = {key: _merge(value, {}) if isinstance(value, Mapping) else value for key, value in base.items()}
    for key, value in over.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if nested else value
    return merged


def _short(error: Exception) -> str:
    """OmegaConf's message with its key, without its reference and object types."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kept = [line for line in lines if not line.startswith(("reference_type", "object_type", "full_key"))]
    key = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("full_key")), "")
    message = " ".join(kept)
    return f"{key}: {message}" if key and key not in message else message
