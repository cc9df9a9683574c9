"""Objectives whose trials train on several nodes, and what they write down."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.slurm.study import SlurmStudy

EPOCHS = 4
COLLECTIVE = f"""
    import json, os, time
    from pathlib import Path

    import torch
    import torch.distributed as dist
    from aimlhpo import BaseObjective

    HERE = Path(__file__).parent
    TOLD = ["RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "NODE_RANK", "GROUP_WORLD_SIZE",
            "MASTER_ADDR", "SLURMD_NODENAME", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "SLURM_PROCID"]

    def note(event, **more):
        line = {{"event": event, "pid": os.getpid(), "rank": int(os.environ["RANK"]), **more}}
        with open(HERE / "notes", "a") as file:
            file.write(json.dumps(line) + "\\n")

    class Objective(BaseObjective):
        def train(self, trial, conf):
            print("rank", os.environ["RANK"], "trains", trial.number)
            if not dist.is_initialized():
                dist.init_process_group("gloo")
            checkpoint = self.checkpoint_dir(trial) / "epoch"
            start = torch.tensor(int(checkpoint.read_text()) + 1 if checkpoint.exists() else 0)
            dist.broadcast(start, 0)
            extra = trial.suggest_float("extra", 0.0, 1.0)
            told = {{name: os.environ[name] for name in TOLD if name in os.environ}}
            note("start", number=trial.number, epoch=int(start), told=told, device=self.device, extra=extra)
            for epoch in range(int(start), {EPOCHS}):
                total = torch.ones(())
                dist.all_reduce(total)
                self.hold(trial.number, epoch)
                if dist.get_rank() == 0:
                    checkpoint.write_text(str(epoch))
                    note("epoch", number=trial.number, epoch=epoch)
                trial.report(conf["model"]["x"] + epoch, epoch)
                if trial.should_prune():
                    note("pruned", number=trial.number, epoch=epoch)
                    from aimlhpo.objective.outcome import Pruned
                    raise Pruned
            return {{"val_loss": conf["model"]["x"], "sum": float(total)}}

        def hold(self, number, epoch):
            # HOLD=2: two trials stand still in epoch 1 until the file `go` is there.
            if epoch == 1 and number < int(os.environ.get("HOLD", 0)):
                note("held", number=number)
                while not (HERE / "go").exists():
                    time.sleep(0.05)
"""


@dataclass(frozen=True)
class Note:
    """One line that a rank has written."""

    event: str
    pid: int
    rank: int
    number: int
    more: dict[str, Any]


class NodesStudy(SlurmStudy):
    """A study on the virtual cluster whose trials have several nodes."""

    def lines(self, event: str) -> list[Note]:
        file = self.folder / "notes"
        texts = file.read_text().rpartition("\n")[0].splitlines() if file.exists() else []
        found = [json.loads(text) for text in texts]
        return [
            Note(line.pop("event"), line.pop("pid"), line.pop("rank"), line.pop("number"), line)
            for line in found
            if line["event"] == event
        ]

    def go(self) -> None:
        """Let the trials that stand still go on."""
        (self.folder / "go").touch()

    def living(self) -> list[int]:
        """The processes that have trained and are still there."""
        return sorted({note.pid for note in self.lines("start") if _trains(note.pid, self.folder)})

    def worker_logs(self) -> str:
        return "\n".join(f"== {log.name}\n{log.read_text()}" for log in sorted((self.save_path / "logs").iterdir()))


def _trains(pid: int, folder: Path) -> bool:
    """Whether the process lives: it is one of ours, whoever has got the number of a dead one meanwhile."""
    try:
        return b"aimlhpo" in Path(f"/proc/{pid}/cmdline").read_bytes() and os.path.exists(folder)
    except OSError:
        return False
