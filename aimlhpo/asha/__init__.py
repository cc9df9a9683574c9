"""Asynchronous successive halving, after Li et al., "A System for Massively Parallel Hyperparameter Tuning" (2020).

rungs       at which resources trials are compared, and who is among the best there; pure
pruner      ASHA as a pruner of Optuna: stops the trials that lag at a rung
promotion   ASHA by promotion: which paused trial goes on, asked by the ledger at every claim
"""

from aimlhpo.asha.promotion import Promotion
from aimlhpo.asha.pruner import ASHA

__all__ = ["ASHA", "Promotion"]
