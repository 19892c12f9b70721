"""Every notebook runs from top to bottom; what it claims is asserted in its cells."""

from pathlib import Path

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])


@pytest.mark.filterwarnings("default")  # of the machinery that runs notebooks, not of ours
@each_notebook
def test_notebook(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # other tests run beside it
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": ROOT}}).execute()
    assert not warnings_in(notebook)


@each_notebook
def test_committed_outputs(path: Path) -> None:
    """Readers see a notebook that was run from top to bottom, without warnings and errors."""
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not warnings_in(notebook)
    assert not any(cell.metadata for cell in notebook.cells)  # such as times, which make long diffs
    assert path.stat().st_size < 600_000


def warnings_in(notebook: nbformat.NotebookNode) -> list[str]:
    """Return what the cells have printed on stderr, and their errors."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [
        output.get("text") or output.get("evalue")
        for output in outputs
        if output.output_type == "error" or output.get("name") == "stderr"
    ]
