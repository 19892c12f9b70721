"""What the site has beside the pages in docs/: notebooks, their pictures, and files at the root."""

import json
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
AT_ROOT = {name: f"{name.lower()}.md" for name in ("BENCHMARKS", "CHANGELOG", "RESULTS")}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files that are not in docs/ to the site; those at the root become pages."""
    for path in (*NOTEBOOKS, *sorted((ROOT / "notebooks").glob("*.png"))):
        files.append(File.generated(config, f"notebooks/{path.name}", abs_src_path=str(path)))
    for name, page in AT_ROOT.items():
        text = (ROOT / f"{name}.md").read_text()
        for other, of_site in AT_ROOT.items():
            text = text.replace(f"]({other}.md)", f"]({of_site})")
        files.append(File.generated(config, page, content=text.replace("](docs/", "](")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """List the notebooks on their page, show the last screen, and link to pages of the site.

    In the repository, the links are those to the files.
    """
    _, screen, _ = re.split("<!-- .* of the screen -->", (ROOT / "README.md").read_text())
    markdown = markdown.replace("<!-- screen -->", screen)
    for name, of_site in AT_ROOT.items():
        markdown = markdown.replace(f"](../{name}.md", f"]({of_site}")
    markdown = markdown.replace("](../notebooks/", "](notebooks/")
    return markdown.replace("<!-- notebooks -->", "\n".join(map(_entry, NOTEBOOKS)))


def _entry(path: Path) -> str:
    """Return the line of a notebook in the list: its title."""
    first = "".join(json.loads(path.read_text())["cells"][0]["source"])
    return f"- [{first.splitlines()[0].removeprefix('# ')}](notebooks/{path.name})"
