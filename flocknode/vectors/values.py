"""How values appear in the vector files: bytes as hex, field elements as numbers, long vectors in short."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from protocol.algebra import field as fp
from protocol.algebra.field import FieldVec
from protocol.codec import digest

Case: TypeAlias = Mapping[str, object]
"""Inputs and results by name; the values are JSON-ready."""
Document: TypeAlias = Mapping[str, Sequence[Case]]
"""Sections of cases."""

SHOWN_ELEMENTS = 8


def example(label: str, number: int = 0) -> bytes:
    """32 bytes that serve as an input: digest("test vector", label, number as 4 bytes big endian)."""
    return digest("test vector", label.encode(), number.to_bytes(4, "big"))


def numbers(values: npt.NDArray[np.integer]) -> list[int]:
    """All elements, in C order."""
    return [int(value) for value in values.reshape(-1)]


def in_short(values: FieldVec) -> Case:
    """A long vector: its shape, first elements, and SHA-256 over it as little-endian uint32."""
    return {
        "shape": list(values.shape),
        "first": numbers(values)[:SHOWN_ELEMENTS],
        "sha256": hashlib.sha256(fp.to_bytes(np.ascontiguousarray(values.reshape(-1)))).hexdigest(),
    }


def floats(values: npt.NDArray[np.float32]) -> str:
    """float32 as little-endian bytes in hex: decimal text would leave the rounding open."""
    return values.astype("<f4").tobytes().hex()


def render(document: Document) -> str:
    """JSON with one case a line, so that a change of one shows as one line; the same on every machine."""
    sections = []
    for name, cases in document.items():
        lines = ",\n".join(f"  {json.dumps(case, ensure_ascii=True)}" for case in cases)
        sections.append(f" {json.dumps(name)}: [\n{lines}\n ]")
    return "{\n" + ",\n".join(sections) + "\n}\n"
