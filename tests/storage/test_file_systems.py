"""Shared file systems are told from local ones by the mount table."""

from __future__ import annotations

from pathlib import Path

import pytest

from aimlhpo.storage.locks import lock_trouble, network, type_of

TABLE = r"""22 1 259:1 / / rw,relatime shared:1 - ext4 /dev/root rw
40 22 0:40 / /home rw,relatime - nfs4 server:/home rw,vers=4.2
41 40 0:41 / /home/me/fast rw - xfs /dev/sdb1 rw
42 22 0:42 / /scratch rw - lustre mds@tcp:/scratch rw,flock
43 22 0:43 / /with\040space rw - beegfs beegfs_nodev rw
44 22 0:44 / /twice rw - ext4 /dev/sdc rw
45 22 0:45 / /twice rw - gpfs gpfs0 rw"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/homeless/x", "ext4"),
        ("/home/you/run/s.db", "nfs4"),
        ("/home/me/fast/s.db", "xfs"),
        ("/scratch", "lustre"),
        ("/with space/x", "beegfs"),
        ("/twice/x", "gpfs"),
    ],
)
def test_the_deepest_mount_counts(path: str, kind: str) -> None:
    assert type_of(Path(path), TABLE) == kind


def test_network_file_systems_are_named_and_local_ones_are_not() -> None:
    assert network(Path("/home/you"), TABLE) == "nfs4"
    assert network(Path("/home/me/fast/x"), TABLE) is None


def test_links_are_followed(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("/scratch/deep")
    assert type_of(link / "s.db", TABLE) == "lustre"


def test_this_machine_has_a_table(tmp_path: Path) -> None:
    assert type_of(tmp_path)


@pytest.mark.parametrize(
    ("kind", "options", "found"),
    [
        ("nfs4", "rw,vers=4.2,local_lock=none", None),
        ("nfs", "rw,vers=3,nolock", "nolock"),
        ("nfs", "rw,local_lock=flock", "local_lock=flock"),
        ("nfs", "rw,local_lock=posix", None),
        ("lustre", "rw,flock,lazystatfs", None),
        ("lustre", "rw,localflock", "localflock"),
        ("lustre", "rw,noflock", "noflock"),
        ("gpfs", "rw", None),
        ("ext4", "rw,nolock", None),
        ("fuse.sshfs", "rw", "fuse.sshfs"),
    ],
)
def test_options_that_keep_locks_on_their_node(kind: str, options: str, found: str | None) -> None:
    table = f"{TABLE}\nno line of the table\n50 22 0:50 / /shared rw - {kind} server:/shared {options}"
    trouble = lock_trouble(Path("/shared/study"), table)
    assert trouble is None if found is None else found in (trouble or "")
    assert lock_trouble(Path("/elsewhere"), table) is None
