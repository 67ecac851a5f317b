"""Dealing a round's secrets to the proposers, and getting them back (docs/PROTOCOL.md section 3).

Every secret is shared by Shamir's scheme. The coefficients follow from the secret itself, so whoever
rebuilds a secret can deal it again: the shares of an honest dealer reproduce its Merkle root, those of
any other do not, whichever shares they were rebuilt from. A share's leaf and a box's associated data
name network, round, dealer and holder; otherwise a peer could pass another dealer's shares off as its
own, drop out, and have the other's secret rebuilt in its name.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Sequence
from enum import IntEnum
from functools import lru_cache

from attrs import field, frozen

from protocol import merkle
from protocol.algebra import field as fp
from protocol.algebra import shamir
from protocol.codec import (
    DecodeError,
    bounded_bytes,
    bounded_tuple,
    bytes_of,
    decode,
    digest,
    encode,
    int_range,
)
from protocol.context import Index, RoundContext
from protocol.keys import AgreementError, AgreementKey, SealError, agreement_public
from protocol.params import Masking
from protocol.secrets import RoundSecrets, round_bytes, secret_hash

SHARE_BYTES = fp.ELEMENT_BYTES * shamir.LIMBS
PACKAGE_BYTES = 4096
MAX_HOLDERS = 1024
NO_ROOT = bytes(32)
"""Root, and pinned hash, of a kind of share that the network does not use."""

_LIMBS = struct.Struct(f"<{shamir.LIMBS}I")
_hash = bytes_of(merkle.HASH_BYTES)
_share = bounded_bytes(SHARE_BYTES)
_proof = bounded_tuple(12, _hash)


class ShareError(ValueError):
    """A box or a share is not what its dealer owes its holder; the message names both and the reason."""


class ShareKind(IntEnum):
    """Which secret a share belongs to; also its place in roots and packages."""

    MASK = 0
    SELF = 1
    CHECK = 2


@frozen
class HeldShare:
    """One share with its path to the dealer's root: 36 bytes, nine little-endian limbs."""

    holder: Index = field(validator=int_range(0, MAX_HOLDERS - 1))
    share: bytes = field(validator=_share, repr=False)
    proof: tuple[bytes, ...] = field(validator=_proof, repr=False)


@frozen
class SharePackage:
    """What one holder gets from one dealer: its shares by kind, their proofs, and z_i."""

    shares: tuple[bytes, bytes, bytes] = field(validator=bounded_tuple(3, _share), repr=False)
    proofs: tuple[tuple[bytes, ...], tuple[bytes, ...], tuple[bytes, ...]] = field(repr=False)
    z: bytes = field(validator=bytes_of(32), repr=False)

    def held(self, holder: Index, kind: ShareKind) -> HeldShare:
        """The share of one kind, ready to be released."""
        return HeldShare(holder, self.shares[kind], self.proofs[kind])


@frozen
class Dealing:
    """A dealer's whole phase 1: Merkle roots by kind, H(b_i) H(rho_i) H(z_i), and a sealed box per holder.

    The box of a holder whose seal key agrees with nobody (a low-order point) is empty: its own loss.
    """

    roots: tuple[bytes, bytes, bytes]
    hashes: tuple[bytes, bytes, bytes]
    boxes: tuple[bytes, ...] = field(repr=False)


@frozen
class DealerFault:
    """Evidence against a dealer: exactly `threshold` shares in ascending order of holders.

    They stand under its root and still do not give back what it pinned, or not the root; see `fault_holds`.
    """

    dealer: Index = field(validator=int_range(0, MAX_HOLDERS - 1))
    kind: ShareKind
    shares: tuple[HeldShare, ...] = field(validator=bounded_tuple(MAX_HOLDERS), repr=False)


@frozen
class PinnedShares:
    """Shares of one dealer and kind, each of which `share_holds` under `root`, and what it pinned.

    `pinned` is the mask public key for MASK, the `secret_hash` for the other kinds.
    """

    dealer: Index
    shares: tuple[HeldShare, ...] = field(repr=False)
    root: bytes
    pinned: bytes


def shared_kinds(masking: Masking) -> tuple[ShareKind, ...]:
    """The kinds of share that a network deals: without double masks there is no self-mask to share."""
    if masking is Masking.SINGLE:
        return (ShareKind.MASK, ShareKind.CHECK)
    return (ShareKind.MASK, ShareKind.SELF, ShareKind.CHECK)


