"""Several agents of one study, each on a host of its own as far as the leases can tell, and the ways to hurt them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aimlhpo.ledger.leases import holders
from aimlhpo.results.status import Status, read_status
from aimlhpo.search.warm_start import begin_study
from tests.faults import evidence, printed
from tests.project import Project
from tests.servers import find_program
from tests.waiting import wait_until

GRACE = 2.0  # seconds
LONG_GRACE = 15.0  # seconds that none of these processes has to wait for a processor
BOOT_ID = "/proc/sys/kernel/random/boot_id"
LOOK = 0.5  # seconds between two looks at the storage
STUCK = 240.0  # seconds without a result after which a study is given up
RUN = (sys.executable, "-m", "tests.faults.agent")
ELSEWHERE = f'mount --bind "$1" {BOOT_ID} && shift && exec "$@"'


def descendants(pid: int) -> list[int]:
    """The process's living children, and theirs."""
    living = _children(pid)
    return [*living, *(below for child in living for below in descendants(child))]


def _children(pid: int) -> list[int]:
    """Those that live, whichever of the process's threads started them."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, path.read_text().split())
    return [child for child in found if lives(child)]


def lives(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def begun(pid: int) -> int:
    """When the process began, in the kernel's ticks; numbers of processes start anew some time. 0: it is gone."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return 0


def _program(pid: int) -> str:
    with suppress(OSError):
        return os.readlink(f"/proc/{pid}/exe")
    return ""


