"""Canonical, strict encoding of attrs classes (docs/PROTOCOL.md section 8).

A value is one msgpack array of its fields in order of declaration; there are no field names, maps, floats or
extension types on the wire. Two nodes that hold the same value hold the same bytes, and the reverse.

Field types: `bool`, `int` (-2**63 .. 2**64-1), `bytes`, `str`, `X | None`, `tuple[X, ...]`, `tuple[A, B]`,
`frozenset[X]` (sorted by encoded element), `Enum` classes (by value), attrs classes and `NewType` of these.

The last fields of a class may be declared with `metadata=LEFT_OUT`: while such a field and all after it hold
their defaults, the array ends before it. A class can so grow a field without changing a byte, and hence a
hash, of what was there before.
"""

import enum
import functools
import hashlib
import itertools
import types
import typing
from collections.abc import Callable
from typing import Any, TypeVar

import attrs
import msgpack  # type: ignore[import-untyped]

T = TypeVar("T")
Validator = Callable[[Any, "attrs.Attribute[Any]", Any], None]

INT_MIN = -(2**63)
INT_MAX = 2**64 - 1
LEFT_OUT = types.MappingProxyType({"flocknode.left_out": True})
"""Metadata of a trailing attrs field that is not on the wire while it holds its default."""

_NIL = 0xC0
_SHORT = 1024
"""Bytes that are sooner copied than hashed in two pieces."""


class CodecError(ValueError):
    """A value or its bytes break the encoding rules. `what` is the reason, `where` the path to the field."""

    def __init__(self, what: str, where: str = "") -> None:
        super().__init__(f"{where}: {what}" if where else what)
        self.what = what
        self.where = where

    def inside(self, step: str) -> typing.Self:
        """The same error seen from one level further out: `step` goes in front of the path."""
        return type(self)(self.what, step + self.where)


class EncodeError(CodecError):
    """The value holds something its class does not declare."""


class DecodeError(CodecError):
    """The bytes are not the canonical encoding of a valid value of the class."""


class SchemaError(TypeError):
    """A class declares a field that this encoding cannot carry: a mistake in the program, not in an input."""


def encode(value: Any) -> bytes:
    """Canonical bytes of an attrs instance. Raises `EncodeError` where a field holds an undeclared type."""
    cls = type(value)
    plain = _in_class(cls, EncodeError, _schema(cls).write, value)
    try:
        return _pack(plain)
    except (ValueError, TypeError, OverflowError) as error:
        raise EncodeError(str(error), cls.__name__) from error


def decode(cls: type[T], data: bytes, max_bytes: int) -> T:
    """The instance of attrs class `cls` whose canonical encoding is exactly `data`.

    Raises `DecodeError`, and nothing else, for anything else: too long, truncated, trailing bytes, wrong
    types (a bool is no int), wrong counts, a second encoding of a value, or a field its validator refuses.
    Memory is linear in `len(data)`: lengths claimed inside it allocate nothing.
    """
    schema = _schema(cls)
    if type(data) is not bytes:
        raise DecodeError(f"expected bytes, got {type(data).__name__}", cls.__name__)
    if len(data) > max_bytes:
        raise DecodeError(f"{len(data)} bytes exceed the limit of {max_bytes}", cls.__name__)
    if not data:
        raise DecodeError("no bytes", cls.__name__)
    stream = _Stream(data)
    value: T = _in_class(cls, DecodeError, schema.read, stream)
    if stream.tell() != len(data):
        raise DecodeError(f"{len(data) - stream.tell()} trailing bytes", cls.__name__)
    # Read to the end by now, so that every length in it is true and unpacking it at once is safe.
    plain = msgpack.unpackb(data) if schema.is_direct else _in_class(cls, DecodeError, schema.write, value)
    if _pack(plain) != data:
        raise DecodeError("not the canonical encoding of its value", cls.__name__)
    return value


def digest(domain: str, *parts: bytes) -> bytes:
    """SHA-256 over `domain` and `parts`, each preceded by its length (8 bytes, big endian): 32 bytes.

    Length prefixes make the input injective; the domain keeps one use's digest from serving in another.
    """
    state = hashlib.sha256(_domain_prefix(domain))
    for part in parts:
        if len(part) < _SHORT:
            state.update(len(part).to_bytes(8, "big") + part)
        else:
            state.update(len(part).to_bytes(8, "big"))
            state.update(part)
    return state.digest()


@functools.lru_cache(maxsize=256)
def _domain_prefix(domain: str) -> bytes:
    label = domain.encode()
    return len(label).to_bytes(8, "big") + label


# Field validators. attrs calls them as (instance, attribute, value); they raise ValueError, naming the field.


