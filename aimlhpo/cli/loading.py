"""From a parsed command line to the configuration that it names, while the objective is imported.

Nothing here imports Optuna before the configuration is known to be right, so that mistakes in the YAML files appear at
once.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING

from aimlhpo.agent.fork_server import ForkServer
from aimlhpo.errors import ConfigError, DeviceError, Problem, listing
from aimlhpo.worker.devices import Slot, plan_local_slots, ranks_of

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config

FLAGS = (
    ("-n", "--name", "name", "NAME", "name of the study"),
    ("-r", "--reload", "reload", "1|0", "1: go on with the study, 0: it must be new"),
    ("-o", "--objective", "objective", "FILE", "the Python file that holds class Objective"),
    ("-d", "--direction", "direction", "WAY", "minimize or maximize"),
    ("-m", "--metric", "metric", "NAME", "the metric that train() returns"),
    ("-t", "--n-trials", "n_trials", "N", "number of trials to finish, complete and pruned"),
    ("-g", "--gpu", "gpu", "1|0", "1: each worker has a GPU of its own, 0: no GPU is used"),
    ("-s", "--save-path", "save_path", "DIR", "directory for results, logs and state"),
)
"""Short and long flag, key of the `optuna` section, and help for the keys that change most."""


def load_files(arguments: Namespace, when_read: Callable[[Config], None] = lambda config: None) -> Config:
    """The configuration in both YAML files and on the command line. Raises ConfigError with all problems.

    `when_read` gets the configuration where each key is right by itself, before the checks that load Optuna.
    """
    from aimlhpo.check.settings import load_config

    given = {key: getattr(arguments, key) for _, _, key, _, _ in FLAGS}
    flags = {key: value for key, value in given.items() if value is not None}
    return load_config(arguments.hyperparameters, arguments.model, arguments.overrides, flags, when_read)


def load_files_and_objective(arguments: Namespace, resources: ExitStack) -> Config:
    """The same, while the objective is imported in the process that workers will be forked of.

    That process is started first of all, because the objective's imports take longest. Where the study trains here,
    they find the environment of the first slot.
    """
    arguments.fork_server = resources.enter_context(ForkServer())
    local, workers = arguments.local is not None, number_of_workers(arguments)
    return load_files(arguments, partial(import_objective, arguments.fork_server, workers=workers, local=local))


def import_objective(fork_server: ForkServer, config: Config, *, workers: int | None, local: bool) -> None:
    """Have the objective imported, while the configuration is checked."""
    slot = Slot(0, ranks=ranks_of(config))
    if config.slurm is None or local:
        with suppress(DeviceError):  # the check reports it
            slot = plan_local_slots(config, workers)[0]
    fork_server.load(config.optuna.objective or "", slot.environment())


def number_of_workers(arguments: Namespace) -> int | None:
    """The number that --local gives; None where it gives none."""
    return arguments.local if isinstance(arguments.local, int) else None


def keys_given(arguments: Namespace, config: Config) -> set[str]:
    """The keys of the hyperparameter YAML that the command line gives, as `section:key` or `slurm:NAME:key`."""
    given = {f"optuna:{key}" for _, _, key, _, _ in FLAGS if getattr(arguments, key) is not None}
    names = {str(position): section.name for position, section in enumerate(config.sections)}
    for text in arguments.overrides:
        key = text.partition("=")[0]
        section, *path = (key if key.startswith("slurm:") else key.replace(".", ":")).split(":")
        if section == "slurm" and len(path) > 1:  # in a list, the name of a section or its position comes first
            given.add(f"slurm:{names.get(path[0]) or path[0]}:{path[1]}")
        given.add(":".join([section, *path[:1]]))
    return given


def about_section(config: Config, arguments: Namespace) -> Config:
    """The configuration for the section that --section names. Raises ConfigError where --jobs needs one."""
    if arguments.section is not None:
        return config.in_section(arguments.section)
    if arguments.jobs is not None and len(config.sections) > 1:
        names = listing(section.name or "" for section in config.sections)
        raise ConfigError(Problem("--jobs", "the study has several sections of jobs", f"--section, too: {names}"))
    return config


def load_study(arguments: Namespace, resources: ExitStack) -> Config:
    """The configuration of the study that the command line names. Raises ConfigError where there is no study."""
    from aimlhpo.config.load import load_target

    return load_target(arguments.study)
