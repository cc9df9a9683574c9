from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import optuna
import pytest
import torch

from aimlhpo.callbacks import report_or_prune

Reported = Callable[[], dict[int, float]]


def test_it_reports_every_step(trial: optuna.Trial, reported: Reported) -> None:
    for step in range(3):
        report_or_prune(trial, torch.tensor(float(step)), step)
    assert reported() == {0: 0.0, 1: 1.0, 2: 2.0}


def test_the_interval_counts_steps_from_the_first(trial: optuna.Trial, reported: Reported) -> None:
    for step in range(7):
        report_or_prune(trial, step, step, interval=3)
    assert reported() == {2: 2.0, 5: 5.0}


def test_a_lagging_trial_is_pruned_at_a_step_that_is_due(trial: optuna.Trial) -> None:
    report_or_prune(trial, 99.0, 0, interval=2)
    with pytest.raises(optuna.TrialPruned, match="step 1"):
        report_or_prune(trial, 99.0, 1, interval=2)


@pytest.mark.parametrize("interval", [0, -1])
def test_an_interval_below_one_is_refused(trial: optuna.Trial, interval: int) -> None:
    with pytest.raises(ValueError, match="interval"):
        report_or_prune(trial, 1.0, 0, interval)


def test_all_ranks_act_on_the_answer_of_rank_0(tmp_path: Path) -> None:
    script = tmp_path / "rank.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys
            import optuna, torch.distributed as dist
            from aimlhpo.callbacks import report_or_prune
            rank, meeting = int(sys.argv[1]), sys.argv[2]
            dist.init_process_group("gloo", f"file://{meeting}", world_size=2, rank=rank)
            study = optuna.create_study(pruner=optuna.pruners.ThresholdPruner(upper=10))
            trial = study.ask() if rank == 0 else None
            report_or_prune(trial, 1.0, 0)
            try:
                report_or_prune(trial, 99.0, 1)
            except optuna.TrialPruned as pruned:
                print(rank, pruned)
            """
        )
    )
    with ExitStack() as stack:
        ranks = []
        for rank in range(2):
            command = [sys.executable, str(script), str(rank), str(tmp_path / "meeting")]
            ranks.append(stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True)))
            stack.callback(ranks[-1].kill)
        told = [rank.communicate(timeout=120)[0].strip() for rank in ranks]
    assert told == ["0 pruned at step 1", "1 pruned at step 1"]


def test_importing_it_loads_no_framework() -> None:
    code = "import sys, aimlhpo.callbacks.torch; print({'torch', 'keras', 'optuna'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
