"""Merkle trees and membership proofs, as in RFC 6962 section 2.1 (docs/PROTOCOL.md sections 3 and 7).

Leaves and inner nodes are hashed under different first bytes, and an odd node moves up a level unchanged
(nothing is duplicated), so one root stands for one list of leaves of one length.
"""

import hashlib
from collections.abc import Sequence

from attrs import frozen

HASH_BYTES = 32

_LEAF = b"\x00"
_NODE = b"\x01"


class MerkleError(ValueError):
    """A tree without leaves, a leaf that is no 32-byte hash, or an index outside the tree."""


def leaf_hash(data: bytes | memoryview) -> bytes:
    """The 32-byte leaf that stands for `data`."""
    state = hashlib.sha256(_LEAF)
    state.update(data)
    return state.digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The 32-byte parent of two nodes."""
    return hashlib.sha256(_NODE + left + right).digest()


@frozen
class Tree:
    """Every level of a tree, leaves first, the root alone in the last; made by `tree`."""

    levels: tuple[tuple[bytes, ...], ...]

    @property
    def root(self) -> bytes:
        """The 32-byte root."""
        return self.levels[-1][0]

    def proof(self, index: int) -> tuple[bytes, ...]:
        """The siblings on the way from leaf `index` to the root, at most ceil(log2(leaves)) of them.

        MerkleError where there is no such leaf.
        """
        if not 0 <= index < len(self.levels[0]):
            raise MerkleError(f"leaf {index} of a tree of {len(self.levels[0])}")
        siblings = []
        for level in self.levels[:-1]:
            sibling = index ^ 1
            if sibling < len(level):
                siblings.append(level[sibling])
            index >>= 1
        return tuple(siblings)


def tree(leaves: Sequence[bytes]) -> Tree:
    """The tree over at least one `leaf_hash`. MerkleError on an empty list or a leaf that is not 32 bytes."""
    if not leaves:
        raise MerkleError("a tree needs a leaf")
    for index, leaf in enumerate(leaves):
        if len(leaf) != HASH_BYTES:
            raise MerkleError(f"leaf {index} is {len(leaf)} bytes, not {HASH_BYTES}")
    levels = [tuple(leaves)]
    while len(levels[-1]) > 1:
        below = levels[-1]
        level = [node_hash(below[i], below[i + 1]) for i in range(0, len(below) - 1, 2)]
        if len(below) % 2:
            level.append(below[-1])
        levels.append(tuple(level))
    return Tree(tuple(levels))


def root(leaves: Sequence[bytes]) -> bytes:
    """The 32-byte root over `leaf_hash`es; errors as in `tree`."""
    return tree(leaves).root


def proof(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """The membership proof of leaf `index`; errors as in `tree` and `Tree.proof`."""
    return tree(leaves).proof(index)


def proofs(leaves: Sequence[bytes]) -> list[tuple[bytes, ...]]:
    """The membership proofs of all leaves, from one tree; errors as in `tree`."""
    whole = tree(leaves)
    return [whole.proof(index) for index in range(len(leaves))]


def root_of_path(leaf: bytes, index: int, count: int, proof: Sequence[bytes]) -> bytes | None:
    """The root under which `proof` puts `leaf` as number `index` of `count` (RFC 9162 section 2.1.3.2).

    None where the proof has not exactly the hashes that this place in a tree of this size takes.
    """
    if not 0 <= index < count:
        return None
    node, last, sha256 = leaf, count - 1, hashlib.sha256
    for sibling in proof:
        if last == 0 or len(sibling) != HASH_BYTES:
            return None
        if index % 2 or index == last:
            node = sha256(_NODE + sibling + node).digest()
            # A node that moved up unchanged has no sibling on the levels it skipped.
            while index % 2 == 0 and index:
                index >>= 1
                last >>= 1
        else:
            node = sha256(_NODE + node + sibling).digest()
        index >>= 1
        last >>= 1
    return node if last == 0 else None


def verify(root: bytes, leaf: bytes, index: int, count: int, proof: Sequence[bytes]) -> bool:
    """Whether `leaf` is number `index` of the `count` leaves under `root`.

    `index` and `count` must come from where the verifier trusts them: they fix the length of the path, so no
    inner node passes for a leaf. False, never an exception, for every malformed proof.
    """
    return root_of_path(leaf, index, count, proof) == root
