"""Vectors of what a network agrees on: roles, beacon, statements, blocks, certificates (sections 3, 7, 8)."""

from __future__ import annotations

from attrs import evolve

from flocknode.vectors.values import Document, example
from protocol.blob import blob_digest
from protocol.certificates import certificate_holds, quorum
from protocol.codec import digest, encode
from protocol.consensus import leader_of
from protocol.envelope import make_statement, signing_digest
from protocol.keys import Identity
from protocol.ledger.block import Block, BlockKind, TimeoutBody
from protocol.ledger.settlement import next_beacon
from protocol.ledger.state import Phase, PinnedBundle, RoundState, genesis_state
from protocol.merkle import leaf_hash, tree
from protocol.messages import (
    Body,
    Certificate,
    Contribution,
    KeyAdvert,
    Kind,
    Ready,
    SealedVote,
    Timeout,
    Transaction,
    TransactionKind,
    Vote,
    VoteOpening,
    VotePhase,
)
from protocol.params import MICRO, Genesis, GenesisMember, hardened, sort_members
from protocol.sortition import assign_roles, default_roles, draw_weighted

NETWORK = example("network")
MEMBERS = tuple(
    sorted((Identity.from_seed(example("member", i)) for i in range(7)), key=lambda identity: identity.peer)
)


def _b32(text: str) -> bytes:
    return example(f"agreement {text}")


def hashing() -> Document:
    """The domain-separated digest, Merkle trees, blob digests."""
    digests = [
        {"domain": domain, "parts": [part.hex() for part in parts], "digest": digest(domain, *parts).hex()}
        for domain, parts in (
            ("block", []),
            ("block", [b""]),
            ("block", [b"a", b"bc"]),
            ("state", [b"ab", b"c"]),
        )
    ]
    trees = []
    for count in (1, 2, 3, 5):
        leaves = [leaf_hash(bytes([i])) for i in range(count)]
        built = tree(leaves)
        trees.append(
            {
                "leaves": [leaf.hex() for leaf in leaves],
                "root": built.root.hex(),
                "proof_of_last": [node.hex() for node in built.proof(count - 1)],
            }
        )
    blobs = [
        {"rule": "byte i is i mod 251", "bytes": size, "digest": blob_digest(_patterned(size)).hex()}
        for size in (0, 1, 1 << 20, (1 << 20) + 1, 3 << 20)
    ]
    return {"digest": digests, "merkle": trees, "blob": blobs}


