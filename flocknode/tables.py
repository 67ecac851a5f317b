"""Strict reading of TOML tables into attrs records: known keys only, exact types, every fault named."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar, get_args, get_origin

import attrs

Record = TypeVar("Record", bound=attrs.AttrsInstance)
Fault = Callable[[str], Exception]
"""Makes the reader's own error of a message that names the key."""


def read_record(cls: type[Record], table: Any, where: str, fault: Fault) -> Record:
    """`cls` from a TOML table: known keys only, exact types, all that have no default.

    `where` is the table's place in its file. Raises what `fault` makes of the first thing that is wrong.
    """
    if not isinstance(table, Mapping):
        raise fault(f"{where!r} must be a table")
    attrs.resolve_types(cls)
    known = {attribute.name: attribute for attribute in attrs.fields(cls)}
    if unknown := sorted(table.keys() - known.keys()):
        raise fault(f"unknown key '{where}.{unknown[0]}'")
    for name, attribute in known.items():
        if name not in table and attribute.default is attrs.NOTHING:
            raise fault(f"'{where}.{name}' is missing")
    values = {
        name: _typed(value, known[name].type, f"{where}.{name}", fault) for name, value in table.items()
    }
    try:
        return cls(**values)
    except ValueError as error:
        raise fault(f"{where}: {error.args[0]}") from error


def _typed(value: Any, hint: Any, key: str, fault: Fault) -> Any:
    kind = hint
    if get_origin(hint) is types.UnionType:
        kind = get_args(hint)[0]
    elif get_origin(hint) is Literal:
        kind = str
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise fault(f"'{key}' must be {kind.__name__}, not {type(value).__name__}")
    return value
