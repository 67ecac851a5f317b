"""Masks against their definition, what they hide, and the attacks on the sparse graph."""

import hashlib
import itertools
from fractions import Fraction

import numpy as np
import pytest

from protocol.algebra import field
from protocol.algebra.field import P
from protocol.keys import agree, agreement_public, derive
from protocol.secagg import masking
from protocol.secagg.masking import MaskError

NETWORK = hashlib.sha256(b"network").digest()
BEACON = hashlib.sha256(b"beacon").digest()


def named(*parts: object) -> bytes:
    return hashlib.sha256(repr(parts).encode()).digest()


def encoded_update(m: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-(2**19), 2**19, m)


def seed_of(i: int, j: int, round_: int = 0) -> bytes:
    return named("pair", round_, min(i, j), max(i, j))


def masked(i: int, update: np.ndarray, others: list[int], round_: int = 0, double: bool = True) -> np.ndarray:
    pair_seeds = {j: seed_of(i, j, round_) for j in others}
    self_seed = named("self", round_, i) if double else None
    return masking.mask(field.from_signed(update), i, pair_seeds, self_seed)


# --- seeds -----------------------------------------------------------------------------------------------


def test_pair_seeds_agree_and_are_bound_to_everything() -> None:
    secrets = [named("secret", k) for k in range(2)]
    publics = [agreement_public(secret) for secret in secrets]
    peers = [named("peer", k) for k in range(2)]
    mine = agree(secrets[0], publics[1])
    theirs = agree(secrets[1], publics[0])
    seed = masking.pair_seed(mine, NETWORK, 3, publics[0], publics[1], peers[0], peers[1])
    assert seed == masking.pair_seed(theirs, NETWORK, 3, publics[1], publics[0], peers[1], peers[0])
    low, high = sorted(range(2), key=lambda k: peers[k])
    assert seed == derive(
        mine, b"mask", NETWORK, (3).to_bytes(8, "big"), peers[low], peers[high], publics[low], publics[high]
    )
    others = {
        masking.pair_seed(mine, NETWORK, 4, publics[0], publics[1], peers[0], peers[1]),
        masking.pair_seed(mine, BEACON, 3, publics[0], publics[1], peers[0], peers[1]),
        masking.pair_seed(mine, NETWORK, 3, publics[1], publics[0], peers[0], peers[1]),
        masking.pair_seed(mine, NETWORK, 3, publics[0], publics[1], peers[0], BEACON),
        masking.pair_seed(BEACON, NETWORK, 3, publics[0], publics[1], peers[0], peers[1]),
    }
    assert len(others | {seed}) == 6


def test_weak_agreements_are_refused() -> None:
    a, b, x, y = (named(k) for k in "abxy")
    with pytest.raises(MaskError, match="all zero"):
        masking.pair_seed(bytes(32), NETWORK, 0, a, b, x, y)
    with pytest.raises(MaskError, match="same mask key"):
        masking.pair_seed(NETWORK, NETWORK, 0, a, a, x, y)
    with pytest.raises(MaskError, match="itself"):
        masking.pair_seed(NETWORK, NETWORK, 0, a, b, x, x)
    with pytest.raises(MaskError, match="second public key of 31 bytes"):
        masking.pair_seed(NETWORK, NETWORK, 0, a, b[:31], x, y)
    for round_ in (-1, 2**64):
        with pytest.raises(MaskError, match="round"):
            masking.pair_seed(NETWORK, NETWORK, round_, a, b, x, y)


# --- masks -----------------------------------------------------------------------------------------------


def test_a_mask_is_the_signed_sum_of_its_expansions() -> None:
    update = encoded_update(50, 1)
    values = field.from_signed(update)
    before = values.copy()
    result = masking.mask(values, 2, {0: seed_of(2, 0), 5: seed_of(2, 5)}, named("self"))
    expected = [
        (int(q) - int(low) + int(high) + int(own)) % P
        for q, low, high, own in zip(
            update,
            field.expand(seed_of(2, 0), b"pair", 50),
            field.expand(seed_of(2, 5), b"pair", 50),
            field.expand(named("self"), b"self", 50),
            strict=True,
        )
    ]
    assert result.tolist() == expected
    assert np.array_equal(values, before)
    assert np.array_equal(masking.mask(values, 2, {}, None), values)


