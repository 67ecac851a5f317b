"""Linear commitments to an update: what eq. 19 checks the published sum against.

docs/PROTOCOL.md section 5. Two schemes behind one interface:

- `LatticeCommitment` (hardened profile): C = sum_j a_j x_j + e + a' s over F_p[X]/(X^n + 1), n = 2048.
  Binding is ring-SIS in the infinity norm, hiding is ring-LWE (security.py). It is the commitment of C. Baum
  et al., "More Efficient Commitments from Structured Lattice Assumptions", SCN 2018, with the message among
  the short unknowns as in Ajtai's hash (STOC 1996), so that its size does not depend on the update's.
- `SingularCommitment` (the paper's): C[k] = U q[k] with a singular U; VCD-FL, "commitment generation".
  Broken: anything in the kernel of U can be added to the sum unseen, and C[k] gives away rank(U) equations
  about q[k].

Both are linear, so whoever commits last can steer the sum of all; `blind` hides them until the reveal.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
from attrs import Attribute, field, frozen, validators

from protocol.algebra import field as gf
from protocol.algebra import ntt
from protocol.algebra.field import FieldVec, Int64Vec
from protocol.secagg.encoding import MAX_VALUE_BITS, sum_bound
from protocol.secagg.rejection import first_accepted
from protocol.secagg.security import RING_DIMENSION

_KEY = b"lattice key"
_OPENING = b"opening"
_CHALLENGE = b"challenge"
_BLINDING = b"commit"
_U_LEFT = b"singular left"
_U_RIGHT = b"singular right"


class CommitmentError(ValueError):
    """A seed, a vector or a choice of sizes that does not fit the commitment."""


def _thirty_two_bytes(_: object, attribute: "Attribute[bytes]", seed: bytes) -> None:
    if len(seed) != gf.SEED_BYTES:
        raise CommitmentError(f"{attribute.name}: {len(seed)} bytes, expected {gf.SEED_BYTES}")


def _value_bits(_: object, attribute: "Attribute[int]", bits: int) -> None:
    if not 1 <= bits <= MAX_VALUE_BITS:
        raise CommitmentError(f"{attribute.name}: {bits}, outside 1..{MAX_VALUE_BITS}")


class Commitment(ABC):
    """A linear map of updates of `length` coordinates, each in [-2^(bits-1), 2^(bits-1)).

    It acts on the *extended* update, int64[length + extra]: the update followed by its opening randomness,
    all of which is masked and encoded. Whatever has another shape is refused with a CommitmentError.
    """

    length: int
    bits: int

    @abstractmethod
    def extra(self) -> int:
        """Number of masked coordinates that follow the update."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Number of field elements of a commitment."""

    @abstractmethod
    def opening_randomness(self, seed: bytes) -> Int64Vec:
        """The int64[extra] that follows the update; `seed` is fresh for each contribution and secret."""

    @abstractmethod
    def commit(self, extended: Int64Vec) -> FieldVec:
        """uint32[size], linear in `extended` over F_p."""

    @abstractmethod
    def challenge(self, seeds: Iterable[bytes]) -> FieldVec | None:
        """The joint challenge R = sum_i R_i of VCD-FL eq. 19, or None where the scheme has no use for one."""

    @abstractmethod
    def opens(
        self, total: FieldVec, extended_sum: Int64Vec, contributors: int, challenge: FieldVec | None
    ) -> bool:
        """VCD-FL eq. 19: whether `extended_sum` is what the commitments summed in `total` commit to."""

    def within_bound(self, extended_sum: Int64Vec, contributors: int) -> bool:
        """Whether every coordinate x has |x| <= contributors * 2^(bits-1), as sums of honest updates do."""
        self._require_extended(extended_sum)
        bound = sum_bound(contributors, self.bits)
        lowest, highest = int(extended_sum.min()), int(extended_sum.max())
        return -bound <= lowest and highest <= bound

    def add(self, commitments: Sequence[FieldVec]) -> FieldVec:
        """The sum of the commitments, which commits to the sum of the updates; uint32[size]."""
        total = np.zeros(self.size, dtype=np.uint32)
        for commitment in commitments:
            self._require_commitment(commitment)
            gf.accumulate(total, commitment)
        return total

    def _require_extended(self, extended: Int64Vec) -> None:
        expected = (self.length + self.extra(),)
        if extended.shape != expected or extended.dtype != np.int64:
            raise CommitmentError(
                f"extended update: {extended.dtype}{extended.shape}, expected int64{expected}"
            )

    def _require_commitment(self, commitment: FieldVec) -> None:
        if commitment.shape != (self.size,) or commitment.dtype != np.uint32:
            raise CommitmentError(
                f"commitment: {commitment.dtype}{commitment.shape}, expected uint32({self.size},)"
            )


