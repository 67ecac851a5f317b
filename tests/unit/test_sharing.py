"""Dealing, opening and rebuilding secrets; every way of cheating with a share is tried."""

from __future__ import annotations

import hashlib
import struct

import pytest
from attrs import evolve

from protocol import merkle
from protocol.codec import decode, digest, encode
from protocol.keys import agreement_public
from protocol.params import ProtocolParams, hardened, vcdfl
from protocol.secrets import (
    DealerPackage,
    RoundSecrets,
    dealt_round_seed,
    dealt_u_seed,
    dealt_z_root,
    issue_packages,
    joint_z_root,
    secret_hash,
    z_root_hash,
)
from protocol.sharing import (
    NO_ROOT,
    DealerFault,
    Dealing,
    HeldShare,
    PinnedShares,
    ShareError,
    ShareKind,
    SharePackage,
    box_associated,
    check_package,
    fault_holds,
    load_package,
    open_box,
    rebuild,
    rebuild_many,
    share_holds,
    share_leaf,
    share_root,
    share_scope,
)
from sim.bench.rehearsal import Rehearsal, rehearse

P = 2130706433
N = 7


def network_of(single: bool = False, proposers: int = N) -> Rehearsal:
    make = vcdfl if single else hardened
    params: ProtocolParams = make(dimension=4, n_proposers=proposers, n_voters=1)
    return rehearse(params, proposers, b"sharing")


def secret_of(round_: Rehearsal, dealer: int, kind: ShareKind) -> bytes:
    secrets = round_.secrets[dealer]
    return (secrets.mask_secret, secrets.self_seed, secrets.check_seed)[kind]


def lagrange_at_zero(points: list[tuple[int, int]]) -> int:
    total = 0
    for x, y in points:
        weight = 1
        for other, _ in points:
            if other != x:
                weight = weight * other * pow(other - x, -1, P) % P
        total = (total + y * weight) % P
    return total


def reference_secret(shares: list[HeldShare]) -> bytes:
    """Shamir recovery by definition, in Python integers."""
    value = 0
    for limb in range(9):
        points = [(held.holder + 1, struct.unpack("<9I", held.share)[limb]) for held in shares]
        value += lagrange_at_zero(points) << (30 * limb)
    return value.to_bytes(32, "little")


def faulty_dealing(round_: Rehearsal, dealer: int, kind: ShareKind, bad_holders: set[int]) -> Dealing:
    """A dealing whose shares of one kind are no polynomial's at some holders, consistently under its root."""
    dealing = round_.deal(dealer)
    context, secrets = round_.context, round_.secrets
    packages = [
        open_box(context, dealer, holder, secrets[holder].seal_key, dealing.boxes[holder], dealing.roots)
        for holder in range(len(context.proposers))
    ]
    shares = [
        struct.pack("<9I", *((limb + 1) % P for limb in struct.unpack("<9I", package.shares[kind])))
        if holder in bad_holders
        else package.shares[kind]
        for holder, package in enumerate(packages)
    ]
    scope = share_scope(context, dealer, kind)
    leaves = [share_leaf(scope, peer, share) for peer, share in zip(context.proposers, shares, strict=True)]
    tree = merkle.tree(leaves)

    def replaced(values: tuple[object, ...], value: object) -> tuple[object, ...]:
        return tuple(value if place == kind else old for place, old in enumerate(values))

    boxes = []
    for holder, package in enumerate(packages):
        package = SharePackage(
            replaced(package.shares, shares[holder]),  # type: ignore[arg-type]
            replaced(package.proofs, tree.proof(holder)),  # type: ignore[arg-type]
            package.z,
        )
        channel = secrets[dealer].seal_key.channel(context.seal_publics[holder])
        boxes.append(channel.seal(encode(package), box_associated(context, dealer, holder)))
    roots = replaced(dealing.roots, tree.root)
    round_.dealings[dealer] = Dealing(roots, dealing.hashes, tuple(boxes))  # type: ignore[arg-type]
    return round_.dealings[dealer]