def test_no_mask_with_oneself() -> None:
    values = np.zeros(3, dtype=np.uint32)
    with pytest.raises(MaskError, match="itself"):
        masking.mask(values, 1, {1: bytes(32)}, None)
    with pytest.raises(MaskError, match="itself"):
        masking.unmask(values, [], [(4, 4, bytes(32))])
    with pytest.raises(field.FieldError, match="31 bytes"):
        masking.mask(values, 1, {2: bytes(31)}, None)


def bucket_counts(x: np.ndarray, buckets: int = 256) -> np.ndarray:
    return np.bincount(x.astype(np.int64) * buckets // P, minlength=buckets)


def chi_squared_against_uniform(x: np.ndarray) -> float:
    expected = x.size / 256
    return float(((bucket_counts(x) - expected) ** 2 / expected).sum())


def chi_squared_between(x: np.ndarray, y: np.ndarray) -> float:
    a, b = bucket_counts(x), bucket_counts(y)
    return float(((a - b) ** 2 / (a + b)).sum())


# 255 degrees of freedom: mean 255, and 341 is exceeded with probability 2.5e-4.
CHI_SQUARED_LIMIT = 341.0


@pytest.mark.parametrize("double", [True, False])
def test_masked_uploads_of_different_updates_are_indistinguishable(double: bool) -> None:
    m = 100_000
    constant = masked(0, np.zeros(m, dtype=np.int64), [1, 2], round_=1, double=double)
    extreme = masked(0, np.full(m, 2**19 - 1), [1, 2], round_=2, double=double)
    for upload in (constant, extreme):
        assert chi_squared_against_uniform(upload) < CHI_SQUARED_LIMIT
    assert chi_squared_between(constant, extreme) < CHI_SQUARED_LIMIT
    # The statistic does see an update that is not masked.
    assert chi_squared_against_uniform(field.from_signed(encoded_update(m, 1))) > 100 * CHI_SQUARED_LIMIT


def test_one_update_in_two_rounds_gives_unrelated_uploads() -> None:
    m = 100_000
    update = encoded_update(m, 1)
    first, second = (masked(0, update, [1, 2], round_) for round_ in (1, 2))
    assert chi_squared_against_uniform(field.sub(first, second)) < CHI_SQUARED_LIMIT
    assert (first == second).sum() < 5
    correlation = np.corrcoef(first.astype(np.float64), second.astype(np.float64))[0, 1]
    assert abs(correlation) < 4 / np.sqrt(m)


def test_partial_sums_stay_hidden() -> None:
    """Without one survivor, or without one self-mask, the aggregator is left with a uniform vector."""
    m, n = 100_000, 4
    uploads = [masked(i, np.zeros(m, dtype=np.int64), [j for j in range(n) if j != i]) for i in range(n)]
    total = np.zeros(m, dtype=np.uint32)
    for upload in uploads[:-1]:
        field.accumulate(total, upload)
    partial = masking.unmask(total, [named("self", 0, i) for i in range(n - 1)], [])
    assert chi_squared_against_uniform(partial) < CHI_SQUARED_LIMIT
    field.accumulate(total, uploads[-1])
    missing = masking.unmask(total, [named("self", 0, i) for i in range(n - 1)], [])
    assert chi_squared_against_uniform(missing) < CHI_SQUARED_LIMIT
    assert not masking.unmask(total, [named("self", 0, i) for i in range(n)], []).any()


def test_a_late_upload_of_a_dropped_peer_stays_hidden() -> None:
    """Its pairwise seeds are rebuilt once it is declared dropped; its self-mask hides what arrives late."""
    m = 100_000
    update = np.zeros(m, dtype=np.int64)
    rebuilt = [(0, j, seed_of(0, j)) for j in (1, 2)]
    double = masking.unmask(masked(0, update, [1, 2]), [], rebuilt)
    assert chi_squared_against_uniform(double) < CHI_SQUARED_LIMIT
    single = masking.unmask(masked(0, update, [1, 2], double=False), [], rebuilt)
    assert not single.any()


# --- the graph -------------------------------------------------------------------------------------------


def tail_by_definition(population: int, marked: int, drawn: int, least: int) -> Fraction:
    """P[at least `least` marked among `drawn`], drawing one at a time."""
    chances = {0: Fraction(1)}
    for step in range(drawn):
        after: dict[int, Fraction] = {}
        for hits, chance in chances.items():
            hit = Fraction(marked - hits, population - step)
            after[hits + 1] = after.get(hits + 1, Fraction(0)) + chance * hit
            after[hits] = after.get(hits, Fraction(0)) + chance * (1 - hit)
        chances = after
    return sum((chance for hits, chance in chances.items() if hits >= least), Fraction(0))


def test_degree_meets_its_bound_and_is_the_least_that_does() -> None:
    for n in (1, 2, 4, 100, 256):
        assert masking.graph_degree(n) is None
    n, degree = 300, masking.graph_degree(300)
    assert degree == 174
    corrupt = -(-n // 3) - 1

    def failure(w: int) -> Fraction:
        return n * tail_by_definition(n - 1, corrupt, w, 2 * w // 3 + 1)

    assert failure(degree // 2) <= Fraction(1, 2**40) < failure(degree // 2 - 1)
    degrees = [masking.graph_degree(n) for n in (257, 300, 1000, 4000, 2**14)]
    assert degrees == sorted(degrees)
    assert degrees[-1] < 300


@pytest.mark.parametrize(("n", "degree"), [(10, 4), (7, 6), (300, 174)])
def test_the_sparse_graph_is_regular_symmetric_and_shuffled(n: int, degree: int) -> None:
    graph = [masking.neighbours(i, n, BEACON, degree) for i in range(n)]
    for i, near in enumerate(graph):
        assert near == sorted(set(near))
        assert len(near) == degree
        assert i not in near
        assert all(i in graph[j] for j in near)
    if degree < n - 1:
        assert graph != [masking.neighbours(i, n, NETWORK, degree) for i in range(n)]
    # By definition: near in the order of the beacon's words.
    words = field.expand(BEACON, b"graph", n).tolist()
    circle = sorted(range(n), key=lambda i: (words[i], i))
    i = circle[0]
    expected = {circle[step % n] for step in range(-(degree // 2), degree // 2 + 1)} - {i}
    assert set(graph[i]) == expected


def test_the_complete_graph() -> None:
    assert masking.neighbours(1, 4, BEACON, None) == [0, 2, 3]
    assert masking.neighbours(0, 1, BEACON, None) == []
    assert masking.surviving_neighbours_ok(4, BEACON, None, {0, 1})


def test_impossible_graphs_are_refused() -> None:
    for index, n, degree in ((4, 4, None), (-1, 4, None), (0, 10, 3), (0, 10, 0), (0, 10, 10), (0, 0, None)):
        with pytest.raises(MaskError, match=r"index|degree"):
            masking.neighbours(index, n, BEACON, degree)
    with pytest.raises(MaskError, match="index 10"):
        masking.surviving_neighbours_ok(10, BEACON, 4, {1, 10})


def test_survivors_by_definition() -> None:
    n, degree = 30, 12
    words = field.expand(BEACON, b"graph", n).tolist()
    circle = sorted(range(n), key=lambda i: (words[i], i))
    rng = np.random.default_rng(5)
    seen = set()
    for size in [30] * 2 + [28] * 20 + [26] * 40:
        survivors = {int(i) for i in rng.choice(n, size, replace=False)}
        verdict = all(
            sum(circle[(p + side * step) % n] in survivors for step in range(1, 7)) >= 5
            for p in range(n)
            if circle[p] in survivors
            for side in (1, -1)
        )
        assert masking.surviving_neighbours_ok(n, BEACON, degree, survivors) == verdict
        seen.add(verdict)
    assert seen == {True, False}


def components(members: set[int], n: int, degree: int) -> list[set[int]]:
    """Connected components of the graph restricted to `members`."""
    left, out = set(members), []
    while left:
        frontier = {left.pop()}
        component = set(frontier)
        while frontier:
            frontier = {j for i in frontier for j in masking.neighbours(i, n, BEACON, degree) if j in left}
            left -= frontier
            component |= frontier
        out.append(component)
    return out


def test_attack_dropping_all_neighbours_of_a_victim() -> None:
    """It would read the victim's update out of the sum; the rule refuses the survivor set."""
    n, degree, m, victim = 300, 174, 20, 7
    near = masking.neighbours(victim, n, BEACON, degree)
    update = encoded_update(m, 1)
    upload = masked(victim, update, near)
    rebuilt = [(victim, j, seed_of(victim, j)) for j in near]
    read = masking.unmask(upload, [named("self", 0, victim)], rebuilt)
    assert np.array_equal(field.to_signed(read), update)
    assert not masking.surviving_neighbours_ok(n, BEACON, degree, set(range(n)) - set(near))


def test_attack_cutting_the_circle_into_arcs() -> None:
    """Two gaps of corrupt and dropped peers, each tolerable by a rule on all neighbours of a survivor, cut
    the honest survivors into two arcs, and the sum of one arc is read. The rule on each side refuses it."""
    n, degree, m = 300, 60, 12
    w = degree // 2
    words = field.expand(BEACON, b"graph", n).tolist()
    circle = sorted(range(n), key=lambda i: (words[i], i))
    gaps = [range(0, w), range(100, 100 + w)]
    dropped = {circle[p] for gap in gaps for p in gap[: 2 * w // 3 - 1]}
    corrupt = {circle[p] for gap in gaps for p in gap} - dropped
    survivors = set(range(n)) - dropped
    for i in survivors:
        kept = len(survivors.intersection(masking.neighbours(i, n, BEACON, degree)))
        assert 3 * kept > 2 * degree
    assert len(corrupt) < n / 3
    arcs = components(survivors - corrupt, n, degree)
    assert sorted(map(len, arcs)) == [70, 170]

    arc = min(arcs, key=len)
    updates = {i: encoded_update(m, i) for i in sorted(arc)}
    total = np.zeros(m, dtype=np.uint32)
    known = []  # the corrupt know their own seeds, and those of the dropped are rebuilt
    for i, update in updates.items():
        near = masking.neighbours(i, n, BEACON, degree)
        field.accumulate(total, masked(i, update, near))
        known += [(i, j, seed_of(i, j)) for j in near if j not in arc]
    assert all(j in corrupt | dropped for _, j, _ in known)
    read = masking.unmask(total, [named("self", 0, i) for i in updates], known)
    assert np.array_equal(field.to_signed(read), sum(updates.values()))

    assert not masking.surviving_neighbours_ok(n, BEACON, degree, survivors)


def test_the_strongest_admissible_drops_do_not_cut_the_full_degree() -> None:
    """The adversary drops, beside every corrupt-rich stretch, as many honest peers as the rule lets it."""
    n = 300
    degree = masking.graph_degree(n)
    w = degree // 2
    words = field.expand(BEACON, b"graph", n).tolist()
    circle = sorted(range(n), key=lambda i: (words[i], i))
    for trial in range(5):
        corrupt = {int(i) for i in np.random.default_rng(trial).choice(n, 99, replace=False)}
        richest = max(range(n), key=lambda p: sum(circle[(p + s) % n] in corrupt for s in range(w)))
        survivors = set(range(n))
        order = [circle[(richest + s) % n] for s in itertools.chain(range(w), range(150, 150 + w))]
        for peer in order:
            if peer not in corrupt and masking.surviving_neighbours_ok(n, BEACON, degree, survivors - {peer}):
                survivors.remove(peer)
        assert len(survivors) < n
        assert len(components(survivors - corrupt, n, degree)) == 1


def test_a_sparse_round_with_dropouts_sums_exactly() -> None:
    n, m = 300, 6
    degree = masking.graph_degree(n)
    gone = set(range(0, n, 12))
    survivors = set(range(n)) - gone
    assert masking.surviving_neighbours_ok(n, BEACON, degree, survivors)
    graph = [masking.neighbours(i, n, BEACON, degree) for i in range(n)]
    updates = {i: encoded_update(m, i) for i in sorted(survivors)}
    total = np.zeros(m, dtype=np.uint32)
    for i, update in updates.items():
        field.accumulate(total, masked(i, update, graph[i]))
    dangling = [(i, j, seed_of(i, j)) for i in updates for j in graph[i] if j in gone]
    plain = masking.unmask(total, (named("self", 0, i) for i in updates), dangling)
    assert np.array_equal(field.to_signed(plain), sum(updates.values()))
