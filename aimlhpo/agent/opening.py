"""What an agent works on: its study, and the ledger of it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from aimlhpo.asha import Promotion
from aimlhpo.backends import OwnedStorage, own
from aimlhpo.grid import queue_of
from aimlhpo.leases import Holder, Registry, Word
from aimlhpo.ledger import Ledger
from aimlhpo.patience import Patience
from aimlhpo.sampling.sampler import sampler_of
from aimlhpo.stopping import make_stops
from aimlhpo.storage import STUDY_ATTR, load_study
from aimlhpo.strategies import make_pruner

if TYPE_CHECKING:
    import optuna

    from aimlhpo.config import Config


def open_study(config: Config, patience: Patience) -> tuple[optuna.Study, OwnedStorage]:
    """The study with its sampler and its pruner, on a storage that remembers what this agent holds.

    Raises ConfigError, or StorageError when an outage outlasts the patience.
    """
    study = patience.run(partial(load_study, config, pruner=make_pruner(config.optuna.pruner)))
    study.sampler = sampler_of(config, study.user_attrs[STUDY_ATTR]["seed"])
    study._storage = storage = own(study._storage)
    return study, storage


def make_ledger(config: Config, study: optuna.Study, holder: Holder, word: Word) -> Ledger:
    """The ledger for the agent that `holder` names; `word` is the cluster's on other agents."""
    options, leases = config.optuna, config.paths.leases
    return Ledger(
        study,
        config.paths,
        options.n_trials,
        holder.agent,
        Registry(leases, options.grace_period, holder, word),
        max_retries=options.max_retries,
        max_interruptions=options.max_interruptions,
        queue=queue_of(study, config),
        stops=make_stops(study, config),
        promotion=Promotion.of(study, options.reported_metric),
    )
