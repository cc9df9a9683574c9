"""Results on their way to the storage, each in a file of its own until the storage has it.

An agent's main thread writes the file before it hands the result to the storage thread, and removes it when the result
is in the storage. What an agent leaves behind, because it was killed or the storage was away, is delivered by the next
agent that looks for the dead, in its storage thread.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from aimlhpo.config.paths import replace_file
from aimlhpo.ledger.requests import Result

logger = logging.getLogger(__name__)


class Outbox:
    """The files under one directory; a result's claim token names its file."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def put(self, result: Result) -> None:
        """Keep the result. Raises OSError, for example on a full disk."""
        replace_file(self._path(result.token), json.dumps(asdict(result)), 0o600, lasting=False)

    def remove(self, token: str) -> None:
        self._path(token).unlink(missing_ok=True)

    def results(self) -> Iterator[Result]:
        """Everything that waits; a file that vanishes meanwhile has been delivered."""
        for path in sorted(self._directory.glob("*.json")):
            try:
                known = json.loads(path.read_text())
                reports = [(int(step), float(value)) for step, value in known["reports"]]
                values = None if known["values"] is None else [float(value) for value in known["values"]]
                result = Result(**{**known, "reports": reports, "values": values})
            except FileNotFoundError:
                continue
            except (ValueError, TypeError, KeyError) as error:  # cut off when the machine went down
                self.set_aside(path.stem, error)
            else:
                yield result

    def set_aside(self, token: str, reason: Exception) -> None:
        """Never deliver that result; its file stays for whoever wants to read it, and its trial runs again."""
        path = self._path(token)
        aside = path.with_suffix(".broken")
        with suppress(FileNotFoundError):
            path.rename(aside)
            logger.warning("a result that cannot be delivered was put aside in %s (%s)", aside, reason)

    def _path(self, token: str) -> Path:
        return self._directory / f"{token}.json"
