"""What a round's outcome does to stakes (docs/PROTOCOL.md section 6, after FLock), in integer units.

Every rule is a pure function from stakes to a `Settlement`. A settlement only moves money, between peers,
the treasury and the reward pool: its parts add up to zero, so the total supply is conserved. Nobody ever
loses more than its stake.
"""

from collections.abc import Iterable, Mapping

from attrs import frozen

from protocol.keys import PeerId

UNITS = 10**6
"""Units per token."""


class EconomyError(ValueError):
    """Arguments no settlement can follow from: an unknown peer, a negative amount, a vote that is none."""


@frozen
class Settlement:
    """Changes in units: of the peers' stakes (sorted by peer, zeros left out), the treasury and the pool.

    EconomyError unless they add up to zero.
    """

    deltas: tuple[tuple[PeerId, int], ...]
    treasury_delta: int
    pool_delta: int

    def __attrs_post_init__(self) -> None:
        total = sum(delta for _, delta in self.deltas) + self.treasury_delta + self.pool_delta
        if total:
            raise EconomyError(f"a settlement creates {total} units")

    def applied(self, stakes: Mapping[PeerId, int]) -> dict[PeerId, int]:
        """The stakes afterwards. EconomyError where one would fall below zero or its peer is unknown."""
        after = dict(stakes)
        for peer, delta in self.deltas:
            after[peer] = _stake(stakes, peer) + delta
            if after[peer] < 0:
                raise EconomyError(f"the stake of peer {peer.hex()[:16]} would be {after[peer]} units")
        return after


def is_accepted(votes: Mapping[PeerId, int]) -> bool:
    """An aggregate is accepted when its opened votes, +1, -1 or 0 (abstained), add up to zero or more.

    By heads, not by stake. EconomyError on any other vote.
    """
    for peer, vote in votes.items():
        if vote not in (-1, 0, 1):
            raise EconomyError(f"the vote of peer {peer.hex()[:16]} is {vote}, not -1, 0 or +1")
    return sum(votes.values()) >= 0


def settle_vote(
    stakes: Mapping[PeerId, int], proposers: Iterable[PeerId], votes: Mapping[PeerId, int], gamma: int
) -> tuple[bool, Settlement]:
    """(accepted, settlement) of a vote.

    Accepted: each -1 voter loses `gamma`, shared equally by the +1 voters; proposers keep their stakes.
    Rejected: each proposer and each +1 voter loses `gamma`, shared equally by the -1 voters. Who abstains
    neither wins nor loses. The remainder of the division goes to the treasury. A stake below `gamma` is lost
    whole. One that was a proposer and a voter answers for both: when rejected, two penalties for a +1, a
    penalty and a share for a -1.
    EconomyError on a negative `gamma`, a vote that is none, or a peer without a stake account.
    """
    _require_amount("gamma", gamma)
    accepted = is_accepted(votes)
    in_favour = sorted(peer for peer, vote in votes.items() if vote == 1)
    against = sorted(peer for peer, vote in votes.items() if vote == -1)
    if accepted:
        penalties, sharers = _penalties(stakes, against, gamma), in_favour
    else:
        penalties, sharers = _penalties(stakes, [*sorted(set(proposers)), *in_favour], gamma), against
    collected = sum(penalties.values())
    # Nobody to share with means nobody was charged: a -1 vote loses only to at least as many +1 votes.
    share, remainder = divmod(collected, len(sharers)) if sharers else (0, collected)
    deltas = {peer: -penalty for peer, penalty in penalties.items()}
    for peer in sharers:
        _stake(stakes, peer)
        deltas[peer] = deltas.get(peer, 0) + share
    return accepted, _settlement(deltas, treasury_delta=remainder)


