"""ed25519 signatures of a bundle's manifest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_edge.core.errors import InputError, require

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = ["sign_bytes", "signature_holds"]

_NEEDED_BY = "a bundle's signature"


def sign_bytes(data: bytes, private_key: Path) -> bytes:
    """The raw 64-byte ed25519 signature of `data`.

    Raises:
        InputError: the key file cannot be read, has a pass phrase, or holds another kind of key.
        MissingPackageError: `cryptography` is not installed.
    """
    return _private_key(private_key).sign(data)


def signature_holds(data: bytes, signature: bytes, public_key: Path) -> bool:
    """Whether `signature` was made for `data` by the owner of the key.

    Raises:
        InputError: the key file cannot be read or holds another kind of key.
        MissingPackageError: `cryptography` is not installed.
    """
    key = _public_key(public_key)
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, data)
    except InvalidSignature:
        return False
    return True


def _serialization() -> Any:
    require("cryptography", needed_by=_NEEDED_BY, extra="sign")
    from cryptography.hazmat.primitives import serialization

    return serialization


def _private_key(path: Path) -> Ed25519PrivateKey:
    serialization = _serialization()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        key = serialization.load_pem_private_key(_read(path), password=None)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{path} is not a PEM private key without pass phrase ({error}); "
            "make one with: openssl genpkey -algorithm ed25519 -out KEY"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(f"{path}: got a key of type {type(key).__name__}, expected an ed25519 private key")
    return key


def _public_key(path: Path) -> Ed25519PublicKey:
    serialization = _serialization()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        key = serialization.load_pem_public_key(_read(path))
    except ValueError as error:
        raise InputError(
            f"{path} is not a PEM public key ({error}); "
            "get it from the private one with: openssl pkey -in KEY -pubout -out KEY.pub"
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise InputError(f"{path}: got a key of type {type(key).__name__}, expected an ed25519 public key")
    return key


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the key {path}: {error.strerror or error}") from error
