"""A JSON object read key by key, so that what does not fit is named by file and key."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from attrs import frozen

from sim.figures.told import ToldError, read_json


@frozen
class JsonObject:
    """`within`: where in the file it lies, "" or "key.". What reads a value raises ToldError."""

    path: Path
    data: Mapping[str, Any]
    within: str = ""

    def error(self, key: str, what: str) -> ToldError:
        return ToldError(f"{self.path}: {self.within}{key}: {what}")

    def refuse_others(self, *known: str) -> None:
        for key in self.data:
            if key not in known:
                raise self.error(key, f"unknown; known are {', '.join(known)}")

    def text(self, key: str, default: str | None = None) -> str:
        value = self._value(key) if default is None else self.data.get(key, default)
        if not isinstance(value, str) or not value:
            raise self.error(key, f"text is needed, not {value!r}")
        return value

    def number(self, key: str) -> float:
        """At least 0."""
        value = self._value(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value) or value < 0:
            raise self.error(key, f"a number of at least 0 is needed, not {value!r}")
        return float(value)

    def positive(self, key: str) -> float:
        value = self.number(key)
        if not value:
            raise self.error(key, "a number above 0 is needed")
        return value

    def count(self, key: str) -> int:
        value = self.number(key)
        if value != int(value):
            raise self.error(key, f"a whole number is needed, not {value!r}")
        return int(value)

    def items(self, key: str) -> list[float]:
        """A list of numbers."""
        return [
            JsonObject(self.path, {name: value}, self.within).number(name) for name, value in self._list(key)
        ]

    def parts(self, key: str) -> list[JsonObject]:
        """A list of objects."""
        return [
            JsonObject(self.path, {name: value}, self.within).part(name) for name, value in self._list(key)
        ]

    def part(self, key: str) -> JsonObject:
        value = self._value(key)
        if not isinstance(value, dict):
            raise self.error(key, f"an object is needed, not {value!r}")
        return JsonObject(self.path, value, f"{self.within}{key}.")

    def numbers_by_name(self, key: str, needed: tuple[str, ...] = ()) -> dict[str, float]:
        part = self.part(key)
        return {name: part.number(name) for name in dict.fromkeys((*part.data, *needed))}

    def _list(self, key: str) -> list[tuple[str, Any]]:
        """Its items after their names for messages, key[0] and so on."""
        value = self._value(key)
        if not isinstance(value, list):
            raise self.error(key, f"a list is needed, not {value!r}")
        return [(f"{key}[{place}]", item) for place, item in enumerate(value)]

    def _value(self, key: str) -> Any:
        if key not in self.data:
            raise self.error(key, "missing")
        return self.data[key]


def read_object(path: Path) -> JsonObject | None:
    """None where there is no such file. ToldError where it holds anything but an object."""
    if not path.exists():
        return None
    data = read_json(path)
    if not isinstance(data, dict):
        raise ToldError(f"{path}: an object is needed, not {type(data).__name__}")
    return JsonObject(path, data)
