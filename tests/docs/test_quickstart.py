"""Tests of the quickstart notebook."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

NOTEBOOK = Path(__file__).parents[2] / "docs" / "quickstart.ipynb"
AGAIN = "execute it again: .venv/bin/python tests/docs/test_quickstart.py"
LARGEST = 1_500_000


def execute(folder: Path) -> NotebookNode:
    """Executes the notebook in a folder and returns it; raises errors of its cells.

    Details of the machine are removed, so that it can be committed.
    """
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    # Keeps out the user's own kernels and IPython profile.
    own = {"JUPYTER_DATA_DIR": "jupyter", "IPYTHONDIR": "ipython"}
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OMP_NUM_THREADS", "1")
        for name, subfolder in own.items():
            environment.setenv(name, str(folder / subfolder))
        NotebookClient(
            notebook,
            timeout=None,
            kernel_name="python3",
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": str(folder)}},
        ).execute()
    notebook.metadata.language_info = {"name": "python"}
    for cell in code_cells(notebook):
        for output in cell.outputs:
            # Commands with "!" run in a terminal, which ends lines with \r\n.
            if output.output_type == "stream":
                output.text = output.text.replace("\r\n", "\n")
    return notebook


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(cell: NotebookNode) -> str:
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def with_pictures(notebook: NotebookNode) -> list[str]:
    return [
        cell.id
        for cell in code_cells(notebook)
        if any("image/png" in output.get("data", {}) for output in cell.outputs)
    ]


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> NotebookNode:
    return execute(tmp_path_factory.mktemp("quickstart"))


@pytest.fixture(scope="module")
def committed() -> NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_the_model_that_the_notebook_trains_beats_predicting_the_mean_age(
    executed: NotebookNode,
) -> None:
    text = "".join(printed(cell) for cell in code_cells(executed))
    found = re.search(r"test MAE: ([\d.]+) \(", text)
    baseline = re.search(r"predicting the mean age: ([\d.]+) months", text)
    assert found is not None, text
    assert baseline is not None, text
    assert float(found[1]) < float(baseline[1]) / 2


def test_the_commands_of_the_notebook_do_what_they_say(executed: NotebookNode) -> None:
    text = {cell.id: printed(cell) for cell in code_cells(executed)}
    assert "Ready in data/quickstart" in text["fetch-run"]
    assert "160 images read, 0 errors" in text["check-run"]
    assert re.search(r"drawn-\d+\.png: \d+ years \d+ months \([\d.]+ months\)", text["predict-run"])


def test_the_committed_copy_shows_every_picture_that_the_notebook_makes(
    executed: NotebookNode, committed: NotebookNode
) -> None:
    assert with_pictures(executed)
    assert with_pictures(committed) == with_pictures(executed), AGAIN


def test_the_committed_copy_was_executed_from_top_to_bottom(committed: NotebookNode) -> None:
    counts = [cell.execution_count for cell in code_cells(committed)]
    assert counts == list(range(1, len(counts) + 1)), AGAIN


def test_the_committed_copy_shows_neither_errors_nor_warnings(committed: NotebookNode) -> None:
    for cell in code_cells(committed):
        for output in cell.outputs:
            assert output.output_type != "error", f"{cell.id}: {output.ename}"
            assert output.get("name") != "stderr", f"{cell.id}: {output.text}"


def test_the_committed_copy_tells_nothing_of_the_machine_that_made_it(
    committed: NotebookNode,
) -> None:
    for cell in committed.cells:
        assert cell.metadata == {}, f"{cell.id}; {AGAIN}"
        for output in cell.get("outputs", []):
            # The base64 text of an image may contain such words by chance.
            text = re.sub(r'"image/png": "[^"]*"', "", json.dumps(output))
            path = re.search(r"/(work|tmp|root|home|Users|usr|opt)\b.{0,60}", text)
            assert path is None, f"{cell.id}: {path and path[0]}"
    assert committed.metadata.language_info == {"name": "python"}


def test_the_notebook_is_valid_and_of_modest_size() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    assert NOTEBOOK.stat().st_size < LARGEST


if __name__ == "__main__":
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as temporary:
        nbformat.write(execute(Path(temporary)), NOTEBOOK)
