"""Every number and every choice of a network, validated (docs/PROTOCOL.md sections 2, 6 and 9).

The parameters are part of the genesis, the genesis hash is the network's id, so two nodes that
disagree on any of them cannot exchange a single statement.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from attrs import Attribute, evolve, field, frozen, validators

from protocol.codec import LEFT_OUT, bounded_bytes, bytes_of, decode, digest, encode, int_range
from protocol.ledger.adaptive import AdaptiveGamma
from protocol.ledger.judgement import Judgement
from protocol.ledger.pace import Pace

MICRO = 10**6
"""Micro-units in one: of a token, of a loss, of the clipping bound."""

DEFAULT_GAMMA_UNITS = 8 * MICRO
DEFAULT_TOLERANCE_MICRO = MICRO // 10
MAX_DIMENSION = 1 << 24
MAX_NODES = 4096
MAX_WEIGHT = 1 << 16
"""The most samples that a node can claim."""
GENESIS_BYTES = 4 << 20
MAX_SUPPLY_UNITS = 1 << 60
"""Of all accounts and the pool together: whoever gets it all has a stake that any record can carry."""


class ParamsError(ValueError):
    """A network's parameters do not fit together; the message names the parameter."""


class Setup(Enum):
    """Where a round's secrets come from."""

    KEY_AGREEMENT = "key_agreement"
    DEALER = "dealer"


class Masking(Enum):
    """Single masking is the paper's; double masking adds the self-mask of Bonawitz et al. 2017."""

    DOUBLE = "double"
    SINGLE = "single"


class Points(Enum):
    """Where the interpolation points lie."""

    ROOTS = "roots"
    ARBITRARY = "arbitrary"


class CommitmentScheme(Enum):
    """How a proposer binds itself to its update before it sees the sum."""

    LATTICE = "lattice"
    SINGULAR = "singular"


class Challenge(Enum):
    """`SHARED`: from seeds pinned and Shamir-shared in advance. `CLEAR`: broadcast, as in the paper."""

    SHARED = "shared"
    CLEAR = "clear"


class Sparsify(Enum):
    """Gradient compression."""

    OFF = "off"
    SHARED_SUPPORT = "shared_support"
    TOPK_LOCAL = "topk_local"


def _power_of_two(instance: object, attribute: Attribute[int], value: int) -> None:
    if value < 2 or value & (value - 1):
        raise ParamsError(f"{attribute.name} must be a power of two, not {value}")