def share_scope(context: RoundContext, dealer: Index, kind: ShareKind) -> bytes:
    """What all shares of one dealing have in common: network, round, dealer and kind, in 32 bytes."""
    return _scope(context.network, context.round, context.proposers[dealer], kind)


@lru_cache(maxsize=1024)
def _scope(network: bytes, round_: int, dealer: bytes, kind: ShareKind) -> bytes:
    """Asked for by every holder of a share and again by everyone to whom it is released."""
    return digest("share", network, round_bytes(round_), dealer, bytes((kind,)))


def share_leaf(scope: bytes, holder: bytes, share: bytes) -> bytes:
    """The Merkle leaf of one share: scope, the holder's peer id and the share, 32 + 32 + 36 bytes."""
    return merkle.leaf_hash(scope + holder + share)


def box_associated(context: RoundContext, dealer: Index, holder: Index) -> bytes:
    """The associated data of one box: it opens only as this dealer's, to this holder, in this round."""
    return digest(
        "share box",
        context.network,
        round_bytes(context.round),
        context.proposers[dealer],
        context.proposers[holder],
    )


def _deal_shares(
    context: RoundContext, secrets: Sequence[tuple[Index, ShareKind, bytes]]
) -> list[tuple[list[bytes], merkle.Tree]]:
    """For every (dealer, kind, secret): the shares by holder, and the tree over their leaves."""
    holders = len(context.proposers)
    network, round_ = context.network, round_bytes(context.round)
    seeds = [
        digest("coefficients", secret, bytes((kind,)), network, round_, context.proposers[dealer])
        for dealer, kind, secret in secrets
    ]
    vectors = shamir.split_many([secret for _, _, secret in secrets], context.threshold, holders, seeds)
    dealt = []
    for place, (dealer, kind, _) in enumerate(secrets):
        packed = fp.to_bytes(vectors[:, place])
        shares = [packed[i * SHARE_BYTES : (i + 1) * SHARE_BYTES] for i in range(holders)]
        scope = share_scope(context, dealer, kind)
        leaves = [
            share_leaf(scope, holder, share) for holder, share in zip(context.proposers, shares, strict=True)
        ]
        dealt.append((shares, merkle.tree(leaves)))
    return dealt


def share_root(context: RoundContext, dealer: Index, kind: ShareKind, secret: bytes) -> bytes:
    """The root that an honest dealing of `secret` has: 32 bytes."""
    ((_, tree),) = _deal_shares(context, [(dealer, kind, secret)])
    return tree.root


def _dealt_kinds(
    context: RoundContext, dealer: Index, secrets: RoundSecrets
) -> dict[ShareKind, tuple[list[bytes], merkle.Tree]]:
    """Shares by holder, and the tree over them, of each kind that this network deals."""
    kinds = shared_kinds(context.params.masking)
    secret_of = {
        ShareKind.MASK: secrets.mask_secret,
        ShareKind.SELF: secrets.self_seed,
        ShareKind.CHECK: secrets.check_seed,
    }
    dealt = _deal_shares(context, [(dealer, kind, secret_of[kind]) for kind in kinds])
    return dict(zip(kinds, dealt, strict=True))


def _package(
    dealt: dict[ShareKind, tuple[list[bytes], merkle.Tree]], holder: Index, z: bytes
) -> SharePackage:
    def share(kind: ShareKind) -> bytes:
        return dealt[kind][0][holder] if kind in dealt else b""

    def proof(kind: ShareKind) -> tuple[bytes, ...]:
        return dealt[kind][1].proof(holder) if kind in dealt else ()

    return SharePackage(
        (share(ShareKind.MASK), share(ShareKind.SELF), share(ShareKind.CHECK)),
        (proof(ShareKind.MASK), proof(ShareKind.SELF), proof(ShareKind.CHECK)),
        z,
    )


def package_for(context: RoundContext, dealer: Index, holder: Index, secrets: RoundSecrets) -> SharePackage:
    """What the dealer owes one holder, for the public answer to its complaint."""
    return _package(_dealt_kinds(context, dealer, secrets), holder, secrets.z)


