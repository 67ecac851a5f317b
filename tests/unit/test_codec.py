import enum
import hashlib
import tracemalloc
from typing import Any, NewType

import attrs
import pytest

from protocol.codec import (
    LEFT_OUT,
    DecodeError,
    EncodeError,
    SchemaError,
    bounded_bytes,
    bounded_tuple,
    bytes_of,
    decode,
    digest,
    encode,
    int_range,
)


class Kind(enum.IntEnum):
    SHARE = 1
    VOTE = 2


class Profile(enum.Enum):
    HARDENED = "hardened"
    VCDFL = "vcdfl"


Height = NewType("Height", int)


@attrs.frozen
class Point:
    x: int
    y: int = attrs.field(validator=int_range(0, 9))


@attrs.frozen
class Everything:
    kind: Kind
    profile: Profile
    height: Height
    flag: bool
    name: str
    key: bytes = attrs.field(validator=bytes_of(4))
    maybe: Point | None
    maybe_number: int | None
    points: tuple[Point, ...] = attrs.field(validator=bounded_tuple(3))
    pair: tuple[int, bytes]
    members: frozenset[int]
    nested: tuple[tuple[bytes, int], ...]


VALUE = Everything(
    kind=Kind.VOTE,
    profile=Profile.VCDFL,
    height=Height(7),
    flag=True,
    name="é",
    key=b"abcd",
    maybe=None,
    maybe_number=5,
    points=(Point(-1, 2), Point(2**64 - 1, 0)),
    pair=(-(2**63), b""),
    members=frozenset({300, 1, -1}),
    nested=((b"a", 1), (b"b", 2)),
)
WIRE = bytes.fromhex(
    "9c"  # 12 fields
    "02"  # Kind.VOTE
    "a5766364666c"  # "vcdfl"
    "07"
    "c3"
    "a2c3a9"  # "é" in UTF-8
    "c40461626364"
    "c0"
    "05"
    "92" "92ff02" "92cfffffffffffffffff00"
    "92" "d38000000000000000" "c400"
    "93" "01" "cd012c" "ff"  # a set by encoded element: 01 < cd012c < ff
    "92" "92c4016101" "92c4016202"
)  # fmt: skip


@attrs.frozen
class Number:
    n: int


@attrs.frozen
class Blob:
    data: bytes


@attrs.frozen
class Text:
    text: str


@attrs.frozen
class Flag:
    flag: bool


@attrs.frozen
class Maybe:
    point: Point | None


@attrs.frozen
class Points:
    points: tuple[Point, ...]


@attrs.frozen
class Members:
    members: frozenset[int]


@attrs.frozen(kw_only=True)
class Derived:
    """Keyword-only, with a private name and a field computed from it that is not sent."""

    _secret: int
    double: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "double", 2 * self._secret)


def test_layout_is_fixed() -> None:
    assert encode(VALUE) == WIRE
    assert decode(Everything, WIRE, len(WIRE)) == VALUE


def test_derived_and_keyword_fields() -> None:
    assert encode(Derived(secret=4)) == b"\x91\x04"
    assert decode(Derived, b"\x91\x04", 10).double == 8


@pytest.mark.parametrize("size", range(len(WIRE)))
def test_every_truncation_is_refused(size: int) -> None:
    with pytest.raises(DecodeError):
        decode(Everything, WIRE[:size], 1000)


@pytest.mark.parametrize(
    ("cls", "wire", "what"),
    [
        (Number, "91c3", "expected int, got bool"),
        (Flag, "9101", "expected bool, got 1"),
        (Number, "91ca3f800000", "expected int, got float"),
        (Number, "91a131", "expected int, got str"),
        (Number, "91c0", "expected int, got NoneType"),
        (Blob, "91a161", "expected bytes, got str"),
        (Text, "91c40161", "expected str, got bytes"),
        (Text, "91a1ff", "codec can't decode"),
        (Number, "9181a16e01", "a container where none is declared"),
        (Number, "919101", "a container where none is declared"),
        (Number, "91d40001", "exceeds max_ext_len"),
        (Number, "91c1", "malformed"),
        (Number, "81a16e01", "Unexpected type header"),
        (Number, "01", "Unexpected type header"),
        (Number, "90", "expected 1 fields, got 0"),
        (Number, "920102", "expected 1 fields, got 2"),
        (Number, "9101c0", "1 trailing bytes"),
        (Number, "", "no bytes"),
        (Points, "91c0", "Unexpected type header"),
        (Points, "91929201029201", "truncated"),
        (Points, "91dcffff920102", "truncated: 65535 items claimed"),
        (Everything, WIRE.hex().replace("9c02", "9c03", 1), "no Kind is 3"),
        (Everything, WIRE.hex().replace("9c02", "9cc3", 1), "expected int, got bool"),
        # second encodings of one value
        (Number, "91cc05", "not the canonical encoding"),
        (Number, "91d3ffffffffffffffff", "not the canonical encoding"),
        (Number, "dc000105", "not the canonical encoding"),
        (Blob, "91c5000161", "not the canonical encoding"),
        (Text, "91d90161", "not the canonical encoding"),
        (Members, "91920201", "not the canonical encoding"),
        (Members, "91920101", "not the canonical encoding"),
    ],
)
def test_what_is_refused(cls: type[Any], wire: str, what: str) -> None:
    with pytest.raises(DecodeError, match=what):
        decode(cls, bytes.fromhex(wire), 1000)


