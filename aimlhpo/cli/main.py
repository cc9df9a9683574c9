"""The console command `aimlhpo`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from types import ModuleType

from aimlhpo.cli.arguments import EXIT_CODES, UsageError
from aimlhpo.cli.messages import bug, error, failure
from aimlhpo.errors import AimlhpoError, ExitCode

VERBS = {
    "optimize": "search for the best configuration, here or on the SLURM cluster",
    "check": "find every mistake before a GPU is spent",
    "status": "how a study stands",
    "watch": "the same, live, until the study ends",
    "submit": "more SLURM jobs for a study that is under way",
    "stop": "cancel a study's SLURM jobs",
    "results": "rebuild results.csv and best.yml from the storage",
    "track": "tell MLflow or TensorBoard of a study's trials",
    "schema": "print the JSON schema of the hyperparameter file",
}
INTERNAL_VERBS = ("agent",)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code says how it ended. Never raises what the user can cause."""
    try:
        code = _dispatch(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except SystemExit as leaving:  # argparse, after --help
        code = leaving.code if isinstance(leaving.code, int) else ExitCode.DONE
    except AimlhpoError as problem:
        failure(problem)
        code = problem.exit_code
    except KeyboardInterrupt:
        error("interrupted")
        code = ExitCode.INTERRUPTED
    except BrokenPipeError:
        code = _reader_left()
    except Exception:  # noqa: BLE001  the last line of defence: told as what it is
        bug()
        code = ExitCode.INTERNAL
    return int(code)


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_help())
        return ExitCode.DONE if argv else ExitCode.CONFIG
    if argv[0] in ("-V", "--version"):
        from aimlhpo import __version__

        print(f"aimlhpo {__version__}")
        return ExitCode.DONE
    return int(_verb(argv[0]).run(argv[1:]))


def _verb(name: str) -> ModuleType:
    if name not in VERBS and name not in INTERNAL_VERBS:
        from aimlhpo.errors import did_you_mean

        guess = did_you_mean(name, VERBS)
        hint = f"\n    did you mean: aimlhpo {guess}" if guess else ""
        raise UsageError(f"aimlhpo has no command {name!r}; it has: {', '.join(VERBS)}{hint}")
    return import_module(f"aimlhpo.cli.{name}")


def _help() -> str:
    verbs = "\n".join(f"  {name:<10}{summary}" for name, summary in VERBS.items())
    return (
        "usage: aimlhpo COMMAND ...\n\n"
        "Hyperparameter optimization on one machine or on a SLURM cluster.\n\n"
        f"commands:\n{verbs}\n\n"
        "  aimlhpo COMMAND --help tells more.\n\n"
        "example:\n  aimlhpo optimize hyperparameters.yml model.yml --local 2\n\n"
        f"{EXIT_CODES.rstrip()}"
    )


def _reader_left() -> int:
    """The reader of our output (`| head`) has seen enough; keep Python from complaining at its end."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
