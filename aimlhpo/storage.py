"""Storage URL -> Optuna storage, and the one study in it: made, loaded, and held against the configuration."""

from __future__ import annotations

import os
import re
import secrets
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.study import StudyDirection

from aimlhpo import fingerprint
from aimlhpo.backends.journal_storage import Journal
from aimlhpo.errors import ConfigError, Problem, StorageError, StudyError
from aimlhpo.journal import journal_backend
from aimlhpo.locks import locked

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

    from aimlhpo.config import Config

STUDY_ATTR = "aimlhpo"
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_DRIVERS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg", "mysql": "mysql+pymysql"}
_EXTRAS = {"postgresql+psycopg": "postgresql", "mysql+pymysql": "mysql", "redis": "redis"}
_SQLITE_BUSY_TIMEOUT = 60  # seconds that a writer waits for another one


def expand(url: str) -> str:
    """Put the environment's values in place of `${NAME}`. Raises ConfigError naming a variable that is not set."""
    missing = [name for name in _VARIABLE.findall(url) if name not in os.environ]
    if missing:
        raise ConfigError(
            Problem("optuna: storage", f"the environment has no variable {missing[0]}", f"export {missing[0]}=...")
        )
    return _VARIABLE.sub(lambda match: os.environ[match.group(1)], url)


def file_of(url: str) -> Path | None:
    """The file that a sqlite or journal storage lies in; None for a server's."""
    scheme, _, rest = expand(url).partition("://")
    if scheme == "journal":
        return Path(rest)
    return Path(rest.removeprefix("/").split("?")[0]) if scheme.split("+")[0] == "sqlite" else None


def open_storage(url: str) -> BaseStorage:
    """Open the storage, making its file or tables where they are missing.

    Raises ConfigError for a URL that cannot mean a storage, StorageError where it cannot be reached.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with told_as_storage_error(url), _quiet():
        expanded = expand(url)
        scheme = expanded.partition("://")[0]
        if scheme == "journal":
            return _journal(expanded.removeprefix("journal://"))
        if scheme in ("redis", "rediss"):
            return JournalStorage(optuna.storages.journal.JournalRedisBackend(expanded))
        return _rdb(expanded)


def _journal(path: str) -> BaseStorage:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return Journal(journal_backend(Path(path)))


def _rdb(url: str) -> BaseStorage:
    from aimlhpo.backends.database import Database  # loads SQLAlchemy

    if url.startswith("sqlite"):
        _make_private(file_of(url))
        storage = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": _SQLITE_BUSY_TIMEOUT}})
    else:
        storage = RDBStorage(engine_url(url), engine_kwargs={"pool_pre_ping": True})
    return Database(storage)


def engine_url(url: str) -> str:
    """An expanded URL with the driver that we install for its database."""
    scheme, separator, rest = url.partition("://")
    return _DRIVERS.get(scheme, scheme) + separator + rest


def _make_private(path: Path | None) -> None:
    """Make the database file before SQLite does, so that its user alone can read it."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep to ourselves which of Optuna's calls it marks as experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


@contextmanager
def told_as_storage_error(url: str) -> Iterator[None]:
    """Say what failed without the URL's expanded secrets."""
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

    try:
        yield
    except (ArgumentError, NoSuchModuleError) as error:
        raise ConfigError(Problem("optuna: storage", f"{url!r} is no storage URL", LEGAL_URLS)) from error
    except ImportError as error:
        raise ConfigError(_missing_driver(url)) from error
    except (SQLAlchemyError, OSError, optuna.exceptions.StorageInternalError) as error:
        raise StorageError(f"the storage {url} cannot be opened: {_first_line(error, url)}") from error
    except Exception as error:
        if type(error).__module__.startswith("redis"):
            raise StorageError(f"the storage {url} cannot be opened: {_first_line(error, url)}") from error
        raise


LEGAL_URLS = "journal, journal:///abs/path, sqlite:///path.db, postgresql://user@host/db, mysql://user@host/db, redis://host:port"


def _missing_driver(url: str) -> Problem:
    scheme = url.partition("://")[0]
    extra = _EXTRAS.get(_DRIVERS.get(scheme, scheme))
    advice = f"pip install 'aimlhpo[{extra}]'" if extra else "install the driver that the URL names"
    return Problem("optuna: storage", f"the driver for {scheme}:// is not installed", advice)


def _first_line(error: BaseException, url: str) -> str:
    text = str(error.__cause__ or error).strip().splitlines()
    line = text[0] if text else type(error).__name__
    for name in _VARIABLE.findall(url):
        line = line.replace(os.environ[name], f"${{{name}}}") if os.environ[name] else line
    return line


def study_exists(config: Config) -> bool:
    """Whether the study is in its storage; never makes a storage that is not there."""
    study = find_study(config)
    if study is not None:
        disconnect(study)
    return study is not None


