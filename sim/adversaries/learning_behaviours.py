"""Behaviours of dealers, proposers, aggregators and voters, under the names that scenarios call them by.

A node that does not have the role in a round has nothing to bend in it, and stays honest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from protocol.messages import Kind
from protocol.params import CommitmentScheme
from protocol.secagg.commitment import SingularCommitment
from protocol.secagg.scheme import Scheme
from protocol.sharing import ShareKind
from sim.adversaries.actor import Actor, Behaviour
from sim.adversaries.aggregators import (
    BlindForger,
    CheckForger,
    CollusiveForger,
    EquivocatingAggregator,
    MalformedSum,
    OmittingAggregator,
    RefusingAggregator,
    SilentAggregator,
    TargetForger,
    first_coordinate,
    kernel_of,
    kernel_of_own_u,
)
from sim.adversaries.challengers import RushingChallenger
from sim.adversaries.dealers import (
    BoxReplayer,
    BoxSpoiler,
    CheckWithholder,
    Eavesdropper,
    FalseReleaser,
    GarbageDealer,
    KeyCopier,
    ZSpoiler,
)
from sim.adversaries.forgery import Int64Vec
from sim.adversaries.hiding import Hider, HidingForger
from sim.adversaries.proposers import (
    Accomplice,
    CheckBreaker,
    FalseRevealer,
    Inconsistent,
    Poisoner,
    RogueCommitter,
    Scaler,
    WeightInflater,
    off_by_one,
    out_of_bounds,
    unchanged,
)
from sim.adversaries.tampering import Both
from sim.adversaries.voters import Abstainer, Contrarian, UnsoundVoter, VoteCopier, Yeasayer
from sim.filters import Filter
from sim.scenario.manifest import ScenarioError

DELTA = -700
"""What a collusive forger adds to the first coordinate of the sum."""
FOREIGN_U = bytes(32)
"""The seed of matrices that a kernel forger makes up where the network has none."""


def constant_sum(scheme: Scheme) -> Int64Vec:
    """What a rogue coalition wants the network to adopt, with an opening of its own."""
    opening = scheme.commitment.opening_randomness(bytes(range(32)))
    return np.concatenate([np.full(scheme.length, 12_345, dtype=np.int64), opening])


def _poisoner(actor: Actor) -> Filter:
    return Poisoner(actor.founding.genesis.params.clip_micro / 1e6)


def _kernel_forger(actor: Actor) -> Filter:
    """The kernel of the network's own matrices; where it has none, that of others."""
    params, scale = actor.founding.genesis.params, actor.option("scale", 500)
    delta: Callable[[Scheme], Int64Vec] = kernel_of_own_u(scale)
    if params.commitment is not CommitmentScheme.SINGULAR:
        group, rank = params.singular_group_size, params.singular_rank
        delta = kernel_of(SingularCommitment(FOREIGN_U, params.dimension, group_size=group, rank=rank), scale)
    return CollusiveForger(actor.coalition, delta)


def _rogue_committer(actor: Actor) -> Filter:
    others = len(actor.parts.proposers) - 1
    return RogueCommitter(actor.coalition, constant_sum, actor.option("others", others))


def _equivocating_aggregator(actor: Actor) -> Filter:
    return EquivocatingAggregator(actor.identity, actor.network, actor.misled, actor.told)


def _garbage_dealer(actor: Actor) -> Filter:
    name = actor.option("secret", "self")
    try:
        return GarbageDealer(ShareKind[name.upper()])
    except KeyError:
        raise ScenarioError(f"option 'secret' must be mask, self or check, not {name!r}") from None


def _deaf_to_z(actor: Actor) -> frozenset[Kind]:
    return frozenset({Kind.Z_REQUEST} if actor.option("deaf", False) else ())


def _z_spoiler(actor: Actor) -> Filter:
    holders = [i for i in actor.parts.proposers if i != actor.member]
    spoiled = holders[: actor.option("holders", 1)]
    return ZSpoiler(actor.peers(tuple(spoiled)), deaf_to=_deaf_to_z(actor))


def _box_spoiler(actor: Actor) -> Filter:
    deaf = frozenset({Kind.COMPLAINT} if actor.option("deaf", False) else ())
    return BoxSpoiler(actor.victim, deaf_to=deaf)


def _hider(actor: Actor) -> Filter:
    hoard = actor.coalition.hoard
    hoard.members.add(actor.identity.peer)
    return Hider(hoard)


def _hiding_forger(actor: Actor) -> Filter:
    hoard = actor.coalition.hoard
    hoard.members.add(actor.identity.peer)
    return HidingForger(actor.victim, hoard)


def _rushing_challenger(actor: Actor) -> Filter:
    """With a collusive forger, whose delta it is. Two of them, with places 0 and 1, find a fit."""
    others = len(actor.parts.proposers) - 2
    rusher = RushingChallenger(
        actor.identity,
        actor.network,
        actor.coalition,
        first_coordinate(DELTA),
        actor.option("place", 0),
        actor.option("others", others),
    )
    return Both(Accomplice(actor.coalition), rusher)


VICTIM = frozenset({"victim"})
MISLED = frozenset({"misled"})

