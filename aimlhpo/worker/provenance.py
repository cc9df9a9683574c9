"""What a trial ran on: Python, package versions, and the objective's very text."""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

_GIT_TIMEOUT = 5  # seconds


def provenance(objective: str) -> dict[str, Any]:
    """Versions of the packages that the objective has loaded, its file's hash, and its commit where it has one."""
    return {"python": platform.python_version(), "packages": _packages(), **_text(Path(objective))}


@cache
def _text(objective: Path) -> dict[str, str | None]:
    """What is known of the text that this process, or the one it was forked of, has loaded."""
    return {"objective_sha256": sha256_of(objective), "git_commit": _commit(objective.parent)}


def sha256_of(path: Path) -> str | None:
    """The hash of a file's content; None for what cannot be read, as a program may be."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


_owners = cache(metadata.packages_distributions)


def _packages() -> dict[str, str]:
    owners = _owners()
    loaded = {name.partition(".")[0] for name in sys.modules}
    names = {owner for module in loaded for owner in owners.get(module, [])}
    return {name: metadata.version(name) for name in sorted(names)}


def _commit(directory: Path) -> str | None:
    """The checked-out commit, `+` behind it where files differ from it."""
    commit = _git(directory, "rev-parse", "HEAD")
    if commit is None:
        return None
    return commit + ("+" if _git(directory, "status", "--porcelain", "--untracked-files=no") else "")


def _git(directory: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", str(directory), *arguments],
            capture_output=True,
            text=True,
            timeout=_GIT_TIMEOUT,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None
