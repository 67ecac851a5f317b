"""How a peer stands with this node: scored by what it does, throttled, refused for a while, readmitted.

After the shape of gossipsub v1.1's peer score (one number for each peer that offences lower and time raises,
with thresholds), reduced to what a network of known members needs. No clock here: time is an argument, in
seconds of any monotonic clock. docs/PROTOCOL.md section 8.7 has the rules and the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

from attrs import define, field, frozen
from attrs.validators import gt, lt

from protocol.keys import PeerId

WEIGHTS: Final[Mapping[str, float]] = {
    # What an honest peer on another round, or behind a bad link, sends too.
    "stale": 0.0,
    "early": 0.0,
    "unasked": 0.0,
    "silent": 0.0,
    "write-timeout": 0.0,
    "outbox-overflow": 0.0,
    # Dropped because this node is slow.
    "inbox-full": 0.0,
    # Of another network or version, or newer than this node: an accident of its operator or of ours.
    "version": 0.0,
    "network": 0.0,
    "kind": 0.0,
    # Of nobody that this node knows.
    "stranger": 2.0,
    # Signed, and of no use to anybody: a member that means well does not make them.
    "slot": 5.0,
    "size": 5.0,
    "weight": 5.0,
    "relayed": 5.0,
    "oversized": 10.0,
    "payload": 10.0,
    "key": 10.0,
    "seal": 10.0,
    "z-reply": 10.0,
    "bad-chunk": 10.0,
    "block": 10.0,
    "agreement": 10.0,
    "share": 10.0,
    # Forged, or no message at all: nothing that an honest sender signs arrives like this.
    "oversize": 20.0,
    "unasked-chunk": 20.0,
    "flood": 20.0,
    "second-message-stream": 20.0,
    "malformed-gossip": 20.0,
    "evidence": 20.0,
    "malformed": 20.0,
    "signature": 20.0,
    # What this node's own code failed on: perhaps no malice, but each costs a new engine.
    "fault": 20.0,
}
"""By reason of `protocol.offences`, and of the transport's own."""
OTHER_WEIGHT: Final = 10.0
"""Of a reason that is not listed."""


@frozen(kw_only=True)
class Limits:
    """What a peer may do. Sizes in bytes, times in seconds, scores in the units of `WEIGHTS`.

    An allowance is a token bucket: so much at once, refilled at so much a second.
    """

    throttle_at: float = field(default=-15.0, validator=lt(0.0))
    refuse_at: float = field(default=-50.0, validator=lt(0.0))
    recovery_per_s: float = field(default=0.2, validator=gt(0.0))
    messages: float = field(default=2_000.0, validator=gt(0.0))
    messages_per_s: float = field(default=200.0, validator=gt(0.0))
    size_bytes: float = field(default=float(64 << 20), validator=gt(0.0))
    bytes_per_s: float = field(default=float(8 << 20), validator=gt(0.0))
    repeats: float = field(default=500.0, validator=gt(0.0))
    repeats_per_s: float = field(default=50.0, validator=gt(0.0))
    throttled_share: float = field(default=1 / 16, validator=gt(0.0))
    """What is left of each allowance to a peer that is throttled."""
    excess_weight: float = field(default=0.05, validator=gt(0.0))
    """Of each message above an allowance."""
    remembered: int = field(default=2_048, validator=gt(0))
    """Of so many messages it is known whether one repeats them."""
    refusal_s: float = field(default=30.0, validator=gt(0.0))
    longest_refusal_s: float = field(default=1_800.0, validator=gt(0.0))
    forgive_s: float = field(default=1_800.0, validator=gt(0.0))
    """After so long without a refusal one refusal less is held against a peer."""

    def __attrs_post_init__(self) -> None:
        if self.refuse_at >= self.throttle_at:
            raise ValueError("refuse_at must be below throttle_at")
        if self.longest_refusal_s < self.refusal_s:
            raise ValueError("longest_refusal_s must not be below refusal_s")


class Level(Enum):
    """What a score comes to."""

    GOOD = "good"
    THROTTLED = "throttled"
    REFUSED = "refused"


@frozen
class Standing:
    """One peer's, for statistics and logs. `used`: the largest share of an allowance it ever took at once."""

    score: float
    level: Level
    dropped: int
    refusals: int
    used: float


@define
class _Bucket:
    """An allowance: `size` at once, refilled at `per_s`."""

    size: float
    per_s: float
    taken: float = 0.0
    at_s: float = 0.0

    def fits(self, amount: float, share: float, now_s: float) -> bool:
        """Is there room for `amount` within this share of the allowance?"""
        self.taken = max(0.0, self.taken - max(0.0, now_s - self.at_s) * self.per_s * share)
        self.at_s = max(self.at_s, now_s)
        return self.taken + amount <= max(self.size * share, amount)

    @property
    def used(self) -> float:
        return self.taken / self.size


