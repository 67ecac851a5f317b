"""The state that every honest node agrees on after each block (docs/PROTOCOL.md sections 3, 6 and 7)."""

from __future__ import annotations

from enum import IntEnum
from functools import cached_property

from attrs import field, frozen

from protocol.codec import LEFT_OUT, digest, encode
from protocol.ledger.adaptive import Tally
from protocol.ledger.judgement import BestModel
from protocol.ledger.pace import Rest, Training
from protocol.messages import NamedSecret
from protocol.params import Genesis
from protocol.sortition import Roles

NO_DIGEST = bytes(32)


class Phase(IntEnum):
    """What the network waits for; the block that ends the wait moves on."""

    ADVERT = 0
    SHARE = 1
    CONTRIBUTE = 2
    AGGREGATE = 3
    BALLOT = 4
    DISPUTE = 5
    VOTE = 6
    RECOVER = 7


@frozen
class Account:
    """`stake_units`: all that it owns. `member`: has joined and not left. `nonce`: transactions so far."""

    stake_units: int
    member: bool
    nonce: int = 0
    suspicion: int = 0


@frozen
class PinnedAdvert:
    peer: bytes
    mask_public: bytes
    seal_public: bytes


@frozen
class PinnedBundle:
    """A member of U1."""

    peer: bytes
    share_roots: tuple[bytes, bytes, bytes]
    hash_self: bytes
    hash_check: bytes
    hash_z: bytes
    weight: int


@frozen
class PinnedContribution:
    """A member of U2. `receipted`: by the aggregator, otherwise by upload witnesses."""

    peer: bytes
    statement_id: bytes
    commitment_digest: bytes
    upload_digest: bytes
    hash_z: bytes
    receipted: bool


@frozen
class PinnedClaim:
    """The aggregate: who made it, B's digest, and the secrets that unmask it."""

    aggregator: bytes
    sum_digest: bytes
    self_seeds: tuple[NamedSecret, ...]
    mask_secrets: tuple[NamedSecret, ...]


@frozen
class PinnedVote:
    peer: bytes
    digest: bytes


class Fault(IntEnum):
    """A provable fault, paid for at the end of the round."""

    FORGED_AGGREGATE = 1
    BROKEN_CHECK = 2
    BAD_DEALING = 3
    UNOPENED_VOTE = 4
    EQUIVOCATION = 5


@frozen
class PinnedFault:
    peer: bytes
    fault: Fault


@frozen
class RoundState:
    """One learning round as far as the ledger knows it. Tuples of peers run in the order of peers.

    `reformed`: an OPEN block of this round applied transactions and drew no roles.
    """

    phase: Phase
    adverts: tuple[PinnedAdvert, ...] = ()
    roles: Roles | None = None
    threshold: int = 0
    sharers: tuple[PinnedBundle, ...] = ()
    contributors: tuple[PinnedContribution, ...] = ()
    attempt: int = 0
    claim: PinnedClaim | None = None
    check_seeds: tuple[bytes, ...] = ()
    z_root: bytes = b""
    challenge_seeds: tuple[NamedSecret, ...] = ()
    ballot: int = 0
    verdict: int = 0
    candidate: bytes = b""
    sealed_votes: tuple[PinnedVote, ...] = ()
    faults: tuple[PinnedFault, ...] = ()
    void: bool = False
    reason: int = 0
    next_pinned: bool = False
    next_adverts: tuple[PinnedAdvert, ...] = ()
    next_weights: tuple[tuple[bytes, int], ...] = ()
    reformed: bool = field(default=False, metadata=LEFT_OUT)

    def advert_of(self, peer: bytes) -> PinnedAdvert | None:
        return next((advert for advert in self.adverts if advert.peer == peer), None)

    @property
    def proposers(self) -> tuple[bytes, ...]:
        """P, in holder order."""
        return self.roles.proposers if self.roles else ()

    @property
    def voters(self) -> tuple[bytes, ...]:
        return self.roles.voters if self.roles else ()

    @cached_property
    def proposer_set(self) -> frozenset[bytes]:
        return frozenset(self.proposers)

    @cached_property
    def sharer_set(self) -> frozenset[bytes]:
        return frozenset(bundle.peer for bundle in self.sharers)

    @cached_property
    def voter_set(self) -> frozenset[bytes]:
        return frozenset(self.voters)

    @property
    def aggregator(self) -> bytes | None:
        """The aggregator of the current attempt."""
        if self.roles is None or self.attempt >= len(self.roles.aggregators):
            return None
        return self.roles.aggregators[self.attempt]


