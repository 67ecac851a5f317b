"""One masked aggregation in miniature: real masks, uploads and commitments, and a node that verifies them."""

from collections.abc import Sequence
from hashlib import sha256

import numpy as np
import numpy.typing as npt
from attrs import define, field

from protocol.algebra import field as gf
from protocol.algebra.field import FieldVec
from protocol.secagg import masking
from protocol.secagg.commitment import Commitment, LatticeCommitment, SingularCommitment, blind, unblind
from protocol.secagg.interpolation import Interpolation, Points, check_values, padding_is_zero
from protocol.secagg.verification import Verdict, eq18_holds, verdict

Int64Vec = npt.NDArray[np.int64]

NETWORK = sha256(b"network").digest()
ROUND = 3
BITS = 20
LENGTH = 300

LATTICE = LatticeCommitment(NETWORK, LENGTH, BITS)
SINGULAR = SingularCommitment(sha256(b"U").digest(), LENGTH, group_size=16, rank=2, bits=BITS)
ROOTS = Interpolation("roots", 64)
ARBITRARY = Interpolation("arbitrary", 24)


def seed(*parts: object) -> bytes:
    return sha256(repr(parts).encode()).digest()


def random_update(who: int, length: int = LENGTH) -> Int64Vec:
    return np.random.default_rng(who).integers(-(2 ** (BITS - 1)), 2 ** (BITS - 1), length)


@define
class Findings:
    """What a verifying node finds."""

    eq18: bool
    eq19: bool
    bounded: bool
    extended_sum: Int64Vec

    @property
    def verdict(self) -> Verdict:
        return verdict(self.eq18, self.eq19, self.bounded)


@define
class MaskedRound:
    """Proposers 0..n-1, all of whom survive. `updates` are their q_i; they may be out of range on purpose."""

    commitment: Commitment
    interpolation: Interpolation
    updates: Sequence[Int64Vec]
    blinded: bool = True
    openings: list[Int64Vec] = field(init=False)
    points: Points = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.openings = [
            np.concatenate([q, self.commitment.opening_randomness(seed("opening", i))])
            for i, q in enumerate(self.updates)
        ]
        self.points = self.interpolation.points_from(seed("z"), self.masked_length)

    @property
    def n(self) -> int:
        return len(self.updates)

    @property
    def masked_length(self) -> int:
        return self.commitment.length + self.commitment.extra()

    @property
    def true_sum(self) -> Int64Vec:
        return np.sum(self.openings, axis=0)

    def peer(self, i: int) -> bytes:
        return seed("peer", i)

    def rho(self, i: int) -> bytes:
        return seed("rho", i)

    def checks(self, i: int) -> FieldVec:
        return check_values(self.rho(i), self.interpolation.groups(self.masked_length))

    def masked(self, i: int) -> FieldVec:
        pairs = {j: seed("pair", min(i, j), max(i, j)) for j in range(self.n) if j != i}
        return masking.mask(gf.from_signed(self.openings[i]), i, pairs, seed("self", i))

    def upload(self, i: int, checks: FieldVec | None = None) -> FieldVec:
        honest = self.checks(i) if checks is None else checks
        return self.interpolation.interpolate(self.masked(i), honest, self.points)

    def sum_of(self, uploads: Sequence[FieldVec]) -> FieldVec:
        total = np.zeros(self.interpolation.coefficients_shape(self.masked_length), dtype=np.uint32)
        for upload in uploads:
            gf.accumulate(total, upload)
        return total

    def aggregate(self) -> FieldVec:
        return self.sum_of([self.upload(i) for i in range(self.n)])

    def published(self, i: int) -> FieldVec:
        return self.publish(i, self.commitment.commit(self.openings[i]))

    def publish(self, i: int, committed: FieldVec) -> FieldVec:
        if not self.blinded:
            return committed
        return blind(committed, self.rho(i), NETWORK, ROUND, self.peer(i))

    def honest_commitments(self) -> list[FieldVec]:
        return [self.published(i) for i in range(self.n)]

    def read(self, i: int, published: FieldVec) -> FieldVec:
        if not self.blinded:
            return published
        return unblind(published, self.rho(i), NETWORK, ROUND, self.peer(i))

    def forge(self, delta: Int64Vec) -> FieldVec:
        """What one who knows z adds to B so that the sum moves by delta and no hidden value moves."""
        silent = np.zeros(self.points.hidden.size, dtype=np.uint32)
        return self.interpolation.interpolate(gf.from_signed(delta), silent, self.points)

    def verify(self, coefficients: FieldVec, commitments: Sequence[FieldVec] | None = None) -> Findings:
        """Phase 4 at an honest node: everything pinned is known, every rho_i revealed."""
        published = self.honest_commitments() if commitments is None else commitments
        rhos = [self.rho(i) for i in range(self.n)]
        values = self.interpolation.evaluate_padded(coefficients, self.points)
        self_seeds = [seed("self", i) for i in range(self.n)]
        extended_sum = gf.to_signed(masking.unmask(values[: self.masked_length], self_seeds, []))
        total = self.commitment.add([self.read(i, c) for i, c in enumerate(published)])
        opened = self.commitment.opens(total, extended_sum, self.n, self.commitment.challenge(rhos))
        return Findings(
            eq18=eq18_holds(coefficients, self.points, self.interpolation, rhos),
            eq19=opened and padding_is_zero(values, self.masked_length),
            bounded=self.commitment.within_bound(extended_sum, self.n),
            extended_sum=extended_sum,
        )