def deal(context: RoundContext, dealer: Index, secrets: RoundSecrets) -> Dealing:
    """Share the mask secret, the self seed and the check seed among all proposers, sealed with z_i."""
    dealt = _dealt_kinds(context, dealer, secrets)

    def pinned(label: str, secret: bytes) -> bytes:
        return secret_hash(label, context.network, context.round, context.proposers[dealer], secret)

    def root(kind: ShareKind) -> bytes:
        return dealt[kind][1].root if kind in dealt else NO_ROOT

    def box(holder: Index) -> bytes:
        try:
            channel = secrets.seal_key.channel(context.seal_publics[holder])
        except AgreementError:
            return b""
        package = _package(dealt, holder, secrets.z)
        return channel.seal(encode(package), box_associated(context, dealer, holder))

    return Dealing(
        roots=(root(ShareKind.MASK), root(ShareKind.SELF), root(ShareKind.CHECK)),
        hashes=(
            pinned("self", secrets.self_seed) if ShareKind.SELF in dealt else NO_ROOT,
            pinned("check", secrets.check_seed),
            pinned("z", secrets.z),
        ),
        boxes=tuple(box(holder) for holder in range(len(context.proposers))),
    )


def open_box(
    context: RoundContext,
    dealer: Index,
    holder: Index,
    seal_key: AgreementKey,
    box: bytes,
    roots: tuple[bytes, bytes, bytes],
) -> SharePackage:
    """The shares in a box, each proven under the dealer's root of its kind. `seal_key` is the holder's.

    z_i is not checked: a wrong one is replaced by asking another proposer, a wrong share is not.
    Raises `ShareError`: the box is not from this dealer to this holder, is malformed, or a share is not
    under its root.
    """
    return check_package(context, dealer, holder, unseal(context, dealer, holder, seal_key, box), roots)


def unseal(context: RoundContext, dealer: Index, holder: Index, seal_key: AgreementKey, box: bytes) -> bytes:
    """The encoded package in a box, unchecked. `ShareError`: it is not from this dealer to this holder."""
    associated = box_associated(context, dealer, holder)
    try:
        return seal_key.open(context.seal_publics[dealer], box, associated)
    except SealError as error:
        raise ShareError(f"shares of dealer {dealer} for holder {holder}: {error}") from error


def check_package(
    context: RoundContext, dealer: Index, holder: Index, data: bytes, roots: tuple[bytes, bytes, bytes]
) -> SharePackage:
    """An encoded package, from a box or published in answer to a complaint. `ShareError` as in `open_box`."""
    whose = f"shares of dealer {dealer} for holder {holder}"
    try:
        package = decode(SharePackage, data, PACKAGE_BYTES)
    except DecodeError as error:
        raise ShareError(f"{whose}: {error}") from error
    kinds = shared_kinds(context.params.masking)
    for kind in ShareKind:
        if kind not in kinds:
            if package.shares[kind] or package.proofs[kind]:
                raise ShareError(f"{whose}: a share of kind {kind.name}, which this network does not deal")
            continue
        if _stands(context, dealer, kind, holder, package.shares[kind], package.proofs[kind], roots[kind]):
            continue
        try:
            package.held(holder, kind)
        except ValueError as error:
            raise ShareError(f"{whose}: {kind.name}: {error}") from error
        else:
            raise ShareError(f"{whose}: the {kind.name} share is not under the dealer's root")
    return package


def load_package(data: bytes) -> SharePackage | None:
    """A package from the node's own store; None if it does not decode: a damaged record is a lost share."""
    try:
        return decode(SharePackage, data, PACKAGE_BYTES)
    except DecodeError:
        return None


def share_holds(context: RoundContext, dealer: Index, kind: ShareKind, held: HeldShare, root: bytes) -> bool:
    """Whether a share is nine field elements and stands at its holder's place under `root`."""
    return _stands(context, dealer, kind, held.holder, held.share, held.proof, root)


def _stands(
    context: RoundContext,
    dealer: Index,
    kind: ShareKind,
    holder: Index,
    share: bytes,
    proof: tuple[bytes, ...],
    root: bytes,
) -> bool:
    holders = context.proposers
    if len(share) != SHARE_BYTES or not 0 <= holder < len(holders) or max(_LIMBS.unpack(share)) >= fp.P:
        return False
    leaf = share_leaf(share_scope(context, dealer, kind), holders[holder], share)
    return merkle.verify(root, leaf, holder, len(holders), proof)


