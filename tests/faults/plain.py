"""`python -m tests.faults.plain URL N_TRIALS SECONDS FOLDER`: a worker as Optuna documents it.

Heartbeat with retries where the storage has one (it needs a database), MaxTrialsCallback, and the same evidence.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages.journal import JournalFileBackend
from optuna.study import MaxTrialsCallback
from optuna.trial import TrialState

from tests.faults import evidence, verdict
from tests.faults.verdict import History, Verdict
from tests.servers import PostgreSQL

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
    study = optuna.load_study(study_name="s", storage=storage_of(url), sampler=optuna.samplers.RandomSampler())
    if sum(trial.state in FINISHED for trial in study.trials) < n_trials:
        study.optimize(objective, callbacks=[MaxTrialsCallback(n_trials, states=FINISHED)])


class Workers:
    """Plain workers, killed and started again as a shell loop around them would."""

    def __init__(self, folder: Path, url: str, number: int, n_trials: int, seconds: float = 0.4) -> None:
        self.folder, self.url, self.n_trials = folder, url, n_trials
        self.random = random.Random(0)
        self.killed: dict[int, float] = {}
        self._number, self._seconds = number, seconds
        self._alive: list[subprocess.Popen[bytes]] = []
        self.study = optuna.create_study(study_name="s", storage=storage_of(url))

    def staff(self) -> None:
        self._alive = [worker for worker in self._alive if worker.poll() is None]
        while len(self._alive) < self._number:
            words = [self.url, str(self.n_trials), str(self._seconds), str(self.folder / "evidence")]
            command = [sys.executable, "-W", "ignore", "-m", "tests.faults.plain", *words]
            self._alive.append(subprocess.Popen(command, cwd=evidence.ROOT, stderr=subprocess.DEVNULL))

    def kill(self) -> None:
        living = [worker for worker in self._alive if worker.poll() is None]
        if living:
            victim = self.random.choice(living)
            self.killed[victim.pid] = time.monotonic()
            os.kill(victim.pid, signal.SIGKILL)

    def finished(self) -> int:
        return sum(trial.state in FINISHED for trial in self.study.get_trials(deepcopy=False))

    def end(self) -> None:
        """Wait until the workers have ended; kill them where nothing happens any more."""
        began = time.monotonic()
        while any(worker.poll() is None for worker in self._alive):
            lines = evidence.read(self.folder / "evidence")
            if time.monotonic() - max([began, *(line.at for line in lines[-1:])]) > STUCK:
                break
            time.sleep(0.5)
        for worker in self._alive:
            worker.kill()
            worker.wait()


def kills(folder: Path, url: str, times: int, number: int = 8, pause: float = 1.0) -> Verdict:
    """SIGKILL of workers, which are the only processes there are; seldom enough that they get to work between."""
    workers = Workers(folder, url, number, 2 * times)
    workers.staff()
    _wait_for_work(workers)
    done = 0
    while done < times and workers.finished() < workers.n_trials:
        time.sleep(workers.random.uniform(0, 2 * pause))
        workers.kill()
        workers.staff()
        done += 1
    workers.end()
    time.sleep(GRACE + 10)
    return _judge(workers, "SIGKILL of a worker", done, sorted(workers.killed.values()))


def outage(folder: Path, server: PostgreSQL, seconds: float) -> Verdict:
    """The database is away for a while; nobody starts workers again, as nobody does in a running job."""
    workers = Workers(folder, server.url(), 4, 12, seconds=1.0)
    workers.staff()
    _wait_for_work(workers)
    server.stop()
    time.sleep(seconds)
    server.start()
    back = time.monotonic()
    workers.end()
    time.sleep(GRACE + 10)
    return _judge(workers, f"PostgreSQL stopped for {seconds:g} s", 1, [back])


def _wait_for_work(workers: Workers) -> None:
    while len(evidence.read(workers.folder / "evidence")) < 4:
        time.sleep(0.1)


def _judge(workers: Workers, fault: str, injected: int, faults: list[float]) -> Verdict:
    history = History(evidence.read(workers.folder / "evidence"), workers.killed, {})
    trials = optuna.load_study(study_name="s", storage=storage_of(workers.url)).get_trials()
    return Verdict(
        fault,
        workers.url.partition(":")[0],
        injected,
        lost=len(verdict.lost(history, trials)),
        twice=len(verdict.twice(history)),
        running=sum(trial.state == TrialState.RUNNING for trial in trials),
        missed=verdict.missed(trials, workers.n_trials),
        resumed=verdict.resumed(history, faults),
    )


if __name__ == "__main__":
    work(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4]))
