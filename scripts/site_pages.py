"""Pages of the documentation site that are no files in docs/: MkDocs calls the functions named `on_...`.

They are made of what lies elsewhere in the repository (the examples, sections for SLURM, the changelog), and of a run
of the torch example, whose report becomes a page. Links to those files are led to their pages.
"""

from __future__ import annotations

import posixpath
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(?<=\]\()(?!https?:|#|mailto:)([^)#\s]+)")
PAGES = {"examples": "examples/index.md", "examples/README.md": "examples/index.md", "slurm/sites": "slurm-sites.md"}
"""Where what lies outside of docs/ is on the site; CHANGELOG.md and the folders of examples come by rule."""
LANGUAGES = {".py": "python", ".yml": "yaml"}
STUDY = "runs/digits"
RUN = ("optimize.py", "examples/torch/hyperparameters.yml", "examples/torch/model.yml", "--local", "2")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made here."""
    made = {
        **dict(example_pages()),
        "slurm-sites.md": sites_page(),
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(),
    }
    for path, text in {**made, **report_of_a_run()}.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links that leave docs/ to the pages of the site."""
    del config, files
    source = page.file.src_uri
    return with_site_links(markdown, f"docs/{source}", source) if (ROOT / "docs" / source).exists() else markdown


def with_site_links(markdown: str, source: str, page: str) -> str:
    """The text with its relative links, which hold for the file `source` of the repository, changed for `page`."""

    def lead(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), found.group(1)))
        return posixpath.relpath(site_path(target), posixpath.dirname(page) or ".")

    return LINK.sub(lead, markdown)


def site_path(target: str) -> str:
    """Where the site has a file or folder of the repository; unknown ones stay, and MkDocs names them."""
    if target in PAGES:
        return PAGES[target]
    if target.startswith("docs/"):
        return target.removeprefix("docs/")
    if target.startswith("examples/") and (ROOT / target).is_dir():
        return f"{target}.md"
    return target


def example_pages() -> Iterator[tuple[str, str]]:
    """The page that lists the examples, and one with the files of each."""
    yield (
        "examples/index.md",
        with_site_links((ROOT / "examples/README.md").read_text(), "examples/README.md", "examples/index.md"),
    )
    for folder in sorted((ROOT / "examples").iterdir()):
        files = [path for path in sorted(folder.glob("*")) if path.suffix in LANGUAGES]
        if files:
            yield f"examples/{folder.name}.md", f"# examples/{folder.name}\n\n" + "\n".join(map(shown_file, files))


def sites_page() -> str:
    """The sections for SLURM, below the table that says what each is for."""
    text = (ROOT / "slurm/README.md").read_text()
    table = re.search(r"^`sites/`.*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if table is None:
        raise PluginError("slurm/README.md no longer says what sites/ holds")
    intro = re.sub(r"\(sites/([\w-]+)\.yml\)", r"(#\1yml)", table.group())
    files = map(shown_file, sorted((ROOT / "slurm/sites").glob("*.yml")))
    return f"# SLURM sections to copy\n\n{intro}\n" + "\n".join(files)


def shown_file(path: Path) -> str:
    return f"## {path.name}\n\n````{LANGUAGES[path.suffix]}\n{path.read_text().rstrip()}\n````\n"


def report_of_a_run() -> dict[str, str]:
    """A page around the report of a run of the torch example, and the report, which is a file of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, *RUN, "-s", str(Path(folder, STUDY))]
        done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            raise PluginError(f"the run for the report ended with exit code {done.returncode}:\n{done.stderr[-2000:]}")
        report = Path(folder, STUDY, "report.html").read_text()
        printed = done.stdout.partition("\nbest ")
        end = "".join(printed[1:]).strip().replace(f"{folder}/", "")
    page = f"""\
# A report of a real run

The [torch example](examples/torch.md), run with this site, and how it ended:

```console
$ python {" ".join(RUN)} -s {STUDY}
```

```text
{end}
```

This is the report that it wrote; [open it by itself](digits-report.html). [What the search has found](report.md) says
what it shows.

<iframe class="report" src="digits-report.html" title="the report of the run"></iframe>
"""
    return {"digits.md": page, "digits-report.html": report.replace(f"{folder}/", "").replace(f"{ROOT}/", "")}
