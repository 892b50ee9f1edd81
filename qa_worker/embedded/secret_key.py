"""`<home>/secret.key`: what the secrets of a local stack's database are encrypted with, so that nobody has to set one up.

It is made with the stack's own database and deleted with it. A database of somebody else's has keys of its own, which
QA_SECRET_KEYS must name.
"""

from __future__ import annotations

import base64
import secrets
from pathlib import Path

from qa_worker.embedded.files import write_private


def made_key(home: Path) -> str:
    """The key of this home, made if there is none. The caller holds the lock of the home."""
    known = known_key(home)
    if known is None:
        # As Fernet wants it: 32 random bytes in URL-safe base64.
        known = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
        write_private(_file(home), known + "\n")
    return known


def known_key(home: Path) -> str | None:
    """The key of this home; None where none was made."""
    try:
        return _file(home).read_text(encoding="ascii").strip() or None
    except FileNotFoundError:
        return None


def _file(home: Path) -> Path:
    return home / "secret.key"
