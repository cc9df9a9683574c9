"""A study on the virtual cluster whose objective writes down what it trains, and stands still where a test wants it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.project import Project
from tests.slurm.cluster import Cluster, Job

BREATH = 0.2  # seconds between two looks, which themselves take the CPU that the jobs need
EPOCHS = 4
STILL = 1  # the epoch after which the trials named by `still` wait until they are interrupted
OBJECTIVE = f"""
    import os, time
    from pathlib import Path
    from aimlhpo import BaseObjective

    def note(*words):
        with open(Path(__file__).parent / "notes", "a") as file:
            file.write(" ".join(map(str, words)) + "\\n")

    class Objective(BaseObjective):
        def train(self, trial, conf):
            checkpoint = self.checkpoint_dir(trial) / "epoch"
            start = int(checkpoint.read_text()) + 1 if checkpoint.exists() else 0
            place = os.environ["SLURMD_NODENAME"], os.environ.get("CUDA_VISIBLE_DEVICES", "-")
            note("start", trial.number, start, *place, os.environ["OMP_NUM_THREADS"])
            for epoch in range(start, {EPOCHS}):
                trial.report(conf["model"]["x"] + epoch, epoch)
                written = checkpoint.with_suffix(".new")
                written.write_text(str(epoch))
                written.replace(checkpoint)  # whole at any time, as the trial may be killed at any time
                note("epoch", trial.number, epoch)
                while epoch == {STILL} and start == 0 and trial.number < int(os.environ.get("STILL", 0)):
                    time.sleep(0.05)
            if "MEET" in os.environ:
                self.meet(*place)
            return {{"val_loss": conf["model"]["x"]}}

        def meet(self, *place):
            # Go on when as many workers as the test wants have been here.
            places = Path(__file__).parent / "places"
            places.mkdir(exist_ok=True)
            (places / "-".join(place)).touch()
            while len(list(places.iterdir())) < int(os.environ["MEET"]):
                time.sleep(0.05)
"""


class SlurmStudy(Project):
    """A project whose jobs run on `cluster`; `variables` are what the jobs find in their environment."""

    def __init__(
        self,
        folder: Path,
        cluster: Cluster,
        slurm: dict[str, Any] | list[dict[str, Any]],
        variables: dict[str, Any] | None = None,
        objective: str = OBJECTIVE,
        **optuna_keys: Any,
    ) -> None:
        settings = {"storage": "journal", "grace_period": 20, **optuna_keys}
        super().__init__(folder, objective, slurm, **settings)
        self.cluster = cluster
        # The jobs' login shells would read the profile of whoever runs the tests.
        wanted = {name: str(value) for name, value in (variables or {}).items()}
        self.env = {**cluster.env, "HOME": str(folder), **wanted}

    def submit(self, *arguments: str, expect: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
        return self.run(*arguments, expect=expect, env={**self.env, **variables})

    def verb(self, verb: str, *arguments: str, expect: int = 0) -> str:
        """`aimlhpo VERB SAVE_PATH ...`; its output."""
        done = subprocess.run(
            [sys.executable, "-m", "aimlhpo", verb, str(self.save_path), *arguments],
            env=self.env,
            text=True,
            capture_output=True,
            timeout=200,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == expect, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    @property
    def array(self) -> int:
        """The array that was submitted last."""
        return max(int(file.stem) for file in (self.save_path / ".aimlhpo" / "jobs").glob("*.json"))

    def jobs(self) -> list[Job]:
        return self.cluster.jobs(self.array)

    def notes(self, kind: str) -> list[list[str]]:
        """What the objective has written, by its first word."""
        file = self.folder / "notes"
        lines = file.read_text().rpartition("\n")[0].splitlines() if file.exists() else []
        return [words[1:] for words in map(str.split, lines) if words[0] == kind]

    def stands_still(self, trials: int = 1) -> bool:
        """Whether the first trials have reached the epoch where they wait."""
        time.sleep(BREATH)
        reached = {words[0] for words in self.notes("epoch") if int(words[1]) == STILL}
        return reached >= {str(number) for number in range(trials)}

    def meeting(self) -> list[str]:
        """The node-GPU pairs that have a worker waiting for the others, or had."""
        places = self.folder / "places"
        return sorted(place.name for place in places.iterdir()) if places.exists() else []

    def finished(self) -> int:
        time.sleep(BREATH)
        states = self.states()
        return states.get("COMPLETE", 0) + states.get("PRUNED", 0)

    def wait_for_end(self, seconds: float = 200) -> None:
        """Until the budget is reached and no job is left."""
        done = ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "PREEMPTED", "gone")
        budget = self.config.optuna.n_trials
        self.cluster.wait_for(
            lambda: self.finished() >= budget and all(job.state in done for job in self.jobs()),
            f"the study to end; {self.states()}\n{self.logs()}",
            seconds,
        )

    def logs(self) -> str:
        return "\n".join(file.read_text() for file in sorted((self.save_path / "logs").glob("job-*")))

    def assert_resumed(self, trials: int = 1) -> None:
        """Everything is finished exactly once, and interrupted trials went on where they were."""
        assert self.states() == {"COMPLETE": self.config.optuna.n_trials}
        epochs = [tuple(map(int, words)) for words in self.notes("epoch")]
        assert len(epochs) == len(set(epochs)) == self.config.optuna.n_trials * EPOCHS
        for number in range(trials):
            starts = [int(words[1]) for words in self.notes("start") if int(words[0]) == number]
            assert starts == [0, STILL + 1]
            kept = self.study().trials[number].intermediate_values
            assert sorted(kept) == list(range(EPOCHS))

    def status(self) -> dict[str, Any]:
        return dict(json.loads(self.verb("status", "--json")))
