"""Key files: private, atomic, never replaced, and refused when others could have read them."""

import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from flocknode.keystore import (
    DEALER_FILE,
    KEY_FILE,
    KeystoreError,
    load_dealer_package,
    load_identity,
    save_dealer_package,
    save_identity,
)
from protocol.keys import Identity
from protocol.secrets import DealerPackage

IDENTITY = Identity.from_seed(bytes(range(32)))
PACKAGE = DealerPackage(b"s" * 32, b"c" * 32)


def write_private(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    path.chmod(0o600)


def test_a_key_is_read_back_and_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        save_identity(tmp_path, IDENTITY)
        save_dealer_package(tmp_path, PACKAGE)
    finally:
        os.umask(before)
    assert load_identity(tmp_path) == IDENTITY
    assert load_dealer_package(tmp_path) == PACKAGE
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {
        KEY_FILE: 0o600,
        DEALER_FILE: 0o600,
    }
    key = load_pem_private_key((tmp_path / KEY_FILE).read_bytes(), None)
    assert key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption()) == IDENTITY.private


def test_a_key_is_never_replaced(tmp_path: Path) -> None:
    save_identity(tmp_path, IDENTITY)
    with pytest.raises(KeystoreError, match=f"{tmp_path / KEY_FILE} exists"):
        save_identity(tmp_path, Identity.from_seed(bytes(32)))
    assert load_identity(tmp_path) == IDENTITY
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]


def test_a_leftover_of_a_crash_does_not_hinder_and_is_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"untouched")
    (tmp_path / f"{KEY_FILE}.partial").symlink_to(elsewhere)
    save_identity(tmp_path, IDENTITY)
    assert load_identity(tmp_path) == IDENTITY
    assert elsewhere.read_bytes() == b"untouched"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644, 0o666, 0o601])
def test_a_key_that_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    save_identity(tmp_path, IDENTITY)
    save_dealer_package(tmp_path, PACKAGE)
    for name, load in ((KEY_FILE, load_identity), (DEALER_FILE, load_dealer_package)):
        (tmp_path / name).chmod(mode)
        with pytest.raises(KeystoreError, match=rf"{tmp_path / name} .*\(mode {mode:04o}\).*chmod 600"):
            load(tmp_path)


def test_what_is_no_ed25519_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / KEY_FILE
    with pytest.raises(KeystoreError, match=f"{path}: No such file"):
        load_identity(tmp_path)
    pem = (Encoding.PEM, PrivateFormat.PKCS8)
    rsa = generate_private_key(public_exponent=65537, key_size=1024)
    ours = Ed25519PrivateKey.from_private_bytes(IDENTITY.private)
    for data in (
        b"",
        b"no key",
        b"\xff" * 5000,
        rsa.private_bytes(*pem, NoEncryption()),
        X25519PrivateKey.generate().private_bytes(*pem, NoEncryption()),
        ours.private_bytes(*pem, BestAvailableEncryption(b"password")),
        ours.private_bytes(*pem, NoEncryption())[:-40],
    ):
        write_private(path, data)
        with pytest.raises(KeystoreError, match=f"{path}: not an"):
            load_identity(tmp_path)


def test_a_directory_or_a_pipe_in_the_keys_place_is_refused_without_waiting(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).mkdir()
    with pytest.raises(KeystoreError, match="not a regular file"):
        load_identity(tmp_path)
    (tmp_path / KEY_FILE).rmdir()
    os.mkfifo(tmp_path / KEY_FILE, 0o600)
    with pytest.raises(KeystoreError, match="not a regular file"):
        load_identity(tmp_path)


def test_a_network_without_a_dealer_has_no_package_and_a_bad_one_is_named(tmp_path: Path) -> None:
    assert load_dealer_package(tmp_path) is None
    write_private(tmp_path / DEALER_FILE, b"\x92\xc4\x01a\xc4\x01b")
    with pytest.raises(KeystoreError, match=f"{tmp_path / DEALER_FILE}: not a dealer's package"):
        load_dealer_package(tmp_path)


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeystoreError, match=f"{tmp_path / 'absent' / KEY_FILE}: No such file"):
        save_identity(tmp_path / "absent", IDENTITY)
