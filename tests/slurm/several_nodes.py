"""Objectives whose trials train on several nodes, and what they write down."""

from __future__ import annotations

import json
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
                    written = checkpoint.with_suffix(".new")
                    written.write_text(str(epoch))
                    written.replace(checkpoint)  # whole at any time, as the trial may be killed at any time
                    note("epoch", number=trial.number, epoch=epoch)
                trial.report(conf["model"]["x"] + epoch, epoch)
                if trial.should_prune():
                    note("pruned", number=trial.number, epoch=epoch)
                    from aimlhpo.objective.base import Pruned
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
        return sorted({note.pid for note in self.lines("start")} & self.processes().keys())

    def processes(self, words: str = "aimlhpo.worker") -> dict[int, str]:
        """The command lines of all workers, ranks, and what has started them, on all nodes of the cluster."""
        mark, found = f"SLURM_CONF={self.cluster.settings['SLURM_CONF']}".encode(), {}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if words in command and mark in (process / "environ").read_bytes().split(b"\0"):
                    found[int(process.name)] = command
            except OSError:  # it has ended meanwhile
                continue
        return found

    def agent(self) -> int:
        """The process of the agent that runs."""
        wanted = f"aimlhpo agent {self.save_path}"
        return next(pid for pid, command in self.processes("aimlhpo agent").items() if wanted in command)

    def worker_logs(self) -> str:
        return "\n".join(f"== {log.name}\n{log.read_text()}" for log in sorted((self.save_path / "logs").iterdir()))


def parent_of(pid: int) -> int:
    """The process that has started this one: on another node than the agent's, the node's keeper."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
