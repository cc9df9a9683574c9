"""Load an objective file in a process of its own: what it prints, imports or breaks stays there.

Run as `python -m aimlhpo.check.environment FILE DESCRIPTOR`: the answer is JSON, written to that descriptor.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from aimlhpo.errors import ObjectiveError

_PACKAGE_ROOT = Path(__file__).resolve().parents[2]
_LAST_LINES = 15


class ObjectiveProbe:
    """A process that loads the file, started at once; gone with the `with` block."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        reader, writer = os.pipe()
        self._answer = os.fdopen(reader, encoding="utf-8")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "aimlhpo.check.environment", str(path), str(writer)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[writer],
            env=_environment(),
        )
        os.close(writer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._answer.close()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process.kill()
        self._process.wait()

    def verdict(self) -> None:
        """Raises ObjectiveError when the file cannot be loaded as an objective, with its own traceback last."""
        output, _ = self._process.communicate()
        _judge(self._path, self._answer.read(), self._process.returncode, output.decode(errors="replace"))


def probe_objective(path: str | Path) -> None:
    """Raises ObjectiveError when the file cannot be loaded as an objective, with its own traceback last."""
    with ObjectiveProbe(path) as probe:
        probe.verdict()


def _environment() -> dict[str, str]:
    """The environment, and the way to this very package where it is not installed."""
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(_PACKAGE_ROOT)]))
    return {**os.environ, "PYTHONPATH": path}


def _judge(path: Path, answer: str, code: int, output: str) -> None:
    if not answer:
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        last = "\n".join(output.splitlines()[-_LAST_LINES:])
        raise ObjectiveError(f"{path}: Python {how} while importing it", last)
    problem = json.loads(answer)
    if problem is not None:
        raise ObjectiveError(problem["message"], problem["detail"])


def _main(path: str, descriptor: str) -> None:
    from aimlhpo.objective.base import load_objective

    problem = None
    try:
        load_objective(path)
    except ObjectiveError as error:
        message = str(error).removesuffix(f"\n\n{error.detail}") if error.detail else str(error)
        problem = {"message": message, "detail": error.detail}
    with open(int(descriptor), "w", encoding="utf-8") as answer:
        json.dump(problem, answer)
    sys.stdout.flush()
    os._exit(0)  # what the file has started (threads, frameworks) need not be wound up


if __name__ == "__main__":
    _main(*sys.argv[1:])