DEALERS: Mapping[str, Behaviour] = {
    "box-spoiler": Behaviour(
        about="sends one holder a box that does not open", make=_box_spoiler, options=VICTIM | {"deaf"}
    ),
    "z-spoiler": Behaviour(
        about="gives some holders another z_i than it pinned",
        make=_z_spoiler,
        options=frozenset({"holders", "deaf"}),
    ),
    "garbage-dealer": Behaviour(
        about="shares a secret along no polynomial", make=_garbage_dealer, options=frozenset({"secret"})
    ),
    "key-copier": Behaviour(
        about="advertises a victim's mask key as its own",
        make=lambda actor: KeyCopier(actor.identity, actor.network, actor.victim),
        options=VICTIM,
    ),
    "eavesdropper": Behaviour(
        about="tells its coalition which boxes it sent",
        make=lambda actor: Eavesdropper(actor.coalition),
        colludes=True,
    ),
    "box-replayer": Behaviour(
        about="passes a victim's overheard boxes off as its own",
        make=lambda actor: BoxReplayer(actor.identity, actor.network, actor.coalition, actor.victim),
        options=VICTIM,
        colludes=True,
    ),
    "false-releaser": Behaviour(
        about="releases shares that it was not dealt",
        make=lambda actor: FalseReleaser(actor.identity, actor.network),
    ),
    "check-withholder": Behaviour(
        about="gives away no check seed, neither its own nor its shares of others'",
        make=lambda actor: CheckWithholder(actor.identity, actor.network),
    ),
    "weight-inflater": Behaviour(
        about="claims more samples than anyone may have",
        make=lambda actor: WeightInflater(
            actor.identity, actor.network, actor.founding.genesis.params.max_weight + 1
        ),
    ),
}

PROPOSERS: Mapping[str, Behaviour] = {
    "poisoner": Behaviour(about="sends the largest update away from where it should go", make=_poisoner),
    "sign-flipper": Behaviour(about="sends the negative of what it learned", make=lambda actor: Scaler(-1.0)),
    "scaler": Behaviour(
        about="sends a multiple of what it learned",
        make=lambda actor: Scaler(actor.option("factor", -10.0)),
        options=frozenset({"factor"}),
    ),
    "accomplice": Behaviour(
        about="tells its coalition everything",
        make=lambda actor: Accomplice(actor.coalition),
        colludes=True,
    ),
    "check-breaker": Behaviour(
        about="uploads hidden values that are not its own", make=lambda actor: CheckBreaker()
    ),
    "mis-committer": Behaviour(
        about="commits to another update than it uploads",
        make=lambda actor: Inconsistent(unchanged, off_by_one),
    ),
    "out-of-bounds": Behaviour(
        about="contributes beyond the bound",
        make=lambda actor: Inconsistent(out_of_bounds, out_of_bounds),
    ),
    "rogue-committer": Behaviour(
        about="commits last, to a target less the others",
        make=_rogue_committer,
        options=frozenset({"others"}),
        colludes=True,
    ),
    "rushing-challenger": Behaviour(
        about="picks its part of a clear challenge last, to fit a forged sum (seconds of work)",
        make=_rushing_challenger,
        options=frozenset({"place", "others"}),
        colludes=True,
    ),
    "false-revealer": Behaviour(
        about="reveals another check seed than it pinned",
        make=lambda actor: FalseRevealer(actor.identity, actor.network),
    ),
    "hider": Behaviour(
        about="shows its upload, and those of its coalition, to its coalition only",
        make=_hider,
        colludes=True,
    ),
}

AGGREGATORS: Mapping[str, Behaviour] = {
    "lazy-aggregator": Behaviour(
        about="leaves contributions out of the sum",
        make=lambda actor: OmittingAggregator(actor.option("omitted", 1)),
        options=frozenset({"omitted"}),
    ),
    "silent-aggregator": Behaviour(about="never adds up", make=lambda actor: SilentAggregator()),
    "refusing-aggregator": Behaviour(
        about="gives one proposer no receipt",
        make=lambda actor: RefusingAggregator(actor.victim),
        options=VICTIM,
    ),
    "blind-forger": Behaviour(about="touches the sum without the keys", make=lambda actor: BlindForger()),
    "malformed-sum": Behaviour(about="claims a blob that is no sum", make=lambda actor: MalformedSum()),
    "collusive-forger": Behaviour(
        about="adds a delta with z from an accomplice",
        make=lambda actor: CollusiveForger(actor.coalition, first_coordinate(DELTA)),
        colludes=True,
    ),
    "kernel-forger": Behaviour(
        about="adds a delta from the kernel of U with z and U from an accomplice",
        make=_kernel_forger,
        options=frozenset({"scale"}),
        colludes=True,
    ),
    "check-forger": Behaviour(
        about="breaks a hidden value of the sum with z from an accomplice",
        make=lambda actor: CheckForger(actor.coalition),
        colludes=True,
    ),
    "target-forger": Behaviour(
        about="claims what a rogue committer of its coalition prepared",
        make=lambda actor: TargetForger(actor.coalition, constant_sum),
        colludes=True,
    ),
    "hiding-forger": Behaviour(
        about="adds up an upload that nobody else gets, and claims another sum",
        make=_hiding_forger,
        options=VICTIM,
        colludes=True,
    ),
    "equivocating-aggregator": Behaviour(
        about="signs two claims and shows some peers the second",
        make=_equivocating_aggregator,
        options=MISLED,
    ),
}

VOTERS: Mapping[str, Behaviour] = {
    "abstainer": Behaviour(about="says that it cannot evaluate", make=lambda actor: Abstainer()),
    "yeasayer": Behaviour(about="votes +1 whatever the models are worth", make=lambda actor: Yeasayer()),
    "vote-copier": Behaviour(
        about="hands in another's sealed vote and opening as its own",
        make=lambda actor: VoteCopier(actor.identity, actor.network),
    ),
    "unsound-voter": Behaviour(
        about="votes for every sum, and says in the same opening that it is as bad as can be",
        make=lambda actor: UnsoundVoter(actor.identity, actor.network),
    ),
    "contrarian": Behaviour(about="votes against whatever is good", make=lambda actor: Contrarian()),
}

LEARNING: Mapping[str, Behaviour] = {**DEALERS, **PROPOSERS, **AGGREGATORS, **VOTERS}