class Crew:
    """`agents` processes that each run an agent with `slots` workers; whoever dies can be replaced.

    Everything is killed with the `with` block, and with this process. A `hurried` crew has a grace period that no busy
    machine uses up, and waits for none: who was killed counts as silent for longer at once.
    """

    hurried = False

    def __init__(
        self,
        folder: Path,
        agents: int,
        slots: int,
        *,
        seconds: float = 0.4,
        seed: int = 0,
        objective: str | None = None,
        grace: float | None = None,
        **optuna_keys: Any,
    ) -> None:
        self.grace = grace or (LONG_GRACE if self.hurried else GRACE)
        keys = {"grace_period": self.grace, "max_consecutive_failures": 100_000, **optuna_keys}
        self.project = Project(folder, objective or evidence.objective(seconds), **keys)
        self.random = random.Random(seed)
        self.killed: dict[int, float] = {}
        self.frozen: dict[int, list[tuple[float, float]]] = defaultdict(list)
        self.seen: dict[int, float] = {}
        self.moments: list[float] = []
        self.misprinted: set[int] = set()
        self.log = folder / "agents.log"
        self._agents, self._slots = agents, slots
        self._free = int(keys["n_trials"])
        self._alive: list[subprocess.Popen[bytes]] = []
        self.project.config.paths.create()
        self.project.config.write_snapshot()

    # --- agents ---

    def __enter__(self) -> Self:
        self.study = begin_study(self.project.config)
        self.staff()
        return self

    def start_at_once(self, agents: int) -> int:
        """Start that many agents at the same instant, on an empty store; how many of them ended badly."""
        command = [*RUN, str(self.project.save_path), str(self._slots), str(agents)]
        with self.log.open("ab") as log:
            failed = subprocess.run(command, cwd=evidence.ROOT, stdout=log, stderr=log, timeout=900).returncode
        self.study = self.project.study()
        return failed

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill_all()

    def staff(self) -> None:
        """Start as many agents as are missing."""
        self._alive = [agent for agent in self._alive if agent.poll() is None]
        while len(self._alive) < self._agents:
            self._alive.append(self._start())

    def _start(self) -> subprocess.Popen[bytes]:
        host = self.project.folder / f"boot-{uuid.uuid4()}"
        host.write_text(f"{uuid.uuid4()}\n")
        command = [find_program("setpriv"), "--pdeathsig", "KILL", "--", *_unshare(), "sh", "-c", ELSEWHERE, "sh", host]
        command += [*RUN, self.project.save_path, self._slots]
        with self.log.open("ab") as log:
            words = list(map(str, command))
            return subprocess.Popen(words, cwd=evidence.ROOT, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    @property
    def agents(self) -> list[int]:
        """The pids of living agents."""
        return [agent.pid for agent in self._alive if agent.poll() is None]

    @property
    def workers(self) -> list[int]:
        """What the agents have started; not what a worker starts, which is its like until it becomes a program."""
        found = [process for agent in self.agents for process in _children(agent)]
        return [process for process in found if _program(process) == os.path.realpath(sys.executable)]

    def exit_codes(self) -> list[int]:
        """Wait for the agents' ends."""
        return [agent.wait(120) for agent in self._alive]

    # --- faults ---

    def kill_worker(self) -> int:
        """SIGKILL a worker that trains or idles, chosen at random; how many there were to kill."""
        return self._kill_some(self.workers, 1)

    def kill_agents(self, at_most: int = 1) -> int:
        """SIGKILL one agent or some at once; the kernel ends their workers. How many."""
        return self._kill_some(self.agents, self.random.randint(1, at_most))

    def _kill_some(self, living: list[int], number: int) -> int:
        victims = self.random.sample(living, min(number, len(living)))
        self.moments.append(time.monotonic())
        for victim in victims:
            self.kill(victim)
        return len(victims)

    def kill_all(self) -> None:
        for agent in self.agents:
            self.kill(agent)
        for process in self._alive:
            process.wait()

    def kill(self, pid: int) -> None:
        now = time.monotonic()
        self.killed.update(dict.fromkeys([pid, *descendants(pid)], now))
        _signal(pid, signal.SIGKILL)
        for agent in self._alive:
            if agent.pid == pid and self.hurried:
                agent.wait()
                self._age_lease(pid)

    def _age_lease(self, pid: int) -> None:
        """Have the dead agent's lease look as it will when the grace period is over."""
        leases = self.project.config.paths.leases
        for holder in holders(leases):
            if holder.pid == pid:
                past = time.time() - 2 * self.grace
                with suppress(FileNotFoundError):
                    os.utime(leases / f"{holder.agent}.json", (past, past))

    def freeze_agent(self, seconds: float) -> int:
        """SIGSTOP an agent and its workers for a while; returns 1."""
        agent = self.random.choice(self.agents)
        frozen, since = [agent, *descendants(agent)], time.monotonic()
        for pid in frozen:
            _signal(pid, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            for pid in frozen:
                _signal(pid, signal.SIGCONT)
        for pid in frozen:
            self.frozen[pid].append((since, time.monotonic()))
        return 1

    # --- looking on ---

    def watch(self) -> None:
        """Remember the results that the storage holds now, and what the files say that it does not."""
        files = printed.read(self.project.save_path)
        trials = self.study.get_trials(deepcopy=False)
        self.misprinted.update(printed.wrong(files, trials))
        for trial in trials:
            if trial.state.name == "COMPLETE":
                self.seen[trial.number] = float(trial.value or 0.0)

    def status(self) -> Status:
        """As `aimlhpo status` does: looks, and gives back what the dead have held."""
        return read_status(self.study, self.project.config)

    @property
    def lines(self) -> list[evidence.Line]:
        return evidence.read(self.project.folder / "evidence")

    def begun(self) -> int:
        """How often training has begun so far."""
        return sum(path.read_text().count('"begin"') for path in (self.project.folder / "evidence").glob("*"))

    def running(self, at_least: int = 1) -> None:
        """Wait until that many trials have begun."""
        folder = self.project.folder / "evidence"
        wait_until(lambda: len(list(folder.glob("*"))) >= at_least, f"{at_least} trials to begin", 120)

    def more(self, trials: int) -> None:
        """Wait until that many more trials have begun, or as many as can while some are held."""
        self.running(min(len({line.number for line in self.lines}) + trials, self._free))

    def hold(self, number: int) -> None:
        """Let no trial from this number on end before `finish`, so that there is always something to hit."""
        (self.project.folder / "hold").write_text(str(number))
        self._free = min(self._free, number + self._agents * self._slots)

    def all_begun(self) -> bool:
        """Whether no trial can begin any more, but for those that are run again."""
        return len(list((self.project.folder / "evidence").glob("*"))) >= self._free

    def let_end(self) -> None:
        (self.project.folder / "hold").unlink(missing_ok=True)

    def finish(self) -> None:
        """Replace the dead until the agents have ended because the budget is reached."""
        self.let_end()
        known, since = len(self.seen), time.monotonic()
        for _ in self.ticks():
            if len(self.seen) > known:
                known, since = len(self.seen), time.monotonic()
            if time.monotonic() - since > STUCK:
                raise AssertionError(f"nothing has ended for {STUCK:g} s: {self.project.states()}\n{self.tail()}")

    def ticks(self) -> Iterator[None]:
        """Goes on, with all agents there, until the budget is reached and they have ended."""
        n_trials = self.project.config.optuna.n_trials
        next_look = 0.0
        while True:
            if time.monotonic() >= next_look:
                self.watch()
                next_look = time.monotonic() + LOOK
            if len(self.seen) >= n_trials and not self.agents:
                return
            if len(self.seen) < n_trials:
                self.staff()
            yield
            time.sleep(0.1)

    def tail(self) -> str:
        return self.log.read_text()[-3000:]


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _unshare() -> list[str]:
    """A mount namespace of its own; where this user is not root, in a user namespace of its own."""
    own_user = [] if os.geteuid() == 0 else ["--map-root-user"]
    return [find_program("unshare"), "--mount", *own_user]
