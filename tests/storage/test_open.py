"""Storages are opened by the kind that their URL names; looking at one changes nothing in it and does not wait long."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest

from aimlhpo.errors import ConfigError, StorageError
from aimlhpo.storage.open import STORAGES, StorageKind, file_of, holds_studies, literal_password, open_storage
from tests.servers import PostgreSQL


@pytest.mark.usefixtures("both_ways")
def test_a_used_storage_is_seen(storage_url: str) -> None:
    optuna.create_study(storage=open_storage(storage_url), study_name="s")
    assert holds_studies(storage_url)


@pytest.mark.parametrize("kind", ["sqlite", "journal", "postgresql"])
def test_an_unused_storage_stays_unused(kind: str, make_storage_url: Callable[[str], str], tmp_path: Path) -> None:
    url = make_storage_url(kind)
    assert not holds_studies(url)
    assert not holds_studies(url)
    assert os.listdir(tmp_path) == []


def test_a_used_sqlite_file_is_left_as_it_is(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s?t #%.db".replace("?", "_")
    optuna.create_study(storage=open_storage(url), study_name="s")
    file = next(tmp_path.iterdir())
    before = file.read_bytes()
    assert holds_studies(url)
    assert file.read_bytes() == before
    assert len(os.listdir(tmp_path)) == 1


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("no database at all, " * 100)
    with pytest.raises(StorageError, match=r"x\.db.*not a database"):
        holds_studies(f"sqlite:///{tmp_path}/x.db")


@pytest.mark.parametrize("scheme", ["postgresql", "redis", "mysql"])
def test_a_server_that_is_not_there_is_told(scheme: str) -> None:
    with pytest.raises(StorageError, match="127.0.0.1:1"):
        holds_studies(f"{scheme}://someone@127.0.0.1:1/db" if scheme != "redis" else "redis://127.0.0.1:1")


def test_a_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_SET_HERE", raising=False)
    with pytest.raises(ConfigError, match="NOT_SET_HERE"):
        holds_studies("postgresql://u:${NOT_SET_HERE}@localhost/db")


@pytest.mark.parametrize("url", ["oracle9://u@h/d", "postgresql://u@h:port/d", "redis://h:port/d", "nonsense"])
def test_what_is_no_storage_url_is_a_config_error(url: str) -> None:
    with pytest.raises(ConfigError):
        holds_studies(url)


def test_a_missing_driver_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="driver"):
        holds_studies("mssql+pyodbc://u@h/d")


def test_secrets_are_not_in_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROBE_PW", "geheim123")
    with pytest.raises(StorageError) as caught:
        holds_studies("postgresql://u:${PROBE_PW}@127.0.0.1:1/d")
    assert "geheim123" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("postgresql://u:pw@h/d", "postgresql://u:${PASSWORD}@h/d"),
        ("postgresql://u:${PW}@h/d", None),
        ("postgresql://u@h:5432/d", None),
        ("redis://:pw@h:1", "redis://:${PASSWORD}@h:1"),
        ("sqlite:////a:b@c/x.db", None),
        ("journal:///a:b@c/x", None),
        ("postgresql:///d?user=u&password=pw", "postgresql:///d?user=u&password=${PASSWORD}"),
        ("postgresql:///d?password=${PW}", None),
    ],
)
def test_passwords_in_plain_text_are_found(url: str, safe: str | None) -> None:
    assert literal_password(url) == safe


def test_a_new_kind_of_storage_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = optuna.storages.InMemoryStorage()
    kind = StorageKind(open=lambda url: kept, holds_studies=lambda url: True, legal="memory://NAME")
    monkeypatch.setitem(STORAGES, "memory", kind)
    assert open_storage("memory://here") is kept
    assert holds_studies("memory://here")
    assert file_of("memory://here") is None
    with pytest.raises(ConfigError, match="memory://NAME"):
        holds_studies("nonsense")


@pytest.mark.parametrize("password", ["p@ss/w#rd", "50%", "a?b:c d", "%41@", "plain", "p%40ss%2Fw%23rd"])
def test_a_password_of_any_characters_reaches_the_server(
    password: str, postgresql_server: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = "p@ss/w#rd" if password == "p%40ss%2Fw%23rd" else password  # encoded by the user already
    url = postgresql_server.secret_url()
    postgresql_server.execute(f"ALTER ROLE aimlhpo PASSWORD '{kept}'")
    try:
        monkeypatch.setenv(postgresql_server.password_variable, password)
        assert not holds_studies(url)
        in_query = url.replace(f":${{{postgresql_server.password_variable}}}@", "@")
        assert not holds_studies(f"{in_query}?password=${{{postgresql_server.password_variable}}}")
        monkeypatch.setenv(postgresql_server.password_variable, f"{password}-wrong")
        with pytest.raises(StorageError, match="password authentication failed"):
            holds_studies(url)
    finally:
        postgresql_server.execute(f"ALTER ROLE aimlhpo PASSWORD '{postgresql_server.password}'")


@pytest.mark.parametrize("scheme", ["postgresql", "mysql", "redis"])
@pytest.mark.parametrize("password", ["geh@im", "geh/im", "geh#im", "geh?im", "ge@h/im", "geh/@im"])
def test_a_whole_url_with_such_a_password_is_told_without_it(
    scheme: str, password: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHOLE_URL", f"{scheme}://u:{password}@127.0.0.1:1/d")
    with pytest.raises((ConfigError, StorageError)) as caught:
        holds_studies("${WHOLE_URL}")
    assert "geh" not in str(caught.value)
    assert "im@" not in str(caught.value)
    if password != "geh#im":  # which SQLAlchemy takes as it is
        assert "${PASSWORD}" in str(caught.value)