def _patterned(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def sortition() -> Document:
    """Weighted draws, role tables, and the leaders of a height."""
    weights = {member.peer: (1 + number) * MICRO for number, member in enumerate(MEMBERS)}
    seed = example("draw")
    draws = [
        {
            "seed": seed.hex(),
            "weights": [[peer.hex(), weight] for peer, weight in sorted(weights.items())],
            "drawn": [peer.hex() for peer in draw_weighted(seed, sorted(weights.items()), 7)],
        }
    ]
    roles = []
    for number, (nodes, proposers, voters) in enumerate([(4, 3, 2), (7, 4, 2), (7, 3, 3)]):
        beacon = example("beacon", number)
        chosen = {member.peer: weights[member.peer] for member in MEMBERS[:nodes]}
        drawn = assign_roles(beacon, number + 1, chosen, proposers, voters, 3)
        assert drawn is not None
        roles.append(
            {
                "beacon": beacon.hex(),
                "round": number + 1,
                "weights": [[peer.hex(), weight] for peer, weight in sorted(chosen.items())],
                "n_proposers": proposers,
                "n_voters": voters,
                "proposers": [peer.hex() for peer in drawn.proposers],
                "aggregators": [peer.hex() for peer in drawn.aggregators],
                "voters": [peer.hex() for peer in drawn.voters],
            }
        )
    table = [{"nodes": n, "proposers_and_voters": list(default_roles(n))} for n in (4, 5, 6, 7, 8, 20, 100)]
    order = [member.peer for member in MEMBERS[:4]]
    leaders = [
        {
            "order": [peer.hex() for peer in order],
            "height": height,
            "leaders_of_views_1_to_5": [leader_of(order, height, view).hex() for view in range(1, 6)],
        }
        for height in (1, 2, 3)
    ]
    return {"draw_weighted": draws, "assign_roles": roles, "default_roles": table, "leader_of": leaders}


def example_genesis() -> Genesis:
    """Four members with equal stakes."""
    return Genesis(
        name="vectors",
        task="none",
        params=hardened(dimension=64, n_proposers=3, n_voters=2),
        members=sort_members([GenesisMember(member.peer, 64 * MICRO) for member in MEMBERS[:4]]),
        beacon=_b32("beacon"),
        model_digest=_b32("model"),
        pool_units=10 * MICRO,
    )


def beacon() -> Document:
    """The next beacon: after an abort before setup, with all seeds, and with one that is not to be had."""
    genesis = example_genesis()
    state = genesis_state(genesis)
    bundles = tuple(
        PinnedBundle(member.peer, (bytes(32),) * 3, bytes(32), example("hash check", i), bytes(32), 1)
        for i, member in enumerate(MEMBERS[:3])
    )
    shared = evolve(state, learning=RoundState(Phase.BALLOT, sharers=bundles))
    seeds = {member.peer: example("rho", i) for i, member in enumerate(MEMBERS[:3])}
    cases = []
    for before, known in ((state, {}), (shared, seeds), (shared, dict(list(seeds.items())[:2]))):
        cases.append(
            {
                "beacon": before.beacon.hex(),
                "round": before.round,
                "sharers": [bundle.peer.hex() for bundle in before.learning.sharers],
                "hash_checks": [bundle.hash_check.hex() for bundle in before.learning.sharers],
                "check_seeds": {peer.hex(): seed.hex() for peer, seed in sorted(known.items())},
                "next_beacon": next_beacon(before, known).hex(),
            }
        )
    first = [
        {
            "genesis": genesis.to_bytes().hex(),
            "network": genesis.network.hex(),
            "state": encode(state).hex(),
            "state_root": state.root.hex(),
        }
    ]
    return {"next_beacon": cases, "genesis": first}


def statements() -> Document:
    """Bodies, ids, signatures and whole envelopes of some kinds."""
    bodies: list[tuple[Kind, int, Body, bytes]] = [
        (
            Kind.KEY_ADVERT,
            3,
            KeyAdvert(_b32("mask"), _b32("seal"), _b32("mask proof") * 3, _b32("seal proof") * 3),
            b"",
        ),
        (Kind.CONTRIBUTION, 3, Contribution(_b32("c"), _b32("upload"), _b32("z")), b"commitment"),
        (Kind.SEALED_VOTE, 3, SealedVote(0, _b32("vote")), b""),
        (Kind.VOTE_OPENING, 3, VoteOpening(0, -1, 123_456, _b32("salt")), b""),
        (Kind.TRANSACTION, 0, Transaction(TransactionKind.TRANSFER, 5, MEMBERS[1].peer, MICRO), b""),
        (Kind.TRANSACTION, 0, Transaction(TransactionKind.CANCEL, 5, MEMBERS[0].peer, 0, 1), b""),
        (Kind.READY, 3, Ready(9, 1, (), (_b32("blob"),)), b""),
        (Kind.VOTE, 3, Vote(VotePhase.COMMIT, 9, 2, _b32("block")), b""),
        (Kind.TIMEOUT, 3, Timeout(9, 2, None), b""),
    ]
    cases = []
    for kind, round_, body, payload in bodies:
        statement = make_statement(MEMBERS[0], NETWORK, round_, kind, body, payload)
        cases.append(
            {
                "kind": int(kind),
                "name": kind.name,
                "network": NETWORK.hex(),
                "round": round_,
                "private": MEMBERS[0].private.hex(),
                "sender": MEMBERS[0].peer.hex(),
                "body": encode(body).hex(),
                "id": statement.id.hex(),
                "signature": statement.envelope.signature.hex(),
                "envelope": statement.to_bytes().hex(),
                "cited": statement.cited().hex(),
            }
        )
    return {"statements": cases}


def blocks() -> Document:
    """A block's bytes and hash, its COMMIT certificate, and one that is a signature short."""
    peers = tuple(member.peer for member in MEMBERS[:4])
    block = Block(
        height=9,
        round=3,
        kind=BlockKind.TIMEOUT,
        parent=_b32("parent"),
        state_root=_b32("root"),
        leader=peers[0],
        view=2,
        readys=(b"ready",),
        body=encode(TimeoutBody(0)),
    )
    vote = Vote(VotePhase.COMMIT, block.height, 2, block.hash)
    cases = []
    for signers in (4, quorum(4), quorum(4) - 1):
        signatures = tuple(
            (who.peer, who.sign(signing_digest(NETWORK, 3, Kind.VOTE, who.peer, encode(vote))))
            for who in MEMBERS[:signers]
        )
        certificate = Certificate(3, vote, signatures)
        cases.append(
            {
                "network": NETWORK.hex(),
                "validators": [peer.hex() for peer in peers],
                "certificate": encode(certificate).hex(),
                "holds": certificate_holds(certificate, NETWORK, peers),
            }
        )
    return {"blocks": [{"block": encode(block).hex(), "hash": block.hash.hex()}], "certificates": cases}
