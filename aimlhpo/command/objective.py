"""The objective of a study with `command`: runs the program once for each trial."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from aimlhpo.base_objective import BaseObjective
from aimlhpo.command import family, guard
from aimlhpo.command.arguments import arguments
from aimlhpo.command.output import number, step_of
from aimlhpo.command.program import Program, patient_worker
from aimlhpo.command.spec import CommandSpec, find_program
from aimlhpo.command.template import CHECKPOINT_DIR, CONFIG, CONFIG_JSON, PYTHON, TRIAL
from aimlhpo.errors import ObjectiveError
from aimlhpo.outcome import MissingMetric, OutcomeError, Pruned

_ERROR_LINES = 15
_OUT_OF_MEMORY = ("OutOfMemoryError", "ResourceExhaustedError", "MemoryError", "CUDA out of memory")


class ProgramFailed(OutcomeError):
    """The program could not be started, or ended with an exit code or a signal."""


class CommandObjective(BaseObjective):
    """Any program as the objective."""

    def __init__(self, spec: CommandSpec, study: Any, config: Mapping[str, Any], metric: str | list[str]) -> None:
        """Raises ObjectiveError where there is no such program in the worker's environment."""
        super().__init__(study, config, metric)
        self._spec = spec
        program = spec.words[0]
        if find_program(program, spec.working_directory, spec.environment()) is None:
            raise ObjectiveError(
                f"optuna: command: no program {program!r} on PATH of the worker, or in {spec.working_directory}.\n"
                "    Name one that is there (in SLURM jobs, slurm: bash may load it)."
            )
        self._guarded = guard.start()
        family.adopt_orphans()

    def train(self, trial: Any, conf: dict[str, Any]) -> dict[str, Any]:
        """Run the program to its end; returns the last value of everything it printed.

        Raises ProgramFailed, MissingMetric or Pruned.
        """
        metrics: dict[str, Any] = {}
        trial.record_results(metrics)
        try:
            self._run(trial, conf, metrics)
        finally:
            trial.record_results(metrics)
        self._check(metrics)
        return metrics

    def _run(self, trial: Any, conf: Mapping[str, Any], metrics: dict[str, Any]) -> None:
        with patient_worker() as told_to_end, self._files(trial, conf) as lookup:
            line = arguments(self._spec.words, lambda: trial.params, self._spec.pass_as, lookup)
            with self._start(line, trial, told_to_end) as program:
                pruned = self._follow(program, trial, metrics)
            if told_to_end():
                os._exit(128 + signal.SIGTERM)  # the agent has given the trial back: there is no result
            if pruned:
                raise Pruned
            _judge(program)

    def _start(self, line: list[str], trial: Any, told_to_end: Callable[[], bool]) -> Program:
        try:
            return Program(self._spec, line, self._guarded | _variables(trial), told_to_end)
        except (OSError, ValueError) as error:
            reason = _reason(error, line[0])
            raise ProgramFailed(f"cannot start {line[0]}: {reason}", f"cannot start {line}: {reason}") from None

    def _follow(self, program: Program, trial: Any, metrics: dict[str, Any]) -> bool:
        """Read the program's output to its end; whether it was pruned."""
        reported = False
        for record in program.events():
            if record is not None:
                metrics.update(record)
                reported = self._report(record, trial) or reported
            if reported and not program.stopping and trial.should_prune():
                program.stop()
        return program.stopping

    def _report(self, record: Mapping[str, Any], trial: Any) -> bool:
        """Report the metric that the study is pruned by, where the record has it, and a step."""
        metric = self.study.reported_metric
        if metric is None:
            return False
        value, step = number(record.get(metric)), step_of(record)
        if value is None or step is None:
            return False
        trial.report(value, step)
        return True

    @contextmanager
    def _files(self, trial: Any, conf: Mapping[str, Any]) -> Iterator[Callable[[str], Any]]:
        """The value of a placeholder; files that were made for one are gone afterwards."""
        made: list[Path] = []

        def lookup(name: str) -> Any:
            if name in (CONFIG, CONFIG_JSON):
                made.append(self._write_config(trial.number, conf, as_json=name == CONFIG_JSON))
                return str(made[-1])
            if name in (CHECKPOINT_DIR, PYTHON):
                return str(trial.checkpoint_dir) if name == CHECKPOINT_DIR else sys.executable
            return trial.number if name == TRIAL else trial.suggest(name)

        try:
            yield lookup
        finally:
            for path in made:
                with suppress(FileNotFoundError):
                    path.unlink()
            with suppress(OSError):  # it stays where the program wrote something into it
                trial.checkpoint_dir.rmdir()

    def _write_config(self, number: int, conf: Mapping[str, Any], *, as_json: bool) -> Path:
        """The model configuration with the trial's values, without the study's own part."""
        from aimlhpo.config.yaml_loader import dump_yaml

        model = {key: value for key, value in conf.items() if key != "optuna"}
        folder = Path(self._spec.files)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"trial-{number:05d}.{'json' if as_json else 'yml'}"
        path.write_text(json.dumps(model, indent=2, default=str) if as_json else dump_yaml(model), encoding="utf-8")
        return path

    def _check(self, metrics: Mapping[str, Any]) -> None:
        for name in [self.metric] if isinstance(self.metric, str) else self.metric:
            if name not in metrics:
                printed = ", ".join(metrics) or "nothing"
                raise MissingMetric(
                    f"missing metric: {name}; printed: {printed}",
                    f'the program printed no line such as {{"{name}": 0.5}} on its standard output; '
                    f"metrics that it printed: {printed}",
                )


def _variables(trial: Any) -> dict[str, str]:
    """What the program finds in its environment; `aimlhpo.report` and `aimlhpo.checkpoint_dir` read it."""
    return {
        "AIMLHPO_TRIAL": str(trial.number),
        "AIMLHPO_ATTEMPT": str(trial.attempt),
        "AIMLHPO_SEED": str(trial.seed),
        "AIMLHPO_CHECKPOINT_DIR": str(trial.checkpoint_dir),
    }


def _reason(error: OSError | ValueError, program: str) -> str:
    """Why the program did not start; it may be its working directory that is missing."""
    if not isinstance(error, OSError):
        return str(error)
    other = error.filename if error.filename not in (None, program) else None
    return f"{error.strerror}" + (f": {other}" if other else "")


def _judge(program: Program) -> None:
    code = program.code()
    if code == 0:
        return
    cause = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    lines = program.tail.decode(errors="replace").splitlines()[-_ERROR_LINES:]
    if any(word in line for line in lines for word in _OUT_OF_MEMORY):
        cause = "out of memory"
    said = "its last words on standard error:\n" + "\n".join(lines) if lines else "it wrote nothing to standard error"
    raise ProgramFailed(cause, f"the program ended with {cause}; {said}")