@pytest.mark.parametrize("single", [False, True])
def test_any_threshold_of_holders_gets_every_secret_back(single: bool) -> None:
    round_ = network_of(single)
    dealing = round_.deal(2)
    threshold = round_.context.threshold
    assert threshold == 5
    kinds = [ShareKind.MASK, ShareKind.CHECK] if single else list(ShareKind)
    for kind in kinds:
        for holders in ([0, 1, 2, 3, 4], [2, 3, 4, 5, 6], [6, 0, 5, 2, 1], range(N)):
            wanted = round_.pinned_shares(2, kind, list(holders))
            rebuilt = rebuild(round_.context, 2, kind, wanted.shares, wanted.root, wanted.pinned)
            assert rebuilt == secret_of(round_, 2, kind)
            assert rebuilt == reference_secret(sorted(wanted.shares, key=lambda h: h.holder)[:threshold])
        assert share_root(round_.context, 2, kind, secret_of(round_, 2, kind)) == dealing.roots[kind]
    if single:
        assert dealing.roots[ShareKind.SELF] == NO_ROOT
        assert dealing.hashes[0] == NO_ROOT


def test_leaf_and_pinned_hashes_by_definition() -> None:
    round_ = network_of()
    context = round_.context
    dealing = round_.deal(1)
    held = round_.pinned_shares(1, ShareKind.CHECK, [3]).shares[0]
    scope = digest("share", context.network, bytes([0] * 7 + [1]), context.proposers[1], b"\x02")
    leaf = hashlib.sha256(b"\x00" + scope + context.proposers[3] + held.share).digest()
    assert share_leaf(share_scope(context, 1, ShareKind.CHECK), context.proposers[3], held.share) == leaf
    assert merkle.verify(dealing.roots[2], leaf, 3, N, held.proof)
    secrets = round_.secrets[1]
    named = [("self", secrets.self_seed), ("check", secrets.check_seed), ("z", secrets.z)]
    for (label, secret), pinned in zip(named, dealing.hashes, strict=True):
        assert secret_hash(label, context.network, context.round, context.proposers[1], secret) == pinned


def test_secrets_are_distinct_and_reproducible_and_hidden() -> None:
    network = digest("n")
    secrets = RoundSecrets.derive(bytes(32), network, 1)
    values = decode(RoundSecrets, encode(secrets), 1000)
    assert values == secrets
    names = [name for name in dir(secrets) if isinstance(getattr(secrets, name), bytes)]
    seen = {getattr(secrets, name) for name in names}
    assert len(seen) == len(names)
    for other in (RoundSecrets.derive(bytes(32), network, 2), RoundSecrets.derive(bytes(32), bytes(32), 1)):
        assert seen.isdisjoint({getattr(other, name) for name in names})
    assert not any(value.hex() in repr(secrets) or repr(value) in repr(secrets) for value in seen)
    assert secrets.mask_public == agreement_public(secrets.mask_secret)
    assert joint_z_root(network, 1, [b"a", b"b"]) != joint_z_root(network, 1, [b"ab"])
    assert z_root_hash(network, 1, bytes(32)) != z_root_hash(network, 2, bytes(32))


def test_dealer_packages_share_what_all_clients_share_and_nothing_else() -> None:
    peers = [bytes([i]) * 32 for i in range(3)]
    packages = issue_packages(b"m" * 32, peers)
    network = digest("n")
    assert {dealt_z_root(packages[p], network, 4) for p in peers} == {
        dealt_z_root(packages[peers[0]], network, 4)
    }
    assert len({dealt_u_seed(packages[p], network) for p in peers}) == 1
    assert len({dealt_round_seed(packages[p], network, 4) for p in peers}) == 3
    assert dealt_round_seed(packages[peers[0]], network, 4) != dealt_round_seed(
        packages[peers[0]], network, 5
    )
    assert decode(DealerPackage, encode(packages[peers[0]]), 100) == packages[peers[0]]


