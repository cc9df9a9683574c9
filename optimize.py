#!/usr/bin/env python3
"""Tune a model: `python optimize.py hyperparameters.yml model.yml`. The same as `aimlhpo optimize`."""

from __future__ import annotations

import sys

from aimlhpo.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["optimize", *sys.argv[1:]]))
