"""Vectors of keys, sealed boxes, a round's secrets and a whole dealing (docs/PROTOCOL.md section 3)."""

from __future__ import annotations

from attrs import evolve

from flocknode.vectors.values import Document, example
from protocol import keys, merkle
from protocol.codec import encode
from protocol.context import RoundContext
from protocol.keys import AgreementKey, Identity
from protocol.params import Masking, hardened
from protocol.secrets import RoundSecrets, joint_z_root, secret_hash, z_root_hash
from protocol.sharing import ShareKind, box_associated, deal, open_box, share_leaf, share_scope

_SECRET_NAMES = (
    "mask_secret",
    "self_seed",
    "check_seed",
    "z",
    "rounding_seed",
    "commitment_seed",
    "challenge_seed",
    "vote_salt",
    "training_seed",
    "seal_secret",
)
HOLDERS = 4
THRESHOLD = 3
ROUND = 7
NETWORK = example("network")


def sealing() -> Document:
    """Identities and their names, key derivation, key agreement, sealed boxes."""
    identities = [
        {
            "seed": example("identity", i).hex(),
            "peer": Identity.from_seed(example("identity", i)).peer.hex(),
            "name": keys.peer_name(Identity.from_seed(example("identity", i)).peer),
            "message": b"message".hex(),
            "signature": Identity.from_seed(example("identity", i)).sign(b"message").hex(),
        }
        for i in range(2)
    ]
    derived = [
        {
            "secret": example("derive").hex(),
            "labels": [label.hex() for label in labels],
            "derived": keys.derive(example("derive"), *labels).hex(),
        }
        for labels in ([], [b"a"], [b"a", b"b"], [b"ab", b""])
    ]
    alice, bob = AgreementKey(example("alice")), AgreementKey(example("bob"))
    boxes = [
        {
            "sender_secret": alice.secret.hex(),
            "sender_public": alice.public.hex(),
            "recipient_secret": bob.secret.hex(),
            "recipient_public": bob.public.hex(),
            "agreement": alice.agree(bob.public).hex(),
            "plaintext": b"plaintext".hex(),
            "associated": b"associated".hex(),
            "box": alice.channel(bob.public).seal(b"plaintext", b"associated").hex(),
        }
    ]
    return {"identities": identities, "derive": derived, "boxes": boxes}


def _secrets() -> list[RoundSecrets]:
    return [RoundSecrets.derive(example("round seed", i), NETWORK, ROUND) for i in range(HOLDERS)]


def _context() -> RoundContext:
    peers = sorted(Identity.from_seed(example("identity", i)).peer for i in range(HOLDERS))
    return RoundContext(
        params=hardened(dimension=64, n_proposers=HOLDERS, n_voters=2),
        network=NETWORK,
        round=ROUND,
        beacon=example("beacon"),
        proposers=tuple(peers),
        mask_publics=tuple(secrets.mask_public for secrets in _secrets()),
        seal_publics=tuple(secrets.seal_public for secrets in _secrets()),
        threshold=THRESHOLD,
    )


def dealing() -> Document:
    """All secrets of a round from one seed, and dealer 0's shares: leaves, roots, hashes and a box."""
    context, secrets = _context(), _secrets()
    derived = [
        {
            "round_seed": example("round seed", 0).hex(),
            "network": NETWORK.hex(),
            "round": ROUND,
            **{name: getattr(secrets[0], name).hex() for name in _SECRET_NAMES},
            "mask_public": secrets[0].mask_public.hex(),
            "seal_public": secrets[0].seal_public.hex(),
        }
    ]
    dealt = deal(context, 0, secrets[0])
    shares = []
    for holder in range(HOLDERS):
        package = open_box(context, 0, holder, secrets[holder].seal_key, dealt.boxes[holder], dealt.roots)
        for kind in ShareKind:
            scope = share_scope(context, 0, kind)
            leaf = share_leaf(scope, context.proposers[holder], package.shares[kind])
            assert merkle.verify(dealt.roots[kind], leaf, holder, HOLDERS, package.proofs[kind])
            shares.append(
                {
                    "kind": int(kind),
                    "holder": context.proposers[holder].hex(),
                    "scope": scope.hex(),
                    "share": package.shares[kind].hex(),
                    "leaf": leaf.hex(),
                    "proof": [node.hex() for node in package.proofs[kind]],
                }
            )
    package = open_box(context, 0, 1, secrets[1].seal_key, dealt.boxes[1], dealt.roots)
    whole = [
        {
            "network": NETWORK.hex(),
            "round": ROUND,
            "dealer": context.proposers[0].hex(),
            "threshold": THRESHOLD,
            "roots_mask_self_check": [root.hex() for root in dealt.roots],
            "hashes_self_check_z": [hash_.hex() for hash_ in dealt.hashes],
            "package_of_holder_1": encode(package).hex(),
            "associated_of_holder_1": box_associated(context, 0, 1).hex(),
            "box_of_holder_1": dealt.boxes[1].hex(),
        }
    ]
    zs = [entry.z for entry in secrets]
    root = joint_z_root(NETWORK, ROUND, zs)
    hashes = [
        {
            "zs": [z.hex() for z in zs],
            "z_root": root.hex(),
            "hash_of_z_root": z_root_hash(NETWORK, ROUND, root).hex(),
            "label": "check",
            "peer": context.proposers[0].hex(),
            "secret": secrets[0].check_seed.hex(),
            "secret_hash": secret_hash(
                "check", NETWORK, ROUND, context.proposers[0], secrets[0].check_seed
            ).hex(),
        }
    ]
    single = deal(evolve(context, params=evolve(context.params, masking=Masking.SINGLE)), 0, secrets[0])
    roots = [{"masking": "single", "roots_mask_self_check": [root.hex() for root in single.roots]}]
    return {
        "round_secrets": derived,
        "dealing": whole,
        "shares": shares,
        "hashes": hashes,
        "single_masking": roots,
    }
