"""`export_trial`: a directory with what somebody else needs to train a trial's configuration again.

model.yml           the configuration as train() got it
trial.json          the trial's number, seed and parameters, and the values that it reached
objective.py, ...   the objective with the modules beside it that it imports; of a `command`, its script
train.py            trains it (`aimlhpo.worker.exported`); of a `command`, run.sh with the command line
requirements.txt    the versions that the trial ran with
README.md           what to type, and what to expect
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from modulefinder import ModuleFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import distribution_to_json
from optuna.trial import FrozenTrial, TrialState

from aimlhpo import __version__
from aimlhpo.config.command import (
    CHECKPOINT_DIR,
    CONFIG,
    CONFIG_JSON,
    MASTER_ADDR,
    MASTER_PORT,
    NNODES,
    NODE_RANK,
    PYTHON,
    TRIAL,
    arguments,
    command_spec,
    placeholders,
)
from aimlhpo.config.yaml import dump_yaml
from aimlhpo.errors import ConfigError, Problem, show_number
from aimlhpo.objective.messages import CommandSpec
from aimlhpo.results.best import best_or_proven
from aimlhpo.results.confirmation import read_confirmation
from aimlhpo.space.model_paths import substitute
from aimlhpo.space.search_space import SearchSpace
from aimlhpo.storage.attributes import PROVENANCE, STUDY_ATTR, record_of, study_attributes
from aimlhpo.storage.base import trial_seed
from aimlhpo.storage.trials import CONFIRMED, is_own, origin, read_record

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config

_OF_THIS_MACHINE = ("storage", "save_path", "objective", "command", "working_directory", "environment",
                    "warm_start_from", "reload")  # fmt: skip
"""Keys of the `optuna` section that mean nothing elsewhere, or are none of its business."""
_ONE_NODE = {NNODES: "1", NODE_RANK: "0", MASTER_ADDR: "127.0.0.1", MASTER_PORT: "29500"}
_VARIABLE = re.compile(r"(\$\{[A-Za-z_][A-Za-z0-9_]*\})")
_RUNNER = '''\
"""Trains the configuration of {title} again: python {name}"""

import sys
from pathlib import Path

from aimlhpo.worker.exported import train_again

if __name__ == "__main__":
    sys.exit(train_again(Path(__file__).resolve().parent))
'''


@dataclass(frozen=True)
class Export:
    """What was written: the trial's number, the files, and what the user should know of them, in sentences."""

    number: int
    files: tuple[Path, ...]
    notes: tuple[str, ...]


def export_trial(study: optuna.Study, config: Config, directory: Path, number: int | None = None) -> Export:
    """Write the directory for a complete trial; without a number, for the one that was proven, or else the best.

    Raises ConfigError where there is no such trial, where the directory holds something, or where the objective's file
    is gone; OSError.
    """
    trial = _find(study, config, number)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        found = "is there already, and is not empty" if directory.is_dir() else "is a file"
        raise ConfigError(Problem(str(directory), found, "a directory that is new or empty"))
    spec = command_spec(config)
    source = Path(spec.source if spec is not None else config.optuna.objective or "")
    if spec is None and not source.is_file():
        raise ConfigError(Problem("optuna: objective", f"no such file: {source}", "the file that the study ran with"))
    root = Path(spec.working_directory) if spec is not None else source.parent
    copied, notes = _sources(source, root)
    directory.mkdir(parents=True, exist_ok=True)
    for file in copied:
        (directory / file.relative_to(root)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, directory / file.relative_to(root))
    title = f"trial {trial.number} of study {config.optuna.study_name}"
    # What the trial ran on, where that is known.
    provenance = study_attributes(study).get(f"{PROVENANCE}{record_of(trial).get('provenance')}") or {}
    notes += _notes(trial, provenance, source)
    texts = {
        "model.yml": dump_yaml(_model(trial, config)),
        "trial.json": _json(_description(study, trial, config, source)),
        "requirements.txt": "\n".join(_requirements(title, provenance)) + "\n",
    }
    if spec is None:
        taken = {file.relative_to(root).as_posix() for file in copied}
        runner = next(name for name in ("train.py", "train_again.py", "run_trial.py") if name not in taken)
        texts[runner], command = _RUNNER.format(title=title, name=runner), f"python {runner}"
    else:
        texts["run.sh"], command = _script(study, trial, config, spec, title), "sh run.sh"
        if spec.variables:
            notes.append(f"run.sh sets {', '.join(spec.variables)}, as `environment` does in the study")
        used = {name for word in spec.words for name in placeholders(word)}
        if of_nodes := [name for name in _ONE_NODE if name in used]:
            given = ", ".join(f"{{{name}}} is {_ONE_NODE[name]}" for name in of_nodes)
            notes.append(f"run.sh trains on this machine alone: {given}")
        if CONFIG_JSON in used:
            texts["config.json"] = _json(_model(trial, config))
    names = sorted([*texts, *(file.relative_to(root).as_posix() for file in copied)])
    texts["README.md"] = _readme(study, trial, config, title, command, names, notes, provenance)
    for name, text in texts.items():
        (directory / name).write_text(text, encoding="utf-8")
    return Export(trial.number, tuple(directory / name for name in ["README.md", *names]), tuple(notes))


