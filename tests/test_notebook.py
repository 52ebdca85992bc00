"""examples/quickstart.ipynb runs from top to bottom, and is committed with the outputs of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from test_readme import assert_same_but_for_rounding

NOTEBOOK = Path(__file__).parent.parent / "examples" / "quickstart.ipynb"

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
pytest.importorskip("ipykernel", reason="ipykernel, which runs notebooks, is not installed")


def printed(notebook: nbformat.NotebookNode) -> list[str]:
    """What each cell prints, and the value that it ends with."""
    return [
        "".join(
            output.text if output.output_type == "stream" else output.data["text/plain"]
            for output in cell.outputs
        )
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
    for found, expected in zip(printed(notebook), committed, strict=True):
        assert_same_but_for_rounding(found, expected)


def test_the_outputs_are_small() -> None:
    assert NOTEBOOK.stat().st_size < 20_000
