"""What accomplices tell each other while a round runs."""

from __future__ import annotations

from attrs import define, field

from protocol.jobs import ContributeJob


@define(eq=False)
class Hoard:
    """Uploads that the `members` of a coalition keep to themselves."""

    members: set[bytes] = field(factory=set, converter=set)
    digests: set[bytes] = field(factory=set)

    def served(self, digest: bytes, peer: bytes, data: bytes) -> bytes | None:
        return None if digest in self.digests and peer not in self.members else data


@define(eq=False)
class Coalition:
    """Shared by the filters of all accomplices.

    `jobs`: contributions of accomplices by (round, place among the proposers): the z root, the context with
    the singular matrices' seed, the update and every secret of it. `boxes`: sealed share boxes that were
    overheard, by (round, dealer, holder). `hoard`: uploads that only members are given. `challenges`: the
    pair of challenge seeds that its rushers agreed on, by round; None where they found none.
    """

    jobs: dict[tuple[int, int], ContributeJob] = field(factory=dict)
    boxes: dict[tuple[int, bytes, bytes], bytes] = field(factory=dict)
    hoard: Hoard = field(factory=Hoard)
    challenges: dict[int, tuple[bytes, bytes] | None] = field(factory=dict)

    def job_of(self, round_: int) -> ContributeJob | None:
        """Any accomplice's contribution of this round: what z and U are learned from."""
        return next((job for (told, _), job in sorted(self.jobs.items()) if told == round_), None)
