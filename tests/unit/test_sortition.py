import hashlib
import itertools
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from protocol import sortition
from protocol.codec import digest
from protocol.sortition import Roles, SortitionError, assign_roles, default_roles, draw_weighted, threshold


def peer(number: int) -> bytes:
    return hashlib.sha256(number.to_bytes(4, "big")).digest()


def seed(number: int) -> bytes:
    return hashlib.sha256(b"seed" + number.to_bytes(4, "big")).digest()


def stakes(*weights: int) -> dict[bytes, int]:
    return {peer(number): weight for number, weight in enumerate(weights)}


def reference_draw(seed: bytes, weights: list[tuple[bytes, int]], count: int) -> list[bytes]:
    """Walk along the weights of those left, one word of the stream at a time."""
    left, drawn = list(weights), []
    words = (
        int.from_bytes(digest("sortition-word", seed, i.to_bytes(8, "big")), "big") for i in itertools.count()
    )
    while len(drawn) < count:
        total = sum(weight for _, weight in left)
        word = next(words)
        if word >= 2**256 // total * total:
            continue
        target = word % total
        for position, (_, weight) in enumerate(left):
            if target < weight:
                drawn.append(left.pop(position)[0])
                break
            target -= weight
    return drawn


@given(
    st.binary(min_size=32, max_size=32),
    st.lists(st.integers(1, 2**60) | st.integers(1, 5), min_size=1, max_size=20),
    st.data(),
)
def test_draw_by_definition(seed: bytes, weights: list[int], data: st.DataObject) -> None:
    pairs = list(stakes(*weights).items())
    count = data.draw(st.integers(0, len(pairs)))
    drawn = draw_weighted(seed, pairs, count)
    assert drawn == reference_draw(seed, pairs, count)
    assert len(set(drawn)) == count


def test_every_word_of_a_small_stream_counts_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    # With words of one byte the whole stream can be tried: weights 1, 2, 4 share the 252 words below 36 * 7.
    monkeypatch.setattr(sortition, "_WORD", 256)
    monkeypatch.setattr(sortition, "digest", lambda domain, seed, number: seed[number[-1] : number[-1] + 1])
    pairs = list(stakes(1, 2, 4).items())
    first = Counter(draw_weighted(bytes([word, 0]), pairs, 1)[0] for word in range(252))
    assert [first[name] for name, _ in pairs] == [36, 72, 144]
    for word in range(252, 256):  # rejected: the next word, 0, decides
        assert draw_weighted(bytes([word, 0]), pairs, 1) == [pairs[0][0]]


def test_first_draw_is_stake_weighted() -> None:
    weights = stakes(1, 2, 3, 10, 4, 64, 16)
    draws = 6000
    counts = Counter(draw_weighted(seed(i), list(weights.items()), 1)[0] for i in range(draws))
    total = sum(weights.values())
    expected = [draws * weight / total for weight in weights.values()]
    assert chisquare([counts[name] for name in weights], expected).pvalue > 0.001


def test_whole_order_is_stake_weighted_without_replacement() -> None:
    weights = stakes(1, 2, 3, 6)
    draws = 6000
    counts = Counter(tuple(draw_weighted(seed(i), list(weights.items()), 4)) for i in range(draws))
    orders, expected = [], []
    for order in itertools.permutations(weights):
        probability, left = Fraction(1), sum(weights.values())
        for name in order:
            probability *= Fraction(weights[name], left)
            left -= weights[name]
        orders.append(order)
        expected.append(float(draws * probability))
    assert chisquare([counts[order] for order in orders], expected).pvalue > 0.001


def test_equal_stakes_serve_in_every_role_equally_often() -> None:
    weights = stakes(*[64] * 10)
    rounds = 3000
    proposed, aggregated, voted = Counter[bytes](), Counter[bytes](), Counter[bytes]()
    for round_ in range(rounds):
        roles = assign_roles(seed(0), round_, weights, 5, 2, 3)
        assert roles is not None
        proposed.update(roles.proposers)
        aggregated.update(roles.aggregators[:1])
        voted.update(roles.voters)
    for counts, seats in ((proposed, 5), (aggregated, 1), (voted, 2)):
        # Seats of one round exclude each other: the statistic is smaller than chi-squared, the test safe.
        assert chisquare([counts[name] for name in weights], [rounds * seats / 10] * 10).pvalue > 0.001


@given(
    st.binary(min_size=32, max_size=32),
    st.integers(0, 2**40),
    st.lists(st.integers(1, 2**50), min_size=1, max_size=24),
    st.integers(1, 12),
    st.integers(0, 8),
    st.integers(1, 6),
)
def test_role_rules(
    beacon: bytes, round_: int, weights: list[int], n_proposers: int, n_voters: int, min_proposers: int
) -> None:
    eligible = stakes(*weights)
    roles = assign_roles(beacon, round_, eligible, n_proposers, n_voters, min_proposers)
    if len(eligible) < min_proposers + 1:
        assert roles is None
        return
    assert roles is not None
    assert roles.round == round_
    proposers, aggregators, voters = set(roles.proposers), set(roles.aggregators), set(roles.voters)
    assert list(roles.proposers) == sorted(proposers)
    assert list(roles.voters) == sorted(voters)
    assert len(roles.proposers) == min(n_proposers, len(eligible) - 1)
    assert len(aggregators) == len(roles.aggregators) >= 1
    assert proposers | aggregators == set(eligible)
    assert not proposers & aggregators
    assert roles.aggregators[0] not in voters
    assert len(roles.voters) == min(n_voters, len(eligible) - 1)
    others = len(eligible) - len(proposers) - 1
    assert len(voters & proposers) == max(0, len(voters) - others)