@frozen
class LedgerState:
    """Everything that blocks decide. `validators`: frozen from one round-ending block to the next, sorted.

    `tallies`: of the last rounds that voted, oldest first, where the network has an adaptive gamma.
    `best`: the best model so far, where the network has the interim rule of judgement.
    `training`: how far it has come and whether it rests, where the network has a pace.
    """

    height: int
    round: int
    beacon: bytes
    accounts: tuple[tuple[bytes, Account], ...]
    treasury_units: int
    pool_units: int
    pool_rounds_left: int
    model_digest: bytes
    previous_model_digest: bytes
    validators: tuple[bytes, ...]
    learning: RoundState = field(repr=False)
    tallies: tuple[Tally, ...] = field(default=(), repr=False, metadata=LEFT_OUT)
    best: BestModel | None = field(default=None, metadata=LEFT_OUT)
    training: Training | None = field(default=None, metadata=LEFT_OUT)
    alert: int = field(default=0, metadata=LEFT_OUT)

    def account(self, peer: bytes) -> Account | None:
        return self._account_of.get(peer)

    @cached_property
    def _account_of(self) -> dict[bytes, Account]:
        return dict(self.accounts)

    @cached_property
    def validator_set(self) -> frozenset[bytes]:
        return frozenset(self.validators)

    def is_validator(self, peer: bytes) -> bool:
        """Has it a vote?"""
        return peer in self.validator_set

    @property
    def rests(self) -> bool:
        """Return whether training rests: no round is opened until it is paid for (section 3.9)."""
        return self.training is not None and self.training.rest is not Rest.NONE

    @cached_property
    def leaders(self) -> tuple[bytes, ...]:
        """Who leads in turn: the validators whose adverts are pinned, or all where there are none."""
        pinned = tuple(a.peer for a in self.learning.adverts if self.is_validator(a.peer))
        return pinned or self.validators

    @property
    def stakes(self) -> dict[bytes, int]:
        """Units by peer, in the order of peers."""
        return {peer: account.stake_units for peer, account in self.accounts}

    @cached_property
    def supply_units(self) -> int:
        """All units there are; never changes."""
        return (
            sum(account.stake_units for _, account in self.accounts) + self.treasury_units + self.pool_units
        )

    @cached_property
    def root(self) -> bytes:
        """The digest that a block carries as its state root."""
        return digest("state", encode(self))


def active_validators(accounts: tuple[tuple[bytes, Account], ...], min_stake_units: int) -> tuple[bytes, ...]:
    """Members with at least the minimal stake: one vote each in the agreement."""
    return tuple(
        peer for peer, account in accounts if account.member and account.stake_units >= min_stake_units
    )


def genesis_state(genesis: Genesis) -> LedgerState:
    """The state before block 1: round 1 waits for its adverts."""
    accounts = tuple((member.peer, Account(member.stake_units, True)) for member in genesis.members)
    judged = genesis.params.judgement is not None
    return LedgerState(
        height=0,
        round=1,
        beacon=genesis.beacon,
        accounts=accounts,
        treasury_units=0,
        pool_units=genesis.pool_units,
        pool_rounds_left=genesis.params.pool_rounds,
        model_digest=genesis.model_digest,
        previous_model_digest=NO_DIGEST,
        validators=active_validators(accounts, genesis.params.min_stake_units),
        learning=RoundState(Phase.ADVERT),
        best=BestModel(0, genesis.model_digest) if judged else None,
        training=None if genesis.params.pace is None else genesis.params.pace.begin(),
    )