@define(eq=False)
class _Peer:
    """What is remembered of one peer."""

    messages: _Bucket
    sizes: _Bucket
    repeats: _Bucket
    at_s: float
    score: float = 0.0
    dropped: int = 0
    strikes: int = 0
    refusals: int = 0
    refused_until_s: float | None = None
    forgiven_s: float = 0.0
    used: float = 0.0
    heard: dict[int, None] = field(factory=dict)


@define(eq=False)
class Standings:
    """Of all peers of one node. Every method takes the time; it never runs backwards."""

    limits: Limits = field(factory=Limits)
    _peers: dict[PeerId, _Peer] = field(factory=dict, init=False)

    def offend(self, peer: PeerId, reason: str, now_s: float) -> Level:
        """Something that no honest peer does. The level afterwards; REFUSED is for the caller to enforce."""
        return self._lower(self._at(peer, now_s), WEIGHTS.get(reason, OTHER_WEIGHT), now_s)

    def admits(self, peer: PeerId, message: bytes, now_s: float) -> bool:
        """May this message go to the node? If not it is to be dropped; the score has been lowered a little.

        A repetition is measured against an allowance of its own, too.
        """
        known = self._at(peer, now_s)
        if self._level(known) is Level.REFUSED:
            known.dropped += 1
            return False
        share = 1.0 if self._level(known) is Level.GOOD else self.limits.throttled_share
        due = [(known.messages, 1.0), (known.sizes, float(len(message)))]
        if self._repeats(known, message):
            due.append((known.repeats, 1.0))
        # Each bucket is brought up to date, whichever of them overflows.
        fitting = [bucket.fits(amount, share, now_s) for bucket, amount in due]
        if not all(fitting):
            known.dropped += 1
            self._lower(known, self.limits.excess_weight, now_s)
            return False
        for bucket, amount in due:
            bucket.taken += amount
            known.used = max(known.used, bucket.used)
        return True

    def level(self, peer: PeerId, now_s: float) -> Level:
        return self._level(self._at(peer, now_s))

    def refused_for_s(self, peer: PeerId, now_s: float) -> float:
        """Seconds until the peer is welcome again, 0 when it is."""
        until_s = self._at(peer, now_s).refused_until_s
        return 0.0 if until_s is None else max(0.0, until_s - now_s)

    def standing(self, peer: PeerId, now_s: float) -> Standing:
        known = self._at(peer, now_s)
        return Standing(known.score, self._level(known), known.dropped, known.refusals, known.used)

    def all(self, now_s: float) -> Mapping[PeerId, Standing]:
        """Of every peer that was heard of."""
        return {peer: self.standing(peer, now_s) for peer in self._peers}

    # -- rules -----------------------------------------------------------------------------------

    def _at(self, peer: PeerId, now_s: float) -> _Peer:
        """What is known of the peer, with what time has healed."""
        known = self._peers.get(peer)
        if known is None:
            limits = self.limits
            known = self._peers[peer] = _Peer(
                messages=_Bucket(limits.messages, limits.messages_per_s),
                sizes=_Bucket(limits.size_bytes, limits.bytes_per_s),
                repeats=_Bucket(limits.repeats, limits.repeats_per_s),
                at_s=now_s,
            )
        if known.refused_until_s is not None and now_s >= known.refused_until_s:
            # Back on trial: throttled until it has behaved for a while.
            known.refused_until_s, known.forgiven_s = None, now_s
            known.score, known.at_s = self.limits.throttle_at, now_s
        known.score = min(0.0, known.score + max(0.0, now_s - known.at_s) * self.limits.recovery_per_s)
        known.at_s = max(known.at_s, now_s)
        if known.strikes and now_s - known.forgiven_s >= self.limits.forgive_s:
            known.strikes, known.forgiven_s = known.strikes - 1, now_s
        return known

    def _level(self, known: _Peer) -> Level:
        if known.refused_until_s is not None:
            return Level.REFUSED
        return Level.THROTTLED if known.score <= self.limits.throttle_at else Level.GOOD

    def _lower(self, known: _Peer, weight: float, now_s: float) -> Level:
        known.score -= weight
        if known.score <= self.limits.refuse_at and known.refused_until_s is None:
            longest = self.limits.longest_refusal_s
            refusal_s = min(longest, self.limits.refusal_s * 2.0 ** min(known.strikes, 32))
            known.refused_until_s = now_s + refusal_s
            known.strikes += 1
            known.refusals += 1
        return self._level(known)

    def _repeats(self, known: _Peer, message: bytes) -> bool:
        """Was this very message among the last that the peer sent?"""
        # Process-local and never sent: Python's own keyed hash is enough to tell messages apart.
        name = hash(message)
        repeated = known.heard.pop(name, name) is None
        known.heard[name] = None
        if len(known.heard) > self.limits.remembered:
            del known.heard[next(iter(known.heard))]
        return repeated
