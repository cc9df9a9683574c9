"""What a trial ran on: Python, the versions of packages, and the objective's text."""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

_GIT_TIMEOUT = 5  # seconds
_owners = cache(metadata.packages_distributions)


def provenance(objective: str) -> dict[str, Any]:
    """Versions of the packages that are loaded, the hash of the objective's file, and its commit where it has one.

    What is known of the file and of the installed packages is looked up once: workers that are forked of a process
    which has called this have it already, and it describes the text that was imported.
    """
    owners = _owners()
    loaded = {name.partition(".")[0] for name in sys.modules}
    names = {owner for module in loaded for owner in owners.get(module, [])}
    packages = {name: metadata.version(name) for name in sorted(names)}
    return {"python": platform.python_version(), "packages": packages, **_text(Path(objective))}


@cache
def _text(objective: Path) -> dict[str, str | None]:
    """The file's hash, and the commit that is checked out, with `+` behind it where files differ from it."""
    commit = _git(objective.parent, "rev-parse", "HEAD")
    if commit is not None and _git(objective.parent, "status", "--porcelain", "--untracked-files=no"):
        commit += "+"
    return {"objective_sha256": sha256_of(objective), "git_commit": commit}


def has_changed(source: str | None, provenances: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a file has another text than in all trials of a study, as far as what they ran on tells."""
    known = {provenance.get("objective_sha256") for provenance in provenances}
    return bool(known and source and sha256_of(Path(source)) not in known)


def sha256_of(path: Path) -> str | None:
    """The hash of a file's content; None for what cannot be read, as a program may be."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


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