# --- lattice ----------------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def lattice_key(network: bytes, blocks: int) -> FieldVec:
    """a', a_0 .. a_(blocks-1) of a network, uint32[blocks + 1, n], in the form of `ntt.negacyclic_ntt`.

    Their coefficients are expand(network, "lattice key", (blocks + 1) n) in this order, so the key of a
    shorter update is a prefix of that of a longer one. Derived from the genesis hash, it has no trapdoor.
    """
    coefficients = gf.expand(network, _KEY, (blocks + 1) * RING_DIMENSION)
    key = ntt.negacyclic_ntt(coefficients.reshape(blocks + 1, RING_DIMENSION))
    key.flags.writeable = False
    return key


@frozen
class LatticeCommitment(Commitment):
    """C = sum_j a_j x_j + e + a' s; x_j are the blocks of n coordinates, the last one zero padded.

    Extended updates are q || e || s, with e and s as wide as the data, because their sums are published. The
    2048 numbers (8 kB) are the coefficients of C, whatever the length.
    """

    network: bytes = field(validator=_thirty_two_bytes)
    length: int = field(validator=validators.ge(1))
    bits: int = field(validator=_value_bits)

    @property
    def blocks(self) -> int:
        """Number of ring elements the update fills."""
        return -(-self.length // RING_DIMENSION)

    def extra(self) -> int:
        """2 n: the coefficients of e, then those of s."""
        return 2 * RING_DIMENSION

    @property
    def size(self) -> int:
        """n = 2048."""
        return RING_DIMENSION

    def opening_randomness(self, seed: bytes) -> Int64Vec:
        """e || s, int64[2n], exactly uniform in [-2^(bits-1), 2^(bits-1)).

        The low bits of the words of expand(seed, "opening"); p - 1 is a multiple of 2^24, so that skipping
        the one word p - 1 leaves every residue modulo 2^bits equally often.
        """
        words = first_accepted(seed, _OPENING, self.extra(), lambda words: words != gf.P - 1)
        low_bits = (words & np.uint32((1 << self.bits) - 1)).astype(np.int64)
        return low_bits - (1 << (self.bits - 1))

    def commit(self, extended: Int64Vec) -> FieldVec:
        """C as coefficients, uint32[n], for q || e || s."""
        self._require_extended(extended)
        residues = gf.from_signed(extended)
        e, s = residues[self.length :].reshape(2, RING_DIMENSION)
        unknowns = np.zeros((self.blocks + 1, RING_DIMENSION), dtype=np.uint32)
        unknowns[0] = s
        unknowns[1:].reshape(-1)[: self.length] = residues[: self.length]
        products = gf.mul(ntt.negacyclic_ntt(unknowns), lattice_key(self.network, self.blocks))
        total = (products.sum(axis=0, dtype=np.uint64) % gf.P).astype(np.uint32)
        return gf.add(ntt.negacyclic_intt(total), e)

    def challenge(self, seeds: Iterable[bytes]) -> None:
        """None: the whole opening is recomputed, nothing is left to chance."""

    def opens(
        self, total: FieldVec, extended_sum: Int64Vec, contributors: int, challenge: FieldVec | None
    ) -> bool:
        """Whether the sum q || e || s is short enough to bind and commits to `total`; challenge is unused."""
        self._require_commitment(total)
        return self.within_bound(extended_sum, contributors) and bool(
            np.array_equal(self.commit(extended_sum), total)
        )


# --- singular ---------------------------------------------------------------------------------------------


def challenge_vector(seed: bytes, length: int) -> FieldVec:
    """R_i = expand(seed, "challenge"), uint32[length], one element for each padded coordinate."""
    return gf.expand(seed, _CHALLENGE, length)


@lru_cache(maxsize=4)
def singular_factors(u_seed: bytes, group_size: int, rank: int) -> tuple[FieldVec, FieldVec]:
    """L uint32[M', r] and W uint32[r, M'] with U = L W: expand(u_seed, "singular left") and "... right"."""
    left = gf.expand(u_seed, _U_LEFT, group_size * rank).reshape(group_size, rank)
    right = gf.expand(u_seed, _U_RIGHT, rank * group_size).reshape(rank, group_size)
    return left, right


@frozen
class SingularCommitment(Commitment):
    """C[k] = U q[k] for every group q[k] of M' coordinates, U = L W an M' x M' matrix of rank r < M'.

    Sent as the r numbers W q[k], which determine L W q[k] and, L having full rank but for a negligible
    chance, are determined by it. The extended update is the update: there is no opening randomness.
    """

    u_seed: bytes = field(validator=_thirty_two_bytes)
    length: int = field(validator=validators.ge(1))
    group_size: int = field(validator=validators.ge(2))
    rank: int = field(validator=validators.ge(1))
    bits: int = field(default=MAX_VALUE_BITS, validator=_value_bits)

    def __attrs_post_init__(self) -> None:
        if self.rank >= self.group_size:
            raise CommitmentError(f"rank {self.rank} of U is not below its dimension {self.group_size}")

    @property
    def groups(self) -> int:
        """ceil(length / M')."""
        return -(-self.length // self.group_size)

    @property
    def challenge_length(self) -> int:
        """Coordinates of the challenge: the length, padded to whole groups."""
        return self.groups * self.group_size

    def extra(self) -> int:
        """0."""
        return 0

    @property
    def size(self) -> int:
        """r numbers for every group."""
        return self.rank * self.groups

    def matrix(self) -> FieldVec:
        """U itself, uint32[M', M']."""
        return gf.matmul(*singular_factors(self.u_seed, self.group_size, self.rank))

    def opening_randomness(self, seed: bytes) -> Int64Vec:
        """Empty."""
        return np.empty(0, dtype=np.int64)

    def commit(self, extended: Int64Vec) -> FieldVec:
        """W q[k] of every group after the other, uint32[size]."""
        _, right = singular_factors(self.u_seed, self.group_size, self.rank)
        return gf.matmul(self._grouped(extended), right.T).reshape(-1)

    def challenge(self, seeds: Iterable[bytes]) -> FieldVec:
        """R = sum_i expand(seed_i, "challenge"), uint32[challenge_length]."""
        total = np.zeros(self.challenge_length, dtype=np.uint32)
        for seed in seeds:
            gf.expand_into(total, seed, _CHALLENGE, 1)
        return total

    def opens(
        self, total: FieldVec, extended_sum: Int64Vec, contributors: int, challenge: FieldVec | None
    ) -> bool:
        """S . g = sum_i R . C_i with S[k] = R[k] U; C_i[k] in full is L times what was sent.

        The paper's equation alone: a delta with U delta = 0 is not seen, and no bound is part of it.
        CommitmentError without a challenge of `challenge_length` elements.
        """
        self._require_commitment(total)
        if challenge is None or challenge.shape != (self.challenge_length,):
            raise CommitmentError(f"challenge: eq. 19 needs {self.challenge_length} elements")
        left, right = singular_factors(self.u_seed, self.group_size, self.rank)
        reduced = gf.matmul(challenge.reshape(self.groups, self.group_size), left)
        verification = gf.matmul(reduced, right)
        claimed = gf.dot(verification.reshape(-1), self._grouped(extended_sum).reshape(-1))
        return claimed == gf.dot(reduced.reshape(-1), total)

    def _grouped(self, extended: Int64Vec) -> FieldVec:
        self._require_extended(extended)
        padded = np.zeros(self.challenge_length, dtype=np.uint32)
        padded[: self.length] = gf.from_signed(extended)
        return padded.reshape(self.groups, self.group_size)


# --- blinding ---------------------------------------------------------------------------------------------


def _blinding_label(network: bytes, round_: int, peer: bytes) -> bytes:
    return _BLINDING + network + round_.to_bytes(8, "big") + peer


def blind(commitment: FieldVec, check_seed: bytes, network: bytes, round_: int, peer: bytes) -> FieldVec:
    """C_i + expand(rho_i, "commit" || network || round (8 bytes, big endian) || peer), a new uint32[size].

    Unreadable until rho_i is revealed, after the aggregate is pinned: a linear commitment in the clear lets
    the last proposer commit to X minus the sum of the others without knowing them (docs/PROTOCOL.md section
    3).
    """
    blinded = commitment.copy()
    gf.expand_into(blinded, check_seed, _blinding_label(network, round_, peer), 1)
    return blinded


def unblind(blinded: FieldVec, check_seed: bytes, network: bytes, round_: int, peer: bytes) -> FieldVec:
    """The inverse of `blind`, a new uint32[size]."""
    commitment = blinded.copy()
    gf.expand_into(commitment, check_seed, _blinding_label(network, round_, peer), -1)
    return commitment
