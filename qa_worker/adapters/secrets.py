"""Secrets at rest: encrypted and authenticated (Fernet: AES-128-CBC and HMAC-SHA256) with the keys of the settings."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from qa_worker.domain.errors import InvalidInput

_MAKE_ONE = (
    "Make one with: python -c 'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())'"
    " and give it to every worker and command. The local stack's own database has its key in secret.key of its home"
)


class FernetVault:
    """Implements the port `Vault`. The first key encrypts, all of them decrypt.

    To change the key: put a new one in front, restart everything, reseal what is stored, take the old one away.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        """Raises InvalidInput where a key is none. Without any key nothing can be sealed or opened."""
        try:
            fernets = [Fernet(key) for key in keys]
        except ValueError:
            raise InvalidInput("QA_SECRET_KEYS", "a key is not 32 bytes in URL-safe base64", _MAKE_ONE) from None
        self._fernet = MultiFernet(fernets) if fernets else None

    def __repr__(self) -> str:
        return "FernetVault()"

    def seal(self, text: str) -> bytes:
        """See the port."""
        return self._keys().encrypt(text.encode())

    def open(self, sealed: bytes) -> str:
        """See the port."""
        try:
            return self._keys().decrypt(sealed).decode()
        except InvalidToken:
            raise _no_key_fits() from None

    def reseal(self, sealed: bytes) -> bytes:
        """See the port."""
        try:
            return self._keys().rotate(sealed)
        except InvalidToken:
            raise _no_key_fits() from None

    def _keys(self) -> MultiFernet:
        if self._fernet is None:
            raise InvalidInput("QA_SECRET_KEYS", "not set, so that no secret can be kept", _MAKE_ONE)
        return self._fernet


def new_key() -> str:
    """A fresh key for QA_SECRET_KEYS."""
    return Fernet.generate_key().decode()


def split_keys(setting: str) -> list[str]:
    """The keys of the setting: separated by commas, blanks around them don't matter."""
    return [key for key in (part.strip() for part in setting.split(",")) if key]


def _no_key_fits() -> InvalidInput:
    return InvalidInput(
        "QA_SECRET_KEYS",
        "none of the keys decrypts what is stored",
        "Add the key that was in use when the endpoint was made, behind the new one",
    )
