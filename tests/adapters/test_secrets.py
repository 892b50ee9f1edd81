"""Secrets at rest."""

from __future__ import annotations

import pytest

from qa_worker.adapters.secrets import FernetVault, new_key, split_keys
from qa_worker.domain.errors import InvalidInput

SECRET = "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTMy"


def test_what_is_sealed_can_be_opened_and_not_read() -> None:
    vault = FernetVault([new_key()])
    sealed = vault.seal(SECRET)

    assert vault.open(sealed) == SECRET
    assert SECRET.encode() not in sealed
    assert vault.seal(SECRET) != sealed


def test_an_older_key_still_opens_and_resealing_moves_on_to_the_first() -> None:
    old, new = new_key(), new_key()
    sealed = FernetVault([old]).seal(SECRET)
    both = FernetVault([new, old])

    assert both.open(sealed) == SECRET
    moved = both.reseal(sealed)
    assert FernetVault([new]).open(moved) == SECRET
    with pytest.raises(InvalidInput, match="none of the keys"):
        FernetVault([new]).open(sealed)


def test_what_was_changed_is_not_opened() -> None:
    vault = FernetVault([new_key()])
    sealed = bytearray(vault.seal(SECRET))
    sealed[30] ^= 1

    for broken in (bytes(sealed), b"", b"not sealed at all"):
        with pytest.raises(InvalidInput, match="QA_SECRET_KEYS"):
            vault.open(broken)
        with pytest.raises(InvalidInput, match="QA_SECRET_KEYS"):
            vault.reseal(broken)


def test_without_a_key_the_error_says_how_to_make_one() -> None:
    with pytest.raises(InvalidInput, match=r"generate_key"):
        FernetVault([]).seal(SECRET)


def test_a_bad_key_is_refused_and_not_quoted() -> None:
    with pytest.raises(InvalidInput, match="QA_SECRET_KEYS") as refused:
        FernetVault(["hunter2"])

    assert "hunter2" not in str(refused.value)


def test_keys_are_separated_by_commas_and_never_shown() -> None:
    key = new_key()

    assert split_keys(f" {key} ,, other ") == [key, "other"]
    assert split_keys("") == []
    assert key not in repr(FernetVault([key]))
