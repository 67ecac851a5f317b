"""The store: durable batches, exclusive directories, kill -9, damage."""

import asyncio
import hashlib
import inspect
import os
import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from flocknode.store import DATABASE, DirectoryInUseError, Records, Store, StoreError, open_reader
from protocol.events import Persist


def block(height: int, value: bytes | None) -> Persist:
    return Persist("block", height.to_bytes(8, "big"), value)


def write(directory: Path, *batches: list[Persist]) -> None:
    async def run() -> None:
        store = await Store.open(directory)
        for batch in batches:
            await store.commit(batch)
        await store.close()

    asyncio.run(run())


def read(directory: Path) -> Records:
    async def run() -> Records:
        store = await Store.open(directory)
        try:
            records = await store.load()
            assert "block" not in records
            with open_reader(directory) as ledger:
                blocks = {height.to_bytes(8, "big"): value for height, value in ledger.blocks()}
            return {**({"block": blocks} if blocks else {}), **records}
        finally:
            await store.close()

    return asyncio.run(run())


def test_records_survive_reopening_by_bucket_and_key(tmp_path: Path) -> None:
    write(
        tmp_path,
        [block(1, b"one"), Persist("meta", b"k", b""), Persist("secret", b"", b"s")],
        [block(2, b"two"), Persist("meta", b"k", b"new"), Persist("secret", b"", None), block(1, None)],
    )
    assert read(tmp_path) == {
        "block": {(2).to_bytes(8, "big"): b"two"},
        "meta": {b"k": b"new"},
    }


def test_a_batch_is_written_in_its_order(tmp_path: Path) -> None:
    write(tmp_path, [Persist("a", b"k", b"1"), Persist("a", b"k", None), Persist("a", b"k", b"2")])
    assert read(tmp_path) == {"a": {b"k": b"2"}}


def test_any_batches_leave_what_writing_one_by_one_leaves(tmp_path: Path) -> None:
    """Also with more records than one statement takes, and keys that come again in one batch."""
    random_ = random.Random(7)
    expected: Records = {}
    batches = []
    for size in (1, 1, 2, 7, 50, 199, 200, 201, 900):
        batch = []
        for _ in range(size):
            bucket = random_.choice(("block", "share", "safety"))
            key = random_.randrange(2 * size).to_bytes(8, "big")
            value = None if random_.random() < 0.4 else random_.randbytes(random_.randrange(40))
            batch.append(Persist(bucket, key, value))
            records = expected.setdefault(bucket, {})
            records.pop(key, None)
            if value is not None:
                records[key] = value
        batches.append(batch)
    write(tmp_path, *batches)
    assert sum(map(len, expected.values())) > 400
    assert read(tmp_path) == {bucket: records for bucket, records in expected.items() if records}


async def test_commits_reach_the_disk_before_they_return(tmp_path: Path) -> None:
    store = await Store.open(tmp_path)
    names = ("journal_mode", "synchronous")
    settings = await store._on_thread(
        lambda: [store._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]
    )
    await store.close()
    assert settings == ["wal", 2]


async def test_a_batch_with_a_bad_record_is_not_written_at_all(tmp_path: Path) -> None:
    store = await Store.open(tmp_path)
    with pytest.raises(StoreError, match="height"):
        await store.commit([Persist("meta", b"k", b"v"), Persist("block", b"short", b"v")])
    assert await store.load() == {}
    await store.commit([Persist("meta", b"k", b"v")])
    assert await store.load() == {"meta": {b"k": b"v"}}
    await store.close()


async def test_a_closed_store_refuses_work_with_a_typed_error(tmp_path: Path) -> None:
    store = await Store.open(tmp_path)
    await store.close()
    with pytest.raises(StoreError, match="closed"):
        await store.commit([Persist("meta", b"k", b"v")])