def rebuild(
    context: RoundContext,
    dealer: Index,
    kind: ShareKind,
    shares: Sequence[HeldShare],
    root: bytes,
    pinned: bytes,
) -> bytes | DealerFault:
    """The dealer's secret, or the proof that it dealt garbage; see `rebuild_many`."""
    (result,) = rebuild_many(context, kind, [PinnedShares(dealer, tuple(shares), root, pinned)])
    return result


def rebuild_many(
    context: RoundContext, kind: ShareKind, wanted: Sequence[PinnedShares]
) -> list[bytes | DealerFault]:
    """For each dealer its 32-byte secret, or the fault, from shares that `share_holds`.

    A secret counts only if it is the pinned one *and* dealing it again gives the root. The second
    condition makes the outcome the same whichever shares it was rebuilt from. `ShareError` on fewer than
    `threshold` distinct holders.
    """
    quorums = [_quorum(context, item.dealer, kind, item.shares) for item in wanted]
    secrets = _recover(context, quorums)
    results: list[bytes | DealerFault] = [
        DealerFault(item.dealer, kind, quorum) for item, quorum in zip(wanted, quorums, strict=True)
    ]
    candidates = [
        (place, item, secret)
        for place, (item, secret) in enumerate(zip(wanted, secrets, strict=True))
        if secret is not None and _is_pinned(context, item.dealer, kind, secret, item.pinned)
    ]
    if candidates:
        dealt = _deal_shares(context, [(item.dealer, kind, secret) for _, item, secret in candidates])
        for (place, item, secret), (_, tree) in zip(candidates, dealt, strict=True):
            if tree.root == item.root:
                results[place] = secret
    return results


def fault_holds(context: RoundContext, fault: DealerFault, root: bytes, pinned: bytes) -> bool:
    """Whether anyone who trusts `root` and `pinned` must find the dealer guilty; never an exception.

    True when `threshold` shares of distinct holders stand under the root and do not rebuild the pinned
    secret, or rebuild one whose dealing has another root. Shares of an honest dealer never do.
    """
    holders = [held.holder for held in fault.shares]
    if fault.dealer >= len(context.proposers) or fault.kind not in shared_kinds(context.params.masking):
        return False
    if len(holders) != context.threshold or sorted(set(holders)) != holders:
        return False
    if not all(share_holds(context, fault.dealer, fault.kind, held, root) for held in fault.shares):
        return False
    return isinstance(rebuild(context, fault.dealer, fault.kind, fault.shares, root, pinned), DealerFault)


def _quorum(
    context: RoundContext, dealer: Index, kind: ShareKind, shares: Sequence[HeldShare]
) -> tuple[HeldShare, ...]:
    """The shares of the `threshold` lowest holders, in order."""
    by_holder = {held.holder: held for held in shares}
    if len(by_holder) < context.threshold:
        raise ShareError(
            f"{kind.name} secret of dealer {dealer}: {len(by_holder)} shares, {context.threshold} are needed"
        )
    return tuple(by_holder[holder] for holder in sorted(by_holder)[: context.threshold])


def _recover(context: RoundContext, quorums: Sequence[tuple[HeldShare, ...]]) -> list[bytes | None]:
    """The secret behind each quorum, or None; one set of Lagrange weights per distinct set of holders."""
    places: dict[tuple[Index, ...], list[int]] = defaultdict(list)
    for place, quorum in enumerate(quorums):
        places[tuple(held.holder for held in quorum)].append(place)
    secrets: list[bytes | None] = [None] * len(quorums)
    for holders, group in places.items():
        data = b"".join(quorums[place][at].share for at in range(len(holders)) for place in group)
        count = len(holders) * len(group) * shamir.LIMBS
        vectors = fp.from_bytes(data, count, "shares").reshape(len(holders), len(group), shamir.LIMBS)
        recovered = shamir.recover_many(holders, vectors, context.threshold)
        for place, secret in zip(group, recovered, strict=True):
            secrets[place] = secret
    return secrets


def _is_pinned(context: RoundContext, dealer: Index, kind: ShareKind, secret: bytes, pinned: bytes) -> bool:
    if kind is ShareKind.MASK:
        return agreement_public(secret) == pinned
    label = "self" if kind is ShareKind.SELF else "check"
    return secret_hash(label, context.network, context.round, context.proposers[dealer], secret) == pinned
