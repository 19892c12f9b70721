"""Every notebook runs from top to bottom; what it claims is asserted in its cells."""

from pathlib import Path

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.filterwarnings("default")  # of the machinery that runs notebooks, not of ours
@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_notebook(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # other tests run beside it
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:  # the claims also hold after a shorter training
        cell.source = cell.source.replace("epochs=150", "epochs=30")
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": ROOT}}).execute()
