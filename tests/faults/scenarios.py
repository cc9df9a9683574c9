"""Each fault as a function that injects it some number of times, and says what it has cost.

The tests call them with small numbers, `make chaos` with large ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from tests.faults import verdict
from tests.faults.crew import Crew
from tests.faults.verdict import History, Verdict
from tests.waiting import wait_until


def judge(crew: Crew, fault: str, injected: int, faults: list[float] | None = None, note: str = "") -> Verdict:
    """The verdict on a study whose agents have ended."""
    history = History(crew.lines, crew.killed, crew.seen)
    crew.status()
    trials = crew.study.get_trials()
    moments = sorted(set(crew.killed.values())) if faults is None else faults
    return Verdict(
        fault,
        crew.project.config.optuna.storage.partition(":")[0],
        injected,
        lost=len(verdict.lost(history, trials)),
        twice=len(verdict.twice(history)),
        running=sum(trial.state.name == "RUNNING" for trial in trials),
        missed=verdict.missed(trials, crew.project.config.optuna.n_trials),
        resumed=verdict.resumed(history, moments),
        note=note,
    )


def _repeat(crew: Crew, times: int, pause: float, inject: Callable[[], None]) -> int:
    """Inject at random moments, `pause` seconds apart on average, until the study has ended or `times` is reached."""
    done = 0
    for _ in crew.ticks():
        if done >= times:
            break
        time.sleep(crew.random.uniform(0, 2 * pause))
        inject()
        done += 1
    crew.finish()
    return done


def worker_kills(folder: Path, url: str, times: int, workers: int = 8, pause: float = 0.2) -> Verdict:
    """SIGKILL of single workers of one agent."""
    with Crew(folder, 1, workers, storage=url, n_trials=3 * times) as crew:
        crew.running(workers)
        done = _repeat(crew, times, pause, crew.kill_worker)
        return judge(crew, "SIGKILL of a worker", done)


def agent_kills(folder: Path, url: str, times: int, agents: int = 4, slots: int = 2, pause: float = 1.5) -> Verdict:
    """SIGKILL of whole agents, each on a host of its own, and in the end of all of them at once."""
    with Crew(folder, agents, slots, storage=url, n_trials=6 * times + agents * slots) as crew:
        crew.running(slots)
        done = _killing_until(crew, times, pause)
        crew.kill_all()
        wait_until(lambda: crew.status().counts.running == 0, "the dead agents' trials", 2.0 + 10)
        crew.finish()
        return judge(crew, "SIGKILL of an agent, then of all", done + agents)


def _killing_until(crew: Crew, times: int, pause: float) -> int:
    done = 0
    for _ in crew.ticks():
        if done >= times:
            break
        time.sleep(crew.random.uniform(0, 2 * pause))
        crew.kill_agent()
        done += 1
    return done
