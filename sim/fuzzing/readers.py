"""Everything that reads what others wrote, with genuine inputs of each: messages, ledger, files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from attrs import evolve, frozen

from flocknode import config
from flocknode.transport.base import MAX_CHUNK_BYTES, InvalidAddressError, Member, parse_address
from flocknode.transport.libp2p_frames import NOTHING, FrameReader, FrameTooLongError, framed
from protocol import durable
from protocol.blob import BlobError, Chunk, chunk, chunked, verify_chunk
from protocol.checkpoint import CheckpointError, decode_checkpoint, encode_checkpoint
from protocol.codec import DecodeError, decode, encode
from protocol.consensus import Safety
from protocol.envelope import Envelope, WireError, open_envelope
from protocol.keys import PeerNameError, peer_from_name, peer_name
from protocol.ledger.block import (
    BLOCK_BYTES,
    BODIES,
    Block,
    BlockKind,
    StoredBlock,
    decode_block,
    decode_body,
    decode_stored_block,
)
from protocol.messages import KIND_RULES, MESSAGE_BYTES, DealerEvidence, Kind, ShareOpening
from protocol.params import GENESIS_BYTES, Genesis
from protocol.secagg.scheme import UploadError, check_commitment
from protocol.secrets import DealerPackage
from protocol.sharing import PACKAGE_BYTES, DealerFault, SharePackage
from sim.fuzzing.bending import Bender
from sim.fuzzing.histories import LIAR, Ground, ground
from sim.scenario.manifest import ScenarioError, parse_scenario

FILE = Path("fuzzed.toml")
SMALL_BYTES = 4096

SCENARIO = """
name = "fuzzed"
about = "for the reader"

[network]
nodes = 5
rounds = 3

[[nodes]]
who = "node 1"
behaviour = "honest"
stake_tokens = 32.0

[[faults]]
do = "kill"
at = "round 2 / contribute"
who = "aggregator"

