"""How much a node may hold because others sent it something (docs/PROTOCOL.md section 8.6).

Everything is a function of the number of accounts and of the views that this node itself has entered: no
member, and no third of them, makes a node hold more by saying more.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from protocol.admission import CHECK_RELEASES
from protocol.cited import CACHE_BYTES, CACHE_SIZE
from protocol.early import EARLY_BYTES, EARLY_MESSAGES
from protocol.engine import Engine
from protocol.messages import Kind
from sim.invariants.memory import kept_by, most_kept

REASONS = 32
"""Words that refusals are counted under."""
JOBS_OF_A_ROUND = 64


@frozen
class Bound:
    what: str
    held: int
    limit: int


class UnboundedError(AssertionError):
    """A node holds more than it may."""


def check_bounds(engine: Engine, forged: int = 0) -> None:
    """Raises `UnboundedError` naming what is too much.

    `forged`: how many certificates more than 1/3 have signed that contradict others, which section 11.1 rules
    out and a fuzzer with everybody's keys does not.
    """
    for bound in bounds(engine, forged):
        if bound.held > bound.limit:
            raise UnboundedError(f"{bound.what}: {bound.held}, at most {bound.limit}")


def bounds(engine: Engine, forged: int = 0) -> Iterator[Bound]:
    """Everything that grows with what others send; all of it is read, nothing changed."""
    members = len(engine.genesis.members) + len(engine.state.accounts)
    validators = len(engine.state.validators)
    yield from _of_statements(engine, members)
    yield from _of_agreement(engine, validators, forged)
    yield from _of_round(engine, members)
    talks, desk = engine.negotiation, engine.desk
    for peer, early in talks.early_messages().items():
        yield Bound(f"early messages of {peer.hex()[:8]}", early, EARLY_MESSAGES)
    for peer, waiting in talks.early_bytes().items():
        yield Bound(f"bytes of early messages of {peer.hex()[:8]}", waiting, EARLY_BYTES)
    yield Bound("peers with early messages", len(talks.early_messages()), members)
    yield Bound("peers helped", len(talks._helped_ms), members)
    yield Bound("peers told", len(engine.repair._told_ms), members)
    yield Bound("providers of blocks", engine.sync.providers(), members)
    yield Bound("replies with blocks", len(engine._replies), members)
    yield Bound("peers served", engine.serving.peers(), members)
    yield Bound("reasons of refusals", len(engine.rejects), REASONS)
    yield Bound("blobs that are fetched", len(desk.fetching), 4 * members)
    yield Bound("blobs that nobody gave", len(desk.unavailable), 4 * members)
    yield Bound("blobs", len(desk.blobs), 8 * members)
    yield Bound("blobs with a round", len(desk.blob_rounds), 12 * members)


def _of_statements(engine: Engine, members: int) -> Iterator[Bound]:
    """What is kept of each sender; evidence from the agreement comes on top, up to one pair a place."""
    most, kept = most_kept(engine.genesis.params, members), kept_by(engine)
    places = 3 * (1 + engine.agreement.view)
    for sender, held in kept["statements"].items():
        yield Bound(f"statements of {sender.hex()[:8]}", held, most["statements"] + 2 * places)
    yield Bound("rows of the pool", len(engine.pool._rows), 4 * len(Kind))
    yield Bound("conflicts", len(engine.pool.conflicts), members * (most["statements"] + places))
    cited = engine.cited
    yield Bound("cited envelopes", len(cited._opened), CACHE_SIZE)
    yield Bound("bytes of cited envelopes", cited.held_bytes, CACHE_BYTES)


def _of_agreement(engine: Engine, validators: int, forged: int) -> Iterator[Bound]:
    """Of one height. A view is entered only with a quorum of time-outs, or with a certificate."""
    agreement = engine.agreement
    views = agreement.view
    yield Bound("time-outs", sum(map(len, agreement._timeouts.values())), 3 * validators)
    yield Bound("bulk of time-outs", _bulk_of_timeouts(engine), 0)
    yield Bound("proposals", len(agreement._proposals), 2)
    yield Bound("blocks", len(agreement._blocks), 2 * views + 2 + forged)
    yield Bound("votes", sum(map(len, agreement._votes.values())), 2 * (views + 1) * validators)
    yield Bound("voters", len(agreement._voted), 2 * (views + 1) * validators)
    yield Bound("blocks under judgement", len(engine.judging._waiting), 2 + forged)
    yield Bound("effects of blocks", len(engine.judging.effects), 2 * views + 2 + forged)
    yield Bound("Readys", len(engine.negotiation.readiness._readys), validators)


def _bulk_of_timeouts(engine: Engine) -> int:
    """Blocks that ride on time-outs are kept once, apart."""
    held = engine.agreement._timeouts.values()
    return sum(len(s.envelope.payload) for senders in held for s in senders.values())


def _of_round(engine: Engine, members: int) -> Iterator[Bound]:
    memory = engine.desk.memory
    yield Bound("share packages", len(memory.packages), members)
    yield Bound("sealed boxes", len(memory.boxes), members)
    yield Bound("zs", len(memory.zs), members)
    yield Bound("releases that were counted", len(memory.released), 2 * (1 + CHECK_RELEASES) * members)
    yield Bound("shares of one release", max(map(len, memory.released), default=0), 3 * members)
    yield Bound("uploads that were checked", len(memory.checked_uploads | memory.bad_uploads), 4 * members)
    yield Bound("jobs", len(memory.started), JOBS_OF_A_ROUND)