@frozen(kw_only=True, cache_hash=True)
class ProtocolParams:
    """The choices of one network. Times are in milliseconds, money in units (10^6 a token).

    `adaptive_gamma`: where there is one, it sets gamma round by round, and `gamma_units` has its default.
    `judgement`: where there is one, the interim rule judges sums and prices refusals in the place of FLock's
    contract, its tolerance is relative, and `tolerance_micro` has its default.
    `pace`: the round interval and the end of training; None: rounds follow each other for ever.

    Raises `ParamsError` where two choices contradict each other.
    """

    profile: str = field(default="hardened", validator=validators.max_len(32))
    dimension: int = field(validator=int_range(1, MAX_DIMENSION))
    n_proposers: int = field(validator=int_range(3, 1024))
    n_voters: int = field(validator=int_range(1, 1024))
    # -- the learning update ---------------------------------------------------------------
    clip_micro: int = field(default=MICRO, validator=int_range(1, 1000 * MICRO))
    max_weight: int = field(default=MAX_WEIGHT, validator=int_range(1, MAX_WEIGHT))
    sparsify: Sparsify = Sparsify.OFF
    sparsify_permille: int = field(default=1000, validator=int_range(1, 1000))
    tolerance_micro: int = field(default=DEFAULT_TOLERANCE_MICRO, validator=int_range(0, 1000 * MICRO))
    # -- aggregation -------------------------------------------------------------------------
    setup: Setup = Setup.KEY_AGREEMENT
    masking: Masking = Masking.DOUBLE
    points: Points = Points.ROOTS
    group_size: int = field(default=1024, validator=_power_of_two)
    commitment: CommitmentScheme = CommitmentScheme.LATTICE
    blinded: bool = True
    challenge: Challenge = Challenge.SHARED
    singular_group_size: int = field(default=256, validator=int_range(2, 4096))
    singular_rank: int = field(default=8, validator=int_range(1, 4095))
    # -- stake contract ----------------------------------------------------------------------
    gamma_units: int = field(default=DEFAULT_GAMMA_UNITS, validator=int_range(0, 1 << 50))
    min_stake_units: int = field(default=8 * MICRO, validator=int_range(1, 1 << 50))
    join_stake_units: int = field(default=64 * MICRO, validator=int_range(1, 1 << 50))
    fault_penalty_units: int = field(default=32 * MICRO, validator=int_range(0, 1 << 50))
    void_fee_units: int = field(default=MICRO, validator=int_range(0, 1 << 50))
    pool_rounds: int = field(default=100, validator=int_range(1, 1 << 31))
    # -- timers ------------------------------------------------------------------------------
    phase_deadline_ms: int = field(default=10_000, validator=int_range(50, 86_400_000))
    train_deadline_ms: int = field(default=60_000, validator=int_range(50, 86_400_000))
    view_timeout_ms: int = field(default=2_000, validator=int_range(10, 3_600_000))
    max_view_timeout_ms: int = field(default=30_000, validator=int_range(10, 3_600_000))
    repair_interval_ms: int = field(default=1_000, validator=int_range(10, 60_000))
    max_attempts: int = field(default=3, validator=int_range(1, 16))
    # -- options that came later: networks without them are encoded as before -----------------
    adaptive_gamma: AdaptiveGamma | None = field(default=None, metadata=LEFT_OUT)
    judgement: Judgement | None = field(default=None, metadata=LEFT_OUT)
    pace: Pace | None = field(default=None, metadata=LEFT_OUT)

    def __attrs_post_init__(self) -> None:
        if self.blinded and self.challenge is Challenge.CLEAR:
            raise ParamsError(
                "challenge: a blinded commitment is read with the shared check seed; use shared"
            )
        if self.commitment is CommitmentScheme.LATTICE and not self.blinded:
            raise ParamsError("blinded: a lattice commitment in the clear is open to rogue commitments")
        if self.commitment is CommitmentScheme.SINGULAR and self.singular_rank >= self.singular_group_size:
            raise ParamsError("singular_rank must be below singular_group_size: U must be singular")
        if self.sparsify is Sparsify.OFF and self.sparsify_permille != 1000:
            raise ParamsError("sparsify_permille below 1000 needs sparsify shared_support or topk_local")
        if self.adaptive_gamma is not None and self.gamma_units != DEFAULT_GAMMA_UNITS:
            raise ParamsError("gamma_units: adaptive_gamma sets gamma; give one of the two")
        if self.judgement is not None and self.tolerance_micro != DEFAULT_TOLERANCE_MICRO:
            raise ParamsError("tolerance_micro: judgement has a tolerance of its own; give one of the two")
        if self.pace is not None and self.pace.heeds_done and self.judgement is None:
            raise ParamsError("pace: heeds_done needs a judgement: voters of FLock's contract cannot say it")
        if self.max_view_timeout_ms < self.view_timeout_ms:
            raise ParamsError("max_view_timeout_ms must not be below view_timeout_ms")
        if self.group_size > 1 << 16:
            raise ParamsError(f"group_size {self.group_size} is above 65536")
        if self.points is Points.ARBITRARY and self.group_size > 256:
            raise ParamsError("group_size above 256 with arbitrary points is quadratic; use points roots")

    @property
    def clip(self) -> float:
        """The bound on one coordinate of an update."""
        return self.clip_micro / MICRO

    @property
    def sent_dimension(self) -> int:
        """Coordinates of one masked update, k of DESIGN section 2 (d, or p % of d for a shared support)."""
        if self.sparsify is Sparsify.SHARED_SUPPORT:
            return -(-self.dimension * self.sparsify_permille // 1000)
        return self.dimension


def hardened(*, dimension: int, n_proposers: int, n_voters: int) -> ProtocolParams:
    """The default profile (docs/PROTOCOL.md section 9)."""
    return ProtocolParams(dimension=dimension, n_proposers=n_proposers, n_voters=n_voters)


def vcdfl(*, dimension: int, n_proposers: int, n_voters: int) -> ProtocolParams:
    """The paper's construction: trusted dealer, single masks, arbitrary points, commitments in the clear."""
    return evolve(
        hardened(dimension=dimension, n_proposers=n_proposers, n_voters=n_voters),
        profile="vcdfl",
        setup=Setup.DEALER,
        masking=Masking.SINGLE,
        points=Points.ARBITRARY,
        group_size=16,
        sparsify=Sparsify.TOPK_LOCAL,
        sparsify_permille=100,
        commitment=CommitmentScheme.SINGULAR,
        blinded=False,
        challenge=Challenge.CLEAR,
    )


PROFILES = {"hardened": hardened, "vcdfl": vcdfl}


@frozen
class GenesisMember:
    """A founding node and its stake in units."""

    peer: bytes = field(validator=bytes_of(32))
    stake_units: int = field(validator=int_range(0, 1 << 60))


@frozen(kw_only=True)
class Genesis:
    """What every node must hold alike before the first message; its hash is the network's id."""

    name: str = field(validator=validators.max_len(64))
    task: str = field(validator=validators.max_len(64))
    params: ProtocolParams
    members: tuple[GenesisMember, ...]
    beacon: bytes = field(validator=bytes_of(32))
    model_digest: bytes = field(validator=bytes_of(32))
    pool_units: int = field(default=0, validator=int_range(0, 1 << 60))
    note: bytes = field(default=b"", validator=bounded_bytes(4096))

    def __attrs_post_init__(self) -> None:
        peers = [member.peer for member in self.members]
        if peers != sorted(set(peers)):
            raise ParamsError("members must be sorted by peer and distinct")
        if len(peers) < 4:
            raise ParamsError(f"members: at least 4 nodes are needed, not {len(peers)}")
        if len(peers) > MAX_NODES:
            raise ParamsError(f"members: at most {MAX_NODES} nodes, not {len(peers)}")
        supply = self.pool_units + sum(member.stake_units for member in self.members)
        if supply > MAX_SUPPLY_UNITS:
            raise ParamsError(f"members, pool_units: {supply} units in all, at most {MAX_SUPPLY_UNITS}")

    def to_bytes(self) -> bytes:
        """The canonical encoding whose hash names the network."""
        return encode(self)

    @staticmethod
    def from_bytes(data: bytes) -> Genesis:
        """Decode strictly; raises `protocol.codec.DecodeError`."""
        return decode(Genesis, data, GENESIS_BYTES)

    @property
    def network(self) -> bytes:
        """The network id: 32 bytes."""
        return digest("genesis", self.to_bytes())


def sort_members(members: Sequence[GenesisMember]) -> tuple[GenesisMember, ...]:
    """Members in the one order that a genesis admits."""
    return tuple(sorted(members, key=lambda member: member.peer))