def test_box_opens_only_in_its_own_place() -> None:
    round_ = network_of()
    context, secrets = round_.context, round_.secrets
    alice, mallory, carol = 0, 1, 2
    dealing = round_.deal(alice)
    key = secrets[carol].seal_key
    package = open_box(context, alice, carol, key, dealing.boxes[carol], dealing.roots)
    assert package.z == secrets[alice].z
    box = dealing.boxes[carol]
    # Mallory copies Alice's key advert and passes her boxes on as his own.
    copied = evolve(context, seal_publics=(context.seal_publics[alice],) * 2 + context.seal_publics[2:])
    wrong = [
        (copied, mallory, carol, key, box, dealing.roots),
        (context, mallory, carol, key, box, dealing.roots),
        (context, alice, 3, secrets[3].seal_key, box, dealing.roots),
        (evolve(context, round=2), alice, carol, key, box, dealing.roots),
        (evolve(context, network=bytes(32)), alice, carol, key, box, dealing.roots),
        (context, alice, carol, key, box[:-1] + bytes([box[-1] ^ 1]), dealing.roots),
        (context, alice, carol, key, b"", dealing.roots),
        (context, alice, carol, key, box, (dealing.roots[1], dealing.roots[0], dealing.roots[2])),
    ]
    for arguments in wrong:
        with pytest.raises(ShareError, match=f"dealer {arguments[1]} for holder {arguments[2]}"):
            open_box(*arguments)


def test_share_does_not_verify_as_anything_else() -> None:
    round_ = network_of()
    context = round_.context
    roots = round_.deal(0).roots
    wanted = round_.pinned_shares(0, ShareKind.MASK, range(N))
    held = wanted.shares[4]
    assert share_holds(context, 0, ShareKind.MASK, held, roots[0])
    assert not share_holds(context, 0, ShareKind.SELF, held, roots[0])
    assert not share_holds(context, 1, ShareKind.MASK, held, roots[0])
    assert not share_holds(evolve(context, round=2), 0, ShareKind.MASK, held, roots[0])
    assert not share_holds(context, 0, ShareKind.MASK, evolve(held, holder=5), roots[0])
    assert not share_holds(context, 0, ShareKind.MASK, evolve(held, holder=900), roots[0])
    assert not share_holds(context, 0, ShareKind.MASK, evolve(held, proof=held.proof[:-1]), roots[0])
    assert not share_holds(context, 0, ShareKind.MASK, evolve(held, share=bytes(36)), roots[0])
    assert not share_holds(context, 0, ShareKind.MASK, evolve(held, share=b""), roots[0])
    # A share that is no field element is refused although it stands under its root.
    wide = struct.pack("<9I", *[P] * 9)
    scope = share_scope(context, 0, ShareKind.MASK)
    tree = merkle.tree([share_leaf(scope, peer, wide) for peer in context.proposers])
    assert not share_holds(context, 0, ShareKind.MASK, HeldShare(4, wide, tree.proof(4)), tree.root)


def test_malformed_packages_are_refused() -> None:
    round_ = network_of(single=True)
    context = round_.context
    dealing = round_.deal(0)
    package = open_box(context, 0, 1, round_.secrets[1].seal_key, dealing.boxes[1], dealing.roots)
    assert check_package(context, 0, 1, encode(package), dealing.roots) == package
    assert load_package(encode(package)) == package
    assert load_package(encode(package)[:-1]) is None
    smuggled = evolve(package, shares=(package.shares[0], package.shares[0], package.shares[2]))
    long_proof = evolve(package, proofs=(package.proofs[0] * 5, (), package.proofs[2]))
    for data in (b"", b"\x93", encode(package) + b"\x00", encode(smuggled), encode(long_proof)):
        with pytest.raises(ShareError, match="dealer 0 for holder 1"):
            check_package(context, 0, 1, data, dealing.roots)


def test_low_order_seal_key_costs_its_owner_the_box_and_nobody_else() -> None:
    round_ = network_of()
    publics = (*round_.context.seal_publics[:3], bytes(32), *round_.context.seal_publics[4:])
    round_.context = evolve(round_.context, seal_publics=publics)
    dealing = round_.deal(0)
    assert dealing.boxes[3] == b""
    assert len(round_.pinned_shares(0, ShareKind.MASK, [0, 1, 2, 4, 5, 6]).shares) == 6


