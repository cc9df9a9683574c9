"""An environment of its own for a peer, made once and kept in .venv-bench/."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from functools import cache
from pathlib import Path

HOME = Path(__file__).resolve().parents[2] / ".venv-bench"
_TIMEOUT = 900  # seconds for the download


class PeerMissing(Exception):
    """The peer cannot be installed here."""


def environment(name: str, requirement: str) -> str:
    """The interpreter of an environment with the requirement; torch and scikit-learn come from this one.

    Several requirements are separated by blanks.
    Raises PeerMissing, again at every call where the first has failed.
    """
    found = _make(name, requirement)
    if isinstance(found, PeerMissing):
        raise found
    return found


@cache
def _make(name: str, requirement: str) -> str | PeerMissing:
    folder = HOME / name
    python, ready = folder / "bin" / "python", folder / "installed"
    if not (ready.exists() and ready.read_text() == requirement):
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        try:
            _install(python, requirement)
        except PeerMissing as missing:
            return missing
        _borrow(folder)
        ready.write_text(requirement)
    return str(python)


def _install(python: Path, requirement: str) -> None:
    command = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *requirement.split()]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT)
    except subprocess.TimeoutExpired:
        raise PeerMissing(f"pip install {requirement} took longer than {_TIMEOUT} s") from None
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise PeerMissing(f"pip install {requirement}: {errors[-1] if errors else done.stderr.strip()[-200:]}")


def _borrow(folder: Path) -> None:
    """Let the peer's environment find torch and scikit-learn here, after everything of its own."""
    torch = importlib.util.find_spec("torch")
    if torch is not None and torch.origin:
        (site,) = (folder / "lib").glob("python*/site-packages")
        (site / "zz-borrowed.pth").write_text(f"{Path(torch.origin).parents[1]}\n")
