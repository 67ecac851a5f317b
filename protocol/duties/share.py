"""Phases 0 and 1: fresh keys for the next round, and the dealing of this one's secrets (section 3)."""

from __future__ import annotations

from protocol import durable, keys
from protocol.codec import encode
from protocol.duties.desk import Desk
from protocol.jobs import DealJob
from protocol.messages import Complaint, KeyAdvert, Kind, SealedShares, ShareBundle, ShareOpening
from protocol.secrets import possession_proofs, secret_hash
from protocol.sharing import ShareError, SharePackage, check_package, package_for, unseal


def advertise(desk: Desk) -> None:
    round_ = desk.advert_round
    if desk.pool.get(round_, Kind.KEY_ADVERT, desk.me) is None and desk.state.is_validator(desk.me):
        secrets = desk.secrets(round_)
        proofs = possession_proofs(desk.round_seed(round_), desk.rules.network, round_, desk.me)
        advert = KeyAdvert(secrets.mask_public, secrets.seal_public, *proofs)
        desk.outbox.publish(round_, Kind.KEY_ADVERT, advert)


def share(desk: Desk) -> None:
    round_, memory = desk.state.round, desk.memory
    if not desk.is_proposer or desk.clock.held:
        return
    if memory.dealt is None:
        desk.run("deal", DealJob(desk.context, desk.index(desk.me), desk.my_secrets()))
    elif desk.pool.get(round_, Kind.SHARE_BUNDLE, desk.me) is None:
        dealing = memory.dealt.dealing
        self_hash, check_hash, z_hash = dealing.hashes
        desk.outbox.publish(
            round_,
            Kind.SHARE_BUNDLE,
            ShareBundle(dealing.roots, self_hash, check_hash, z_hash, desk.weight),
        )
        for holder in desk.learning.proposers:
            send_box(desk, holder)
    recall_zs(desk)
    open_boxes(desk)
    answer_complaints(desk)
    take_share_openings(desk)


def send_box(desk: Desk, holder: bytes) -> None:
    """Hand a holder its sealed shares (again)."""
    if desk.memory.dealt is None or holder not in desk.learning.proposers:
        return
    box = desk.memory.dealt.dealing.boxes[desk.index(holder)]
    if holder == desk.me:
        desk.memory.boxes[desk.me] = box
    else:
        desk.outbox.send(holder, desk.state.round, Kind.SEALED_SHARES, SealedShares(box))


def on_box(desk: Desk, dealer: bytes, box: bytes) -> None:
    if dealer not in desk.memory.packages:
        desk.memory.boxes[dealer] = box


def is_awaited(desk: Desk, dealer: bytes) -> bool:
    """Is there something of this dealer that only its bundle lets this node take in?"""
    memory = desk.memory
    return (
        dealer in memory.boxes
        or dealer in memory.packages
        or bool(desk.pool.changes(desk.state.round, Kind.SHARE_OPENING))
    )


def open_boxes(desk: Desk) -> None:
    for dealer in sorted(desk.memory.boxes):
        open_box(desk, dealer)


def open_box(desk: Desk, dealer: bytes) -> Kind | None:
    """Open a dealer's box, if it and its bundle are here.

    `SEALED_SHARES` if what was in it is held now, `COMPLAINT` if it is complained about, None if nothing was
    opened.
    """
    round_, memory = desk.state.round, desk.memory
    if dealer not in memory.boxes or not desk.is_proposer or dealer not in desk.learning.proposers:
        return None
    bundle = desk.pool.get(round_, Kind.SHARE_BUNDLE, dealer)
    if bundle is None or dealer in memory.packages:
        return None
    assert isinstance(bundle.body, ShareBundle)
    box = memory.boxes.pop(dealer)
    try:
        places = desk.index(dealer), desk.index(desk.me)
        data = unseal(desk.context, *places, desk.my_secrets().seal_key, box)
        package = check_package(desk.context, *places, data, bundle.body.share_roots)
    except ShareError as error:
        desk.outbox.notify("bad_share", dealer=keys.peer_name(dealer), why=str(error))
        if desk.pool.get(round_, Kind.COMPLAINT, desk.me, 0, dealer) is None:
            desk.outbox.publish(round_, Kind.COMPLAINT, Complaint(dealer))
        return Kind.COMPLAINT
    keep_package(desk, dealer, package, data, bundle.body)
    return Kind.SEALED_SHARES


