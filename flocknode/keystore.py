"""The secrets of a node directory: signing key, trusted dealer's package, pre-shared key of a closed network.

They are files that only their owner may read; a key that others could have read is refused, not repaired,
because somebody else may be this node by now.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from flocknode.files import create_file
from protocol.codec import DecodeError, decode, encode
from protocol.keys import Identity
from protocol.secrets import DealerPackage

KEY_FILE = "node.key"
DEALER_FILE = "dealer.key"
PSK_FILE = "network.key"
PSK_BYTES = 32
MAX_FILE_BYTES = 4096
PRIVATE_MODE = 0o600


class KeystoreError(Exception):
    """A secret cannot be read or written; the message names the file."""


def save_identity(directory: Path, identity: Identity) -> None:
    """Write the key as PKCS #8 PEM, mode 0600. Raises `KeystoreError`; an existing key is never replaced."""
    key = Ed25519PrivateKey.from_private_bytes(identity.private)
    _create(directory / KEY_FILE, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def load_identity(directory: Path) -> Identity:
    """The node's key. Raises `KeystoreError` if it is missing, no Ed25519 key, or readable by others."""
    path = directory / KEY_FILE
    try:
        key = load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeystoreError(f"{path}: not an unencrypted private key in PEM") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeystoreError(f"{path}: not an Ed25519 key")
    return Identity(key.private_bytes_raw())


def save_dealer_package(directory: Path, package: DealerPackage) -> None:
    """Write what the trusted dealer gave this node, mode 0600. Raises `KeystoreError` as `save_identity`."""
    _create(directory / DEALER_FILE, encode(package))


def load_dealer_package(directory: Path) -> DealerPackage | None:
    """The dealer's package, None if there is none. Raises `KeystoreError` as `load_identity`."""
    path = directory / DEALER_FILE
    if not path.exists():
        return None
    try:
        return decode(DealerPackage, _read(path), MAX_FILE_BYTES)
    except DecodeError as error:
        raise KeystoreError(f"{path}: not a dealer's package: {error}") from error


def save_psk(directory: Path, psk: bytes) -> None:
    """Write a closed network's 32-byte key as hex, mode 0600. Raises `KeystoreError` as `save_identity`."""
    path = directory / PSK_FILE
    if len(psk) != PSK_BYTES:
        raise KeystoreError(f"{path}: a pre-shared key is {PSK_BYTES} bytes, not {len(psk)}")
    _create(path, psk.hex().encode() + b"\n")


def load_psk(directory: Path) -> bytes | None:
    """The network's pre-shared key, None if it is open. Raises `KeystoreError` as `load_identity`."""
    path = directory / PSK_FILE
    if not path.exists():
        return None
    try:
        psk = bytes.fromhex(_read(path).decode("ascii").strip())
    except ValueError as error:
        raise KeystoreError(f"{path}: not {2 * PSK_BYTES} hexadecimal digits") from error
    if len(psk) != PSK_BYTES:
        raise KeystoreError(f"{path}: not {2 * PSK_BYTES} hexadecimal digits")
    return psk


def _create(path: Path, data: bytes) -> None:
    try:
        create_file(path, data, PRIVATE_MODE)
    except FileExistsError as error:
        raise KeystoreError(f"{path} exists, and a secret is never replaced") from error
    except OSError as error:
        raise KeystoreError(f"{path}: {error.strerror}") from error


def _read(path: Path) -> bytes:
    try:
        # Without O_NONBLOCK, opening a pipe in the key's place would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise KeystoreError(f"{path}: {error.strerror}") from error
    try:
        # Of the open file, not of the path: what is checked is what is read.
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise KeystoreError(f"{path}: not a regular file")
        mode = stat.S_IMODE(status.st_mode)
        if mode & 0o077:
            raise KeystoreError(
                f"{path} is open to others (mode {mode:04o}): run chmod 600 on it, "
                "and make a new key if anyone else uses this machine"
            )
        return os.read(descriptor, MAX_FILE_BYTES + 1)
    finally:
        os.close(descriptor)
