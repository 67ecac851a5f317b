"""What the Readys of a block say, counted (docs/PROTOCOL.md section 3, "Who closes a phase").

"Complete" and "in time" are private observations, so a block never rests on them: it rests on the
signed Readys of more than 2/3 of the validators that it embeds, and every set that it pins is a
function of these.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Set
from functools import cached_property, lru_cache

from protocol.certificates import more_than_third, quorum
from protocol.messages import Held, Kind, Ready

LATE = 1
"""The hard deadline of the phase has passed."""
GAVE_UP = 2
"""Many hard deadlines have passed: the last resort against a phase that nothing can close."""


def bitmap(roster: tuple[bytes, ...], members: Set[bytes]) -> bytes:
    """Bit i (little-endian) says whether roster entry i is in `members`; trailing zero bytes are cut."""
    value = 0
    for index, peer in enumerate(roster):
        if peer in members:
            value |= 1 << index
    return value.to_bytes((value.bit_length() + 7) // 8, "little")


@lru_cache(maxsize=256)
def members_of(roster: tuple[bytes, ...], bits: bytes) -> frozenset[bytes]:
    """The inverse of `bitmap`; bits beyond the roster say nothing. Most nodes say the same."""
    value = int.from_bytes(bits, "little")
    return frozenset(peer for index, peer in enumerate(roster) if value >> index & 1)


def held_of(roster: tuple[bytes, ...], held: Mapping[int, Set[bytes]]) -> tuple[Held, ...]:
    """The wire form of what is held, by kind."""
    return tuple(Held(int(kind), bitmap(roster, held[kind])) for kind in sorted(held) if held[kind])


class Tally:
    """Counts over the Readys of distinct validators. Kinds are `protocol.messages.Kind`."""

    def __init__(self, validators: tuple[bytes, ...], readys: Iterable[tuple[bytes, Ready]]) -> None:
        self.validators = validators
        self.readys = dict(sorted(readys))
        self._attested: dict[int, tuple[bytes, ...]] = {}

    @cached_property
    def held(self) -> dict[bytes, dict[int, frozenset[bytes]]]:
        """By peer, then by kind; not read before there is a quorum."""
        return {
            peer: {entry.kind: members_of(self.validators, entry.bitmap) for entry in ready.held}
            for peer, ready in self.readys.items()
        }

    @property
    def is_quorum(self) -> bool:
        return len(self.readys) >= quorum(len(self.validators))

    def is_late(self, level: int = LATE) -> bool:
        """More than 2/3 of all validators say that the deadline of this level has passed."""
        late = sum(ready.late >= level for ready in self.readys.values())
        return late >= quorum(len(self.validators))

    def count(self, kind: Kind, subject: bytes, among: Set[bytes] | None = None) -> int:
        """How many (of `among`) hold the statement of this kind about this peer."""
        return sum(
            subject in held.get(kind, ())
            for peer, held in self.held.items()
            if among is None or peer in among
        )

    def attested(self, kind: Kind) -> tuple[bytes, ...]:
        """Peers whose statement of this kind more than 1/3 of *all* validators hold, in order."""
        known = self._attested.get(kind)
        if known is None:
            least = more_than_third(len(self.validators))
            counts = Counter(peer for held in self.held.values() for peer in held.get(kind, ()))
            known = self._attested[kind] = tuple(peer for peer in self.validators if counts[peer] >= least)
        return known

    def holders(self, digest: bytes) -> int:
        """How many hold this blob."""
        return sum(digest in ready.blobs for ready in self.readys.values())

    def held_by_quorum(self, digest: bytes) -> bool:
        return self.holders(digest) >= quorum(len(self.validators))

    @property
    def no_blob_gathers(self) -> bool:
        """Whatever blob one names, more than 1/3 of all validators say here that they do not hold it."""
        least = more_than_third(len(self.validators))
        named = {digest for ready in self.readys.values() for digest in ready.blobs}
        return all(len(self.readys) - self.holders(digest) >= least for digest in sorted(named)) and (
            len(self.readys) >= least
        )
