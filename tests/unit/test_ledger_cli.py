"""`flocknode ledger`: every manipulation of a stored ledger is found, and its block is named."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from attrs import evolve, field, frozen
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from ledger_dirs import blocks_of, write_ledger, write_rows

from flocknode.cli.main import main
from flocknode.observe.describe import describe_block, summarise
from flocknode.observe.ledger import stored_blocks, walk
from flocknode.store import DATABASE
from protocol import durable
from protocol.codec import encode
from protocol.envelope import make_statement
from protocol.keys import Identity, peer_name
from protocol.ledger.block import Block, BlockKind, OutcomeBody, StoredBlock, decode_body
from protocol.ledger.chain import ChainError
from protocol.messages import Certificate, Kind, Vote, VotePhase
from protocol.params import Genesis
from sim.founding import build_world, found, small_params

NODES, SEED, HEIGHT = 5, 11, 7
PARAMS = small_params(NODES)


@frozen
class Ledger:
    genesis: Genesis
    identities: tuple[Identity, ...]
    blocks: list[StoredBlock] = field(repr=False)

    def write(self, directory: Path, blocks: list[StoredBlock] | None = None) -> Path:
        return write_ledger(directory, self.genesis, self.blocks if blocks is None else blocks)

    def with_block(self, height: int, change: Callable[[StoredBlock], StoredBlock]) -> list[StoredBlock]:
        return [change(s) if s.block.height == height else s for s in self.blocks]

    def certified(self, block: Block) -> StoredBlock:
        """The block with a certificate that every validator has signed, right or wrong as it is."""
        vote = Vote(VotePhase.COMMIT, block.height, block.view, block.hash)
        signatures = []
        for identity in sorted(self.identities, key=lambda identity: identity.peer):
            statement = make_statement(identity, self.genesis.network, block.round, Kind.VOTE, vote)
            signatures.append((identity.peer, statement.envelope.signature))
        return StoredBlock(block, Certificate(block.round, vote, tuple(signatures)))


@pytest.fixture(scope="module")
def ledger() -> Ledger:
    """The ledger of a simulated network, three rounds of it."""
    world = build_world(NODES, SEED, params=PARAMS)
    world.run(lambda w: all(node.height >= 16 for node in w.nodes), max_virtual_ms=600_000)
    founding = found(NODES, SEED, PARAMS)
    return Ledger(founding.genesis, founding.identities, blocks_of(world.nodes[0])[:16])


@pytest.fixture(scope="module")
def directory(ledger: Ledger, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ledger.write(tmp_path_factory.mktemp("ledger") / "node-0")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["ledger", *map(str, arguments)])


def assert_names(directory: Path, height: int) -> None:
    """`verify` fails, and blames this block."""
    result = run("verify", directory)
    assert result.exit_code == 1, result.output
    assert f"block {height}:" in result.output
    assert f"(blocks 1 to {height - 1} are right)" in result.output


def test_a_true_ledger_verifies(directory: Path, ledger: Ledger) -> None:
    result = run("verify", directory)
    assert result.exit_code == 0
    assert f"{len(ledger.blocks)} blocks verify" in result.output
    assert ledger.blocks[-1].block.hash.hex() in result.output


def test_reading_writes_nothing(directory: Path) -> None:
    before = {path.name: path.read_bytes() for path in directory.iterdir() if path.suffix != ".db-shm"}
    for command in ("show", "verify", "export"):
        assert run(command, directory).exit_code == 0
    after = {path.name: path.read_bytes() for path in directory.iterdir() if path.name in before}
    assert before == after


def test_the_ledger_of_a_node_that_runs_can_be_read(ledger: Ledger, tmp_path: Path) -> None:
    directory = ledger.write(tmp_path)
    writer = sqlite3.connect(directory / DATABASE, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("DELETE FROM block WHERE height = 3")  # not committed: nobody else may see it
    assert run("verify", directory).exit_code == 0
    writer.execute("ROLLBACK")
    writer.close()


CHANGES: dict[str, Callable[[Block], Block]] = {
    "leader": lambda block: evolve(block, leader=bytes(32)),
    "view": lambda block: evolve(block, view=block.view + 1),
    "round": lambda block: evolve(block, round=block.round + 1),
    "parent": lambda block: evolve(block, parent=bytes(32)),
    "state root": lambda block: evolve(block, state_root=bytes(32)),
    "readys": lambda block: evolve(block, readys=block.readys[:2]),
    "ready twice": lambda block: evolve(block, readys=(block.readys[0], *block.readys)),
    "kind": lambda block: evolve(block, kind=BlockKind.TIMEOUT),
    "body": lambda block: evolve(block, body=block.body[:-1]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_block_is_named(ledger: Ledger, change: Callable[[Block], Block], tmp_path: Path) -> None:
    blocks = ledger.with_block(HEIGHT, lambda s: evolve(s, block=change(s.block)))
    assert_names(ledger.write(tmp_path, blocks), HEIGHT)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_even_one_that_all_validators_signed(
    ledger: Ledger, change: Callable[[Block], Block], tmp_path: Path
) -> None:
    """The contract is replayed, whatever the certificate says; only the view is the validators' to choose."""
    blocks = ledger.with_block(HEIGHT, lambda s: ledger.certified(change(s.block)))
    # Block HEIGHT + 1 rests on the block as it was.
    assert_names(ledger.write(tmp_path, blocks), HEIGHT + (change is CHANGES["view"]))


