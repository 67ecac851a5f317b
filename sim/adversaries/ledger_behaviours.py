"""Behaviours of leaders, validators and members as such, under the names that scenarios call them by."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import evolve

from protocol.ledger.block import BlockBody, BlockKind
from protocol.messages import (
    AggregateClaim,
    Body,
    Contribution,
    Kind,
    Reveal,
    SealedVote,
    Transaction,
    TransactionKind,
    VoteOpening,
)
from sim.adversaries.actor import Actor, Behaviour
from sim.adversaries.hoarding import VersionKeeper
from sim.adversaries.leaders import (
    Censor,
    CitingLeader,
    DoubleVoter,
    FramingLeader,
    TimeoutClimber,
    TwoBlockLeader,
    copied_keys,
    heavy_bundle,
)
from sim.adversaries.noise import Eclipser, Flooder, Oversender, Replayer
from sim.adversaries.speakers import (
    DeafTo,
    FatEquivocator,
    ForeignSpeaker,
    LateAdvertiser,
    LowOrderAdvertiser,
    ReadyPadder,
    StakeShifter,
    TwoFaced,
    TwoFacedDealer,
)
from sim.adversaries.survivors import ContributionSilencer, SurvivorSplitter
from sim.adversaries.voters import Withholder
from sim.filters import Filter

MISLED = frozenset({"misled"})
VICTIM = frozenset({"victim"})
MAX_WEIGHT = 1 << 16
"""The greatest that the wire carries."""
OVERSIZE_BYTES = 900_000
FAR_VIEWS = 63
"""One less than as far ahead as Timeouts are kept."""


def _withholder(*kinds: Kind) -> Behaviour:
    names = " and ".join(kind.name for kind in kinds)
    return Behaviour(
        about=f"never lets a {names} leave the node",
        make=lambda actor: Withholder(actor.identity, actor.network, frozenset(kinds)),
    )


def _two_faced(kind: Kind, lie: Callable[[Body], Body]) -> Behaviour:
    def make(actor: Actor) -> Filter:
        return TwoFaced(actor.identity, actor.network, kind, actor.misled, actor.told, lie)

    return Behaviour(
        about=f"signs two {kind.name} statements and shows some peers the second", make=make, options=MISLED
    )


def other_vote(body: Body) -> Body:
    """The opposite of a vote; +1 where it abstained."""
    assert isinstance(body, VoteOpening)
    return evolve(body, vote=-body.vote or 1)


def other_seeds(body: Body) -> Body:
    """A claim with secrets that are not what was pinned."""
    assert isinstance(body, AggregateClaim)
    return evolve(body, self_seeds=tuple(evolve(entry, secret=bytes(32)) for entry in body.self_seeds))


def no_challenge(body: Body) -> Body:
    """A reveal without its challenge."""
    assert isinstance(body, Reveal)
    return evolve(body, challenge_seed=b"")


def other_hash_z(body: Body) -> Body:
    """A contribution made with another z."""
    assert isinstance(body, Contribution)
    return evolve(body, hash_z=bytes(32))


def other_seal(body: Body) -> Body:
    """A sealed vote that nothing opens."""
    assert isinstance(body, SealedVote)
    return evolve(body, digest=bytes(32))


def _low_order(name: str) -> Behaviour:
    return Behaviour(
        about=f"advertises a {name} key that agrees with nobody",
        make=lambda actor: LowOrderAdvertiser(actor.identity, actor.network, name),
    )


def _stake_shifter(actor: Actor) -> Filter:
    amount = actor.option("amount_units", 1_000_000)
    fund = Transaction(TransactionKind.FUND, 0, actor.identity.peer, amount)
    return StakeShifter(actor.identity, actor.network, (fund,))


def _citing(
    kind: BlockKind, about: str, change: Callable[[Actor], Callable[[BlockBody], BlockBody]]
) -> Behaviour:
    return Behaviour(
        about=about,
        make=lambda actor: CitingLeader(
            actor.identity, actor.network, actor.founding.genesis, kind, change(actor)
        ),
    )


def _heavy(actor: Actor) -> Callable[[BlockBody], BlockBody]:
    return heavy_bundle(actor.identity, actor.network, MAX_WEIGHT)


def _copied(actor: Actor) -> Callable[[BlockBody], BlockBody]:
    return copied_keys(actor.identity, actor.network)


LEADERS: Mapping[str, Behaviour] = {
    "equivocating-leader": Behaviour(
        about="signs two blocks whenever it leads, one for some and one for others",
        make=lambda actor: TwoBlockLeader(actor.identity, actor.network, actor.misled, actor.told),
        options=MISLED,
    ),
    "censoring-leader": Behaviour(
        about="leaves a victim's transactions out of its blocks",
        make=lambda actor: Censor(actor.identity, actor.network, actor.founding.genesis, actor.victim),
        options=VICTIM,
    ),
    "survivor-splitter": Behaviour(
        about="shows two survivor sets, where a contribution is late",
        make=lambda actor: SurvivorSplitter(
            actor.identity, actor.network, actor.founding.genesis, actor.misled, actor.told
        ),
        options=MISLED,
    ),
    "heavy-leader": _citing(
        BlockKind.SETUP, "cites a bundle of its own with a weight that nobody may have", _heavy
    ),
    "key-copying-opener": _citing(
        BlockKind.OPEN, "cites a first advert of its own with another's keys", _copied
    ),
    "key-copying-leader": _citing(
        BlockKind.AGGREGATE, "cites a next advert of its own with another's keys", _copied
    ),
    "equivocating-validator": Behaviour(
        about="signs a second vote of the agreement beside each",
        make=lambda actor: DoubleVoter(actor.identity, actor.network),
    ),
    "silent-leader": _withholder(Kind.PROPOSAL),
    "framing-leader": Behaviour(
        about="proposes invalid blocks in another's name",
        make=lambda actor: FramingLeader(actor.identity, actor.network, actor.victim),
        options=VICTIM,
    ),
    "timeout-climber": Behaviour(
        about="claims to have given up on far views",
        make=lambda actor: TimeoutClimber(actor.identity, actor.network, actor.option("ahead", FAR_VIEWS)),
        options=frozenset({"ahead"}),
    ),
}

SPEAKERS: Mapping[str, Behaviour] = {
    "advert-withholder": _withholder(Kind.KEY_ADVERT),
    "bundle-withholder": _withholder(Kind.SHARE_BUNDLE),
    "box-withholder": _withholder(Kind.SEALED_SHARES, Kind.SHARE_OPENING),
    "contribution-withholder": _withholder(Kind.CONTRIBUTION),
    "receipt-withholder": _withholder(Kind.RECEIPT),
    "release-withholder": _withholder(Kind.SHARE_RELEASE),
    "claim-withholder": _withholder(Kind.AGGREGATE_CLAIM),
    "reveal-withholder": _withholder(Kind.REVEAL),
    "sealed-vote-withholder": _withholder(Kind.SEALED_VOTE),
    "vote-withholder": _withholder(Kind.VOTE_OPENING),
    "ready-withholder": _withholder(Kind.READY),
    "two-faced-proposer": _two_faced(Kind.CONTRIBUTION, other_hash_z),
    "two-faced-claimer": _two_faced(Kind.AGGREGATE_CLAIM, other_seeds),
    "two-faced-revealer": _two_faced(Kind.REVEAL, no_challenge),
    "two-faced-opener": _two_faced(Kind.VOTE_OPENING, other_vote),
    "two-faced-voter": _two_faced(Kind.SEALED_VOTE, other_seal),
    "two-faced-dealer": Behaviour(
        about="deals twice, to two parts of the network",
        make=lambda actor: TwoFacedDealer(actor.identity, actor.network, actor.misled, actor.told),
        options=MISLED,
    ),
    "low-order-mask": _low_order("mask"),
    "low-order-seal": _low_order("seal"),
    "fat-equivocator": Behaviour(
        about="contradicts itself at such length that no block has room for it",
        make=lambda actor: FatEquivocator(
            actor.identity, actor.network, actor.option("round", 1), actor.option("shares", 600)
        ),
        options=frozenset({"round", "shares"}),
    ),
    "ready-padder": Behaviour(
        about="pads its Readys with statements that there are none of",
        make=lambda actor: ReadyPadder(actor.identity, actor.network, actor.option("padding_bytes", 3_000)),
        options=frozenset({"padding_bytes"}),
    ),
    "stake-shifter": Behaviour(
        about="moves stake once it knows the next beacon",
        make=_stake_shifter,
        options=frozenset({"amount_units"}),
    ),
    "late-advertiser": Behaviour(
        about="advertises once it knows the next beacon",
        make=lambda actor: LateAdvertiser(actor.identity, actor.network),
    ),
    "replayer": Behaviour(
        about="says everything again one round later",
        make=lambda actor: Replayer(actor.identity, actor.network),
    ),
    "flooder": Behaviour(
        about="sends noise, requests and endless statements beside each message",
        make=lambda actor: Flooder(actor.identity, actor.network, actor.option("count", 4)),
        options=frozenset({"count"}),
    ),
    "foreign-speaker": Behaviour(
        about="speaks for another network, in another version, or in kinds that nobody knows",
        make=lambda actor: ForeignSpeaker(),
    ),
    "oversender": Behaviour(
        about="sends messages beyond every limit",
        make=lambda actor: Oversender(
            actor.identity, actor.network, actor.option("size_bytes", OVERSIZE_BYTES)
        ),
        options=frozenset({"size_bytes"}),
    ),
    "eclipser": Behaviour(
        about="tells a victim nothing of others, and others nothing of the victim",
        make=lambda actor: Eclipser(actor.identity, actor.network, actor.victim),
        options=VICTIM,
    ),
    "contribution-silencer": Behaviour(
        about="passes on no contribution of a victim",
        make=lambda actor: ContributionSilencer(actor.identity, actor.network, actor.victim),
        options=VICTIM,
    ),
    "version-keeper": Behaviour(
        about="keeps the first version of each transaction, and as a leader carries that one",
        make=lambda actor: VersionKeeper(),
    ),
    "deaf-to-contributions": Behaviour(
        about="loses one peer's contributions on the way",
        make=lambda actor: DeafTo(Kind.CONTRIBUTION, actor.victim),
        options=VICTIM,
    ),
}

LEDGER: Mapping[str, Behaviour] = {**LEADERS, **SPEAKERS}