def _find(study: optuna.Study, config: Config, number: int | None) -> FrozenTrial:
    where, trials = str(config.paths.save_path), study.get_trials(deepcopy=False)
    if number is None:
        best = best_or_proven(study, read_confirmation(study))
        if not best:
            raise ConfigError(Problem(where, "no trial is complete, or none keeps the constraints", "--trial N"))
        return best[0]
    if not 0 <= number < len(trials):
        raise ConfigError(Problem("--trial", f"there is no trial {number}", f"a number from 0 to {len(trials) - 1}"))
    if trials[number].state != TrialState.COMPLETE:
        found = f"trial {number} is {trials[number].state.name}, and has reached no value"
        raise ConfigError(Problem("--trial", found, f"a complete trial: aimlhpo top {where}"))
    return trials[number]


# --- the sources ---


def _sources(source: Path, root: Path) -> tuple[list[Path], list[str]]:
    """The file and the modules that it imports from beside it, all below `root`, and notes on what is not there."""
    if not source.is_file() or not source.resolve().is_relative_to(root.resolve()):
        return [], [f"{source} is not copied: it does not lie in {root}"]
    if source.suffix != ".py":
        return [source], []
    finder = ModuleFinder(path=[str(source.parent)])
    try:
        finder.run_script(str(source))
    except (SyntaxError, ValueError) as error:
        return [source], [f"the modules that {source.name} imports are not copied: {error}"]
    found = (getattr(module, "__file__", None) for module in finder.modules.values())
    files = {Path(file) for file in found if file}
    return sorted({source, *(file for file in files if file.is_relative_to(root) and file.is_file())}), []


def _notes(trial: FrozenTrial, provenance: Mapping[str, Any], source: Path) -> list[str]:
    notes = []
    known = provenance.get("objective_sha256")
    if known is not None and source.is_file() and hashlib.sha256(source.read_bytes()).hexdigest() != known:
        notes.append(f"{source.name} has changed since the trial was made, so another value may come out")
    if not is_own(trial):
        notes.append(f"the trial is {origin(trial)}, whose seed is not known here, so another value may come out")
    elif not provenance:
        notes.append("the study holds no versions for this trial: requirements.txt names none")
    return notes


def _requirements(title: str, provenance: Mapping[str, Any]) -> Iterator[str]:
    yield f"# What {title} ran with" + (f", on Python {provenance['python']}." if provenance else " is not known.")
    packages = dict(provenance.get("packages", {}))
    version = packages.pop("aimlhpo", __version__)
    yield f"# Besides these: aimlhpo {version}."
    yield from (f"{name}=={version}" for name, version in sorted(packages.items()))


# --- the trial ---


def _seed(study: optuna.Study, trial: FrozenTrial) -> int:
    mark = trial.system_attrs.get(CONFIRMED)
    if mark is not None:
        return int(mark["seed"])
    return trial_seed(study_attributes(study).get(STUDY_ATTR, {}).get("seed", 0), trial.number)


def _model(trial: FrozenTrial, config: Config) -> dict[str, Any]:
    """The model configuration as the trial got it, before the objective changed anything in it."""
    space: SearchSpace = config.space
    model = space.assign(config.model, space.values(trial.params))
    mark = trial.system_attrs.get(CONFIRMED)
    if mark is not None:
        model = substitute(model, dict.fromkeys(mark["keys"], mark["seed"]))
    return {key: value for key, value in model.items() if str(key).partition(":")[0] != "optuna"}


