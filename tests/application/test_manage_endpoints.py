"""Endpoints as ops manage them: secrets are shown once and never stored in the clear."""

from __future__ import annotations

import threading
import uuid
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, text

from qa_worker.adapters.postgres.tables import endpoint_secrets, endpoints
from qa_worker.adapters.secrets import FernetVault, new_key
from qa_worker.application.manage_endpoints import (
    Made,
    add_endpoint,
    reseal_endpoints,
    rotate_secret,
    switch_endpoint,
    try_endpoint,
)
from qa_worker.domain.endpoint import EndpointKind
from qa_worker.domain.errors import InvalidInput
from qa_worker.domain.outcome import Done
from tests.conftest import UnitsOfWork
from tests.post import BROKEN, DELIVERED, Post, ScriptedChannel

pytestmark = pytest.mark.services

TARGET = "https://hooks.example.com/T0/secret-path"


@pytest.fixture
def post(uow: UnitsOfWork) -> Post:
    """An empty workspace."""
    return Post(uow)


def _add(post: Post, name: str = "ops", kind: EndpointKind = EndpointKind.WEBHOOK, **managing: Any) -> Made:
    return add_endpoint(workspace="w", name=name, kind=kind, target=TARGET, managing=post.managing(**managing))


def _secrets(post: Post, endpoint_id: uuid.UUID) -> list[str]:
    with post.uow() as work:
        address = work.endpoints.address(endpoint_id)
    assert address is not None
    return [post.vault.open(secret) for secret in address.secrets]


def test_an_endpoint_is_stored_with_its_secret_which_is_told_once(post: Post) -> None:
    made = _add(post)

    assert made.secret is not None
    assert _secrets(post, made.id) == [made.secret]
    seen = post.seen(made.id)
    assert (seen.ref.name, seen.ref.kind, seen.target_hint) == ("ops", EndpointKind.WEBHOOK, TARGET.rpartition("/")[0])
    assert seen.active
    for shown in (repr(made), repr(seen)):
        assert made.secret not in shown
        assert "secret-path" not in shown


def test_nothing_of_a_secret_or_a_path_lies_in_the_database_in_the_clear(post: Post) -> None:
    made = _add(post)
    assert made.secret is not None

    with post.uow.engine.connect() as connection:
        stored = "".join(
            str(row)
            for table in (endpoints, endpoint_secrets)
            for row in connection.execute(
                select(text("encode(row::text::bytea, 'escape')")).select_from(
                    text(f"{table.name} AS row")  # names of our own tables
                )
            )
        )

    assert "secret-path" not in stored
    assert made.secret not in stored
    assert "ops" in stored


def test_only_webhooks_have_a_secret(post: Post) -> None:
    made = _add(post, kind=EndpointKind.SLACK)

    assert made.secret is None
    with pytest.raises(InvalidInput, match="no webhook"):
        rotate_secret(workspace="w", name="ops", managing=post.managing())


def test_a_name_is_taken_once_in_a_workspace(post: Post) -> None:
    _add(post)

    with pytest.raises(InvalidInput, match="already"):
        _add(post)
    add_endpoint(workspace="other", name="ops", kind=EndpointKind.WEBHOOK, target=TARGET, managing=post.managing())
    with post.uow() as work:
        assert [one.ref.workspace_name for one in work.endpoints.all()] == ["other", "w"]
        assert [one.ref.name for one in work.endpoints.all("w")] == ["ops"]


