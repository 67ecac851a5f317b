"""Masks that hide each update and cancel in the sum (docs/PROTOCOL.md section 4).

Bonawitz et al., CCS 2017: every pair of neighbours shares a seed, whose expansion one adds and the other
subtracts, and every client adds one more of its own, so that an upload declared lost and then delivered
late is still hidden. Who is whose neighbour is all pairs up to COMPLETE_LIMIT proposers; above, the k-regular
graph of Bell et al., CCS 2020 (eprint 2020/704): a Harary graph over positions shuffled by the beacon.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from math import comb

import numpy as np

from protocol.algebra import field
from protocol.algebra.field import FieldVec
from protocol.keys import KEY_BYTES, derive

COMPLETE_LIMIT = 256
FAILURE_BITS = 40
PAIR_LABEL = b"pair"
SELF_LABEL = b"self"
GRAPH_LABEL = b"graph"


class MaskError(ValueError):
    """Keys, indices or graph parameters under which the masks would not hide or not cancel."""


# --- seeds -----------------------------------------------------------------------------------------------


def pair_seed(
    shared_secret: bytes,
    network: bytes,
    round_: int,
    public_a: bytes,
    public_b: bytes,
    peer_a: bytes,
    peer_b: bytes,
) -> bytes:
    """s_ij, 32 bytes: HKDF-SHA256 of the X25519 agreement of two mask keys. docs/PROTOCOL.md section 4.

    The info is "mask", network, round (8 bytes, big endian), lower and higher peer id, and their mask public
    keys in the same order, each after its length; so a and b derive the same seed. Every bytes argument is
    32 long. MaskError names a wrong length, equal peers or public keys (a copied key makes other
    people's masks cancel), or an all-zero agreement (a low-order point: anyone could derive it).
    """
    named = {
        "shared secret": shared_secret,
        "network": network,
        "first public key": public_a,
        "second public key": public_b,
        "first peer": peer_a,
        "second peer": peer_b,
    }
    for name, value in named.items():
        if len(value) != KEY_BYTES:
            raise MaskError(f"{name} of {len(value)} bytes, expected {KEY_BYTES}")
    if not 0 <= round_ < 2**64:
        raise MaskError(f"round {round_} does not fit 8 bytes")
    if not any(shared_secret):
        raise MaskError("the shared secret is all zero")
    if public_a == public_b:
        raise MaskError("both peers advertised the same mask key")
    if peer_a == peer_b:
        raise MaskError("a peer shares no mask with itself")
    (low, public_low), (high, public_high) = sorted([(peer_a, public_a), (peer_b, public_b)])
    return derive(
        shared_secret, b"mask", network, round_.to_bytes(8, "big"), low, high, public_low, public_high
    )


# --- the graph -------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def graph_degree(n: int) -> int | None:
    """The number k of neighbours of each of n proposers, or None for all others.

    Above COMPLETE_LIMIT it is the smallest k = 2w for which, except with probability 2^-FAILURE_BITS, no
    choice of drops that `surviving_neighbours_ok` admits leaves an honest survivor with w consecutive
    circle positions beside it that are all corrupt or dropped. Only such a gap can cut the circle, so the
    honest survivors stay connected and their uploads reveal nothing but their total (the condition of
    Bell et al. 2020, section 3; theirs assumes random drops, this one lets the adversary pick them with the
    graph in view).

    In a gap of w at most w - s positions are dropped, s = floor(2w/3) + 1, so at least s of them are
    corrupt. The corrupt proposers, fewer than n - floor(2n/3) as everywhere in the protocol, do not know
    the beacon when they join, so their number among w given positions is hypergeometric:
    n * P[Hypergeometric(n - 1, corrupt, w) >= s] <= 2^-40, evaluated in integers. A beacon that can be
    drawn 2^g times over costs g of the 40 bits. 15 % of random drops break the rule, and so abort a round,
    in fewer than one round in a thousand, up to 2^14 proposers.
    """
    if n <= COMPLETE_LIMIT:
        return None
    corrupt = n - 1 - 2 * n // 3
    honest = n - 1 - corrupt
    for w in range(1, (n - 1) // 2):
        least = 2 * w // 3 + 1
        bad = sum(comb(corrupt, x) * comb(honest, w - x) for x in range(least, min(corrupt, w) + 1))
        if (n * bad << FAILURE_BITS) <= comb(n - 1, w):
            return 2 * w
    return None


@lru_cache(maxsize=16)
def _circle(n: int, beacon: bytes) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(index at each position, position of each index): the order of `expand(beacon, b"graph", n)`."""
    order = np.argsort(field.expand(beacon, GRAPH_LABEL, n), kind="stable")
    return tuple(order.tolist()), tuple(np.argsort(order).tolist())


def _check_graph(index: int, n: int, degree: int | None) -> None:
    if not 0 <= index < n:
        raise MaskError(f"index {index} among {n} proposers")
    if degree is not None and (degree % 2 or not 2 <= degree < n):
        raise MaskError(f"degree {degree} for {n} proposers, expected an even number below")


def _sides(index: int, n: int, beacon: bytes, degree: int) -> tuple[list[int], list[int]]:
    """The degree / 2 neighbours before and after `index` on the circle."""
    order, position = _circle(n, beacon)
    here = position[index]
    reach = range(1, degree // 2 + 1)
    return [order[(here - step) % n] for step in reach], [order[(here + step) % n] for step in reach]


def neighbours(index: int, n: int, beacon: bytes, degree: int | None) -> list[int]:
    """Sorted indices with which `index` shares masks; a symmetric relation on 0..n-1.

    All others for degree None, otherwise the degree / 2 nearest on each side of the circle into which the
    beacon (32 bytes) shuffles the proposers. MaskError for an index or a degree out of range.
    """
    _check_graph(index, n, degree)
    if degree is None:
        return [other for other in range(n) if other != index]
    before, after = _sides(index, n, beacon, degree)
    return sorted(before + after)


def surviving_neighbours_ok(n: int, beacon: bytes, degree: int | None, survivors: set[int]) -> bool:
    """Whether a set of survivors may be unmasked: each keeps more than 2/3 of its neighbours on either side.

    Both sides are counted apart, because two thirds of all neighbours would allow a whole side to be
    dropped or corrupt, and two such gaps cut the circle into arcs whose sums can be read separately. In
    the complete graph every set is connected. MaskError for a survivor or a degree out of range.
    """
    for index in sorted(survivors):
        _check_graph(index, n, degree)
    if degree is None:
        return True
    return all(
        3 * len(survivors.intersection(side)) > 2 * len(side)
        for index in survivors
        for side in _sides(index, n, beacon, degree)
    )


# --- masks -----------------------------------------------------------------------------------------------


def _pair_sign(own: int, other: int) -> int:
    """The lower index adds the pair's expansion, the higher one subtracts it."""
    if own == other:
        raise MaskError(f"proposer {own} shares no mask with itself")
    return 1 if other > own else -1


def mask(
    values: FieldVec, my_index: int, pair_seeds: Mapping[int, bytes], self_seed: bytes | None
) -> FieldVec:
    """y_i of docs/PROTOCOL.md section 4, uint32[m], from the encoded update uint32[m], which is not changed.

    `pair_seeds` maps each neighbour's index to s_ij; `self_seed` is b_i, None under single masking. MaskError
    where `my_index` is its own neighbour, FieldError for a seed that is not 32 bytes.
    """
    masked = values.copy()
    for other in sorted(pair_seeds):
        field.expand_into(masked, pair_seeds[other], PAIR_LABEL, _pair_sign(my_index, other))
    if self_seed is not None:
        field.expand_into(masked, self_seed, SELF_LABEL, 1)
    return masked


def unmask(
    total: FieldVec, self_seeds: Iterable[bytes], dangling: Iterable[tuple[int, int, bytes]]
) -> FieldVec:
    """The plain sum, uint32[m], from the sum of the survivors' y_i, which is not changed.

    `self_seeds` are the b_i of all survivors; `dangling` lists (survivor, dropped, s_ij) for every pair of
    neighbours of which only the first is in the sum. MaskError and FieldError as for `mask`.
    """
    plain = total.copy()
    for seed in self_seeds:
        field.expand_into(plain, seed, SELF_LABEL, -1)
    for survivor, dropped, seed in dangling:
        field.expand_into(plain, seed, PAIR_LABEL, -_pair_sign(survivor, dropped))
    return plain
