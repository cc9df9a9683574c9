"""`aimlhpo schema`: the JSON schema that editors complete and check the hyperparameter file with."""

from __future__ import annotations

from argparse import Namespace

from aimlhpo.check.json_schema import json_schema
from aimlhpo.cli.messages import print_json
from aimlhpo.errors import ExitCode


def run(arguments: Namespace) -> int:
    print_json(json_schema())
    return ExitCode.DONE