@pytest.mark.parametrize("name", ["", " ops", "x" * 101])
def test_a_name_that_nobody_could_type_is_refused(post: Post, name: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        _add(post, name)

    assert refused.value.field == "name"


def test_without_a_key_no_endpoint_is_made_and_the_error_says_how_to_make_one(post: Post) -> None:
    with pytest.raises(InvalidInput, match="QA_SECRET_KEYS"):
        _add(post, vault=FernetVault([]))

    with post.uow() as work:
        assert work.endpoints.all() == []


def test_a_rotated_secret_signs_until_its_time_is_over(post: Post) -> None:
    made = _add(post)

    new = rotate_secret(workspace="w", name="ops", managing=post.managing())

    assert _secrets(post, made.id) == [new, made.secret]
    past = func.now() - timedelta(seconds=1)
    with post.uow.engine.begin() as connection:
        expired = endpoint_secrets.update().where(endpoint_secrets.c.expires_at.is_not(None))
        connection.execute(expired.values(expires_at=past))
    assert _secrets(post, made.id) == [new]
    newest = rotate_secret(workspace="w", name="ops", managing=post.managing())
    assert _secrets(post, made.id) == [newest, new]
    with post.uow.engine.connect() as connection:
        assert len(connection.execute(select(endpoint_secrets)).all()) == 2, "the expired one is gone"


def test_two_who_rotate_at_once_leave_one_secret_that_does_not_expire(post: Post) -> None:
    made, managing = _add(post), post.managing()
    second: list[str] = []

    def rotate() -> None:
        second.append(rotate_secret(workspace="w", name="ops", managing=managing))

    thread = threading.Thread(target=rotate)
    with post.uow() as work:
        work.endpoints.rotate_secret(made.id, post.vault.seal("whsec_first"), overlap_s=3600)
        thread.start()
        thread.join(timeout=0.3)
        assert thread.is_alive(), "it waits for the one that came first"
        work.commit()
    thread.join()

    assert _secrets(post, made.id)[0] == second[0]
    with post.uow.engine.connect() as connection:
        current = select(endpoint_secrets).where(endpoint_secrets.c.expires_at.is_(None))
        assert len(connection.execute(current).all()) == 1


def test_switching_off_ends_what_waits_and_switching_on_begins_anew(post: Post) -> None:
    endpoint = post.endpoint()
    (delivery,) = post.alert(endpoint)
    post.send(delivery, BROKEN)

    assert switch_endpoint(workspace="w", name="ops", on=False, managing=post.managing()) == 1
    assert not post.seen(endpoint).active
    assert post.seen(endpoint).disabled_reason == "By hand."
    assert post.alert(endpoint) == []

    assert switch_endpoint(workspace="w", name="ops", on=True, managing=post.managing()) == 0
    seen = post.seen(endpoint)
    assert (seen.active, seen.disabled_reason, seen.health.consecutive_failures) == (True, "", 0)
    (after,) = post.alert(endpoint)
    assert post.send(after, DELIVERED) == Done("delivered")
    assert post.seen(endpoint).last_success_at is not None


def test_a_test_event_is_sent_and_nothing_is_stored(post: Post) -> None:
    made = _add(post)
    channel = ScriptedChannel([BROKEN])

    answer = try_endpoint(workspace="w", name="ops", managing=post.managing(channel))

    assert answer == BROKEN
    (parcel,) = channel.parcels
    assert (parcel.target, parcel.secrets) == (TARGET, (made.secret,))
    assert b'"type":"test"' in parcel.body
    assert post.rows() == []
    assert post.seen(made.id).health.consecutive_failures == 0


def test_an_endpoint_that_nobody_knows_is_named(post: Post) -> None:
    managing = post.managing()

    for attempt in (
        lambda: rotate_secret(workspace="w", name="nobody", managing=managing),
        lambda: try_endpoint(workspace="w", name="nobody", managing=managing),
        lambda: switch_endpoint(workspace="w", name="nobody", on=False, managing=managing),
    ):
        with pytest.raises(InvalidInput, match="'nobody'"):
            attempt()


def test_resealing_moves_everything_to_the_first_key(post: Post) -> None:
    old_key, first_key = new_key(), new_key()
    post.vault = FernetVault([old_key])
    made = _add(post)
    new = rotate_secret(workspace="w", name="ops", managing=post.managing())

    assert reseal_endpoints(managing=post.managing(vault=FernetVault([first_key, old_key]))) == 1

    post.vault = FernetVault([first_key])
    assert _secrets(post, made.id) == [new, made.secret]
    assert try_endpoint(workspace="w", name="ops", managing=post.managing()) == DELIVERED


def test_resealing_changes_nothing_where_one_secret_has_no_key(post: Post) -> None:
    made = _add(post)
    before, post.vault = post.vault, FernetVault([new_key()])
    _add(post, "other")

    with pytest.raises(InvalidInput, match="none of the keys"):
        reseal_endpoints(managing=post.managing())

    post.vault = before
    assert _secrets(post, made.id) == [made.secret]
