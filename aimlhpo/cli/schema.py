"""`aimlhpo schema`: the JSON schema that editors complete and check the hyperparameter file with."""

from __future__ import annotations

from collections.abc import Sequence

from aimlhpo.cli.arguments import make_parser
from aimlhpo.cli.messages import as_json
from aimlhpo.errors import ExitCode


def run(argv: Sequence[str]) -> int:
    summary = "Print the JSON schema of the hyperparameter file."
    make_parser("schema", summary, "aimlhpo schema > hyperparameters.schema.json").parse_args(argv)
    from aimlhpo.check.json_schema import json_schema

    as_json(json_schema())
    return ExitCode.DONE
