"""A real browser that opens a report from the disk and works it as a reader would."""

from __future__ import annotations

import html
import json
import re
import subprocess
from pathlib import Path
from typing import Any

from tests.servers import find_program

OPTIONS = (
    "--headless=new", "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--enable-logging=stderr", "--virtual-time-budget=60000", "--dump-dom",
)  # fmt: skip
PROBE = Path(__file__).with_name("probe.js")


def browse(report: Path, folder: Path, width: int = 1280) -> dict[str, Any]:
    """What probe.js finds on the page, in a window that is `width` pixels wide; no error may be on the console.

    The console would also name what the page's policy keeps from being requested.
    """
    page = folder / f"probed-{width}.html"
    page.write_text(report.read_text().replace("</body>", f"<script>{PROBE.read_text()}</script></body>"))
    window = f"--window-size={width},12000", f"--user-data-dir={folder / 'profile'}"
    command = [find_program("chromium"), *OPTIONS, *window, page.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert "CONSOLE" not in shown.stderr, shown.stderr
    found: dict[str, Any] = json.loads(
        html.unescape(re.findall(r'<meta name="probe" content="([^"]*)"', shown.stdout)[-1])
    )
    return found