def test_the_error_says_where() -> None:
    with pytest.raises(DecodeError) as truncated:
        decode(Points, bytes.fromhex("91929201029201"), 100)
    assert truncated.value.where == "Points.points[1].y"
    with pytest.raises(DecodeError) as invalid:
        decode(Points, bytes.fromhex("919292010292010a"), 100)
    assert invalid.value.where == "Points.points[1]"
    assert invalid.value.what == "y must be in [0, 9], got 10"
    with pytest.raises(EncodeError) as wrong:
        encode(Points((Point(1, 1), "point")))  # type: ignore[arg-type]
    assert wrong.value.where == "Points.points[1]"


def test_size_limit() -> None:
    wire = encode(Blob(bytes(100)))
    assert decode(Blob, wire, len(wire)) == Blob(bytes(100))
    with pytest.raises(DecodeError, match="exceed the limit of 102"):
        decode(Blob, wire, len(wire) - 1)
    with pytest.raises(DecodeError, match="expected bytes"):
        decode(Blob, bytearray(wire), 1000)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "bomb",
    [
        b"\x91" + b"\xdd\x00\x10\x00\x00" * 500,  # 500 nested arrays, each claiming a million items
        b"\x91\xdd\xff\xff\xff\xff",  # one array of four billion
        b"\x91\xdf\xff\xff\xff\xff",  # a map
        b"\x91\xc6\xff\xff\xff\xff",  # four gigabytes of bytes
        b"\x91\xdb\xff\xff\xff\xff",
        b"\x91\xc9\xff\xff\xff\xff\x01",
        b"\x91" * 100_000,  # depth
    ],
)
@pytest.mark.parametrize("cls", [Number, Points, Blob, Text, Maybe, Members])
def test_claimed_lengths_allocate_nothing(cls: type[Any], bomb: bytes) -> None:
    data = bomb + bytes(1 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError):
            decode(cls, data, 1 << 24)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * len(data)


def test_a_validator_may_raise_anything() -> None:
    @attrs.frozen
    class Picky:
        n: int

        def __attrs_post_init__(self) -> None:
            raise KeyError("picky")

    with pytest.raises(DecodeError, match="picky"):
        decode(Picky, b"\x91\x01", 10)


@pytest.mark.parametrize(
    "value",
    [
        Number(True),
        Number(1.0),  # type: ignore[arg-type]
        Number(2**64),
        Number(-(2**63) - 1),
        Number(Kind.SHARE),
        Blob(bytearray(b"x")),  # type: ignore[arg-type]
        Text("\ud800"),
        Points([Point(1, 2)]),  # type: ignore[arg-type]
        Members({1}),  # type: ignore[arg-type]
        attrs.evolve(VALUE, kind=2),
        attrs.evolve(VALUE, pair=(1, b"", 2)),
        attrs.evolve(VALUE, members=frozenset({None})),
    ],
)
def test_undeclared_values_are_not_encoded(value: Any) -> None:
    with pytest.raises(EncodeError):
        encode(value)


@pytest.mark.parametrize("hint", [float, list[int], dict[str, int], int | str, tuple, object, None])
def test_undeclarable_fields(hint: Any) -> None:
    cls = attrs.make_class("Bad", {"field": attrs.field(type=hint)})
    with pytest.raises(SchemaError):
        decode(cls, b"\x91\x01", 10)