@pytest.mark.parametrize("kind", list(ShareKind))
def test_garbage_shares_prove_the_dealer_guilty_whoever_releases(kind: ShareKind) -> None:
    round_ = network_of()
    dealing = faulty_dealing(round_, 3, kind, {5})
    # A dealer that reveals the secret it pinned is found out as well, before anyone needs a share.
    assert share_root(round_.context, 3, kind, secret_of(round_, 3, kind)) != dealing.roots[kind]
    # With the bad share, and without it: then the secret comes out right, but its dealing has another root.
    for holders in ([2, 3, 4, 5, 6], [0, 1, 2, 3, 4]):
        wanted = round_.pinned_shares(3, kind, holders)
        fault = rebuild(round_.context, 3, kind, wanted.shares, wanted.root, wanted.pinned)
        assert isinstance(fault, DealerFault)
        assert (fault.dealer, fault.kind) == (3, kind)
        assert decode(DealerFault, encode(fault), 1 << 16) == fault
        assert fault_holds(round_.context, fault, wanted.root, wanted.pinned)


@pytest.mark.parametrize("kind", list(ShareKind))
def test_hash_of_another_secret_proves_the_dealer_guilty(kind: ShareKind) -> None:
    round_ = network_of()
    round_.deal(3)
    wanted = round_.pinned_shares(3, kind, [0, 1, 2, 3, 4])
    other = round_.secrets[4].mask_public if kind is ShareKind.MASK else digest("something else")
    fault = rebuild(round_.context, 3, kind, wanted.shares, wanted.root, other)
    assert isinstance(fault, DealerFault)
    assert fault_holds(round_.context, fault, wanted.root, other)
    assert not fault_holds(round_.context, fault, wanted.root, wanted.pinned)


def test_an_honest_dealer_cannot_be_framed() -> None:
    round_ = network_of()
    context = round_.context
    round_.deal(0)
    kind = ShareKind.SELF
    wanted = round_.pinned_shares(0, kind, range(N))
    true = wanted.shares
    changed = evolve(true[4], share=bytes([true[4].share[0] ^ 1]) + true[4].share[1:])
    other = round_.pinned_shares(0, ShareKind.MASK, range(N)).shares
    frames = [
        true[:5],
        true[2:],
        (*true[:4], changed),
        true[:4],
        (*true[:4], true[3]),
        (*true[:3], true[4], true[3]),
        true,
        other[:5],
        (),
    ]
    for shares in frames:
        assert not fault_holds(context, DealerFault(0, kind, tuple(shares)), wanted.root, wanted.pinned)
    assert not fault_holds(context, DealerFault(900, kind, true[:5]), wanted.root, wanted.pinned)
    assert not fault_holds(context, DealerFault(1, kind, true[:5]), wanted.root, wanted.pinned)
    single = network_of(single=True)
    assert not fault_holds(single.context, DealerFault(0, kind, true[:5]), NO_ROOT, NO_ROOT)


def test_rebuilding_many_mixes_holders_and_faults() -> None:
    round_ = network_of()
    for dealer in range(4):
        round_.deal(dealer)
    faulty_dealing(round_, 2, ShareKind.CHECK, {0, 6})
    holders = {0: [0, 1, 2, 3, 4], 1: [2, 3, 4, 5, 6], 2: [0, 1, 2, 3, 4], 3: [0, 1, 2, 3, 4, 5, 6]}
    wanted = [round_.pinned_shares(dealer, ShareKind.CHECK, holders[dealer]) for dealer in holders]
    results = rebuild_many(round_.context, ShareKind.CHECK, wanted)
    for dealer in (0, 1, 3):
        assert results[dealer] == round_.secrets[dealer].check_seed
    assert isinstance(results[2], DealerFault)
    assert rebuild_many(round_.context, ShareKind.CHECK, []) == []


def test_too_few_shares_are_refused_by_name() -> None:
    round_ = network_of()
    round_.deal(0)
    wanted = round_.pinned_shares(0, ShareKind.MASK, [0, 1, 2, 3])
    twice = PinnedShares(0, (*wanted.shares, wanted.shares[0]), wanted.root, wanted.pinned)
    for item in (wanted, twice):
        with pytest.raises(ShareError, match="MASK secret of dealer 0: 4 shares, 5 are needed"):
            rebuild_many(round_.context, ShareKind.MASK, [item])
