"""Nothing a peer sends breaks the codec, and no value has two encodings."""

import enum
import struct
from typing import Any

import attrs
import msgpack
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.codec import DecodeError, bounded_tuple, bytes_of, decode, encode, int_range


class Colour(enum.IntEnum):
    RED = 0
    BLUE = 200


class Word(enum.Enum):
    A = "a"
    B = "b"


@attrs.frozen
class Leaf:
    number: int
    digest: bytes = attrs.field(validator=bytes_of(3))


@attrs.frozen
class Tree:
    colour: Colour
    word: Word
    flag: bool
    text: str
    small: int = attrs.field(validator=int_range(-5, 5))
    leaf: Leaf | None
    leaves: tuple[Leaf, ...] = attrs.field(validator=bounded_tuple(20))
    pair: tuple[bytes, Leaf]
    members: frozenset[bytes]
    maybe: bytes | None


numbers = st.one_of(st.integers(-(2**63), 2**64 - 1), st.integers(-300, 300))
leaf_values = st.builds(Leaf, numbers, st.binary(min_size=3, max_size=3))
tree_values = st.builds(
    Tree,
    st.sampled_from(Colour),
    st.sampled_from(Word),
    st.booleans(),
    st.text(max_size=40),
    st.integers(-5, 5),
    st.none() | leaf_values,
    st.lists(leaf_values, max_size=20).map(tuple),
    st.tuples(st.binary(max_size=300), leaf_values),
    st.frozensets(st.binary(max_size=4), max_size=6),
    st.none() | st.binary(max_size=4),
)
plain_values = st.recursive(
    st.none() | st.booleans() | numbers | st.floats() | st.binary(max_size=8) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=11) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=30,
)


def reference_pack(value: Any) -> bytes:
    """The msgpack specification's shortest form, spelt out."""
    if value is None:
        return b"\xc0"
    if isinstance(value, enum.Enum):
        return reference_pack(value.value)
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        if -32 <= value < 128:
            return struct.pack("b", value) if value < 0 else bytes([value])
        forms = [(0xCC, ">B"), (0xCD, ">H"), (0xCE, ">I"), (0xCF, ">Q")]
        if value < 0:
            forms = [(0xD0, ">b"), (0xD1, ">h"), (0xD2, ">i"), (0xD3, ">q")]
        for tag, form in forms:
            try:
                return bytes([tag]) + struct.pack(form, value)
            except struct.error:
                continue
    if isinstance(value, str):
        raw = value.encode()
        if len(raw) < 32:
            return bytes([0xA0 | len(raw)]) + raw
        return bytes([0xD9, len(raw)]) + raw
    if isinstance(value, bytes):
        size = len(value)
        return (bytes([0xC4, size]) if size < 256 else b"\xc5" + struct.pack(">H", size)) + value
    if isinstance(value, frozenset):
        items = sorted(reference_pack(item) for item in value)
    elif attrs.has(type(value)):
        items = [reference_pack(getattr(value, field.name)) for field in attrs.fields(type(value))]
    else:
        items = [reference_pack(item) for item in value]
    header = bytes([0x90 | len(items)]) if len(items) < 16 else b"\xdc" + struct.pack(">H", len(items))
    return header + b"".join(items)


def decodes_to_itself_or_not_at_all(data: bytes) -> None:
    for cls in (Tree, Leaf):
        try:
            value = decode(cls, data, 10_000)
        except DecodeError:
            continue
        assert encode(value) == data


@given(tree_values)
def test_round_trip_and_reference(value: Tree) -> None:
    data = encode(value)
    assert data == reference_pack(value)
    assert decode(Tree, data, len(data)) == value


@given(st.binary(max_size=200))
def test_noise(data: bytes) -> None:
    decodes_to_itself_or_not_at_all(data)


@given(plain_values)
def test_other_msgpack(value: Any) -> None:
    decodes_to_itself_or_not_at_all(msgpack.packb(value))


@settings(max_examples=200)
@given(tree_values, st.data())
def test_mutations(value: Tree, draw: st.DataObject) -> None:
    data = bytearray(encode(value))
    for _ in range(draw.draw(st.integers(1, 3))):
        at = draw.draw(st.integers(0, len(data) - 1))
        match draw.draw(st.sampled_from(["set", "insert", "delete", "duplicate"])):
            case "set":
                data[at] = draw.draw(st.integers(0, 255))
            case "insert":
                data[at:at] = draw.draw(st.binary(min_size=1, max_size=5))
            case "delete":
                del data[at]
            case _:
                data[at:at] = data[at : at + 40]
        if not data:
            break
    decodes_to_itself_or_not_at_all(bytes(data))


@given(tree_values, tree_values)
def test_different_values_differ_on_the_wire(left: Tree, right: Tree) -> None:
    assert (encode(left) == encode(right)) == (left == right)