def bytes_of(size: int) -> Validator:
    """Exactly `size` bytes."""

    def check(instance: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
        if type(value) is not bytes or len(value) != size:
            raise ValueError(f"{attribute.name} must be {size} bytes, got {_describe(value)}")

    return check


def bounded_bytes(maximum: int) -> Validator:
    """At most `maximum` bytes."""

    def check(instance: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
        if type(value) is not bytes or len(value) > maximum:
            raise ValueError(f"{attribute.name} must be at most {maximum} bytes, got {_describe(value)}")

    return check


def int_range(lowest: int, highest: int) -> Validator:
    """An int (no bool) in [lowest, highest], both included."""

    def check(instance: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
        if type(value) is not int or not lowest <= value <= highest:
            raise ValueError(f"{attribute.name} must be in [{lowest}, {highest}], got {_describe(value)}")

    return check


def bounded_tuple(maximum: int, each: Validator | None = None) -> Validator:
    """A tuple of at most `maximum` items, each of which passes `each`."""

    def check(instance: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
        if type(value) is not tuple or len(value) > maximum:
            raise ValueError(f"{attribute.name} must hold at most {maximum} items, got {_describe(value)}")
        if each is not None:
            for item in value:
                each(instance, attribute, item)

    return check


def _describe(value: Any) -> str:
    if type(value) is int and INT_MIN <= value <= INT_MAX:
        return str(value)
    kind = type(value).__name__
    return f"{kind} of {len(value)}" if isinstance(value, bytes | str | tuple) else kind


# Schemas. Unpacking the whole tree and structuring it afterwards (cattrs) is avoided on purpose: `unpackb`
# allocates arrays by the length their header claims, so 1,000 nested headers in a megabyte take gigabytes,
# and cattrs dispatches an IntEnum or a bool to its hook for int. Reading is driven by the declared type
# instead: an array is only ever entered where the class has one, item by item.


class _Stream:
    """A message being read: `scalar()` refuses every container, `array_header()` returns a claimed length."""

    __slots__ = ("array_header", "data", "scalar", "tell")

    def __init__(self, data: bytes) -> None:
        size = len(data)
        unpacker = msgpack.Unpacker(
            None, read_size=size, max_buffer_size=size, max_array_len=0, max_map_len=0, max_ext_len=0
        )
        unpacker.feed(data)
        self.data = data
        self.scalar: Callable[[], Any] = unpacker.unpack
        self.array_header: Callable[[], int] = unpacker.read_array_header
        self.tell: Callable[[], int] = unpacker.tell


Read = Callable[[_Stream], Any]
Write = Callable[[Any], Any]


@attrs.frozen
class _Schema:
    """How one type is read from a stream, and written as lists, ints, bytes, strings, booleans and None.

    `scalar`: the type itself, where a value is its own plain form. `alike`: of a tuple of so many scalars of
    one type, both. `is_direct`: what is read is what would be written, save for longer forms of numbers and
    lengths; not so where a set may be in another order or a default spelled out. It rests on classes that
    keep the very values that they are made of.
    """

    read: Read
    write: Write
    scalar: type | None = None
    alike: tuple[int, type] | None = None
    is_direct: bool = True


def _compile(hint: Any) -> _Schema:
    if hint in _SCALARS:
        return _scalar(hint)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType) and len(arguments) == 2 and type(None) in arguments:
        inner = arguments[0] if arguments[1] is type(None) else arguments[1]
        return _optional(_schema(inner))
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return _sequence(_schema(arguments[0]))
    if origin is tuple and arguments and Ellipsis not in arguments:
        return _fixed_tuple([_schema(argument) for argument in arguments])
    if origin is frozenset:
        return _set(_schema(arguments[0]))
    if isinstance(hint, typing.NewType):
        return _schema(hint.__supertype__)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _enum(hint)
    if isinstance(hint, type) and attrs.has(hint):
        return _record(hint)
    raise SchemaError(f"{hint!r} has no encoding")


_SCALARS: tuple[type, ...] = (bool, int, bytes, str)
_schema: Callable[[Any], _Schema] = functools.cache(_compile)


def _scalar(kind: type) -> _Schema:
    def read(stream: _Stream) -> Any:
        value = stream.scalar()
        if type(value) is not kind:
            raise _unexpected(kind, value)
        return value

    def write(value: Any) -> Any:
        if type(value) is not kind:
            raise EncodeError(f"expected {kind.__name__}, got {_describe(value)}")
        return value

    return _Schema(read, write, kind)


def _unexpected(kind: type, value: Any) -> DecodeError:
    return DecodeError(f"expected {kind.__name__}, got {_describe(value)}")


def _optional(inner: _Schema) -> _Schema:
    def read(stream: _Stream) -> Any:
        # Where the stream is exhausted the inner reader reports it.
        at = stream.tell()
        if at < len(stream.data) and stream.data[at] == _NIL:
            return stream.scalar()
        return inner.read(stream)

    def write(value: Any) -> Any:
        return None if value is None else inner.write(value)

    return _Schema(read, write, is_direct=inner.is_direct)


def _sequence(item: _Schema) -> _Schema:
    plain = {item.scalar}
    alike = item.alike

    def read(stream: _Stream) -> Any:
        return tuple(_read_items(stream, item, stream.array_header()))

    def write(value: Any) -> Any:
        if type(value) is not tuple:
            raise EncodeError(f"expected tuple, got {_describe(value)}")
        if plain.issuperset(map(type, value)):
            return list(value)
        if alike is not None and _are_alike(value, *alike):
            return list(map(list, value))
        return _write_items(item.write, value)

    return _Schema(read, write, is_direct=item.is_direct)


def _are_alike(values: tuple[Any, ...], width: int, kind: type) -> bool:
    """Are they all tuples of `width` values of this type?"""
    return (
        {tuple}.issuperset(map(type, values))
        and {width}.issuperset(map(len, values))
        and {kind}.issuperset(map(type, itertools.chain.from_iterable(values)))
    )


def _set(item: _Schema) -> _Schema:
    def read(stream: _Stream) -> Any:
        # Order and duplicates are caught by the canonical check, which writes the set again.
        return frozenset(_read_items(stream, item, stream.array_header()))

    def write(value: Any) -> Any:
        if type(value) is not frozenset:
            raise EncodeError(f"expected frozenset, got {_describe(value)}")
        return sorted((item.write(element) for element in value), key=_pack)

    return _Schema(read, write, is_direct=False)


def _fixed_tuple(items: list[_Schema]) -> _Schema:
    count = len(items)
    reads = [item.read for item in items]
    writes = [item.write for item in items]
    plain = [item.scalar for item in items]

    def read(stream: _Stream) -> Any:
        claimed = stream.array_header()
        if claimed != count:
            raise DecodeError(f"expected {count} items, got {claimed}")
        return tuple([read_item(stream) for read_item in reads])

    def write(value: Any) -> Any:
        if type(value) is not tuple or len(value) != count:
            raise EncodeError(f"expected tuple of {count}, got {_describe(value)}")
        if list(map(type, value)) == plain:
            return list(value)
        return [write_item(element) for write_item, element in zip(writes, value, strict=True)]

    kind = plain[0]
    return _Schema(
        read,
        write,
        alike=(count, kind) if kind is not None and set(plain) == {kind} else None,
        is_direct=all(item.is_direct for item in items),
    )


def _enum(cls: type[enum.Enum]) -> _Schema:
    kinds = {type(member.value) for member in cls}
    if len(kinds) != 1 or not kinds <= {int, str, bytes}:
        raise SchemaError(f"{cls.__name__} must have int, str or bytes values of one type")
    value_schema = _schema(kinds.pop())
    members = {member.value: member for member in cls}

    def read(stream: _Stream) -> Any:
        value = value_schema.read(stream)
        if value not in members:
            raise DecodeError(f"no {cls.__name__} is {_describe(value)}")
        return members[value]

    def write(value: Any) -> Any:
        if type(value) is not cls:
            raise EncodeError(f"expected {cls.__name__}, got {_describe(value)}")
        return value.value

    return _Schema(read, write)


def _record(cls: type[Any]) -> _Schema:
    attrs.resolve_types(cls)
    if "__attrs_init__" in vars(cls) or any(attribute.converter for attribute in attrs.fields(cls)):
        raise SchemaError(f"{cls.__name__} is made of other values than it is given")
    fields = [attribute for attribute in attrs.fields(cls) if attribute.init]  # the others are derived
    names = [attribute.name for attribute in fields]
    aliases = [attribute.alias or attribute.name for attribute in fields]
    by_name = any(attribute.kw_only for attribute in fields)
    schemas = [_schema(attribute.type) for attribute in fields]
    readers = [(schema.read, schema.scalar) for schema in schemas]
    writers = [schema.write for schema in schemas]
    plain = [schema.scalar for schema in schemas]
    count = len(fields)
    defaults = [_plain_default(cls, attribute) for attribute in _trailing(cls, fields)]
    least = count - len(defaults)

    def read(stream: _Stream) -> Any:
        # A default that is spelled out is caught by the canonical check, whose encoding ends before it.
        claimed = stream.array_header()
        present = readers
        if claimed != count:
            if not least <= claimed < count:
                expected = f"{least} to {count}" if defaults else count
                raise DecodeError(f"expected {expected} fields, got {claimed}")
            present = readers[:claimed]
        values: list[Any] = []
        scalar = stream.scalar
        try:
            for read_field, kind in present:
                if kind is None:
                    values.append(read_field(stream))
                    continue
                value = scalar()
                if type(value) is not kind:
                    raise _unexpected(kind, value)
                values.append(value)
        except DecodeError as error:
            raise error.inside("." + names[len(values)]) from error.__cause__
        except (ValueError, msgpack.UnpackException) as error:
            raise DecodeError(_malformed(error), "." + names[len(values)]) from error
        try:
            return cls(**dict(zip(aliases, values, strict=False))) if by_name else cls(*values)
        except Exception as error:  # whatever a validator raises, the sender is the one who is wrong
            raise DecodeError(str(error) or type(error).__name__) from error

    def write(value: Any) -> Any:
        if type(value) is not cls:
            raise EncodeError(f"expected {cls.__name__}, got {_describe(value)}")
        values = [getattr(value, name) for name in names]
        if list(map(type, values)) == plain:
            return values
        written: list[Any] = []
        try:
            for write_field, field in zip(writers, values, strict=True):
                written.append(write_field(field))
        except EncodeError as error:
            raise error.inside("." + names[len(written)]) from error.__cause__
        return written

    def write_without_defaults(value: Any) -> Any:
        written = write(value)
        while len(written) > least and written[-1] == defaults[len(written) - 1 - least]:
            written.pop()
        return written

    is_direct = not defaults and all(schema.is_direct for schema in schemas)
    return _Schema(read, write_without_defaults if defaults else write, is_direct=is_direct)


def _trailing(cls: type[Any], fields: "list[attrs.Attribute[Any]]") -> "list[attrs.Attribute[Any]]":
    """The fields that may be left out, which have to be the last ones."""
    marked = [attribute for attribute in fields if attribute.metadata.get("flocknode.left_out")]
    if marked != fields[len(fields) - len(marked) :]:
        raise SchemaError(f"{cls.__name__}: only the last fields can be left out")
    return marked


def _plain_default(cls: type[Any], attribute: "attrs.Attribute[Any]") -> Any:
    """The default of a field as it would be written."""
    if attribute.default is attrs.NOTHING or isinstance(attribute.default, attrs.Factory):  # type: ignore[arg-type]
        raise SchemaError(f"{cls.__name__}.{attribute.name} needs a plain default to be left out")
    return _schema(attribute.type).write(attribute.default)


def _read_items(stream: _Stream, item: _Schema, count: int) -> list[Any]:
    # `count` is only a claim: nothing is allocated for it, and every item takes a byte at least.
    if count > len(stream.data) - stream.tell():
        raise DecodeError(f"truncated: {count} items claimed")
    items: list[Any] = []
    read_item, scalar, kind = item.read, stream.scalar, item.scalar
    try:
        for _ in range(count):
            if kind is None:
                items.append(read_item(stream))
                continue
            value = scalar()
            if type(value) is not kind:
                raise _unexpected(kind, value)
            items.append(value)
    except DecodeError as error:
        raise error.inside(f"[{len(items)}]") from error.__cause__
    except (ValueError, msgpack.UnpackException) as error:
        raise DecodeError(_malformed(error), f"[{len(items)}]") from error
    return items


def _write_items(write_item: Write, items: tuple[Any, ...]) -> list[Any]:
    plain: list[Any] = []
    try:
        for item in items:
            plain.append(write_item(item))
    except EncodeError as error:
        raise error.inside(f"[{len(plain)}]") from error.__cause__
    return plain


def _in_class(cls: type[Any], kind: type[CodecError], step: Callable[[Any], Any], argument: Any) -> Any:
    """`step(argument)`, with the class name in front of the path of any failure."""
    try:
        return step(argument)
    except CodecError as error:
        raise kind(error.what, cls.__name__ + error.where) from error.__cause__
    except (ValueError, msgpack.UnpackException) as error:
        raise kind(_malformed(error), cls.__name__) from error


def _malformed(error: Exception) -> str:
    if isinstance(error, msgpack.OutOfData):
        return "truncated"
    if "max_array_len" in str(error) or "max_map_len" in str(error):
        return "a container where none is declared"
    return str(error) or "malformed msgpack"


def _pack(plain: Any) -> bytes:
    # A small buffer that grows: the default allocates 256 kB for every statement.
    packed: bytes = msgpack.Packer(strict_types=True, buf_size=1024).pack(plain)
    return packed
