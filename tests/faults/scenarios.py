"""Each fault as a function that injects it some number of times, and says what it has cost.

The tests call them with small numbers, `make chaos` with large ones.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from tests.faults import printed, verdict
from tests.faults.crew import Crew
from tests.faults.evidence import ROOT
from tests.faults.verdict import History, Verdict, total
from tests.waiting import wait_until

HOLD = """
import sys, time
from contextlib import nullcontext
from pathlib import Path
from aimlhpo.storage.journal_file import JournalLock
from aimlhpo.storage.locks import locked
path = Path(sys.argv[1])
with nullcontext(JournalLock(path).acquire()) if path.suffix == ".journal" else locked(path):
    print("held", flush=True)
    time.sleep(600)
"""


def judge(crew: Crew, fault: str, injected: int, faults: list[float] | None = None, note: str = "") -> Verdict:
    """The verdict on a study whose agents have ended."""
    history = History(crew.lines, crew.killed, crew.seen, crew.frozen, crew.grace)
    crew.status()
    trials = crew.study.get_trials()
    return Verdict(
        fault,
        crew.project.config.optuna.storage.partition(":")[0],
        injected,
        lost=len(verdict.lost(history, trials)),
        twice=len(verdict.twice(history)),
        running=sum(trial.state.name == "RUNNING" for trial in trials),
        missed=verdict.missed(trials, crew.project.config.optuna.n_trials),
        misprinted=len({*crew.misprinted, *printed.misprinted(crew.project.save_path, trials)}),
        resumed=verdict.resumed(history, crew.moments if faults is None else faults),
        note=note,
    )


def _inject(crew: Crew, times: int, pause: float, fault: Callable[[], int]) -> int:
    """Inject at random moments, `pause` seconds apart on average, until the study has ended or `times` is reached.

    A fault says how many processes it has hit.
    """
    done = begun = 0
    for _ in crew.ticks():
        if done >= times:
            break
        if crew.begun() > begun or crew.all_begun():  # else all who could be hit have only just been started
            time.sleep(crew.random.uniform(0, 2 * pause))
            begun = crew.begun()
            done += fault()
    return done


def worker_kills(folder: Path, url: str, times: int, workers: int = 8, pause: float = 0.2) -> Verdict:
    """SIGKILL of single workers of one agent."""
    n_trials = 4 * times + workers
    with Crew(folder, 1, workers, storage=url, seconds=0.8, n_trials=n_trials) as crew:
        crew.hold(n_trials - workers)
        crew.running(workers)
        done = _inject(crew, times, pause, crew.kill_worker)
        crew.finish()
        return judge(crew, "SIGKILL of a worker", done)


def agent_kills(
    folder: Path, url: str, times: int, agents: int = 4, slots: int = 2, pause: float = 1.5, rounds: int = 1
) -> Verdict:
    """SIGKILL of one to three agents at once, each on a host of its own, while others go on and new ones start.

    Several times (`rounds`) all of them die, and nobody is left to notice.
    """
    n_trials = 8 * times + agents * slots
    with Crew(folder, agents, slots, storage=url, seconds=0.8, n_trials=n_trials) as crew:
        crew.hold(n_trials - agents * slots)
        done = 0
        for turn in range(rounds):
            crew.running(slots)
            share = times * (turn + 1) // rounds - done
            done += _inject(crew, share, pause, partial(crew.kill_agents, max(1, agents - 1)))
            done += len(crew.agents)
            crew.kill_all()
            wait_until(lambda: crew.status().counts.running == 0, "the dead agents' trials", crew.grace + 10)
            crew.staff()
        crew.finish()
        return judge(crew, f"SIGKILL of agents, of all at once in {rounds} of the cases", done)


def lock_holders(folder: Path, url: str, times: int, held: float = 1.5) -> Verdict:
    """SIGKILL of a process that holds the ledger's lock, or the journal's, for so long that everybody waits for it."""
    freed: list[float] = []
    with Crew(folder, 2, 2, storage=url, n_trials=12 * times) as crew:
        crew.hold(12 * times - 4)
        crew.running(2)
        locks = [crew.project.config.paths.lock, *crew.project.folder.glob("*.journal")]
        _inject(crew, times, 0.2, lambda: _hold_and_die(crew.random.choice(locks), held, freed))
        crew.finish()
        return judge(crew, "lock holder killed", len(freed), freed)


def _hold_and_die(lock: Path, seconds: float, freed: list[float]) -> int:
    """Hold the lock, then die; the moment of it goes to `freed`."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE, cwd=ROOT) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        time.sleep(seconds)
        holder.kill()
        freed.append(time.monotonic())
    return 1


def frozen_agents(folder: Path, url: str, times: int, agents: int = 2, grace: float | None = None) -> Verdict:
    """SIGSTOP of an agent with its workers for three grace periods, while the others go on; then SIGCONT."""
    n_trials = agents * 8 * times
    with Crew(folder, agents, 2, storage=url, seconds=0.8, n_trials=n_trials, grace=grace) as crew:
        crew.hold(n_trials - agents * 2)
        crew.running(agents * 2)
        done = _inject(crew, times, 0.2, lambda: crew.freeze_agent(3 * crew.grace))
        crew.finish()
        return judge(crew, "SIGSTOP for 3 grace periods", done, [])


def starts(folder: Path, make_url: Callable[[], str], times: int, agents: int = 32, slots: int = 1) -> Verdict:
    """Many agents, or many workers of few agents, start at the same instant on an empty store."""
    verdicts, died = [], 0
    what = f"{agents} agents start at once" if slots == 1 else f"{slots} workers of an agent start at once"
    for turn in range(times):
        place = folder / str(turn)
        place.mkdir()
        crew = Crew(place, 0, slots, seconds=0.1, storage=make_url(), n_trials=2 * agents * slots)
        died += crew.start_at_once(agents)
        assert died == 0, crew.tail()
        verdicts.append(judge(crew, what, 1, []))
    return replace(total(verdicts), note=f"{died} died")
