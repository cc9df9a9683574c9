"""Event files for TensorBoard, read back as TensorBoard reads them."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import pytest

from aimlhpo.tracking.run import Run
from aimlhpo.tracking.tensorboard import TensorboardTarget
from tests.tracking.event_files import EventFiles

PARAMETERS = {"lr": 0.5, "layers": 3, "bias": True, "kind": "adam", "widths": [8, 4], "none": None}


def opened(directory: Path) -> TensorboardTarget:
    target = TensorboardTarget(directory, "reports/val_loss")
    target.open()
    return target


def under_way(*values: float) -> Run:
    return Run(7, "RUNNING", began=100.0, parameters=PARAMETERS, reports=dict(enumerate(values)))


def finished(*values: float, state: str = "COMPLETE") -> Run:
    return Run(7, state, 100.0, 200.0, PARAMETERS, {}, dict(enumerate(values)), {"val_loss": 0.25, "n": 3.0})


def test_a_trial_has_curves_a_result_and_a_row_in_the_table(tmp_path: Path) -> None:
    opened(tmp_path / "tb").send(finished(4.0, 2.0, 1.0))
    found = EventFiles(tmp_path / "tb" / "trial-00007")
    assert found.scalars() == {
        "reports/val_loss": [(0, 4.0), (1, 2.0), (2, 1.0)], "val_loss": [(0, 0.25)], "n": [(0, 3.0)],
    }  # fmt: skip
    assert found.hparams() == {
        "lr": 0.5, "layers": 3.0, "bias": True, "kind": "adam", "widths": "[8, 4]", "none": "null",
    }  # fmt: skip
    assert found.status() == 1


@pytest.mark.parametrize(("state", "status"), [("COMPLETE", 1), ("PRUNED", 1), ("FAIL", 2)])
def test_the_table_says_how_it_ended(state: str, status: int, tmp_path: Path) -> None:
    opened(tmp_path).send(finished(state=state))
    assert EventFiles(tmp_path / "trial-00007").status() == status


def test_curves_grow_while_it_trains(tmp_path: Path) -> None:
    target = opened(tmp_path)
    target.send(Run(7, "RUNNING"))
    assert not list(tmp_path.iterdir())
    for values in ((1.0,), (1.0, 2.0), (1.0, 2.0, 3.0)):
        target.send(under_way(*values))
        assert EventFiles(tmp_path / "trial-00007").scalars()["reports/val_loss"] == list(enumerate(values))
    assert EventFiles(tmp_path / "trial-00007").status() is None


def test_nothing_is_written_twice_whoever_writes(tmp_path: Path) -> None:
    opened(tmp_path).send(under_way(1.0, 2.0))
    for _ in range(2):
        opened(tmp_path).send(finished(1.0, 2.0, 3.0))
    found = EventFiles(tmp_path / "trial-00007")
    assert found.scalars()["reports/val_loss"] == [(0, 1.0), (1, 2.0), (2, 3.0)]
    assert len(found.scalars()["val_loss"]) == 1
    assert len(list((tmp_path / "trial-00007").iterdir())) == 2  # one for each that had something to write


def test_what_a_killed_writer_left_torn_is_written_again(tmp_path: Path) -> None:
    opened(tmp_path).send(under_way(1.0, 2.0))
    (file,) = (tmp_path / "trial-00007").iterdir()
    file.write_bytes(file.read_bytes()[:-5])
    opened(tmp_path).send(finished(1.0, 2.0, 3.0))
    scalars = EventFiles(tmp_path / "trial-00007").scalars()
    assert dict(scalars["reports/val_loss"]) == {0: 1.0, 1: 2.0, 2: 3.0}
    assert EventFiles(tmp_path / "trial-00007").hparams()


def test_a_full_disk_leaves_whole_records_and_what_is_missing_comes_later(tmp_path: Path) -> None:
    target = opened(tmp_path)
    target.send(under_way(1.0))
    (file,) = (tmp_path / "trial-00007").iterdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + 30, hard))
    try:
        with pytest.raises(OSError, match="too large|no space"):
            target.send(finished(1.0, 2.0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert EventFiles(tmp_path / "trial-00007").scalars() == {"reports/val_loss": [(0, 1.0)]}
    target.open()
    target.send(finished(1.0, 2.0))
    assert EventFiles(tmp_path / "trial-00007").scalars()["reports/val_loss"] == [(0, 1.0), (1, 2.0)]