def find_study(config: Config) -> optuna.Study | None:
    """The study, where there is one. Opens the storage once, and never makes one that is not there."""
    try:
        return load_study(config)
    except StudyError:
        return None


def disconnect(study: optuna.Study) -> None:
    """Give up the connections of a study that is not needed any more: servers have few, and agents may be many."""
    _disconnect(study._storage)


def _disconnect(storage: BaseStorage) -> None:
    inner = getattr(storage, "_backend", storage)
    if isinstance(inner, RDBStorage):
        inner.engine.dispose()


def load_study(config: Config, *, sampler: BaseSampler | None = None, pruner: BasePruner | None = None) -> optuna.Study:
    """Load the study. Raises StudyError where there is none, StorageError where the storage cannot be reached."""
    path = file_of(config.optuna.storage)
    if path is not None and not path.exists():  # opening would make it
        raise StudyError(no_such_study(config))
    storage = open_storage(config.optuna.storage)
    try:
        return optuna.load_study(study_name=config.optuna.study_name, storage=storage, sampler=sampler, pruner=pruner)
    except KeyError:
        _disconnect(storage)
        raise StudyError(no_such_study(config)) from None
    except Exception:
        _disconnect(storage)
        raise


def create_or_load_study(config: Config, *, allow_changes: bool = False) -> optuna.Study:
    """The study that the configuration names, as `reload` says; made under a lock, so that many may ask at once.

    Raises StudyError where `reload` and what is stored do not fit, naming both; nothing is touched then.
    """
    config.paths.create()
    with locked(config.paths.lock):
        study = find_study(config)
        problems = _problems(study, config, allow_changes)
        if problems:
            if study is not None:
                disconnect(study)
            raise StudyError("\n".join(str(problem) for problem in problems))
        study = study or _create(config)
        _sign(study, config)
        _enqueue(study, config)
    return study


def reload_problems(config: Config, *, allow_changes: bool = False) -> list[Problem]:
    """Why the configuration cannot be run on what the storage holds. Changes nothing."""
    study = find_study(config)
    try:
        return _problems(study, config, allow_changes)
    finally:
        if study is not None:
            disconnect(study)


def _problems(study: optuna.Study | None, config: Config, allow_changes: bool) -> list[Problem]:
    if study is None:
        return [Problem("optuna: reload", no_such_study(config))] if config.optuna.reload else []
    trials = study._storage.get_n_trials(study._study_id)
    if not config.optuna.reload and trials:
        return [
            Problem(
                "optuna: reload",
                f"is 0, and study {study.study_name!r} already has {trials} trials",
                "reload: 1 to go on with it, or another name for a new study",
            )
        ]
    return fingerprint.differences(study, config, allow_changes=allow_changes)


def _create(config: Config) -> optuna.Study:
    study = optuna.create_study(
        study_name=config.optuna.study_name,
        storage=open_storage(config.optuna.storage),
        directions=[StudyDirection[direction.upper()] for direction in config.optuna.direction],
    )
    with _quiet():
        study.set_metric_names(config.optuna.metric)
    return study


def _sign(study: optuna.Study, config: Config) -> None:
    """Note in the study its id, what it searches, when it was last started, and its seed (drawn where none is set)."""
    from aimlhpo.grid import DRAWN, declared_grid

    known = study.user_attrs.get(STUDY_ATTR, {})
    grid = declared_grid(config)
    seed = config.optuna.seed if config.optuna.seed is not None else known.get("seed", secrets.randbelow(2**31))
    now = time.time()
    lasting = {"id": known.get("id") or secrets.token_hex(8), "begun": known.get("begun", now)}
    signed = {"fingerprint": fingerprint.of(config), "seed": seed, "started": now, **lasting}
    drawn = {DRAWN: known.get(DRAWN) or grid.draw(seed)} if grid is not None else {}
    study.set_user_attr(STUDY_ATTR, {**known, **signed, **drawn})


def _enqueue(study: optuna.Study, config: Config) -> None:
    """Queue the trials that the configuration asks for, and take others over, each once over all starts."""
    from aimlhpo.grid import queue_of
    from aimlhpo.space import SearchSpace
    from aimlhpo.warm_start import take_over

    queue = queue_of(study, config)
    if queue is not None:
        queue.begin()
    space = SearchSpace.from_config(config)
    with _quiet():
        for values in [*_default(config), *config.enqueued()]:
            study.enqueue_trial(space.encode(values), skip_if_exists=True)
    take_over(study, config)


def _default(config: Config) -> list[dict[str, Any]]:
    from aimlhpo.warm_start import default_trial

    return [default_trial(config)] if config.optuna.enqueue_default else []


def no_such_study(config: Config) -> str:
    return (
        f"there is no study {config.optuna.study_name!r} in {config.optuna.storage}; "
        "to start it, set reload: 0 (or check name, storage and save_path)"
    )
