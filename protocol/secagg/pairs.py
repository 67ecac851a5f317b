"""Who shares a mask with whom in one round, and from which seed (docs/PROTOCOL.md section 4).

Masks run among U1 only, so positions here are places in U1, not indices into the round's proposers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from protocol.context import Index, RoundContext
from protocol.keys import AgreementError, AgreementKey
from protocol.secagg.masking import graph_degree, neighbours, pair_seed


def mask_partners(context: RoundContext, proposer: Index) -> list[Index]:
    """The members of U1 that share a mask with `proposer`, ascending. ValueError unless it is in U1."""
    sharers = context.sharers
    count = len(sharers)
    places = neighbours(sharers.index(proposer), count, context.beacon, graph_degree(count))
    return [sharers[place] for place in places]


def agreed_seed(context: RoundContext, own: Index, key: AgreementKey, other: Index) -> bytes | None:
    """s_ij from one side's mask key, or None where the pair goes without a mask.

    That is where both advertised the same public key, or `other` a low-order point: one of the two is
    dishonest, so the mask would hide nothing, and to give up instead would let one bad advert stop
    every other proposer. Both sides, and whoever rebuilds a key, leave out the same pairs.
    """
    public = context.mask_publics[other]
    if public == key.public:
        return None
    try:
        shared = key.agree(public)
    except AgreementError:
        return None
    return pair_seed(
        shared,
        context.network,
        context.round,
        key.public,
        public,
        context.proposers[own],
        context.proposers[other],
    )


def own_pair_seeds(context: RoundContext, proposer: Index, key: AgreementKey) -> dict[int, bytes]:
    """The seeds that `proposer` masks with, by the partner's index."""
    seeds = {}
    for other in mask_partners(context, proposer):
        seed = agreed_seed(context, proposer, key, other)
        if seed is not None:
            seeds[other] = seed
    return seeds


def dangling_seeds(
    context: RoundContext, contributors: Sequence[Index], mask_secrets: Mapping[Index, bytes]
) -> list[tuple[Index, Index, bytes]]:
    """(survivor, dropped, s_ij) for every pair of partners of which only the first is in U2.

    `mask_secrets` are the rebuilt mask keys of U1 without U2. Bonawitz et al. 2017, round 4.
    """
    survivors = set(contributors)
    pairs = []
    for dropped, secret in sorted(mask_secrets.items()):
        key = AgreementKey(secret)
        for survivor in mask_partners(context, dropped):
            if survivor in survivors:
                seed = agreed_seed(context, dropped, key, survivor)
                if seed is not None:
                    pairs.append((survivor, dropped, seed))
    return pairs
