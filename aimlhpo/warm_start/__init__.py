"""What a study knows before its first trial: the model's own values, and the finished trials of another study.

defaults    the model YAML's values of the searched keys, as a trial to run first
source      the other study: where it lies, and whether its trials say anything about this one
fitting     one trial of another study as a trial of this one, or why that cannot be
taking      all of them, once over all starts
"""

from aimlhpo.warm_start.defaults import default_trial
from aimlhpo.warm_start.source import Source, find_source
from aimlhpo.warm_start.taking import Account, account_of, accounts, is_done, take_over

__all__ = ["Account", "Source", "account_of", "accounts", "default_trial", "find_source", "is_done", "take_over"]
