import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import merkle


def leaves_of(count: int) -> list[bytes]:
    return [merkle.leaf_hash(bytes([i % 256, i // 256])) for i in range(count)]


def reference_root(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1: split at the largest power of two below the count."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    left, right = reference_root(leaves[:split]), reference_root(leaves[split:])
    return hashlib.sha256(b"\x01" + left + right).digest()


def reference_path(leaves: list[bytes], index: int) -> list[bytes]:
    """RFC 6962 section 2.1.1."""
    if len(leaves) == 1:
        return []
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    if index < split:
        return [*reference_path(leaves[:split], index), reference_root(leaves[split:])]
    return [*reference_path(leaves[split:], index - split), reference_root(leaves[:split])]


def test_leaf_hash_is_rfc_6962() -> None:
    assert merkle.leaf_hash(b"ab") == hashlib.sha256(b"\x00ab").digest()
    assert merkle.leaf_hash(memoryview(b"xaby")[1:3]) == merkle.leaf_hash(b"ab")
    # the empty leaf of the Certificate Transparency test vectors
    assert merkle.leaf_hash(b"").hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"


@pytest.mark.parametrize("count", [*range(1, 34), 63, 64, 65, 300])
def test_roots_and_proofs_by_definition(count: int) -> None:
    leaves = leaves_of(count)
    root = merkle.root(leaves)
    assert root == reference_root(leaves)
    for index, proof in enumerate(merkle.proofs(leaves)):
        assert list(proof) == reference_path(leaves, index)
        assert merkle.verify(root, leaves[index], index, count, proof)
    assert merkle.proof(leaves, count // 2) == merkle.proofs(leaves)[count // 2]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 13])
def test_a_proof_serves_one_place_in_one_tree(count: int) -> None:
    leaves = leaves_of(count)
    root = merkle.root(leaves)
    for index, proof in enumerate(merkle.proofs(leaves)):
        for other in range(-1, count + 2):
            for size in range(0, count + 1):
                if (other, size) != (index, count) and merkle.verify(root, leaves[index], other, size, proof):
                    # A path's shape can repeat in a tree of another size (sizes are trusted), not in its own.
                    assert size != count
        for at in range(len(proof)):
            changed = [*proof[:at], bytes([proof[at][0] ^ 1]) + proof[at][1:], *proof[at + 1 :]]
            assert not merkle.verify(root, leaves[index], index, count, changed)
            assert not merkle.verify(root, leaves[index], index, count, proof[:at] + proof[at + 1 :])
            assert not merkle.verify(root, leaves[index], index, count, [*proof[:at], b"", *proof[at + 1 :]])
        assert not merkle.verify(root, leaves[index], index, count, [*proof, root])
        assert not merkle.verify(root, leaves[index], index, count, [root, *proof])


def test_an_inner_node_is_no_leaf() -> None:
    leaves = leaves_of(4)
    left = merkle.node_hash(leaves[0], leaves[1])
    right = merkle.node_hash(leaves[2], leaves[3])
    assert merkle.root([left, right]) == merkle.root(leaves)  # as hashes; so the count is trusted, and
    assert not merkle.verify(merkle.root(leaves), left, 0, 4, [right])
    assert merkle.leaf_hash(leaves[0] + leaves[1]) != left  # no data hashes to an inner node


def test_a_repeated_last_leaf_changes_the_root() -> None:
    for count in range(1, 20):
        leaves = leaves_of(count)
        assert merkle.root([*leaves, leaves[-1]]) != merkle.root(leaves)


@given(
    st.integers(-2, 40),
    st.integers(-2, 40),
    st.lists(st.binary(max_size=33), max_size=8),
    st.binary(max_size=33),
)
def test_noise_is_false(index: int, count: int, proof: list[bytes], leaf: bytes) -> None:
    assert not merkle.verify(merkle.root(leaves_of(5)), leaf, index, count, proof)


def test_bad_arguments() -> None:
    with pytest.raises(merkle.MerkleError, match="needs a leaf"):
        merkle.root([])
    with pytest.raises(merkle.MerkleError, match="leaf 1 is 31 bytes"):
        merkle.root([bytes(32), bytes(31)])
    for index in (-1, 3):
        with pytest.raises(merkle.MerkleError, match="of a tree of 3"):
            merkle.proof(leaves_of(3), index)