@attrs.frozen
class Validated:
    exact: bytes = attrs.field(default=b"1234", validator=bytes_of(4))
    short: bytes = attrs.field(default=b"", validator=bounded_bytes(2))
    number: int = attrs.field(default=0, validator=int_range(-1, 1))
    items: tuple[bytes, ...] = attrs.field(default=(), validator=bounded_tuple(2, bytes_of(1)))


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("exact", [b"abcd"], [b"abc", b"abcde", "abcd", bytearray(4)]),
        ("short", [b"", b"ab"], [b"abc", "a", None]),
        ("number", [-1, 1], [-2, 2, True, 0.0, 2**4000]),
        ("items", [(), (b"a", b"b")], [(b"a",) * 3, (b"ab",), [b"a"]]),
    ],
)
def test_validators(field: str, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        assert getattr(Validated(**{field: value}), field) == value
    for value in bad:
        with pytest.raises(ValueError, match=field):
            Validated(**{field: value})


def test_digest_by_definition() -> None:
    expected = hashlib.sha256(b"\0" * 7 + b"\3" + b"dom" + b"\0" * 7 + b"\2" + b"ab" + b"\0" * 8).digest()
    assert digest("dom", b"ab", b"") == expected


def test_digest_is_injective_in_its_parts() -> None:
    inputs: list[tuple[str, tuple[bytes, ...]]] = [
        ("d", (b"ab",)),
        ("d", (b"a", b"b")),
        ("d", (b"ab", b"")),
        ("d", (b"", b"ab")),
        ("d", ()),
        ("da", (b"b",)),
        ("", (b"d", b"ab")),
    ]
    assert len({digest(domain, *parts) for domain, parts in inputs}) == len(inputs)


# -- fields that are left out at their defaults --------------------------------------------------------


@attrs.frozen
class Grown:
    """What `Number` might become."""

    n: int
    point: Point | None = attrs.field(default=None, metadata=LEFT_OUT)
    points: tuple[Point, ...] = attrs.field(default=(), metadata=LEFT_OUT)


def test_a_class_grows_without_changing_what_was_there() -> None:
    assert encode(Grown(7)) == encode(Number(7)) == b"\x91\x07"
    assert decode(Grown, b"\x91\x07", 9) == Grown(7)
    for value, wire in (
        (Grown(7, Point(1, 2)), "9207920102"),
        (Grown(7, None, (Point(1, 2),)), "9307c091920102"),
        (Grown(7, Point(1, 2), (Point(1, 2),)), "930792010291920102"),
    ):
        assert encode(value).hex() == wire
        assert decode(Grown, bytes.fromhex(wire), 99) == value


@pytest.mark.parametrize("wire", ["9207c0", "9307c090", "930792010290"])
def test_a_default_that_is_spelled_out_is_refused(wire: str) -> None:
    with pytest.raises(DecodeError, match="not the canonical encoding"):
        decode(Grown, bytes.fromhex(wire), 99)


def test_fields_that_cannot_be_left_out_are_counted() -> None:
    with pytest.raises(DecodeError, match="expected 1 to 3 fields, got 0"):
        decode(Grown, b"\x90", 9)
    with pytest.raises(DecodeError, match="expected 1 to 3 fields, got 4"):
        decode(Grown, b"\x94\x07\xc0\x90\x90", 9)
    with pytest.raises(EncodeError, match=r"Grown\.points"):
        encode(Grown(7, None, [Point(1, 2)]))  # type: ignore[arg-type]


@attrs.frozen
class InTheMiddle:
    n: int = attrs.field(default=0, metadata=LEFT_OUT)
    m: int = 0


@attrs.frozen
class WithoutDefault:
    n: int = attrs.field(metadata=LEFT_OUT)


@attrs.frozen
class MadeDefault:
    n: tuple[int, ...] = attrs.field(factory=tuple, metadata=LEFT_OUT)


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (InTheMiddle(), "only the last fields"),
        (WithoutDefault(1), "WithoutDefault.n needs a plain default"),
        (MadeDefault(), "MadeDefault.n needs a plain default"),
    ],
)
def test_what_may_be_left_out_is_checked_when_the_class_is_read(value: object, what: str) -> None:
    with pytest.raises(SchemaError, match=what):
        encode(value)


@attrs.frozen
class Sorted:
    items: tuple[int, ...] = attrs.field(converter=lambda items: tuple(sorted(items)))


@attrs.frozen(init=False)
class Swapped:
    first: int
    second: int

    def __init__(self, second: int, first: int) -> None:
        self.__attrs_init__(first, second)  # type: ignore[attr-defined]


@pytest.mark.parametrize("cls", [Sorted, Swapped])
def test_a_class_that_does_not_keep_what_it_is_given_has_no_encoding(cls: type[Any]) -> None:
    """Bytes are compared with themselves packed again: its value would have other bytes."""
    with pytest.raises(SchemaError, match="other values"):
        decode(cls, bytes.fromhex("920201"), 100)
