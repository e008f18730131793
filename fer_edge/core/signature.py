"""ed25519 signatures of a bundle's manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from fer_edge.core.disk import read_regular
from fer_edge.core.errors import InputError, require

__all__ = ["sign_bytes", "signature_holds"]

_KEY_LIMIT_BYTES: Final = 1 << 16


def sign_bytes(data: bytes, private_key: Path) -> bytes:
    """Return the raw 64-byte ed25519 signature of `data`.

    Raises:
        InputError: the key file cannot be read, has a pass phrase, or holds another kind of key.
        MissingPackageError: `cryptography` is not installed.
    """
    signature: bytes = _load(private_key, private=True).sign(data)
    return signature


def signature_holds(data: bytes, signature: bytes, public_key: Path) -> bool:
    """Check whether the owner of the key made `signature` for `data`.

    Raises:
        InputError: the key file cannot be read or holds another kind of key.
        MissingPackageError: `cryptography` is not installed.
    """
    key = _load(public_key, private=False)
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, data)
    except InvalidSignature:
        return False
    return True


def _load(path: Path, *, private: bool) -> Any:
    require("cryptography", needed_by="a bundle's signature", extra="sign")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    data = read_regular(path, limit_bytes=_KEY_LIMIT_BYTES)
    try:
        key = (
            serialization.load_pem_private_key(data, password=None)
            if private
            else serialization.load_pem_public_key(data)
        )
    except (TypeError, ValueError) as error:
        kind, cure = (
            ("private key without pass phrase", "make one with: openssl genpkey -algorithm ed25519 -out KEY")
            if private
            else ("public key", "get it from the private one with: openssl pkey -in KEY -pubout -out KEY.pub")
        )
        raise InputError(f"{path} is not a PEM {kind} ({error}); {cure}") from error
    wanted = ed25519.Ed25519PrivateKey if private else ed25519.Ed25519PublicKey
    if not isinstance(key, wanted):
        kind = "private" if private else "public"
        raise InputError(f"{path}: got a key of type {type(key).__name__}, expected an ed25519 {kind} key")
    return key
