"""Pages in headless Chromium, if there is one: no errors, no requests, figures have a size."""

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pyro_vae.runs import commands

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
SMALL = (
    "--epochs=2 --num_samples=60 --num_examples=30 --diagnose_every=0 --device=cpu --latent_dim=2 "
    "--likelihood.decoder.widths=[8] --posterior.encoder.widths=[8]"
).split()
# Runs in the page, after its own script, and leaves what it finds in the page.
PROBE = """
addEventListener("load", () => {
  const images = [...document.images].map((image) => {
    const box = image.getBoundingClientRect();
    return [image.alt, image.naturalWidth, box.width, box.height];
  });
  const heads = [...document.querySelectorAll("thead th")];
  const head = heads.find((each) => each.innerText.startsWith("mean"));
  const rows = head.closest("table").tBodies[0].rows;
  const column = () => [...rows].map((row) => Number(row.cells[head.cellIndex].dataset.key));
  const button = head.querySelector("button");
  button.focus();
  const focused = document.activeElement === button;
  const orders = [column()];
  for (const _ of [1, 2]) { button.click(); orders.push(column()); }
  const width = [document.documentElement.scrollWidth, innerWidth];
  const fetched = performance.getEntriesByType("resource").map((each) => each.name);
  const found = {images, orders, focused, sort: head.ariaSort, width, fetched};
  document.body.dataset.found = JSON.stringify(found);
});
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, full_style: None) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    for name in ("one", "two"):
        commands.train([*SMALL, f"--out={folder / name}", f"--seed={len(name) + ord(name[0])}"])
    commands.compare(
        [str(folder / "one"), str(folder / "two"), "--report", str(folder / "compared.html")]
    )
    return folder


def opened(page: Path, width: int, *options: str) -> tuple[dict[str, Any], list[str]]:
    """Open a page with the probe in it; return what it found, and messages of the console."""
    text = page.read_text()
    digest = base64.b64encode(hashlib.sha256(PROBE.encode()).digest()).decode()
    policy = re.sub(r"(script-src '[^']*')", rf"\1 'sha256-{digest}'", text, count=1)
    probed = page.with_name("probed.html")
    probed.write_text(policy.replace("</body>", f"<script>{PROBE}</script></body>"))
    command = [
        str(BROWSER),
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *("--disable-background-networking", "--no-first-run", "--enable-logging=stderr"),
        *(f"--user-data-dir={page.parent / 'profile'}", f"--window-size={width},800", *options),
        *("--virtual-time-budget=10000", "--dump-dom", probed.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'data-found="([^"]*)"', done.stdout)
    assert found, done.stderr[-2000:]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(html.unescape(found[1])), console


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")
@pytest.mark.parametrize("name", ["one/report.html", "compared.html"])
@pytest.mark.parametrize("width", [1200, 500])
def test_a_page_in_a_browser(folder: Path, name: str, width: int) -> None:
    found, console = opened(folder / name, width)
    assert console == []
    assert [each for each in found["fetched"] if not each.startswith("data:")] == []
    for alt, natural, shown, height in found["images"]:
        assert alt and natural > 100 and shown > 50 and height > 20
    assert found["width"][0] <= found["width"][1]  # only figures and tables scroll sideways
    before, up, down = found["orders"]
    assert up == sorted(before) and down == sorted(before, reverse=True)
    assert found["focused"] and found["sort"] == "descending"


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")
def test_a_page_loads_nothing_even_if_told_to(folder: Path) -> None:
    """The policy of the page refuses what a flaw in it might ask for."""
    page = folder / "one/flawed.html"
    text = (folder / "one/report.html").read_text()
    picture = '<img src="https://example.org/a.png" alt="a">'
    flaw = f"<script>document.body.dataset.flaw = 1</script>{picture}"
    page.write_text(text.replace("<main", f"{flaw}<main"))
    found, console = opened(page, 1200)
    assert len(console) >= 2 and all("Content Security Policy" in line for line in console)
    assert found["images"][0][1] == 0
