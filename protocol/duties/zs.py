"""The z_i behind the hidden points: their joint root, and how a proposer gets one that it was dealt wrong."""

from __future__ import annotations

from protocol import keys
from protocol.codec import digest
from protocol.duties.desk import Desk
from protocol.duties.share import take_z
from protocol.ledger.state import Phase
from protocol.messages import Kind, ZReply, ZRequest
from protocol.params import Setup
from protocol.pinning import z_root_from
from protocol.secrets import dealt_z_root


def z_root(desk: Desk) -> bytes | None:
    """The joint z root as far as this node can know it before the reveal."""
    if desk.rules.params.setup is Setup.DEALER:
        if desk.dealer is None:
            return None
        return dealt_z_root(desk.dealer, desk.rules.network, desk.state.round)
    zs = known_zs(desk)
    return None if zs is None else z_root_from(desk.state, desk.rules, zs)


def known_zs(desk: Desk) -> tuple[bytes, ...] | None:
    """What a `Reveal` and a ballot block carry: every z_i of U1 (dealer: the one z root)."""
    if desk.rules.params.setup is Setup.DEALER:
        root = z_root(desk)
        return None if root is None else (root,)
    sharers = [bundle.peer for bundle in desk.learning.sharers]
    if any(peer not in desk.memory.zs for peer in sharers):
        return None
    return tuple(desk.memory.zs[peer] for peer in sharers)


def ask_for_zs(desk: Desk) -> None:
    """A dealer's z_i came wrong or not at all: any other proposer can give it."""
    if desk.learning.phase is not Phase.CONTRIBUTE or not desk.is_proposer:
        return
    if desk.rules.params.setup is Setup.DEALER:
        return
    for bundle in desk.learning.sharers:
        if bundle.peer not in desk.memory.zs:
            for peer in desk.learning.proposers:
                if peer != desk.me:
                    desk.outbox.send(peer, desk.state.round, Kind.Z_REQUEST, ZRequest(bundle.peer))


def on_z_request(desk: Desk, sender: bytes, body: ZRequest) -> None:
    """Answer a proposer, sealed to its one-round key."""
    z = desk.memory.zs.get(body.dealer)
    advert = desk.learning.advert_of(sender)
    if z is None or advert is None or sender not in desk.learning.proposers or not desk.is_proposer:
        return
    associated = z_associated(desk, desk.me, sender, body.dealer)
    try:
        box = keys.seal(desk.my_secrets().seal_secret, advert.seal_public, z, associated)
    except keys.AgreementError:
        desk.outbox.penalise(sender, "seal")
        return
    desk.outbox.send(sender, desk.state.round, Kind.Z_REPLY, ZReply(body.dealer, box))


def on_z_reply(desk: Desk, sender: bytes, body: ZReply) -> None:
    advert = desk.learning.advert_of(sender)
    bundle = next((b for b in desk.learning.sharers if b.peer == body.dealer), None)
    if advert is None or bundle is None or not desk.is_proposer or body.dealer in desk.memory.zs:
        return
    try:
        z = keys.open_sealed(
            desk.my_secrets().seal_secret,
            advert.seal_public,
            body.box,
            z_associated(desk, sender, desk.me, body.dealer),
        )
    except keys.SealError:
        desk.outbox.penalise(sender, "z-reply")
        return
    take_z(desk, body.dealer, z, bundle.hash_z)


def z_associated(desk: Desk, sender: bytes, recipient: bytes, dealer: bytes) -> bytes:
    round_bytes = desk.state.round.to_bytes(8, "big")
    return digest("z reply", desk.rules.network, round_bytes, sender, recipient, dealer)