def settle_judged(
    stakes: Mapping[PeerId, int],
    members: Iterable[PeerId],
    contrary: Iterable[PeerId],
    prices: tuple[int, int],
) -> Settlement:
    """Return what a vote under the interim rule moves: all of it goes to the treasury, so nobody gains by it.

    `prices`: units that each of `members` pays (none where the sum was accepted), and each of `contrary`, who
    voted against the verdict. Who is both pays both, never more than its stake. EconomyError on a negative
    price or a peer without a stake account.
    """
    for price in prices:
        _require_amount("price", price)
    owed: dict[PeerId, int] = {}
    for peers, price in zip((members, contrary), prices, strict=True):
        for peer in sorted(set(peers)):
            owed[peer] = owed.get(peer, 0) + price
    penalties = {peer: min(_stake(stakes, peer), amount) for peer, amount in sorted(owed.items())}
    return _settlement(
        {peer: -penalty for peer, penalty in penalties.items()}, treasury_delta=sum(penalties.values())
    )


def round_winners(
    accepted: bool, proposers: Iterable[PeerId], votes: Mapping[PeerId, int]
) -> tuple[PeerId, ...]:
    """Who shares the round's reward, sorted: proposers and +1 voters if accepted, else the -1 voters."""
    won = {peer for peer, vote in votes.items() if vote == (1 if accepted else -1)}
    return tuple(sorted(won | set(proposers) if accepted else won))


def settle_rewards(
    stakes: Mapping[PeerId, int], pool: int, rounds_left: int, winners: Iterable[PeerId]
) -> Settlement:
    """One round's part of the pool, `pool // rounds_left`, to each of `winners` in proportion to its stake.

    Shares are rounded down; the rest stays in the pool, as does everything where no winner has a stake.
    EconomyError on a negative pool, fewer than one round left, or a winner without a stake account.
    """
    _require_amount("pool", pool)
    if rounds_left < 1:
        raise EconomyError(f"rounds_left is {rounds_left}, below 1")
    weights = {peer: _stake(stakes, peer) for peer in sorted(set(winners))}
    total = sum(weights.values())
    budget = pool // rounds_left
    deltas = {peer: budget * weight // total for peer, weight in weights.items()} if total else {}
    return _settlement(deltas, pool_delta=-sum(deltas.values()))


def settle_fee(stakes: Mapping[PeerId, int], peers: Iterable[PeerId], fee: int) -> Settlement:
    """A flat `fee`, at most the stake, from each of `peers` to the treasury: the price of a void round.

    Never to voters, or sabotage would pay. EconomyError on a negative fee or a peer without a stake account.
    """
    _require_amount("fee", fee)
    return _to_treasury(stakes, peers, fee)


def settle_slash(stakes: Mapping[PeerId, int], peers: Iterable[PeerId], penalty: int) -> Settlement:
    """A `penalty`, at most the stake, from each of `peers` to the treasury, for a fault proven on the ledger.

    EconomyError on a negative penalty or a peer without a stake account.
    """
    _require_amount("penalty", penalty)
    return _to_treasury(stakes, peers, penalty)


def _to_treasury(stakes: Mapping[PeerId, int], peers: Iterable[PeerId], amount: int) -> Settlement:
    penalties = _penalties(stakes, sorted(set(peers)), amount)
    return _settlement(
        {peer: -penalty for peer, penalty in penalties.items()}, treasury_delta=sum(penalties.values())
    )


def _penalties(stakes: Mapping[PeerId, int], peers: Iterable[PeerId], amount: int) -> dict[PeerId, int]:
    """What each peer pays: `amount` for each time it is listed, but never more than its stake."""
    penalties: dict[PeerId, int] = {}
    for peer in peers:
        penalties[peer] = min(_stake(stakes, peer), penalties.get(peer, 0) + amount)
    return penalties


def _settlement(deltas: Mapping[PeerId, int], treasury_delta: int = 0, pool_delta: int = 0) -> Settlement:
    changed = tuple((peer, delta) for peer, delta in sorted(deltas.items()) if delta)
    return Settlement(changed, treasury_delta, pool_delta)


def _stake(stakes: Mapping[PeerId, int], peer: PeerId) -> int:
    if peer not in stakes:
        raise EconomyError(f"peer {peer.hex()[:16]} has no stake account")
    if stakes[peer] < 0:
        raise EconomyError(f"the stake of peer {peer.hex()[:16]} is {stakes[peer]} units")
    return stakes[peer]


def _require_amount(name: str, units: int) -> None:
    if units < 0:
        raise EconomyError(f"{name} is {units} units, below zero")
