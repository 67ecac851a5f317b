"""Quorums and the certificates that prove them (docs/PROTOCOL.md section 7)."""

from __future__ import annotations

from collections.abc import Callable

from protocol import keys
from protocol.codec import encode
from protocol.envelope import signing_digest
from protocol.messages import Certificate, Kind


def quorum(n: int) -> int:
    """The least count that is more than 2/3 of n."""
    return 2 * n // 3 + 1


def more_than_third(n: int) -> int:
    """The least count that is more than 1/3 of n."""
    return n // 3 + 1


def certificate_holds(
    certificate: Certificate,
    network: bytes,
    validators: tuple[bytes, ...],
    verify: Callable[[bytes, bytes, bytes], bool] = keys.verify,
) -> bool:
    """Distinct validators, more than 2/3 of all, each with a valid signature on the very vote.

    `verify` is asked as `protocol.keys.verify` would be.
    """
    voters = [voter for voter, _ in certificate.signatures]
    if sorted(set(voters)) != voters or not set(voters) <= set(validators):
        return False
    if len(voters) < quorum(len(validators)):
        return False
    body = encode(certificate.vote)
    return all(
        verify(voter, signing_digest(network, certificate.round, Kind.VOTE, voter, body), signature)
        for voter, signature in certificate.signatures
    )
