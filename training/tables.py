"""Settings as frozen dataclasses, one for each TOML table: made from a table, checked, written back.

A field is declared with `option`; its help and bounds are what `--help`, the error messages and the docs show.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import sys
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from typing import Any, Literal, TypeVar, cast

from .errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LARGEST = 2**63 - 1
"""What fits into 64 bits, as seeds have to."""
T = TypeVar("T")
Table = Mapping[str, Any]


def option(default: Any, meaning: str, *, low: float | None = None, high: float | None = None) -> Any:
    """A field with a default, what it means, and the bounds of a number, or of each of several (both included)."""
    metadata = {"help": meaning, "low": low, "high": high}
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


def parse(text: str, name: str) -> dict[str, Any]:
    """TOML's tables; raises ConfigError with the line where it is wrong."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name} is not valid TOML: {error}.") from error


def nearest(word: str, known: Iterable[str]) -> str:
    """Something like ' Did you mean "steps"?', or nothing."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean {found[0]}?" if found else ""


def kinds(cls: type) -> dict[str, Any]:
    """Field name -> type."""
    return {name: kind for name, kind in typing.get_type_hints(cls).items() if name in cls.__dataclass_fields__}


def converted(kind: Any, value: Any, name: str) -> Any:
    """A value as TOML has it, as the field wants it; raises ConfigError for another type."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return value
    if origin is tuple and isinstance(value, list | tuple) and len(cast("list[Any]", value)) == len(inner):
        items = cast("list[Any]", value)
        return tuple(converted(k, v, name) for k, v in zip(inner, items, strict=True))
    if origin is not None and issubclass(cast("type", origin), Mapping) and isinstance(value, Mapping):
        table = cast("Mapping[str, Any]", value)
        return {key: converted(inner[1], item, f"{name}.{key}") for key, item in table.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    accepted = inner or (kind,)
    if origin not in (tuple, None) and origin is not typing.get_origin(bool | int):
        raise ConfigError(f"{name} must be a table, got {value!r:.80}.")
    if origin is tuple or not any(type(value) is one for one in accepted):
        raise ConfigError(f"{name} must be {described(kind)}, got {value!r:.80}.")
    return value


def described(kind: Any) -> str:
    """A type in words."""
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return "one of " + ", ".join(json.dumps(choice) for choice in inner)
    if origin is tuple:
        return f"{len(inner)} numbers in brackets"
    if origin is not None and inner:
        return " or ".join(words.get(one, "a table") for one in inner)
    return words.get(kind, "a table")


def parsed(kind: Any, text: str, name: str) -> Any:
    """The value of a command line's word for a field of this type."""
    if kind is str or typing.get_origin(kind) is Literal:
        return text
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except ValueError as error:
        value = spelt(kind, text)
        if value is None:
            raise ConfigError(f"{name} must be {described(kind)}, got {text!r:.80}.") from error
    return converted(kind, value, name)


def spelt(kind: Any, text: str) -> Any:
    """A number, or several in brackets, as Python spells them and TOML does not, such as .5; None for what is none."""
    try:
        if typing.get_origin(kind) is tuple:
            return [float(word) for word in text.strip().removeprefix("[").removesuffix("]").split(",")]
        return kind(text) if kind in (int, float) else None
    except ValueError:
        return None


def build(cls: type[T], table: Table, name: str) -> T:
    """An instance from a TOML table whose keys are known; raises ConfigError for values of another type."""
    known = kinds(cls)
    return cls(**{key: converted(known[key], value, f"{name}.{key}") for key, value in table.items()})


def check(settings: Any, name: str) -> None:
    """Raise ConfigError for a choice that is none and a number out of its bounds."""
    known = kinds(type(settings))
    for item in dataclasses.fields(settings):
        value, label = getattr(settings, item.name), f"{name}.{item.name}"
        choices = typing.get_args(known[item.name]) if typing.get_origin(known[item.name]) is Literal else ()
        if choices and value not in choices:
            near = nearest(str(value), map(str, choices))
            raise ConfigError(f"{label} must be {described(known[item.name])}, got {value!r}.{near}")
        low, high = item.metadata.get("low"), item.metadata.get("high")
        for number in numbers(value):
            if wanted := bounded(number, low, high):
                raise ConfigError(f"{label} must be {wanted}, got {value!r}.")


def numbers(value: Any) -> Iterator[int | float]:
    """Those in a value, of all items if it has several."""
    if isinstance(value, Mapping | tuple):
        items = cast("Mapping[str, Any]", value).values() if isinstance(value, Mapping) else value
        for item in cast("Iterable[Any]", items):
            yield from numbers(item)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def bounded(number: float, low: float | None, high: float | None) -> str:
    """What a number is not and has to be; empty if nothing is wrong with it."""
    if not abs(number) <= LARGEST:
        return f"a finite number, at most {LARGEST}"
    if (low is None or number >= low) and (high is None or number <= high):
        return ""
    return f"at least {low}" if high is None else f"at most {high}" if low is None else f"{low} to {high}"


def toml(value: Any) -> str:
    """A value as TOML spells it."""
    if isinstance(value, Mapping):
        items = cast("Mapping[str, Any]", value).items()
        return "{ " + ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in items) + " }" if items else "{}"
    if isinstance(value, tuple):
        return "[" + ", ".join(toml(item) for item in cast("tuple[Any, ...]", value)) + "]"
    if isinstance(value, bool | str):
        return json.dumps(value, ensure_ascii=False)
    return repr(value)
