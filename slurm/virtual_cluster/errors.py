"""The one error that the `cluster` command tells without a traceback."""

from __future__ import annotations


class ClusterError(Exception):
    """What is wrong, and what to do about it."""
