"""The documentation site, built as `make docs` does: whole, searched without a server, asking nobody for anything."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

import aimlhpo
from tests.servers import find_program

ROOT = Path(__file__).resolve().parents[1]
LOADED = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}
"""What a browser loads by itself, element by element."""
pytestmark = pytest.mark.xdist_group("site")


class Links(HTMLParser):
    """The places in a page that can be linked to, what it links to, and what a browser loads for it."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.targets: list[str] = []
        self.loaded: list[str] = []
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.targets.append(found["href"])
        elif tag in LOADED and LOADED[tag] in found and found.get("rel") not in ("next", "prev", "canonical"):
            self.loaded.append(found[LOADED[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Links]:
    return {page: Links(page) for page in site.rglob("*.html")}


def shown(page: str, folder: Path) -> str:
    """The page as Chromium has it after its scripts have run; none may complain, and no address may be asked for."""
    options = (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--virtual-time-budget=20000",
        "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder / 'profile'}", "--dump-dom",
    )  # fmt: skip
    done = subprocess.run([find_program("chromium"), *options, page], capture_output=True, text=True, timeout=120)
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    return done.stdout


def test_all_pages_are_there(site: Path) -> None:
    wanted = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    wanted |= {Path("examples", folder.name).with_suffix(".html") for folder in (ROOT / "examples").glob("*/")}
    wanted |= {Path(name) for name in ("slurm-sites.html", "changelog.html", "digits.html", "digits-report.html")}
    assert {path for path in wanted if not (site / path).exists()} == set()


def test_no_link_is_broken(pages: dict[Path, Links]) -> None:
    for page, links in pages.items():
        for target in (*links.targets, *links.loaded):
            parts = urlsplit(target)
            if parts.scheme or page.name == "404.html":  # which a server shows at any address
                continue
            leads_to = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            assert leads_to.exists(), f"{page.name}: {target}"
            if parts.fragment and leads_to in pages:
                assert unquote(parts.fragment) in pages[leads_to].anchors, f"{page.name}: {target}"


def test_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[Path, Links]) -> None:
    for page, links in pages.items():
        assert [target for target in links.loaded if urlsplit(target).netloc] == [], page.name
    for style in site.rglob("*.css"):
        assert re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^)\"']*", style.read_text()) == [], style.name


def test_the_search_knows_the_words_of_the_pages(site: Path) -> None:
    index = json.loads((site / "search/search_index.json").read_text())
    where = {entry["location"].partition("#")[0] for entry in index["docs"] if "preempted" in entry["text"].lower()}
    assert "slurm.html" in where


def test_a_browser_searches_the_site_from_the_disk(site: Path, tmp_path: Path) -> None:
    page = shown(f"{(site / 'index.html').as_uri()}?q=preempted", tmp_path)
    assert re.search(r"\d+ matching documents?", page)
    found = re.findall(r'href="([^"]*)" class="md-search-result__link"', page)
    assert "slurm.html" in {urlsplit(address).path.rpartition("/")[2] for address in found}


def test_the_report_is_that_of_a_real_run(site: Path, tmp_path: Path) -> None:
    budget = yaml.safe_load((ROOT / "examples/torch/hyperparameters.yml").read_text())["optuna"]["n_trials"]
    around, report = ((site / name).read_text() for name in ("digits.html", "digits-report.html"))
    assert f"{budget} of {budget} trials are finished" in around
    assert f"<b>{budget} of {budget}</b>" in report
    assert str(ROOT) not in report
    assert "ready" in shown((site / "digits-report.html").as_uri(), tmp_path)


def test_the_reference_has_every_public_name(pages: dict[Path, Links], site: Path) -> None:
    anchors = pages[site / "reference.html"].anchors
    names = {f"aimlhpo.{name}" for name in aimlhpo.__all__ if not name.startswith("_")}
    assert names - anchors == set(), "docs/reference.md lacks them"
