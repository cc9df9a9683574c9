"""Studies whose objective is a program, as a user runs them."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aimlhpo.errors import ExitCode
from tests.command_project import CommandProject
from tests.waiting import wait_until

QUADRATIC = """
    import argparse, json, sys
    parser = argparse.ArgumentParser()
    parser.add_argument("--x", type=float)
    x = parser.parse_args().x
    for epoch in range(3):
        print(json.dumps({"epoch": epoch, "val_loss": (x - 0.5) ** 2 + 1 / (1 + epoch), "note": "ok"}))
    print("the end")
"""
SHOW = """
    import json, os, sys
    print(json.dumps({"val_loss": 1.0, "shown": json.dumps(%s)}))
"""


def shown(project: CommandProject) -> list[Any]:
    return [json.loads(record["metrics"]["shown"]) for record in project.records()]


def run_showing(folder: Path, expression: str, *arguments: Any, **optuna_keys: Any) -> Any:
    """What the expression is in the one trial of a study."""
    project = CommandProject(folder, SHOW % expression, *arguments, n_trials=1, **optuna_keys)
    project.run()
    return shown(project)[0]


def test_plain_script(tmp_path: Path) -> None:
    project = CommandProject(tmp_path, QUADRATIC, n_trials=4)
    project.run()
    trials = project.study().trials
    assert project.states() == {"COMPLETE": 4}
    for trial in trials:
        assert trial.value == pytest.approx((trial.params["x"] - 0.5) ** 2 + 1 / 3)
        assert sorted(trial.intermediate_values) == [0, 1, 2]
    assert "the end" in project.log()
    with (project.save_path / "results.csv").open() as table:
        assert [row["note"] for row in csv.DictReader(table)] == ["ok"] * 4


def test_values_arrive_as_they_are(tmp_path: Path) -> None:
    nasty = ["$(touch pwned); rm -rf x", "--flag", "{trial}", "a b\nc", "'\"", "*"]
    parameters = {
        f"p{index}": {"type": "categorical", "settings": {"choices": [text]}, "pass-as": "--word {v}"}
        for index, text in enumerate(nasty)
    }
    arguments = run_showing(tmp_path, "sys.argv[1:]", parameters=parameters)
    assert arguments == [word for text in nasty for word in ("--word", text)]
    assert not (tmp_path / "pwned").exists()


def test_inactive_parameter_is_left_out(tmp_path: Path) -> None:
    condition = {"type": "optimize_iff", "on": "opt", "conditions": [{"type": "equal", "compare_value": "sgd"}]}
    parameters = {
        "opt": {"type": "categorical", "settings": {"choices": ["adam"]}},
        "momentum": {"type": "float", "settings": {"low": 0.0, "high": 1.0}, "dependency": condition},
    }
    project = CommandProject(
        tmp_path,
        SHOW % "sys.argv[1:]",
        "{python} train.py -m={momentum} {parameters}",
        n_trials=1,
        parameters=parameters,
    )
    assert "no effect" not in project.run().stdout
    assert shown(project) == [["--opt=adam"]]


@pytest.mark.parametrize(("placeholder", "ending"), [("config", ".yml"), ("config.json", ".json")])
def test_config_file(tmp_path: Path, placeholder: str, ending: str) -> None:
    expression = "[sys.argv[1], open(sys.argv[1]).read()]"
    path, text = run_showing(tmp_path, expression, f"{{python}} train.py {{{placeholder}}}")
    assert path.endswith(f"trial-00000{ending}")
    assert not Path(path).exists()
    import yaml

    config = yaml.safe_load(text) if ending == ".yml" else json.loads(text)
    assert set(config) == {"model"}
    assert config["model"]["units"] == 4
    assert config["model"]["x"] != 0.9


def test_environment_directory_and_trial(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    expression = "[os.environ['A'], os.getcwd(), os.environ['AIMLHPO_TRIAL'], *sys.argv[1:]]"
    command = "{python} ../train.py {trial} {checkpoint_dir} {x}"
    seen = run_showing(
        tmp_path, expression, command, environment={"A": "1:${HOME}"}, working_directory=str(tmp_path / "inner")
    )
    assert seen[0].startswith("1:/")
    assert seen[1:4] == [str(tmp_path / "inner"), "0", "0"]
    assert Path(seen[4]).parent == tmp_path / "run" / "checkpoints"
    assert 0 <= float(seen[5]) <= 1


def test_gpus_of_the_slot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert run_showing(tmp_path, "os.environ['CUDA_VISIBLE_DEVICES']", gpu=True) in ("3", "5")


def test_pruned_program(tmp_path: Path) -> None:
    script = """
        import json, signal, sys, time
        signal.signal(signal.SIGTERM, lambda *given: (print("told to end", flush=True), sys.exit(0)))
        for epoch in range(10_000):
            print(json.dumps({"epoch": epoch, "val_loss": epoch}), flush=True)
            time.sleep(0.02)
    """
    pruner = {"type": "ThresholdPruner", "upper": 3.5}
    project = CommandProject(tmp_path, script, pruner=pruner, n_trials=2)
    project.run()
    assert project.states() == {"PRUNED": 2}
    assert "told to end" in project.log()
    assert project.records()[0]["metrics"]["val_loss"] >= 4


BAD = [
    ("print('no such layer', file=sys.stderr); sys.exit(3)", "exit code 3", "no such layer"),
    ("raise ValueError('bad shape')", "exit code 1", "bad shape"),
    ("os.kill(os.getpid(), signal.SIGKILL)", "killed by signal 9", "nothing to standard error"),
    ("raise MemoryError", "out of memory", "MemoryError"),
    ("sys.exit('RuntimeError: CUDA error: out of memory')", "out of memory", "CUDA error"),
    ("sys.exit(0)", "missing metric: val_loss", "val_loss"),
    ("print('{\"val_loss\": NaN}'); sys.exit(0)", "nan", "nan"),
    ('print(\'{"val_loss": "low"}\'); sys.exit(0)', "bad value", "low"),
]


@pytest.mark.oom
def test_bad_program_costs_one_trial(tmp_path: Path) -> None:
    each = "".join(f"if trial == {number}:\n            {bad}\n        " for number, (bad, _, _) in enumerate(BAD))
    script = f"""
        import json, os, signal, sys
        trial = int(os.environ["AIMLHPO_TRIAL"])
        {each}
        print(json.dumps({{"val_loss": 1.0}}))
    """
    project = CommandProject(tmp_path, script, n_trials=2)
    done = project.run()
    assert project.states() == {"COMPLETE": 2, "FAIL": len(BAD)}
    for (bad, cause, error), record in zip(BAD, project.records(), strict=False):
        assert record["cause"].startswith(cause), (bad, record)
        assert error in record["error"]
        assert "aimlhpo/" not in record["error"] + done.stderr  # none of our own code


def test_program_that_disappears(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text('#!/bin/sh\nrm "$0"\necho \'{"val_loss": 1}\'\n')
    program.chmod(0o755)
    project = CommandProject(tmp_path, "", "./program {parameters}", max_consecutive_failures=2)
    project.run(expect=ExitCode.STUDY_FAILED)
    assert project.records()[1]["cause"] == "cannot start ./program: No such file or directory"


def test_program_that_jobs_lack_is_told_once(tmp_path: Path) -> None:
    slurm = {"jobs": 1, "bash": ["module load it"], "batch": {"t": "1:00:00"}}
    project = CommandProject(tmp_path, "", "no-such-program {parameters}", slurm=slurm)
    failed = project.run("--local", "1", expect=ExitCode.CONFIG)
    assert "no program 'no-such-program'" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_working_directory_that_disappears(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    script = "import os; os.rmdir(os.getcwd()); print('{\"val_loss\": 1}')"
    command = f"{{python}} {tmp_path}/train.py {{parameters}}"
    keys = {"working_directory": str(tmp_path / "there"), "max_consecutive_failures": 2}
    project = CommandProject(tmp_path, script, command, **keys)
    project.run(expect=ExitCode.STUDY_FAILED)
    assert f"No such file or directory: {tmp_path}/there" in project.log()


def test_program_that_hangs_is_stopped_with_its_children(tmp_path: Path) -> None:
    script = """
        trap '' TERM
        sleep 600 &
        echo $$ $! > pids-$AIMLHPO_TRIAL
        wait
    """  # a shell: Python may take all of the trial's time to start
    keys = {"trial_timeout": 1.5, "max_consecutive_failures": 2}  # one of two has begun in time on any machine
    project = CommandProject(tmp_path, script, "sh train.py {parameters}", **keys)
    project.run(expect=ExitCode.STUDY_FAILED)
    assert project.records()[0]["cause"] == "timeout"
    pids = [int(pid) for file in tmp_path.glob("pids-*") for pid in file.read_text().split()]
    assert pids
    wait_until(lambda: not any(map(alive, pids)), "the programs' end")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_interrupted_program_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    script = """
        import json, os, signal, sys, time
        state = os.path.join(os.environ["AIMLHPO_CHECKPOINT_DIR"], "state")
        def save(*given):
            time.sleep(0.5)  # longer than an impatient agent would wait
            open(state, "w").close()
            sys.exit(0)
        signal.signal(signal.SIGTERM, save)
        print(json.dumps({"epoch": 0, "val_loss": 2.0}), flush=True)
        if not os.path.exists(state):
            open("started", "w").close()
            time.sleep(600)
        print(json.dumps({"epoch": 1, "val_loss": 1.0}))
    """
    project = CommandProject(tmp_path, script, n_trials=1)
    patient = (
        "from aimlhpo.agent import worker_pool; worker_pool._TERM_PATIENCE = 60.0; from aimlhpo.cli.main import main"
    )
    command = [sys.executable, "-c", f"import sys; {patient}; sys.exit(main())", *project.command()[3:]]
    with subprocess.Popen(command, cwd=tmp_path) as study:
        wait_until((tmp_path / "started").exists)
        study.send_signal(signal.SIGTERM)
    assert study.returncode == ExitCode.INTERRUPTED
    assert "RUNNING" not in project.states()
    project.run("-r", "1")
    assert project.states() == {"COMPLETE": 1}
    assert project.records()[0]["attempts"] == 2
    assert project.study().trials[0].value == 1.0


def test_several_metrics(tmp_path: Path) -> None:
    script = """
        import json
        for epoch in range(2):
            print(json.dumps({"epoch": epoch, "loss": 1.0, "seconds": 2.0 + epoch}))
    """
    metrics = {"metric": ["loss", "seconds"], "direction": ["minimize", "minimize"]}
    project = CommandProject(tmp_path, script, **metrics, pruner=None, n_trials=2)
    project.run()
    assert [trial.values for trial in project.study().trials] == [[1.0, 3.0]] * 2


def test_changed_script_is_told_on_reload(tmp_path: Path) -> None:
    project = CommandProject(tmp_path, QUADRATIC, n_trials=1)
    project.run()
    (tmp_path / "train.py").write_text((tmp_path / "train.py").read_text() + "# another text\n")
    assert "train.py has changed" in project.run("-r", "1", "-t", "2").stderr


def test_summary_of_check(tmp_path: Path) -> None:
    project = CommandProject(tmp_path, QUADRATIC)
    assert "{python} train.py {parameters}: minimize val_loss" in project.run(verb="check").stdout


def test_mistake_is_told_without_a_traceback(tmp_path: Path) -> None:
    project = CommandProject(tmp_path, QUADRATIC, "{python} train.py {paramters}")
    for verb in ("check", "optimize"):
        failed = project.run(verb=verb, expect=ExitCode.CONFIG)
        assert "optuna: command: unknown placeholder {paramters}" in failed.stderr
        assert "did you mean: {parameters}" in failed.stderr
        assert "Traceback" not in failed.stderr
    assert not project.save_path.exists()
