"""ed25519 signatures of a bundle's manifest: the check at load."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from fer_edge.core.disk import read_regular
from fer_edge.core.errors import InputError, require

__all__ = ["load_key", "signature_holds"]

_KEY_LIMIT_BYTES: Final = 1 << 16


def signature_holds(data: bytes, signature: bytes, public_key: Path) -> bool:
    """Check whether the owner of the key made `signature` for `data`.

    Raises:
        InputError: the key file cannot be read or holds another kind of key.
        MissingPackageError: `cryptography` is not installed.
    """
    require("cryptography", needed_by="a bundle's signature", extra="sign")
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    cure = "get it from the private one with: openssl pkey -in KEY -pubout -out KEY.pub"
    key = load_key(public_key, load_pem_public_key, Ed25519PublicKey, what="public key", cure=cure)
    try:
        key.verify(signature, data)
    except InvalidSignature:
        return False
    return True


def load_key(path: Path, load: Callable[[bytes], Any], wanted: type, *, what: str, cure: str) -> Any:
    """Read a PEM key of one type.

    Raises:
        InputError: the key file cannot be read or holds another kind of key.
    """
    data = read_regular(path, limit_bytes=_KEY_LIMIT_BYTES)
    try:
        key = load(data)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path} is not a PEM {what} ({error}); {cure}") from error
    if not isinstance(key, wanted):
        raise InputError(f"{path}: got a key of type {type(key).__name__}, expected an ed25519 {what}")
    return key