def forged_votes(ledger: Ledger, stored: StoredBlock) -> StoredBlock:
    body = decode_body(stored.block)
    assert isinstance(body, OutcomeBody)
    return ledger.certified(evolve(stored.block, body=encode(evolve(body, openings=body.openings[:1]))))


def test_votes_cannot_be_left_out_of_an_outcome(ledger: Ledger, tmp_path: Path) -> None:
    height = next(s.block.height for s in ledger.blocks if s.block.kind is BlockKind.OUTCOME)
    blocks = ledger.with_block(height, lambda s: forged_votes(ledger, s))
    assert_names(ledger.write(tmp_path, blocks), height)


CERTIFICATES: dict[str, Callable[[Certificate], Certificate]] = {
    "too few": lambda c: evolve(c, signatures=c.signatures[:3]),
    "none": lambda c: evolve(c, signatures=()),
    "a voter twice": lambda c: evolve(c, signatures=(c.signatures[0], *c.signatures)),
    "a stranger": lambda c: evolve(c, signatures=((bytes(32), c.signatures[0][1]), *c.signatures[1:])),
    "a false signature": lambda c: evolve(
        c, signatures=((c.signatures[0][0], c.signatures[1][1]), *c.signatures[1:])
    ),
    "only prepared": lambda c: evolve(c, vote=evolve(c.vote, phase=VotePhase.PREPARE)),
    "of another round": lambda c: evolve(c, round=c.round + 1),
    "of another view": lambda c: evolve(c, vote=evolve(c.vote, view=c.vote.view + 1)),
}


@pytest.mark.parametrize("change", CERTIFICATES.values(), ids=CERTIFICATES)
def test_a_certificate_that_does_not_hold_is_named(
    ledger: Ledger, change: Callable[[Certificate], Certificate], tmp_path: Path
) -> None:
    blocks = ledger.with_block(HEIGHT, lambda s: evolve(s, certificate=change(s.certificate)))
    assert_names(ledger.write(tmp_path, blocks), HEIGHT)


def test_a_missing_block_is_named(ledger: Ledger, tmp_path: Path) -> None:
    blocks = [stored for stored in ledger.blocks if stored.block.height != HEIGHT]
    assert_names(ledger.write(tmp_path, blocks), HEIGHT)


def test_a_block_in_the_place_of_another_is_named(ledger: Ledger, tmp_path: Path) -> None:
    rows = {durable.height_key(stored.block.height): encode(stored) for stored in ledger.blocks}
    rows[durable.height_key(HEIGHT)] = rows[durable.height_key(HEIGHT + 1)]
    assert_names(write_rows(tmp_path, ledger.genesis, rows), HEIGHT)


def test_a_flipped_bit_on_the_disk_is_named(ledger: Ledger, tmp_path: Path) -> None:
    directory = ledger.write(tmp_path)
    connection = sqlite3.connect(directory / DATABASE)
    (value,) = connection.execute("SELECT value FROM block WHERE height = ?", (HEIGHT,)).fetchone()
    flipped = bytes((value[0] ^ 1, *value[1:]))
    connection.execute("UPDATE block SET value = ? WHERE height = ?", (flipped, HEIGHT))
    connection.commit()
    connection.close()
    assert_names(directory, HEIGHT)


