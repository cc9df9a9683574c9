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
    "--virtual-time-budget=60000", "--dump-dom",
)  # fmt: skip
WATCH, PROBE = Path(__file__).with_name("watch.js"), Path(__file__).with_name("probe.js")
AROUND = """<body><iframe src="{page}" style="border: 0; width: {width}px; height: 12000px"></iframe><script>
addEventListener("message", (told) => {{
  document.head.append(Object.assign(document.createElement("meta"), {{ name: "probe", content: told.data }}));
}});
</script></body>"""
"""A page with the report in a frame, because a window of Chromium is never as narrow as a phone's."""


def browse(report: Path, folder: Path, width: int = 1280) -> dict[str, Any]:
    """What probe.js finds on the page, shown `width` pixels wide; no error may be on the console by then."""
    page = folder / f"probed-{width}.html"
    text = report.read_text().replace("<head>", f"<head><script>{WATCH.read_text()}</script>", 1)
    page.write_text(text.replace("</body>", f"<script>{PROBE.read_text()}</script></body>"))
    around = folder / f"around-{width}.html"
    around.write_text(AROUND.format(page=page.name, width=width))
    window = f"--window-size={width + 100},12100", f"--user-data-dir={folder / 'profile'}"
    command = [find_program("chromium"), *OPTIONS, *window, around.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=240)
    found: dict[str, Any] = json.loads(
        html.unescape(re.findall(r'<meta name="probe" content="([^"]*)"', shown.stdout)[-1])
    )
    assert not found["errors"], "\n".join(found["errors"])
    return found
