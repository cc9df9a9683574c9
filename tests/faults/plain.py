"""`python -m tests.faults.plain URL N_TRIALS SECONDS FOLDER [TIMES]`: workers as Optuna documents them.

Heartbeat with retries where the storage has one (it needs a database), MaxTrialsCallback, and the same evidence.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages.journal import JournalFileBackend
from optuna.study import MaxTrialsCallback
from optuna.trial import TrialState

from tests.faults import at_once, evidence, verdict
from tests.faults.verdict import History, Verdict, total
from tests.servers import PostgreSQL, find_program

GRACE = 2  # seconds
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
STUCK = 60.0  # seconds without a trial's beginning or end after which a study is given up


def storage_of(url: str) -> BaseStorage:
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    if url.startswith("journal://"):
        return JournalStorage(JournalFileBackend(url.removeprefix("journal://")))
    return RDBStorage(
        url.replace("postgresql://", "postgresql+psycopg://"),
        heartbeat_interval=1,
        grace_period=GRACE,
        heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
    )


def open_study(url: str) -> optuna.Study:
    sampler = optuna.samplers.RandomSampler()
    return optuna.create_study(study_name="s", storage=storage_of(url), sampler=sampler, load_if_exists=True)


def work(url: str, n_trials: int, seconds: float, folder: Path) -> None:
    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0.0, 1.0)
        evidence.note(folder, trial.number, "begin")
        for step in range(10):
            time.sleep(seconds * (0.5 + x) / 10)
            trial.report(x + step, step)
        evidence.note(folder, trial.number, "end", x)
        return x

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = open_study(url)
    if sum(trial.state in FINISHED for trial in study.trials) < n_trials:
        study.optimize(objective, callbacks=[MaxTrialsCallback(n_trials, states=FINISHED)])


class Workers:
    """Plain workers, killed and started again as a shell loop around them would."""

    def __init__(self, folder: Path, url: str, number: int, n_trials: int, seconds: float = 0.4) -> None:
        self.folder, self.url, self.n_trials = folder, url, n_trials
        self.random = random.Random(0)
        self.killed: dict[int, float] = {}
        self._number = number
        self._command = [find_program("setpriv"), "--pdeathsig", "KILL", "--", sys.executable, "-W", "ignore", "-m"]
        self._command += ["tests.faults.plain", url, str(n_trials), str(seconds), str(folder / "evidence")]
        self._alive: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self.study = open_study(self.url)
        self.staff()
        while len(evidence.read(self.folder / "evidence")) < 4:
            time.sleep(0.1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._alive:
            worker.kill()
            worker.wait()

    def staff(self) -> None:
        self._alive = self.living
        while len(self._alive) < self._number:
            self._alive.append(subprocess.Popen(self._command, cwd=evidence.ROOT, stderr=subprocess.DEVNULL))

    def start_at_once(self, times: int) -> int:
        """Start that many workers at the same instant, on an empty store; how many of them ended badly."""
        command = [*self._command, str(times)]
        return subprocess.run(command, cwd=evidence.ROOT, stderr=subprocess.DEVNULL, timeout=300).returncode

    @property
    def living(self) -> list[subprocess.Popen[bytes]]:
        return [worker for worker in self._alive if worker.poll() is None]

    def kill(self) -> None:
        for victim in self.random.sample(self.living, 1):
            self._kill(victim)

    def kill_all(self) -> None:
        for worker in self.living:
            self._kill(worker)
            worker.wait()

    def _kill(self, victim: subprocess.Popen[bytes]) -> None:
        self.killed[victim.pid] = time.monotonic()
        victim.kill()

    def freeze(self, seconds: float) -> None:
        victim = self.random.choice(self.living)
        victim.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        victim.send_signal(signal.SIGCONT)

    def finished(self) -> int:
        return sum(trial.state in FINISHED for trial in self.study.get_trials(deepcopy=False))

    def end(self) -> None:
        """Wait until the workers have ended or nothing happens any more, and then for their heartbeats to be missed."""
        began = time.monotonic()
        while self.living:
            lines = evidence.read(self.folder / "evidence")
            if time.monotonic() - max([began, *(line.at for line in lines[-1:])]) > STUCK:
                break
            time.sleep(0.5)
        time.sleep(GRACE + 10)


def kills(folder: Path, url: str, times: int, number: int = 8, pause: float = 1.0) -> Verdict:
    """SIGKILL of workers, which are the only processes there are; seldom enough that they get to work between."""
    with Workers(folder, url, number, 2 * times) as workers:
        done = 0
        while done < times and workers.finished() < workers.n_trials:
            time.sleep(workers.random.uniform(0, 2 * pause))
            workers.kill()
            workers.staff()
            done += 1
        workers.end()
        return _judge(workers, "SIGKILL of a worker", done, sorted(workers.killed.values()))


def all_killed(folder: Path, url: str, times: int, number: int = 8) -> Verdict:
    """SIGKILL of all workers at once; new ones are started after the grace period and 10 s."""
    with Workers(folder, url, number, 4 * number * times) as workers:
        for _ in range(times):
            begun = len(evidence.read(folder / "evidence"))
            while len(evidence.read(folder / "evidence")) < begun + number and workers.living:
                time.sleep(0.1)
            workers.kill_all()
            time.sleep(GRACE + 10)
            workers.staff()
        workers.end()
        return _judge(workers, f"SIGKILL of all workers, {times} times", len(workers.killed), [])


def frozen(folder: Path, url: str, times: int, number: int = 4) -> Verdict:
    """SIGSTOP of a worker for three grace periods, while the others go on; then SIGCONT."""
    with Workers(folder, url, number, 12 * number * times, seconds=0.8) as workers:
        done = 0
        while done < times and workers.living:
            workers.freeze(3 * GRACE)
            time.sleep(workers.random.uniform(0, 1))
            workers.staff()
            done += 1
        workers.end()
        return _judge(workers, "SIGSTOP for 3 grace periods", done, [])


def starts(folder: Path, make_url: Callable[[], str], times: int, number: int = 32) -> Verdict:
    """Many workers start at the same instant on an empty store."""
    verdicts, died = [], 0
    for turn in range(times):
        place = folder / str(turn)
        place.mkdir()
        workers = Workers(place, make_url(), number, 2 * number, seconds=0.1)
        died += workers.start_at_once(number)
        verdicts.append(_judge(workers, f"{number} workers start at once", 1, []))
    return replace(total(verdicts), note=f"{died} died")


def outage(folder: Path, server: PostgreSQL, seconds: float) -> Verdict:
    """The database is away for a while; nobody starts workers again, as nobody does in a running job."""
    with Workers(folder, server.url(), 4, 12, seconds=1.0) as workers:
        server.stop()
        time.sleep(seconds)
        server.start()
        back = time.monotonic()
        died = 4 - len(workers.living)
        workers.end()
        verdict = _judge(workers, f"PostgreSQL stopped for {seconds:g} s", 1, [back])
        return replace(verdict, note=f"{died} of 4 workers died")


def _judge(workers: Workers, fault: str, injected: int, faults: list[float]) -> Verdict:
    history = History(evidence.read(workers.folder / "evidence"), workers.killed, {})
    trials = open_study(workers.url).get_trials()
    return Verdict(
        fault,
        workers.url.partition(":")[0],
        injected,
        lost=len(verdict.lost(history, trials)),
        twice=len(verdict.twice(history)),
        running=sum(trial.state == TrialState.RUNNING for trial in trials),
        missed=verdict.missed(trials, workers.n_trials),
        misprinted=0,  # there are no such files
        resumed=verdict.resumed(history, faults),
    )


if __name__ == "__main__":
    job = partial(work, sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4]))
    if len(sys.argv) > 5:
        sys.exit(at_once.run(int(sys.argv[5]), lambda: None, job))
    job()