def test_a_ledger_of_another_network_is_refused(ledger: Ledger, tmp_path: Path) -> None:
    stranger = evolve(ledger.genesis, name="another")
    assert_names(write_ledger(tmp_path, stranger, ledger.blocks), 1)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_stands_in_a_row_the_block_is_named(ledger: Ledger, data: st.DataObject) -> None:
    height = data.draw(st.integers(1, len(ledger.blocks)))
    row = bytearray(encode(ledger.blocks[height - 1]))
    for _ in range(data.draw(st.integers(1, 3))):
        row[data.draw(st.integers(0, len(row) - 1))] ^= data.draw(st.integers(1, 255))
    assume(row != encode(ledger.blocks[height - 1]))
    rows = {durable.height_key(s.block.height): encode(s) for s in ledger.blocks[:height]}
    rows[durable.height_key(height)] = bytes(row)
    with TemporaryDirectory() as root:
        directory = write_rows(Path(root), ledger.genesis, rows)
        with pytest.raises(ChainError) as raised:
            list(walk(directory))
        assert raised.value.height == height


# -- show and export -------------------------------------------------------------------------------


def test_export_names_every_field(directory: Path, ledger: Ledger) -> None:
    result = run("export", directory)
    assert result.exit_code == 0
    lines = [json.loads(line) for line in result.output.splitlines()]
    assert [line["height"] for line in lines] == list(range(1, len(ledger.blocks) + 1))
    assert [line["hash"] for line in lines] == [s.block.hash.hex() for s in ledger.blocks]
    outcome = next(line for line in lines if line["kind"] == "OUTCOME")
    peers = {peer_name(identity.peer) for identity in ledger.identities}
    assert {opening["sender"] for opening in outcome["body"]["openings"]} <= peers
    assert {opening["vote"] for opening in outcome["body"]["openings"]} == {1}
    assert {ready["kind"] for ready in outcome["readys"]} == {"READY"}
    assert set(outcome["certificate"]["signers"]) <= peers


def test_export_writes_to_a_file(directory: Path, ledger: Ledger, tmp_path: Path) -> None:
    assert run("export", directory, "--output", tmp_path / "blocks.jsonl").exit_code == 0
    assert len((tmp_path / "blocks.jsonl").read_text().splitlines()) == len(ledger.blocks)


def test_export_tells_what_does_not_decode(ledger: Ledger, tmp_path: Path) -> None:
    garbage = ledger.with_block(
        HEIGHT, lambda s: evolve(s, block=evolve(s.block, body=b"\xc1", readys=(b"x",)))
    )
    result = run("export", ledger.write(tmp_path, garbage))
    line = json.loads(result.output.splitlines()[HEIGHT - 1])
    assert line["body"]["undecodable"] == "c1"
    assert line["readys"][0]["undecodable"] == b"x".hex()


def test_show_lists_the_blocks_with_what_they_decided(directory: Path, ledger: Ledger) -> None:
    result = run("show", directory)
    assert result.exit_code == 0
    for stored in ledger.blocks:
        assert stored.block.hash.hex()[:12] in result.output
        assert summarise(stored.block)
    assert "TRUSTED" in " ".join(summarise(stored.block) for stored in ledger.blocks)
    assert len(run("show", directory, "--last", 2).output.splitlines()) < len(result.output.splitlines())


def test_show_gives_one_block_in_full(directory: Path, ledger: Ledger) -> None:
    shown = json.loads(run("show", directory, "--height", HEIGHT).output)
    assert shown == describe_block(ledger.blocks[HEIGHT - 1])
    missing = run("show", directory, "--height", 999)
    assert missing.exit_code == 1
    assert "no block 999" in missing.output


def test_blocks_can_be_read_from_the_middle(directory: Path) -> None:
    assert [stored.block.height for stored in stored_blocks(directory, 4, 6)] == [4, 5, 6]


def places() -> Iterator[tuple[str, Callable[[Path], None], str]]:
    yield "empty", lambda path: None, "genesis.bin: No such file"
    yield "garbage", lambda path: (path / "genesis.bin").write_bytes(b"x") and None, "genesis.bin"


@pytest.mark.parametrize(("name", "fill", "message"), list(places()), ids=lambda value: str(value)[:12])
def test_a_directory_without_a_ledger_is_told_without_a_traceback(
    name: str, fill: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    fill(tmp_path)
    result = run("verify", tmp_path)
    assert result.exit_code == 1
    assert message in result.output


def test_a_node_that_has_not_run_has_no_ledger(ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "genesis.bin").write_bytes(ledger.genesis.to_bytes())
    for command in ("verify", "show", "export"):
        result = run(command, tmp_path)
        assert result.exit_code == 1
        assert "no such ledger" in result.output
