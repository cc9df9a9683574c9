"""The console command `aimlhpo`: finds the verb, runs it, and turns what goes wrong into a message and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from importlib import import_module
from io import TextIOWrapper

from aimlhpo import __version__
from aimlhpo.cli.arguments import EXIT_CODES, VERBS, find_verb, parse_arguments
from aimlhpo.cli.messages import print_error, print_failure
from aimlhpo.errors import AimlhpoError, ExitCode, file_problem, is_of_files


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code says how it ended. Never raises what the user can cause."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # names and paths may hold what the terminal's encoding does not have
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except SystemExit as leaving:  # argparse, after --help
        code = leaving.code if isinstance(leaving.code, int) else ExitCode.DONE
    except AimlhpoError as error:
        print_failure(error)
        code = error.exit_code
    except KeyboardInterrupt:
        print_error("interrupted")
        code = ExitCode.INTERRUPTED
    except BrokenPipeError:
        # The reader of our output (`| head`) has seen enough; keep Python from complaining at its end.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = ExitCode.DONE
    except Exception as error:  # noqa: BLE001  whatever nobody foresaw is reported as a bug
        if isinstance(error, OSError) and is_of_files(error):
            print_error(str(file_problem(error)))
            return int(ExitCode.CONFIG)
        traceback.print_exc()
        print_error("this is a bug in aimlhpo, please report it with the lines above")
        code = ExitCode.INTERNAL
    return int(code)


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_help())
        return ExitCode.DONE if argv else ExitCode.CONFIG
    if argv[0] in ("-V", "--version"):
        print(f"aimlhpo {__version__}")
        return ExitCode.DONE
    verb = find_verb(argv[0])
    arguments = parse_arguments(argv[0], argv[1:])
    module = f"aimlhpo.cli.verbs.{verb.module}"
    with ExitStack() as resources:
        given = (arguments,) if verb.load is None else (verb.load(arguments, resources), arguments)
        return int(getattr(import_module(module), f"run_{argv[0]}")(*given))


def _help() -> str:
    verbs = "\n".join(f"  {name:<10}{verb.summary}" for name, verb in VERBS.items() if verb.summary)
    return (
        "usage: aimlhpo COMMAND ...\n\n"
        "Hyperparameter optimization on one machine or on a SLURM cluster.\n\n"
        f"commands:\n{verbs}\n\n"
        "  aimlhpo COMMAND --help tells more.\n\n"
        "example:\n  aimlhpo optimize hyperparameters.yml model.yml --local 2\n\n"
        f"{EXIT_CODES.rstrip()}"
    )


if __name__ == "__main__":
    sys.exit(main())