def _description(study: optuna.Study, trial: FrozenTrial, config: Config, source: Path) -> dict[str, Any]:
    """What train.py needs besides the model configuration."""
    options, space = config.optuna, config.space
    values = space.values(trial.params)
    section = {key: value for key, value in config.hyperparameters["optuna"].items() if key not in _OF_THIS_MACHINE}
    reported = options.reported_metric
    return {
        "study": options.study_name,
        "number": trial.number,
        "seed": _seed(study, trial),
        "metric": list(options.metric),
        "direction": list(options.direction),
        "reported_metric": None if reported is None else options.metric[reported],
        "expected": dict(zip(options.metric, trial.values or (), strict=False)),
        "gpu": options.gpu,
        "objective": source.name if options.command is None else None,
        "parameters": {name: value for name, value in values.items() if name in space.by_name},
        "undeclared": {name: value for name, value in values.items() if name not in space.by_name},
        "names": {parameter.key: parameter.name for parameter in space.parameters},
        "settings": {parameter.name: dict(parameter.settings) for parameter in space.parameters},
        "plain": [parameter.name for parameter in space.parameters if parameter.path is None],
        "distributions": {name: distribution_to_json(d) for name, d in space.distributions.items()},
        "optuna": section,
    }


def _json(data: Any) -> str:
    return json.dumps(data, indent=2, default=str) + "\n"


def _script(study: optuna.Study, trial: FrozenTrial, config: Config, spec: CommandSpec, title: str) -> str:
    """A shell script that runs the program as a worker does."""
    values = config.space.values(trial.params)
    named = {parameter.key: parameter.name for parameter in config.space.parameters}
    places = {
        CONFIG: "model.yml", CONFIG_JSON: "config.json", CHECKPOINT_DIR: "checkpoint", PYTHON: "python",
        TRIAL: trial.number, **_ONE_NODE,
    }  # fmt: skip

    def lookup(name: str) -> Any:
        return places[name] if name in places else values[named.get(name, name)]

    words = arguments(spec.words, lambda: values, spec.pass_as, lookup)
    variables = {
        "PYTHONUNBUFFERED": "1",
        **spec.variables,
        "AIMLHPO_TRIAL": str(trial.number),
        "AIMLHPO_ATTEMPT": "1",
        "AIMLHPO_SEED": str(_seed(study, trial)),
    }
    exports = [f"export {name}={_quoted(value)}" for name, value in variables.items()]
    exports.append('export AIMLHPO_CHECKPOINT_DIR="$PWD/checkpoint"')
    head = ["#!/bin/sh", f"# {title}", 'cd "$(dirname "$0")" && mkdir -p checkpoint || exit 1']
    return "\n".join([*head, *exports, f"exec {shlex.join(words)}"]) + "\n"


def _quoted(value: str) -> str:
    """A word of a shell script in which `${VARIABLES}` are replaced, and nothing else."""
    parts = _VARIABLE.split(value)
    return "".join(f'"{part}"' if _VARIABLE.fullmatch(part) else shlex.quote(part) for part in parts if part) or "''"


# --- in words ---


def _readme(
    study: optuna.Study,
    trial: FrozenTrial,
    config: Config,
    title: str,
    command: str,
    files: list[str],
    notes: list[str],
    provenance: Mapping[str, Any],
) -> str:
    record = read_record(trial, config.optuna.metric)
    reached = ", ".join(f"{name} {record.metrics.get(name)!r}" for name in config.optuna.metric)
    confirmation = read_confirmation(study)
    confirmed = confirmation.of(trial.number) if confirmation is not None else None
    python = provenance.get("python", "(version unknown)")
    lines = [
        f"# {title[:1].upper()}{title[1:]}",
        "",
        f"Install what it needs, for Python {python} with aimlhpo {__version__}, and train:",
        "",
        "```console",
        "$ pip install -r requirements.txt",
        f"$ {command}",
        "```",
        "",
        f"Expected: {reached}, with the seed {_seed(study, trial)}. It may differ in its last digits with",
        "other versions or other hardware, and further where the training is not deterministic.",
    ]
    if confirmed is not None and confirmed.mean is not None:
        spread = "" if confirmed.spread is None else f", standard deviation {show_number(confirmed.spread)}"
        count = len(confirmed.values)
        lines += ["", f"With other seeds: mean {show_number(confirmed.mean)}{spread} over {count} trainings."]
    if record.updates:
        changed = ", ".join(record.updates)
        lines += ["", f"model.yml is the configuration that train() is given; it then changes in it: {changed}."]
    if record.device and "," in record.device:
        kind = "GPUs" if record.device.startswith("gpu") else "processes or nodes"
        lines += ["", f"The trial trained with several {kind} ({record.device}); here it trains with one."]
    lines += ["", "Files:", "", *(f"- `{name}`" for name in files)]
    lines += ["", "Not here: data, modules that are not imported from beside the objective, and what they read."]
    lines += [f"Note: {note}." for note in notes]
    return "\n".join(lines) + "\n"
