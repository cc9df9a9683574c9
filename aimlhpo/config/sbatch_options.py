"""The options of sbatch (SLURM 22.05 and later), and the `batch:` mapping brought to their long names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

from aimlhpo.config.fields import CONTROL
from aimlhpo.errors import Problem, did_you_mean, key_path, show

OptionValue = str | list[str] | None

SHORT = {
    "A": "account", "a": "array", "B": "extra-node-info", "b": "begin", "C": "constraint", "c": "cpus-per-task",
    "D": "chdir", "d": "dependency", "e": "error", "F": "nodefile", "G": "gpus", "H": "hold", "h": "help",
    "i": "input", "J": "job-name", "k": "no-kill", "L": "licenses", "M": "clusters", "m": "distribution",
    "N": "nodes", "n": "ntasks", "O": "overcommit", "o": "output", "p": "partition", "Q": "quiet", "q": "qos",
    "S": "core-spec", "s": "oversubscribe", "t": "time", "V": "version", "v": "verbose", "W": "wait",
    "w": "nodelist", "x": "exclude",
}  # fmt: skip

WITH_VALUE = frozenset([
    "account", "acctg-freq", "array", "batch", "bb", "bbf", "begin", "chdir", "cluster-constraint", "clusters",
    "comment", "constraint", "container", "container-id", "core-spec", "cores-per-socket", "cpu-freq",
    "cpus-per-gpu", "cpus-per-task", "deadline", "delay-boot", "dependency", "distribution", "error", "exclude",
    "export", "export-file", "extra", "extra-node-info", "gid", "gpu-bind", "gpu-freq", "gpus", "gpus-per-node",
    "gpus-per-socket", "gpus-per-task", "gres", "gres-flags", "hint", "input", "job-name",
    "kill-on-invalid-dep", "licenses", "mail-type", "mail-user", "mcs-label", "mem", "mem-bind", "mem-per-cpu",
    "mem-per-gpu", "mincpus", "network", "nodefile", "nodelist", "nodes", "ntasks", "ntasks-per-core",
    "ntasks-per-gpu", "ntasks-per-node", "ntasks-per-socket", "oom-kill-step", "open-mode", "output",
    "partition", "power", "prefer", "priority", "profile", "qos", "reservation", "segment", "signal",
    "sockets-per-node", "switches", "thread-spec", "threads-per-core", "time", "time-min", "tmp", "tres-bind",
    "tres-per-task", "uid", "wait-all-nodes", "wckey", "wrap",
])  # fmt: skip
WITHOUT_VALUE = frozenset([
    "consolidate-segments", "contiguous", "help", "hold", "ignore-pbs", "no-requeue", "overcommit",
    "oversubscribe", "parsable", "quiet", "reboot", "requeue", "resv-ports", "spread-job", "spread-segments",
    "stepmgr", "test-only", "usage", "use-min-nodes", "verbose", "version", "wait",
])  # fmt: skip
VALUE_OPTIONAL = frozenset(("exclusive", "get-user-env", "nice", "no-kill", "propagate"))
OPTIONS = WITH_VALUE | WITHOUT_VALUE | VALUE_OPTIONAL

_PLUGIN = re.compile(r"^--[A-Za-z][A-Za-z0-9_-]*$")
_LEGAL = "any option of sbatch by long name or short letter; one of a site's own plugins with its dashes (--name)"


def long_name(key: str) -> str | None:
    """The option's long name without dashes, or None for an option that sbatch does not have.

    An option of a site's own plugins, written with its dashes, is believed.
    """
    bare = key[2:] if _PLUGIN.match(key) else key
    name = SHORT.get(bare, bare) if bare == key else bare
    return name if name in OPTIONS or bare != key else None


def normalise(
    batch: Mapping[Any, Any], here: Sequence[str] = ("slurm", "batch")
) -> tuple[dict[str, OptionValue], list[Problem]]:
    """Options by long name with text values, and every mistake. `option: false` leaves the option out.

    `here` is where the options stand, for messages.
    """
    options: dict[str, OptionValue] = {}
    given: dict[str, str] = {}
    problems: list[Problem] = []
    for key, value in batch.items():
        name, where = long_name(str(key)), key_path(*here, key)
        if name is None and CONTROL.search(str(key)):
            found = "holds a line break or another control character"
            problems.append(Problem(key_path(*here, show(str(key))), found, _LEGAL))
        elif name is None:
            near = did_you_mean(str(key).lstrip("-").replace("_", "-"), OPTIONS)
            problems.append(Problem(where, "sbatch has no such option", _LEGAL, near))
        elif name in given:
            found = f"is the same option as {given[name]}"
            problems.append(Problem(where, found, "each option once; a list repeats it"))
        else:
            given[name] = str(key)
            if isinstance(value, list) and not value:
                problems.append(Problem(where, "is an empty list", "at least one value"))
            values = value if isinstance(value, list) else [value]
            mistakes = [_mistake(name, item) for item in values]
            problems += [Problem(where, *mistake) for mistake in mistakes if mistake]
            if value is not False:
                texts = [_text(name, item) for item in values]
                kept = [text for text in texts if text is not None]
                options[name] = (kept or None) if isinstance(value, list) else texts[0]
    return ({} if problems else options), problems


def _mistake(name: str, value: Any) -> tuple[str, str] | None:
    """What was found and what is legal, where a value does not fit its option."""
    if value is False or (name == "kill-on-invalid-dep" and value is True):
        return None
    if value is None or value is True:
        return ("has no value", f"a value: sbatch's --{name} needs one") if name in WITH_VALUE else None
    if isinstance(value, dict | list):
        return f"{show(value)} is not a value", "text or a number; a list repeats the option"
    if name in WITHOUT_VALUE:
        return f"{show(value)} is given", f"true or null: sbatch's --{name} takes no value"
    if CONTROL.search(str(value)):
        return "holds a line break or another control character", "one line of printable characters"
    return ("is empty", "a value") if not str(value).strip() else None


def _text(name: str, value: Any) -> str | None:
    if name == "kill-on-invalid-dep" and isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value is True:
        return None
    return value.isoformat() if isinstance(value, date | datetime) else str(value)
