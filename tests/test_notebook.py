"""examples/quickstart.ipynb runs from top to bottom, and is committed with the outputs of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parent.parent / "examples" / "quickstart.ipynb"

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
pytest.importorskip("ipykernel", reason="ipykernel, which runs notebooks, is not installed")


def printed(notebook: nbformat.NotebookNode) -> list[list[str]]:
    """The kinds of output of each cell."""
    return [
        [output.output_type for output in cell.outputs]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def test_the_notebook_runs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    committed = printed(notebook)
    assert any(committed)
    client = nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(NOTEBOOK.parent)}}
    )
    client.execute()
    assert printed(notebook) == committed


def test_the_outputs_are_small() -> None:
    assert NOTEBOOK.stat().st_size < 20_000
