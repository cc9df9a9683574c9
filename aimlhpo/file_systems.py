"""Which file systems are shared between machines: what a path lies on, by the kernel's mount table."""

from __future__ import annotations

import re
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
NETWORK = frozenset(
    {
        "9p", "afs", "beegfs", "ceph", "cifs", "fhgfs", "fuse.beegfs", "fuse.ceph", "fuse.glusterfs", "fuse.juicefs",
        "fuse.sshfs", "gfs2", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "ocfs2", "orangefs", "panfs", "pvfs2",
        "smb3", "wekafs",
    }
)  # fmt: skip
_OCTAL = re.compile(r"\\([0-7]{3})")


def type_of(path: Path, mounts: str | None = None) -> str | None:
    """The type of the file system that `path` lies, or would lie, on; None where the kernel does not say."""
    try:
        table = MOUNTS.read_text() if mounts is None else mounts
    except OSError:
        return None
    real = path.resolve()
    found = [(mount, kind) for mount, kind in map(_entry, table.splitlines()) if real.is_relative_to(mount)]
    # Of two mounts on one place the later hides the earlier.
    deepest = max((len(mount.parts) for mount, _ in found), default=0)
    return next((kind for mount, kind in reversed(found) if len(mount.parts) == deepest), None)


def network(path: Path, mounts: str | None = None) -> str | None:
    """The type of the network file system that `path` lies on, or None where it is a local one."""
    kind = type_of(path, mounts)
    return kind if kind in NETWORK else None


def _entry(line: str) -> tuple[Path, str]:
    """Mount point and type of a line: `36 35 98:0 /root /point options ... - type source options`."""
    fields, _, rest = line.partition(" - ")
    point = fields.split(" ")[4]
    return Path(_OCTAL.sub(lambda code: chr(int(code[1], 8)), point)), rest.partition(" ")[0]
