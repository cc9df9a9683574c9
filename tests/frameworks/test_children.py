"""Processes that an objective starts, and what it pickles, find its functions and classes by the file's own name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.project import Project

STARTS_PROCESSES = """
    import argparse
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    from aimlhpo import BaseObjective

    parser = argparse.ArgumentParser()
    parser.add_argument("--offset", type=int, default=1)
    options = parser.parse_args()

    def square(x):
        return x * x + options.offset

    def score(true, predicted):
        return float((true == predicted).mean())

    class Objective(BaseObjective):
        def train(self, trial, conf):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                spawned = sum(pool.map(square, range(3)))
            with ProcessPoolExecutor(1, multiprocessing.get_context("forkserver")) as pool:
                served = sum(pool.map(square, range(3)))
            return {"val_loss": 1 - self.accuracy(), "spawned": spawned, "served": served}

        def accuracy(self):
            from sklearn.datasets import load_iris
            from sklearn.linear_model import LogisticRegression
            from sklearn.metrics import make_scorer
            from sklearn.model_selection import cross_val_score

            model = LogisticRegression(max_iter=500)
            data = load_iris(return_X_y=True)
            return cross_val_score(model, *data, cv=2, n_jobs=2, scoring=make_scorer(score)).mean()
"""


def test_pools_and_joblib_run_functions_of_the_objective(tmp_path: Path) -> None:
    project = Project(tmp_path, STARTS_PROCESSES, n_trials=1)
    project.run()
    assert project.states() == {"COMPLETE": 1}
    metrics = project.records()[0]["metrics"]
    assert (metrics["spawned"], metrics["served"]) == (8, 8)
    assert metrics["val_loss"] < 0.1


SAVES_A_MODEL = """
    import torch

    from aimlhpo import BaseObjective

    class Squares(torch.utils.data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return torch.tensor([float(index * index)])

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def forward(self, x):
            return self.layer(x)

    class Objective(BaseObjective):
        def train(self, trial, conf):
            saved = self.checkpoint_dir(trial).parent / "net.pt"
            if saved.exists():  # by the agent before
                return {"val_loss": 1.0, "read": isinstance(torch.load(saved, weights_only=False), Net)}
            torch.save(Net(), saved)
            loader = torch.utils.data.DataLoader(Squares(), num_workers=1, multiprocessing_context="spawn")
            return {"val_loss": 1.0, "total": sum(batch.item() for batch in loader)}
"""


def test_saved_model_is_read_by_another_agent_and_by_a_script(tmp_path: Path) -> None:
    project = Project(tmp_path, SAVES_A_MODEL, n_trials=1)
    project.run()
    project.run("-r", "1", "-t", "2")
    first, second = (record["metrics"] for record in project.records())
    assert (first["total"], second["read"]) == (14.0, True)
    script = f"""
import torch
net = torch.load({str(project.save_path / "checkpoints" / "net.pt")!r}, weights_only=False)
print(type(net).__module__, tuple(net(torch.ones(1, 1)).shape))
"""
    (tmp_path / "show.py").write_text(script)
    shown = subprocess.run([sys.executable, "show.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert shown.stdout == "objective (1, 1)\n"
