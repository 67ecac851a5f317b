"""What accomplices tell each other while a round runs."""

from __future__ import annotations

from attrs import define, field

from protocol.jobs import ContributeJob


@define(eq=False)
class Coalition:
    """Shared by the filters of all accomplices.

    `jobs`: contributions of accomplices by (round, place among the proposers): the z root, the context with
    the singular matrices' seed, the update and every secret of it. `boxes`: sealed share boxes that were
    overheard, by (round, dealer, holder).
    """

    jobs: dict[tuple[int, int], ContributeJob] = field(factory=dict)
    boxes: dict[tuple[int, bytes, bytes], bytes] = field(factory=dict)

    def job_of(self, round_: int) -> ContributeJob | None:
        """Any accomplice's contribution of this round: what z and U are learned from."""
        return next((job for (told, _), job in sorted(self.jobs.items()) if told == round_), None)
