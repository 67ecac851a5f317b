"""Top-share selection and the shared support against sorting by definition."""

import hashlib
import math

import numpy as np
import pytest

from protocol.algebra import field
from protocol.secagg import sparsify
from protocol.secagg.encoding import EncodingError

BEACON = hashlib.sha256(b"beacon").digest()


def gaussian(d: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(d).astype(np.float32)


def top_by_definition(keys: list, count: int) -> list[int]:
    return sorted(sorted(range(len(keys)), key=lambda i: (-keys[i], i))[:count])


@pytest.mark.parametrize("permille", [1, 10, 333, 1000])
def test_topk_local_is_algorithm_2(permille: int) -> None:
    update, residual = gaussian(1001), gaussian(1001, 2)
    sparse, kept = sparsify.topk_local(update, residual, permille)
    accumulated = np.float32(0.5) * residual + update
    chosen = top_by_definition(np.abs(accumulated).tolist(), math.ceil(1001 * permille / 1000))
    assert np.flatnonzero(sparse).tolist() == chosen
    assert np.array_equal(sparse[chosen], accumulated[chosen])
    assert not kept[chosen].any()
    assert sparse.dtype == kept.dtype == np.float32
    # What is not sent stays: nothing is lost.
    assert np.array_equal(sparse + kept, accumulated)


def test_topk_local_breaks_ties_by_index_and_keeps_its_inputs() -> None:
    update = np.array([1, -2, 2, 1, -1, 2], dtype=np.float32)
    residual = np.zeros(6, dtype=np.float32)
    sparse, kept = sparsify.topk_local(update, residual, 667, momentum=0.0)
    assert sparse.tolist() == [1, -2, 2, 1, 0, 2]
    assert kept.tolist() == [0, 0, 0, 0, -1, 0]
    assert update.tolist() == [1, -2, 2, 1, -1, 2]
    assert not residual.any()


def test_a_small_gradient_is_sent_in_the_end() -> None:
    update = np.array([1.0, 0.6], dtype=np.float32)
    residual = np.zeros(2, dtype=np.float32)
    sent = np.zeros(2, dtype=bool)
    for _ in range(3):
        sparse, residual = sparsify.topk_local(update, residual, 500, momentum=1.0)
        sent |= sparse != 0
    assert sent.all()


def support_by_definition(last: np.ndarray | None, d: int, permille: int) -> list[int]:
    k = math.ceil(d * permille / 1000)
    large: list[int] = []
    if last is not None:
        magnitudes = [abs(x) for x in last.tolist()]
        large = top_by_definition(magnitudes, min(k // 2, sum(m > 0 for m in magnitudes)))
    words = field.expand(BEACON, b"support", d).tolist()
    others = sorted(set(range(d)) - set(large), key=lambda i: (-words[i], i))
    return sorted(large + others[: k - len(large)])


@pytest.mark.parametrize(("d", "permille"), [(1, 1), (10, 1000), (999, 100), (1000, 1), (500, 501)])
def test_shared_support_by_definition(d: int, permille: int) -> None:
    last = np.random.default_rng(4).integers(-50, 50, d)
    for aggregate in (None, last, np.zeros(d, dtype=np.int64)):
        support = sparsify.shared_support(BEACON, aggregate, d, permille)
        assert support.dtype == np.int64
        assert support.tolist() == support_by_definition(aggregate, d, permille)
        assert support.size == math.ceil(d * permille / 1000)


def test_shared_support_moves_with_the_beacon_and_follows_the_aggregate() -> None:
    d = 5000
    last = np.zeros(d, dtype=np.int64)
    last[1000:1200] = np.arange(1, 201)
    first = sparsify.shared_support(BEACON, last, d, 100)
    second = sparsify.shared_support(bytes(32), last, d, 100)
    assert set(range(1000, 1200)) <= set(first.tolist()) & set(second.tolist())
    assert not np.array_equal(first, second)
    # Over many beacons every other coordinate gets its turn: 60 draws of 250 from 4,750 and more.
    supports = [sparsify.shared_support(hashlib.sha256(bytes([k])).digest(), last, d, 100) for k in range(60)]
    counts = np.bincount(np.concatenate(supports), minlength=d)
    assert (counts > 0).mean() > 0.95


def test_shared_support_refuses_bad_arguments() -> None:
    with pytest.raises(EncodingError, match="last aggregate of shape"):
        sparsify.shared_support(BEACON, np.zeros(4, dtype=np.int64), 5, 100)
    for d, permille in ((0, 100), (10, 0), (10, 1001)):
        with pytest.raises(EncodingError, match="permille"):
            sparsify.shared_support(BEACON, None, d, permille)
    with pytest.raises(EncodingError, match=r"2\^63"):
        sparsify.shared_support(BEACON, np.array([-(2**63), 1]), 2, 500)
    with pytest.raises(field.FieldError, match="seed"):
        sparsify.shared_support(BEACON[:5], None, 10, 100)


def test_restrict_sends_the_support_and_keeps_the_rest() -> None:
    update, residual = gaussian(100), gaussian(100, 2)
    support = sparsify.shared_support(BEACON, None, 100, 250)
    sent, kept = sparsify.restrict(update, residual, support)
    accumulated = np.float32(0.5) * residual + update
    assert sent.dtype == kept.dtype == np.float32
    assert np.array_equal(sent, accumulated[support])
    whole = kept.copy()
    whole[support] = sent
    assert np.array_equal(whole, accumulated)
    assert not kept[support].any()
    carried, _ = sparsify.restrict(update, residual, support, momentum=1.0)
    assert np.array_equal(carried, (residual + update)[support])


@pytest.mark.parametrize("support", [[1, 1], [2, 1], [-1, 3], [0, 10]])
def test_restrict_refuses_a_bad_support(support: list[int]) -> None:
    with pytest.raises(EncodingError, match="support"):
        sparsify.restrict(gaussian(10), gaussian(10), np.array(support, dtype=np.int64))


def test_shapes_and_values_are_checked() -> None:
    with pytest.raises(EncodingError, match="shape"):
        sparsify.topk_local(gaussian(10), gaussian(9), 100)
    bad = gaussian(10)
    bad[3] = np.nan
    with pytest.raises(EncodingError, match="element 3"):
        sparsify.topk_local(bad, gaussian(10), 100)
    with pytest.raises(EncodingError, match="element 3"):
        sparsify.restrict(gaussian(10), bad, np.array([1], dtype=np.int64))