def test_roles_depend_on_the_arguments_alone() -> None:
    weights = stakes(*range(1, 30))
    roles = assign_roles(seed(1), 5, weights, 8, 4, 3)
    assert assign_roles(seed(1), 5, dict(reversed(weights.items())), 8, 4, 3) == roles
    others = [
        assign_roles(seed(2), 5, weights, 8, 4, 3),
        assign_roles(seed(1), 6, weights, 8, 4, 3),
        assign_roles(seed(1), 5, weights | {peer(3): 10**6}, 8, 4, 3),
    ]
    assert all(other != roles for other in others)


def test_roles_by_definition() -> None:
    weights = stakes(5, 1, 7, 3, 2)
    names = sorted(weights)
    for round_ in range(50):
        seed = digest("sortition", bytes(32), round_.to_bytes(8, "big"))
        order = reference_draw(seed, [(name, weights[name]) for name in names], 5)
        proposers = sorted(order[:3])
        fill = reference_draw(
            digest("sortition-fill", seed), [(name, weights[name]) for name in proposers], 1
        )
        assert assign_roles(bytes(32), round_, weights, 3, 2, 3) == Roles(
            round_, tuple(proposers), tuple(order[3:]), tuple(sorted([order[4], *fill]))
        )


def test_fixed_vector() -> None:
    # Pins the stream, the order of the draws and the domain strings.
    roles = assign_roles(bytes(32), 1, {bytes([i]) * 32: i for i in range(1, 8)}, 4, 3, 3)
    assert roles is not None
    seats = [[name[0] for name in names] for names in (roles.proposers, roles.aggregators, roles.voters)]
    assert seats == [[3, 5, 6, 7], [1, 2, 4], [2, 4, 5]]


def test_default_roles_and_threshold() -> None:
    assert {n: default_roles(n) for n in (4, 5, 6, 7, 8, 9, 20, 100)} == {
        4: (3, 2), 5: (4, 2), 6: (4, 2), 7: (4, 2), 8: (4, 2), 9: (4, 2), 20: (10, 5), 100: (50, 25),
    }  # fmt: skip
    for nodes in range(4, 300):
        n_p, n_v = default_roles(nodes)
        assert 3 <= n_p < nodes
        assert nodes < 7 or n_p + 1 + n_v <= nodes  # disjoint as soon as there are enough nodes
        assert threshold(n_p) <= n_p
    with pytest.raises(SortitionError, match="4 nodes"):
        default_roles(3)
    for n in range(1, 200):
        assert threshold(n) > Fraction(2 * n, 3) >= threshold(n) - 1


@pytest.mark.parametrize(
    ("weights", "count", "what"),
    [
        ([(b"a", 1)], 2, "cannot draw 2 of 1"),
        ([(b"a", 1)], -1, "cannot draw -1"),
        ([(b"a", 1), (b"b", 0)], 1, "weight of peer 62 is 0"),
        ([(b"a", -1)], 1, "is -1, below 1"),
        ([(b"a", 1), (b"a", 1)], 1, "twice"),
    ],
)
def test_bad_draws(weights: list[tuple[bytes, int]], count: int, what: str) -> None:
    with pytest.raises(SortitionError, match=what):
        draw_weighted(bytes(32), weights, count)


@pytest.mark.parametrize("counts", [(0, 1, 1), (1, -1, 1), (1, 1, 0)])
def test_bad_counts(counts: tuple[int, int, int]) -> None:
    with pytest.raises(SortitionError):
        assign_roles(bytes(32), 1, stakes(1, 1, 1), *counts)


# -- being left out ----------------------------------------------------------------------------------


def chance_left_out(weights: dict[bytes, int], name: bytes, draws: int) -> Fraction:
    """Over every order in which the others can be drawn."""
    if draws == 0 or len(weights) == 1:
        return Fraction(0 if draws else 1)
    total, chance = sum(weights.values()), Fraction(0)
    for other, weight in weights.items():
        if other != name:
            left = {peer: w for peer, w in weights.items() if peer != other}
            chance += Fraction(weight, total) * chance_left_out(left, name, draws - 1)
    return chance


@given(st.lists(st.integers(1, 100), min_size=1, max_size=6), st.data())
def test_the_chance_to_be_left_out_is_never_told_too_small(weights: list[int], data: st.DataObject) -> None:
    """A node that is told that it should have been drawn long ago must not be an unlucky one."""
    given_, draws = stakes(*weights), data.draw(st.integers(0, len(weights)))
    for name in given_:
        exact = chance_left_out(given_, name, draws)
        told = sortition.undrawn_ppm(given_, name, draws)
        assert exact * 10**6 <= told <= 10**6
        if len(set(weights)) == 1:
            assert told <= exact * 10**6 + draws  # rounded up, draw by draw
    assert sortition.undrawn_ppm(given_, peer(99), draws) == 10**6
