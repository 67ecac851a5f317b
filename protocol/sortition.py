"""Who does what in a round (docs/PROTOCOL.md section 3): a public function of beacon, round and stakes.

Stake weighted, without replacement, in exact integer arithmetic, so that every node computes the same roles.
"""

from collections.abc import Mapping, Sequence

from attrs import frozen

from protocol.codec import digest
from protocol.keys import PeerId

_WORD = 1 << 256

_SMALL_NETWORKS = {4: (3, 2), 5: (4, 2), 6: (4, 2), 7: (4, 2)}


class SortitionError(ValueError):
    """Weights or counts from which no draw can be made."""


@frozen
class Roles:
    """The roles of one round. No aggregator is a proposer; a voter may be one where nodes are too few.

    `proposers` and `voters` are sorted; `aggregators` take over from each other in order, the first is active
    at the start.
    """

    round: int
    proposers: tuple[PeerId, ...]
    aggregators: tuple[PeerId, ...]
    voters: tuple[PeerId, ...]


def threshold(n: int) -> int:
    """T = floor(2n/3) + 1: so many of `n` shares rebuild a secret, and so many of `n` votes are a quorum."""
    return 2 * n // 3 + 1


def default_roles(nodes: int) -> tuple[int, int]:
    """(proposers, voters) for a network of `nodes`, the role table of docs/PROTOCOL.md section 3.

    SortitionError below 4: with 2 survivors each subtracts its own update and reads the other's.
    """
    if nodes < 4:
        raise SortitionError(f"a network needs 4 nodes, got {nodes}")
    if nodes in _SMALL_NETWORKS:
        return _SMALL_NETWORKS[nodes]
    return max(4, nodes // 2), max(2, min(nodes - nodes // 2 - 1, nodes // 4))


def draw_weighted(seed: bytes, weights: Sequence[tuple[PeerId, int]], count: int) -> list[PeerId]:
    """`count` different peers in the order drawn, each of those left with probability weight / total left.

    A draw takes the next word of the stream digest("sortition-word", seed, 0), digest(..., 1), ... modulo the
    total weight left; words at or above the greatest multiple of the total are skipped, so the draw is exact.
    The result falls into the weights of those left, laid end to end in the order given. O(n log n).
    SortitionError on a weight below 1, a peer listed twice, or more draws than peers.
    """
    if not 0 <= count <= len(weights):
        raise SortitionError(f"cannot draw {count} of {len(weights)} peers")
    if len({peer for peer, _ in weights}) != len(weights):
        raise SortitionError("a peer is listed twice")
    for peer, weight in weights:
        if weight < 1:
            raise SortitionError(f"the weight of peer {peer.hex()[:16]} is {weight}, below 1")
    sums = _partial_sums([weight for _, weight in weights])
    total = sum(weight for _, weight in weights)
    drawn: list[PeerId] = []
    word_number = 0
    while len(drawn) < count:
        word = int.from_bytes(digest("sortition-word", seed, word_number.to_bytes(8, "big")), "big")
        word_number += 1
        if word >= _WORD - _WORD % total:
            continue
        index = _find(sums, word % total)
        peer, weight = weights[index]
        _remove(sums, index, weight)
        total -= weight
        drawn.append(peer)
    return drawn


def assign_roles(
    beacon: bytes,
    round_: int,
    weights: Mapping[PeerId, int],
    n_proposers: int,
    n_voters: int,
    min_proposers: int,
) -> Roles | None:
    """The roles of round `round_`, or None where fewer than `min_proposers` + 1 peers are eligible.

    `weights` holds the eligible peers only. One weighted order of all of them starts with the proposers,
    min(n_proposers, eligible - 1) of them; the rest, in order, are the aggregators; those after the first are
    the voters, up to `n_voters`, and a second weighted draw among the proposers fills the seats still empty.
    SortitionError on bad weights or counts.
    """
    if min(n_proposers, min_proposers) < 1 or n_voters < 0:
        raise SortitionError(f"{n_proposers} proposers (at least {min_proposers}), {n_voters} voters")
    if len(weights) < min_proposers + 1:
        return None
    seed = digest("sortition", beacon, round_.to_bytes(8, "big"))
    eligible = sorted(weights.items())
    order = draw_weighted(seed, eligible, len(eligible))
    n_p = min(n_proposers, len(eligible) - 1)
    proposers, aggregators = sorted(order[:n_p]), order[n_p:]
    voters = aggregators[1 : 1 + n_voters]
    empty_seats = min(n_voters - len(voters), n_p)
    voters += draw_weighted(
        digest("sortition-fill", seed), [(peer, weights[peer]) for peer in proposers], empty_seats
    )
    return Roles(round_, tuple(proposers), tuple(aggregators), tuple(sorted(voters)))


def undrawn_ppm(weights: Mapping[PeerId, int], peer: PeerId, draws: int) -> int:
    """Return at most how likely it is, in millionths and rounded up, that `draws` draws leave `peer` out.

    Each of the draws takes `peer` with its share of the weight that is left, and most is left where those
    drawn before were the lightest. Exact for equal weights. 10^6 for a peer that is not among `weights`.
    """
    own = weights.get(peer)
    if own is None:
        return 10**6
    lightest = sorted(weight for other, weight in weights.items() if other != peer)
    left, chance_ppm = sum(weights.values()), 10**6
    for number in range(min(draws, len(weights))):
        chance_ppm = -(-chance_ppm * (left - own) // left)
        left -= lightest[number] if number < len(lightest) else 0
    return chance_ppm


# A Fenwick tree: sums[i] holds the weights of the (i & -i) peers that end at number i, counted from 1.


def _partial_sums(weights: Sequence[int]) -> list[int]:
    sums = [0, *weights]
    for i in range(1, len(sums)):
        parent = i + (i & -i)
        if parent < len(sums):
            sums[parent] += sums[i]
    return sums


def _find(sums: Sequence[int], target: int) -> int:
    """The index from 0 of the peer whose stretch of the weights laid end to end contains `target`."""
    position = 0
    step = 1 << (len(sums) - 1).bit_length()
    while step:
        probe = position + step
        if probe < len(sums) and sums[probe] <= target:
            position = probe
            target -= sums[probe]
        step >>= 1
    return position


def _remove(sums: list[int], index: int, weight: int) -> None:
    i = index + 1
    while i < len(sums):
        sums[i] -= weight
        i += i & -i
