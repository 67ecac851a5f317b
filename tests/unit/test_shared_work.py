"""What simulated nodes share or do faster is the same as what each would do alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.keys import AgreementError, AgreementKey
from protocol.secrets import RoundSecrets
from sim.checks import AGREEMENTS, Latest, SharedChecks

SEEDS = st.binary(min_size=32, max_size=32)


@given(SEEDS, SEEDS)
def test_keys_that_share_what_they_agreed_on_find_what_each_finds_alone(first: bytes, second: bytes) -> None:
    agreed = SharedChecks().agreed
    assert agreed is not None
    a, b = (AgreementKey(secret, agreed) for secret in (first, second))
    alone = AgreementKey(first).agree(b.public)
    assert a.agree(b.public) == b.agree(a.public) == alone
    assert len(agreed) == 1


def test_what_another_node_agreed_on_is_not_worked_out_again() -> None:
    agreed = SharedChecks().agreed
    assert agreed is not None
    a, b = (RoundSecrets.derive(bytes([n]) * 32, bytes(32), 1, agreed) for n in (1, 2))
    shared = a.mask_key.agree(b.mask_public)
    agreed[min(a.mask_public, b.mask_public), max(a.mask_public, b.mask_public)] = b"as remembered".ljust(32)
    assert b.mask_key.agree(a.mask_public) == b"as remembered".ljust(32) != shared
    alone = RoundSecrets.derive(bytes([2]) * 32, bytes(32), 1)
    assert alone.mask_key.agree(a.mask_public) == shared
    assert alone == b


def test_an_agreement_that_fails_is_not_remembered() -> None:
    agreed = Latest[tuple[bytes, bytes], bytes](AGREEMENTS)
    key = AgreementKey(bytes(range(32)), agreed)
    for _ in range(2):
        with pytest.raises(AgreementError):
            key.agree(bytes(32))
    assert not agreed


def test_the_latest_are_kept() -> None:
    latest = Latest[int, str](3)
    for number in range(5):
        latest[number] = str(number)
    latest[4] = "again"
    assert latest == {2: "2", 3: "3", 4: "again"}