async def test_one_directory_serves_one_process(tmp_path: Path) -> None:
    store = await Store.open(tmp_path)
    with pytest.raises(DirectoryInUseError, match=f"{tmp_path} is in use by process {os.getpid()}"):
        await Store.open(tmp_path)
    code = (
        "import asyncio, sys; from pathlib import Path; from flocknode.store import Store\n"
        "try: asyncio.run(Store.open(Path(sys.argv[1])))\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    other = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await other.communicate()
    assert said.decode() == f"DirectoryInUseError {tmp_path} is in use by process {os.getpid()}\n"
    await store.close()
    await (await Store.open(tmp_path)).close()


def test_secrets_do_not_linger_after_their_deletion(tmp_path: Path) -> None:
    secret = os.urandom(4000)
    write(tmp_path, [Persist("secret", b"k", secret)])
    assert secret[:64] in (tmp_path / DATABASE).read_bytes()
    write(tmp_path, [Persist("secret", b"k", None)])
    assert not any(secret[:64] in path.read_bytes() for path in tmp_path.iterdir())
    assert (tmp_path / DATABASE).stat().st_mode & 0o077 == 0


def value(i: int) -> bytes:
    return hashlib.sha256(str(i).encode()).digest() * (1 + i * 7919 % 3000)


WRITER = f"""
import asyncio, hashlib, sys
from pathlib import Path
from flocknode.store import Store
from protocol.events import Persist

{inspect.getsource(value)}
async def main():
    store = await Store.open(Path(sys.argv[1]))
    i = await store.with_blocks(lambda blocks: sum(1 for _ in blocks))
    print("from", i, flush=True)
    while True:
        i += 1
        await store.commit([
            Persist("block", i.to_bytes(8, "big"), value(i)), Persist("meta", b"last", b"%d" % i),
            Persist("job", b"%d" % i, value(-i)), Persist("job", b"%d" % (i - 1), None),
        ])
        print(i, flush=True)
asyncio.run(main())
"""


def test_kill_9_loses_no_acknowledged_batch_and_halves_none(tmp_path: Path) -> None:
    acknowledged = 0
    for enough in (3, 40, 90):
        command = [sys.executable, "-c", WRITER, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline().startswith(b"from")
            for _ in range(enough):
                acknowledged = int(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
            # What was printed before the kill arrived was acknowledged as well.
            tail = writer.stdout.read().splitlines()
            acknowledged = max([acknowledged, *(int(line) for line in tail[:-1])])
        with open_reader(tmp_path) as ledger:  # on a dead node, before anyone has recovered its log
            height = ledger.height()
            assert height is not None
            assert acknowledged <= height <= acknowledged + 2
            assert list(ledger.blocks()) == [(i, value(i)) for i in range(1, height + 1)]
            assert list(ledger.blocks(2, 3)) == [(2, value(2)), (3, value(3))]
        records = read(tmp_path)
        assert records["meta"] == {b"last": b"%d" % height}
        assert records["job"] == {b"%d" % height: value(-height)}


async def test_a_ledger_is_readable_while_its_node_writes(tmp_path: Path) -> None:
    store = await Store.open(tmp_path)
    with open_reader(tmp_path) as ledger:
        assert ledger.height() is None
        await store.commit([block(0, b"zero"), block(1, b"one")])
        assert ledger.height() == 1
        await store.commit([block(2, b"two")])
        assert list(ledger.blocks(1)) == [(1, b"one"), (2, b"two")]
        with pytest.raises(sqlite3.OperationalError):
            ledger._connection.execute("DELETE FROM block")
    await store.close()


def test_a_copy_in_a_directory_that_cannot_be_written_is_readable(tmp_path: Path) -> None:
    write(tmp_path, [block(7, b"seven")])
    tmp_path.chmod(0o500)
    try:
        with open_reader(tmp_path) as ledger:
            assert list(ledger.blocks()) == [(7, b"seven")]
    finally:
        tmp_path.chmod(0o700)


def test_what_is_not_a_ledger_is_named_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / DATABASE
    with pytest.raises(StoreError, match="no such ledger"), open_reader(tmp_path):
        pass
    for content in (b"", b"some text that is no database at all" * 100):
        path.write_bytes(content)
        with pytest.raises(StoreError, match=str(path)):
            read(tmp_path)
        with pytest.raises(StoreError, match=str(path)), open_reader(tmp_path):
            pass
        assert path.read_bytes() == content
    path.unlink()
    with sqlite3.connect(path) as foreign:
        foreign.execute("CREATE TABLE block (height, value)")
    foreign.close()
    with pytest.raises(StoreError, match=f"{path}: not a flocknode ledger"):
        read(tmp_path)
    with pytest.raises(StoreError, match="No such file"):
        read(tmp_path / "absent")


def test_a_newer_layout_is_refused_by_its_number(tmp_path: Path) -> None:
    write(tmp_path)
    with sqlite3.connect(tmp_path / DATABASE) as database:
        database.execute("PRAGMA user_version = 9")
    database.close()
    with pytest.raises(StoreError, match="layout 9"):
        read(tmp_path)


def test_damage_anywhere_is_noticed_or_harmless(tmp_path: Path) -> None:
    """Any flipped bit yields the records that were written, or a StoreError: never other records."""
    rng = random.Random(5)
    batch = [block(height, rng.randbytes(300)) for height in range(20)]
    batch += [Persist("share", bytes([i]), rng.randbytes(60)) for i in range(30)]
    write(tmp_path, batch)
    path = tmp_path / DATABASE
    intact = path.read_bytes()
    expected = read(tmp_path)
    noticed: list[str] = []
    for position in rng.sample(range(len(intact)), 150) + list(range(0, 100, 3)):
        damaged = bytearray(intact)
        damaged[position] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            found = read(tmp_path)
        except StoreError as error:
            noticed.append(str(error))
        else:
            assert found == expected
        for leftover in tmp_path.glob(DATABASE + "-*"):
            leftover.unlink()
    assert len(noticed) > 60
    assert all(str(path) in message for message in noticed)


def test_a_truncated_file_is_damage(tmp_path: Path) -> None:
    write(tmp_path, [block(height, bytes(500)) for height in range(40)])
    path = tmp_path / DATABASE
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(StoreError, match=str(path)):
        read(tmp_path)


def test_blocks_are_read_for_a_peer_while_batches_are_written(tmp_path: Path) -> None:
    async def run() -> list[tuple[bytes, ...]]:
        store = await Store.open(tmp_path)
        await store.commit([block(1, b"one"), block(2, b"two"), block(3, b"three"), block(5, b"five")])
        first, _, second = await asyncio.gather(
            store.read_blocks(1, 9, 100), store.commit([block(4, b"four")]), store.read_blocks(2, 3, 3)
        )
        after = await store.read_blocks(4, 9, 100)
        none = await store.read_blocks(6, 9, 100)
        await store.close()
        with pytest.raises(StoreError, match="closed"):
            await store.read_blocks(1, 1, 1)
        return [first[:3], second, after, none]

    assert asyncio.run(run()) == [(b"one", b"two", b"three"), (b"two",), (b"four", b"five"), ()]


def test_a_damaged_block_is_not_read_for_anybody(tmp_path: Path) -> None:
    write(tmp_path, [block(1, b"one"), block(2, b"two")])
    with sqlite3.connect(tmp_path / DATABASE) as database:
        database.execute("UPDATE block SET value = x'00' WHERE height = 2")

    async def run() -> None:
        store = await Store.open(tmp_path)
        try:
            assert await store.read_blocks(1, 1, 100) == (b"one",)
            with pytest.raises(StoreError, match="checksum"):
                await store.read_blocks(1, 2, 100)
        finally:
            await store.close()

    asyncio.run(run())


def test_reading_blocks_leaves_the_write_ahead_log_to_be_emptied(tmp_path: Path) -> None:
    """A query left open would pin the log, which then grows for ever."""

    async def run() -> int:
        store = await Store.open(tmp_path)
        await store.commit([block(height, bytes(4_000)) for height in range(1, 40)])
        for height in range(40, 2_500):
            await store.commit([block(height, bytes(4_000))])
            assert len(await store.read_blocks(1, 39, 9_000)) == 2
        size = (tmp_path / f"{DATABASE}-wal").stat().st_size
        await store.close()
        return size

    assert asyncio.run(run()) < 8_000_000
