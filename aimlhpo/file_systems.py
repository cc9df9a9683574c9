"""Which file systems are shared between machines: what a path lies on, by the kernel's mount table."""

from __future__ import annotations

import re
from dataclasses import dataclass
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


_LOCKS_OF_THE_NODE = {
    "nfs": {"nolock", "local_lock=all", "local_lock=flock"},
    "nfs4": {"nolock", "local_lock=all", "local_lock=flock"},
    "lustre": {"localflock", "noflock"},
    "cifs": {"nobrl", "nolock"},
    "smb3": {"nobrl", "nolock"},
}
_WITHOUT_SHARED_LOCKS = frozenset({"9p", "afs", "fuse.sshfs", "pvfs2"})


@dataclass(frozen=True)
class Mount:
    """A mounted file system: where, of what type, with all its options."""

    point: Path
    kind: str
    options: frozenset[str]


def mount_of(path: Path, mounts: str | None = None) -> Mount | None:
    """The mount that `path` lies, or would lie, on; None where the kernel does not say."""
    try:
        table = MOUNTS.read_text(errors="surrogateescape") if mounts is None else mounts
    except OSError:
        return None
    real = path.resolve()
    found = [
        mount for mount in map(_entry, table.splitlines()) if mount is not None and real.is_relative_to(mount.point)
    ]
    # Of two mounts on one place the later hides the earlier.
    return max(reversed(found), key=lambda mount: len(mount.point.parts), default=None)


def type_of(path: Path, mounts: str | None = None) -> str | None:
    """The type of the file system that `path` lies, or would lie, on; None where the kernel does not say."""
    mount = mount_of(path, mounts)
    return mount.kind if mount is not None else None


def network(path: Path, mounts: str | None = None) -> str | None:
    """The type of the network file system that `path` lies on, or None where it is a local one."""
    kind = type_of(path, mounts)
    return kind if kind in NETWORK else None


def lock_trouble(path: Path, mounts: str | None = None) -> str | None:
    """Why a lock that one node takes on a file there keeps out no other node; None where nothing says so."""
    mount = mount_of(path, mounts)
    if mount is None:
        return None
    if mount.kind in _WITHOUT_SHARED_LOCKS:
        return f"{mount.point} is of a kind ({mount.kind}) that does not pass file locks on to other nodes"
    options = sorted(mount.options & _LOCKS_OF_THE_NODE.get(mount.kind, set()))
    if options:
        return f"{mount.point} ({mount.kind}) is mounted with {options[0]}: file locks stay on their own node"
    return None


def _entry(line: str) -> Mount | None:
    """A line of the table: `36 35 98:0 /root /point options ... - type source options`."""
    fields, _, rest = (part.split(" ") for part in line.partition(" - "))
    if len(fields) < 6 or len(rest) < 1:
        return None
    point = Path(_OCTAL.sub(lambda code: chr(int(code[1], 8)), fields[4]))
    return Mount(point, rest[0], frozenset(",".join([fields[5], *rest[2:]]).split(",")))
