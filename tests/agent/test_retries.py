"""What becomes of trials that failed: tried again, pruned, or run alone, as asked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.project import Project

FAILS_TWICE = """
    from pathlib import Path
    from aimlhpo import BaseObjective

    class Objective(BaseObjective):
        def train(self, trial, conf):
            x = trial.suggest("x")
            tries = Path(conf["folder"], f"{x}")
            with tries.open("a") as file:
                file.write("x")
            if len(tries.read_text()) <= 2:
                raise ValueError("not yet")
            return {"val_loss": x}
"""

OUT_OF_MEMORY_BESIDE_OTHERS = """
    import os, time
    from pathlib import Path
    from aimlhpo import BaseObjective

    class OutOfMemoryError(RuntimeError):
        pass

    class Objective(BaseObjective):
        def train(self, trial, conf):
            folder = Path(conf["folder"])
            own, short = folder / f"running-{os.getpid()}", folder / "short"
            own.touch()
            try:
                if trial.number == 0 and not short.exists():
                    while self.beside(folder) == 0:
                        time.sleep(0.02)
                    short.touch()
                    raise OutOfMemoryError("CUDA out of memory")
                while not short.exists():
                    time.sleep(0.02)
                time.sleep(0.5)  # time enough to be beside another one
                return {"val_loss": 1.0, "beside": self.beside(folder)}
            finally:
                own.unlink()

        def beside(self, folder):
            return len(list(folder.glob("running-*"))) - 1
"""


def project(folder: Path, objective: str, **keys: object) -> Project:
    made = Project(folder, objective, **keys)
    made.model.write_text(made.model.read_text() + f"folder: {folder}\n")
    return made


def test_failed_trial_is_tried_again_with_the_same_parameters(tmp_path: Path) -> None:
    made = project(tmp_path, FAILS_TWICE, n_trials=1, max_retries=2)
    made.run()
    assert made.states() == {"COMPLETE": 1, "FAIL": 2}
    trials = made.study().trials
    assert len({trial.params["x"] for trial in trials}) == 1
    assert trials[2].system_attrs["aimlhpo:retry"] == {"of": 0, "count": 2}


NEEDS_TOO_MUCH = """
    import time
    from aimlhpo import BaseObjective

    class Objective(BaseObjective):
        def train(self, trial, conf):
            if trial.number == 0 and "long" in __file__:
                time.sleep(600)
            if trial.number == 0:
                raise MemoryError
            return {"val_loss": 1.0}
"""


def run_short_of_memory(folder: Path, policy: str) -> Project:
    made = project(folder, OUT_OF_MEMORY_BESIDE_OTHERS, gpu=True, on_oom=policy, n_trials=4)
    made.run("--local", "2", env={**os.environ, "CUDA_VISIBLE_DEVICES": "0"})
    return made


def test_out_of_memory_fails_the_trial(tmp_path: Path) -> None:
    made = run_short_of_memory(tmp_path, "fail")
    assert made.states() == {"COMPLETE": 4, "FAIL": 1}
    assert made.records()[0]["cause"] == "out of memory"


def test_samplers_learn_what_needs_too_much_memory_or_time_unless_neighbours_may_be_the_reason(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("alone", "beside", "long", "fail")}
    for folder in folders.values():
        folder.mkdir()
    beside = run_short_of_memory(folders["beside"], "learn")
    assert beside.states() == {"COMPLETE": 4, "FAIL": 1}
    assert "infeasible" not in beside.records()[0]
    for name, cause, keys in (
        ("alone", "out of memory", {}),
        ("long", "timeout", {"trial_timeout": 1}),
        ("fail", "out of memory", {"on_oom": "fail"}),
    ):
        made = project(folders[name], NEEDS_TOO_MUCH, n_trials=1, **keys)
        made.run("--local", "1")
        failed = made.records()[0]
        assert failed["cause"].startswith(cause)
        assert failed.get("infeasible", False) is (name != "fail")


def test_out_of_memory_can_count_as_pruned(tmp_path: Path) -> None:
    made = run_short_of_memory(tmp_path, "prune")
    assert made.states() == {"COMPLETE": 3, "PRUNED": 1}
    assert made.records()[0]["cause"] == "out of memory"


def test_out_of_memory_can_be_tried_again_with_the_gpu_to_itself(tmp_path: Path) -> None:
    made = run_short_of_memory(tmp_path, "retry_alone")
    assert made.states() == {"COMPLETE": 4}
    assert made.records()[0]["metrics"]["beside"] == 0


OUT_OF_MEMORY_IN_ANOTHER_RANK = """
    import os
    from aimlhpo import BaseObjective

    class Objective(BaseObjective):
        def train(self, trial, conf):
            if (trial.number, os.environ["RANK"]) == (0, "1"):
                raise MemoryError
            return {"val_loss": 1.0}
"""


@pytest.mark.parametrize(("policy", "state"), [("learn", "FAIL"), ("prune", "PRUNED")])
def test_out_of_memory_in_another_rank_counts_as_it_does_in_the_worker(tmp_path: Path, policy: str, state: str) -> None:
    made = project(tmp_path, OUT_OF_MEMORY_IN_ANOTHER_RANK, n_trials=1, on_oom=policy, slurm={"gpus_per_worker": 2})
    made.run("--local", "1")
    assert made.states()[state] == 1
    assert made.records()[0]["cause"] == "rank 1: out of memory"
    assert made.records()[0].get("infeasible", False) is (policy == "learn")
