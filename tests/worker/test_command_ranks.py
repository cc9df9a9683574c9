"""A program as the objective of trials with several processes: once for each of them, or once for each node."""

from __future__ import annotations

import json
from pathlib import Path

from tests.command_project import CommandProject
from tests.waiting import wait_until

NOTING = """
    import json, os, subprocess, sys, time
    from pathlib import Path

    rank = os.environ.get("RANK")
    if rank == "1" and "--stays" in sys.argv:
        time.sleep(600)
    told = {name: os.environ.get(name) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "GROUP_RANK")}
    number = os.environ["AIMLHPO_TRIAL"]
    Path(f"{number}-{rank}").write_text(json.dumps([os.getpid(), told, sys.argv[1:]]))
    if number == "1" and "--kills-its-worker" in sys.argv:
        if rank == "1":
            child = subprocess.Popen(["sleep", "100"], start_new_session=True)
            Path("child").write_text(str(child.pid))
            time.sleep(600)
        while not Path("child").exists():
            time.sleep(0.02)
        os.kill(os.getppid(), 9)
    if rank == "1" and "--fails" in sys.argv:
        sys.exit(3)
    if rank in (None, "0"):
        while rank and not Path(f"{number}-1").exists() and "--stays" not in sys.argv:
            time.sleep(0.02)
        for epoch in range(4):
            print(json.dumps({"epoch": epoch, "val_loss": float(epoch)}))
            time.sleep(0.3)
"""


def make(folder: Path, command: str, **keys: object) -> CommandProject:
    return CommandProject(
        folder, NOTING, "{python} train.py {parameters} " + command, **keys, slurm={"gpus_per_worker": 2}
    )  # type: ignore[arg-type]


def notes(folder: Path) -> dict[str, list[object]]:
    return {path.name: json.loads(path.read_text()) for path in folder.glob("[0-9]-*")}


def test_each_process_of_a_trial_runs_the_program(tmp_path: Path) -> None:
    made = make(tmp_path, "", n_trials=2)
    made.run("--local", "1")
    assert made.states() == {"COMPLETE": 2}
    found = notes(tmp_path)
    assert found.keys() == {"0-0", "0-1", "1-0", "1-1"}
    assert found["1-1"][1] == {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "GROUP_RANK": "0"}


def test_a_program_that_starts_processes_itself_runs_once_on_a_node(tmp_path: Path) -> None:
    made = make(tmp_path, "--at={master_addr}:{master_port} --node={node_rank}/{nnodes}", n_trials=1)
    made.run("--local", "1")
    found = notes(tmp_path)
    assert found.keys() == {"0-None"}
    _, told, arguments = found["0-None"]
    assert told == {"RANK": None, "LOCAL_RANK": None, "WORLD_SIZE": None, "GROUP_RANK": None}
    at, node = arguments[1:]  # type: ignore[index]
    assert at.startswith("--at=127.0.0.1:")
    assert node == "--node=0/1"


def test_the_program_of_another_process_that_fails_fails_the_trial(tmp_path: Path) -> None:
    made = make(tmp_path, "--fails", n_trials=1, max_consecutive_failures=1)
    made.run("--local", "1", expect=4)
    assert made.records()[0]["cause"] == "rank 1: exit code 3"


def test_the_other_programs_of_a_pruned_trial_are_stopped(tmp_path: Path) -> None:
    pruner = {"type": "ThresholdPruner", "upper": 1.5}
    made = make(tmp_path, "--stays", n_trials=1, pruner=pruner)
    made.run("--local", "1")
    assert made.states() == {"PRUNED": 1}
    assert made.records()[0]["seconds"] < 20
    wait_until(lambda: not programs_in(tmp_path), "the programs to end")


def test_what_a_program_of_another_process_has_started_ends_with_a_killed_worker(tmp_path: Path) -> None:
    made = make(tmp_path, "--kills-its-worker", n_trials=2, max_consecutive_failures=1)
    made.run("--local", "1", expect=4)
    assert made.states() == {"COMPLETE": 1, "FAIL": 1}
    assert (tmp_path / "child").exists()
    wait_until(lambda: not programs_in(tmp_path), "what was started to end", 50)


def programs_in(folder: Path) -> list[Path]:
    """The processes that run in this folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cwd"):
        try:
            found += [path] if path.resolve(strict=True) == folder else []
        except OSError:  # it has ended meanwhile
            continue
    return found
