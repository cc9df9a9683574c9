"""An answer of the agent goes to the question that it answers, and to no other one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, NoReturn

import pytest

from aimlhpo.objective.messages import Answer, Assignment, Decision, Pause, Stop, SuggestRequest
from aimlhpo.worker.channel import PipeChannel
from tests.waiting import wait_until


@pytest.fixture
def ends() -> Iterator[tuple[PipeChannel, Connection]]:
    """A channel that receives, and the agent's end of its pipe, which stays open as long as the test runs."""
    agent, theirs = Pipe()
    channel = PipeChannel(theirs)
    channel.start()
    yield channel, agent
    OPEN.append(agent)  # where it is closed, the channel ends the process


OPEN: list[Connection] = []


def assignment(number: int, pause: Pause | None = None) -> Assignment:
    return Assignment(number, 1, {}, {}, {}, {}, [], 0, "", pause=pause)


def ask(channel: PipeChannel, name: str) -> Any:
    return channel.request(SuggestRequest(0, "suggest_float", {"name": name}))


def test_questions_of_several_threads_get_their_own_answers(ends: tuple[PipeChannel, Connection]) -> None:
    channel, agent = ends
    with ThreadPoolExecutor() as threads:
        asked = {name: threads.submit(ask, channel, name) for name in "abcd"}
        questions = [agent.recv() for _ in asked]
        for question in reversed(questions):
            agent.send(Answer(question.arguments["name"], question=question.question))
        assert {name: answer.result() for name, answer in asked.items()} == {name: name for name in "abcd"}


def test_answer_to_a_question_that_was_given_up_is_dropped(ends: tuple[PipeChannel, Connection]) -> None:
    """As time limits do that raise out of an alarm's handler."""
    channel, agent = ends

    def give_up(number: int, frame: object) -> NoReturn:
        raise TimeoutError

    previous = signal.signal(signal.SIGALRM, give_up)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(TimeoutError):
            ask(channel, "first")
    finally:
        signal.signal(signal.SIGALRM, previous)
    late = agent.recv()
    with ThreadPoolExecutor() as threads:
        second = threads.submit(ask, channel, "second")
        question = agent.recv()
        agent.send(Answer(0.1, question=late.question))
        agent.send(Answer(0.2, question=question.question))
        assert second.result() == 0.2


def test_what_the_agent_refuses_is_raised(ends: tuple[PipeChannel, Connection]) -> None:
    channel, agent = ends
    with ThreadPoolExecutor() as threads:
        asked = threads.submit(ask, channel, "x")
        agent.send(Answer(error=ValueError("low > high"), question=agent.recv().question))
        with pytest.raises(ValueError, match="low > high"):
            asked.result()


class TestDecisions:
    @pytest.fixture
    def decide(self, ends: tuple[PipeChannel, Connection]) -> Callable[[Decision], None]:
        """Send a decision, and wait until it has arrived."""
        channel, agent = ends

        def send(decision: Decision) -> None:
            agent.send(decision)
            agent.send(Stop())
            assert isinstance(channel.assignments.get(), Stop)

        return send

    def test_they_are_those_on_the_trial_that_runs(
        self, ends: tuple[PipeChannel, Connection], decide: Callable[[Decision], None]
    ) -> None:
        channel, agent = ends
        agent.send(assignment(1))
        channel.assignments.get()
        decide(Decision(0, 5, prune=True))
        assert not channel.decision(1, 5, wait=False)
        decide(Decision(1, 5, prune=True))
        assert channel.decision(1, 5, wait=True)
        assert not channel.decision(0, 5, wait=True)
        agent.send(assignment(2))
        channel.assignments.get()
        assert not channel.decision(2, None, wait=False)

    def test_nobody_waits_for_one_on_a_trial_that_has_ended(self, ends: tuple[PipeChannel, Connection]) -> None:
        channel, agent = ends
        agent.send(assignment(1))
        channel.assignments.get()
        waiting = threading.Thread(target=channel.decision, args=(1, 5), kwargs={"wait": True}, daemon=True)
        waiting.start()
        channel.end_trial()
        wait_until(lambda: not waiting.is_alive(), "the thread that waits for a decision", 20)

    def test_rung_needs_none(self, ends: tuple[PipeChannel, Connection]) -> None:
        channel, agent = ends
        agent.send(assignment(1, Pause(rung=1, step=3)))
        channel.assignments.get()
        assert channel.decision(1, 3, wait=True)
        assert not channel.decision(1, 2, wait=False)