[expect]
ended = 3
"""


class TwoEncodingsError(AssertionError):
    """A reader accepted bytes that are not those of the value that it made of them."""


@frozen
class Reader:
    """`read` gives back the bytes that its value is written as, or None where nothing writes it.

    `refusals` are what it may raise, `seeds` genuine inputs.
    """

    name: str
    read: Callable[[bytes], bytes | None]
    refusals: tuple[type[Exception], ...]
    seeds: Sequence[bytes] = ()


def all_readers() -> list[Reader]:
    """In an order that does not change from run to run."""
    network = ground()
    return [
        *_of_envelopes(network),
        *(_record(rule.body, rule.body_bytes, _bodies(network, kind)) for kind, rule in KIND_RULES.items()),
        *_of_ledger(network),
        *_of_records(network),
        *_of_bulk(network),
        *_of_texts(network),
    ]


def _record(cls: type, max_bytes: int, seeds: Sequence[bytes] = ()) -> Reader:
    """A class of the canonical encoding."""
    return Reader(cls.__name__, lambda data: encode(decode(cls, data, max_bytes)), (DecodeError,), seeds)


def _bodies(network: Ground, kind: Kind) -> list[bytes]:
    return [envelope.body for envelope in network.corpus[kind][:3]]


def _of_envelopes(network: Ground) -> Iterator[Reader]:
    bender, peer, id_ = Bender(network), network.peers[LIAR], network.network
    first = [envelopes[0] for envelopes in network.corpus.values()]

    def opened_when_signed(data: bytes) -> None:
        """Kind, whether the rest is the payload or the body; under a true signature."""
        kind, bulk, rest = data[0] if data else 0, data[1:2] == b"\x01", data[2:]
        body, payload = (b"", rest) if bulk else (rest, b"")
        sent = encode(bender.signed(Envelope(1, id_, 1, kind, peer, body, bytes(64), payload)))
        written = open_envelope(sent, id_).to_bytes()
        if written != sent:
            raise TwoEncodingsError(f"an envelope: {sent.hex()} is written as {written.hex()}")

    genuine = [encode(envelope) for envelope in first]
    bare = [encode(evolve(envelope, payload=b"")) for envelope in first]
    yield Reader("a message", lambda data: open_envelope(data, id_).to_bytes(), (WireError,), genuine)
    yield Reader(
        "an entry of a block",
        lambda data: open_envelope(data, id_, stripped=True).cited(),
        (WireError,),
        bare,
    )
    yield Reader(
        "a body that is signed",
        opened_when_signed,
        (WireError,),
        [bytes((envelope.kind, 0)) + envelope.body for envelope in first],
    )
    yield _record(Envelope, MESSAGE_BYTES, genuine)


def _of_ledger(network: Ground) -> Iterator[Reader]:
    stored = max((list(m.records.get(durable.BLOCK, {}).values()) for m in network.moments), key=len)
    proposals = [p for history in network.histories for ps in history.proposals.values() for p in ps]
    blocks = [decode_block(proposal.payload) for proposal in proposals]

    def body_of(kind: BlockKind) -> Callable[[bytes], bytes]:
        frame = evolve(blocks[0], kind=kind)
        return lambda data: encode(decode_body(evolve(frame, body=data)))

    yield Reader("a block", lambda data: encode(decode_block(data)), (DecodeError,), [encode(blocks[0])])
    yield Reader("a stored block", lambda data: encode(decode_stored_block(data)), (DecodeError,), stored[:2])
    yield _record(Block, BLOCK_BYTES, [encode(blocks[1])])
    yield _record(StoredBlock, MESSAGE_BYTES, stored[:1])
    for kind in BODIES:
        seeds = [block.body for block in blocks if block.kind is kind]
        yield Reader(f"the body of {kind.name}", body_of(kind), (DecodeError,), seeds[:2])
    yield _record(Genesis, GENESIS_BYTES, [encode(network.founding.genesis)])


def _of_records(network: Ground) -> Iterator[Reader]:
    """What a node wrote down itself, and what a disk made of it; and packages inside messages."""

    def kept(bucket: str) -> list[bytes]:
        rows = [data for moment in network.moments for data in moment.records.get(bucket, {}).values()]
        return sorted(set(rows), key=len)[-2:]

    openings = [decode(ShareOpening, body, 8192).package for body in _bodies(network, Kind.SHARE_OPENING)]
    faults = [decode(DealerEvidence, b, 1 << 20).fault for b in _bodies(network, Kind.DEALER_EVIDENCE)]
    yield _record(Safety, durable.RECORD_BYTES, kept(durable.SAFETY))
    yield _record(durable.Residual, 1 << 27, [encode(durable.Residual(1, bytes(8)))])
    yield _record(SharePackage, PACKAGE_BYTES, [*kept(durable.SHARE), *openings])
    yield _record(DealerFault, 1 << 20, faults)
    yield _record(DealerPackage, SMALL_BYTES, [encode(DealerPackage(bytes(32), bytes(32)))])


def _of_bulk(network: Ground) -> Iterator[Reader]:
    params, checkpoint = network.params, network.founding.checkpoint
    blob = chunked(checkpoint).digest

    def read_chunk(data: bytes) -> bytes:
        part = decode(Chunk, data, MAX_CHUNK_BYTES)
        verify_chunk(blob, part)
        return encode(part)

    def read_frames(data: bytes) -> bytes | None:
        """However the stream is cut, the same messages; a whole one is framed as it came."""
        half = len(data) // 2
        whole, halves = FrameReader(), FrameReader()
        messages = list(whole.feed(data))
        if messages != [*halves.feed(data[:half]), *halves.feed(data[half:])]:
            raise TwoEncodingsError(f"frames: {data.hex()} depends on how it is cut")
        written = b"".join(framed(message) for message in messages)
        if NOTHING not in data and not data.startswith(written):
            raise TwoEncodingsError(f"frames: {data.hex()} begins as {written.hex()}")
        return None

    def read_commitment(data: bytes) -> None:
        check_commitment(params, data)

    commitment = network.corpus[Kind.CONTRIBUTION][0].payload
    yield Reader("a chunk", read_chunk, (DecodeError, BlobError), [encode(chunk(checkpoint, 0))])
    yield Reader(
        "a checkpoint",
        lambda data: encode_checkpoint(params, decode_checkpoint(params, data)),
        (CheckpointError,),
        [checkpoint],
    )
    yield Reader("a commitment", read_commitment, (UploadError,), [commitment])
    yield Reader("frames", read_frames, (FrameTooLongError,), [framed(b"one") + NOTHING + framed(b"two")])


def _of_texts(network: Ground) -> Iterator[Reader]:
    """Files that an operator writes, and names on the command line."""
    members = [Member(peer, f"/ip4/127.0.0.1/tcp/{4001 + i}") for i, peer in enumerate(network.peers)]
    plain = config.to_toml(
        config.NodeConfig(
            node=config.NodeSettings(name="n0", listen="/ip4/127.0.0.1/tcp/0"),
            learning=config.LearningSettings(task="digits", shard=0, shards=5, epochs=1),
            members=tuple(members),
        )
    )

    def read_config(data: bytes) -> None:
        read = config.from_toml(data, FILE)
        if config.from_toml(config.to_toml(read).encode(), FILE) != read:
            raise TwoEncodingsError(f"node.toml: {data.hex()} is not read back as it was")

    def read_address(data: bytes) -> None:
        read = parse_address(data.decode())
        if parse_address(str(read)) != read:
            raise TwoEncodingsError(f"an address: {data.hex()} is not read back as it was")

    def read_scenario(data: bytes) -> None:
        parse_scenario(data.decode(), str(FILE))

    yield Reader("node.toml", read_config, (config.ConfigError,), [plain.encode()])
    yield Reader("a scenario", read_scenario, (ScenarioError, UnicodeDecodeError), [SCENARIO.encode()])
    yield Reader(
        "a peer's name",
        lambda data: peer_name(peer_from_name(data.decode())).encode(),
        (PeerNameError, UnicodeDecodeError),
        [peer_name(network.peers[0]).encode()],
    )
    yield Reader(
        "an address",
        read_address,
        (InvalidAddressError, UnicodeDecodeError),
        [b"/ip4/127.0.0.1/tcp/4001", b"/ip6/::1/tcp/0", b"/dns4/node.example/tcp/443"],
    )