def keep_package(desk: Desk, dealer: bytes, package: SharePackage, data: bytes, bundle: ShareBundle) -> None:
    """`data` is the package's encoding."""
    desk.memory.packages[dealer] = package
    desk.memory.proven[dealer] = bundle
    desk.outbox.persist(durable.SHARE, durable.round_key(desk.state.round, dealer), data)
    take_z(desk, dealer, package.z, bundle.hash_z)


def take_z(desk: Desk, dealer: bytes, z: bytes, hash_z: bytes) -> None:
    """Keep z_i if it is the one that its dealer pinned."""
    if secret_hash("z", desk.rules.network, desk.state.round, dealer, z) == hash_z:
        desk.memory.zs[dealer] = z


def recall_zs(desk: Desk) -> None:
    """After a restart: the z_i of packages that survived, once their dealers' bundles are here again."""
    memory = desk.memory
    for dealer in sorted(memory.packages.keys() - memory.zs.keys()):
        bundle = desk.pool.get(desk.state.round, Kind.SHARE_BUNDLE, dealer)
        if bundle is not None and isinstance(bundle.body, ShareBundle):
            take_z(desk, dealer, memory.packages[dealer].z, bundle.body.hash_z)


def answer_complaints(desk: Desk) -> None:
    round_ = desk.state.round
    for statement in desk.pool.of_kind(round_, Kind.COMPLAINT):
        body, holder = statement.body, statement.sender
        assert isinstance(body, Complaint)
        if body.dealer != desk.me or holder not in desk.learning.proposers or desk.memory.dealt is None:
            continue
        if desk.pool.get(round_, Kind.SHARE_OPENING, desk.me, 0, holder) is None:
            package = package_for(desk.context, desk.index(desk.me), desk.index(holder), desk.my_secrets())
            desk.outbox.publish(round_, Kind.SHARE_OPENING, ShareOpening(holder, encode(package)))


def take_share_openings(desk: Desk) -> None:
    round_ = desk.state.round
    for opening in desk.pool.of_kind(round_, Kind.SHARE_OPENING):
        dealer = opening.sender
        assert isinstance(opening.body, ShareOpening)
        if opening.body.holder != desk.me or dealer not in desk.learning.proposers:
            continue
        bundle = desk.pool.get(round_, Kind.SHARE_BUNDLE, dealer)
        if bundle is None or dealer in desk.memory.packages or opening.id in desk.memory.bad_openings:
            continue
        assert isinstance(bundle.body, ShareBundle)
        try:
            package = check_package(
                desk.context,
                desk.index(dealer),
                desk.index(desk.me),
                opening.body.package,
                bundle.body.share_roots,
            )
        except ShareError as error:
            desk.memory.bad_openings.add(opening.id)
            desk.outbox.notify("bad_share_opening", dealer=keys.peer_name(dealer), why=str(error))
            continue
        keep_package(desk, dealer, package, opening.body.package, bundle.body)


def opening_holds(desk: Desk, dealer: bytes, holder: bytes) -> bool:
    """Has the dealer answered this holder's complaint with shares that stand under its roots?"""
    round_ = desk.state.round
    opening = desk.pool.get(round_, Kind.SHARE_OPENING, dealer, 0, holder)
    bundle = desk.pool.get(round_, Kind.SHARE_BUNDLE, dealer)
    if opening is None or bundle is None:
        return False
    assert isinstance(opening.body, ShareOpening)
    assert isinstance(bundle.body, ShareBundle)
    roots, package = bundle.body.share_roots, opening.body.package
    try:
        check_package(desk.context, desk.index(dealer), desk.index(holder), package, roots)
    except ShareError:
        return False
    return True


def keep_pinned_packages(desk: Desk) -> None:
    """Shares of another dealing than the pinned one are nobody's: only those under the pinned roots count."""
    if not desk.is_proposer:
        return
    memory, pinned = desk.memory, {bundle.peer: bundle for bundle in desk.learning.sharers}
    for dealer in sorted(memory.packages):
        known = memory.proven.get(dealer)
        if dealer in pinned and known is not None and known.share_roots == pinned[dealer].share_roots:
            if known.hash_z == pinned[dealer].hash_z:
                del pinned[dealer]  # which says nothing new
            continue
        try:
            check_package(
                desk.context,
                desk.index(dealer),
                desk.index(desk.me),
                encode(memory.packages[dealer]),
                pinned[dealer].share_roots,
            )
        except (KeyError, ShareError):
            del memory.packages[dealer]
            memory.zs.pop(dealer, None)
    for dealer, bundle in pinned.items():
        if dealer in memory.packages:
            memory.zs.pop(dealer, None)  # another bundle than the pinned one may have called it right
            take_z(desk, dealer, memory.packages[dealer].z, bundle.hash_z)
