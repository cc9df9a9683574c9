"""`python -m aimlhpo` is the console command."""

from __future__ import annotations

import sys

from aimlhpo.cli.main import main

sys.exit(main())
