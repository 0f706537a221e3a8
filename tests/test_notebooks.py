"""The notebooks run from top to bottom, with the numbers made small, and keep what they printed."""

import json
import re
from pathlib import Path
from typing import Any

import matplotlib
import pytest

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SMALLER = {
    r"alphabets\(\d+": "alphabets(30",
    r"test=40": "test=10",
    r"range\(\d\d+\)": "range(2)",
    r"steps=100": "steps=2",
    r"n_tasks=\d+": "n_tasks=3",
}


def cells(notebook: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(notebook.read_text())["cells"]
    return [cell for cell in found if cell["cell_type"] == "code"]


def test_there_are_three() -> None:
    assert [notebook.stem for notebook in NOTEBOOKS] == ["lecture", "method", "photos"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_it_runs(
    notebook: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if notebook.stem == "photos":
        pytest.importorskip("efficientnet_lite_pytorch", reason="needs quickstudy[photo]")
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    space: dict[str, Any] = {"__name__": "notebook"}
    for number, cell in enumerate(cells(notebook)):
        code = "".join(cell["source"])
        for long, short in SMALLER.items():
            code = re.sub(long, short, code)
        exec(compile(code, f"{notebook.name}, cell {number}", "exec"), space)
    out = capsys.readouterr().out
    if notebook.stem == "method":
        assert out.count(" holds") == len(space["CHECKS"])
    if notebook.stem == "photos":
        assert "100% of 16" in out


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_it_was_run_and_shows_no_error(notebook: Path) -> None:
    assert notebook.stat().st_size < 300_000
    outputs = [output for cell in cells(notebook) for output in cell["outputs"]]
    assert outputs
    assert all(cell["execution_count"] for cell in cells(notebook))
    assert {output["output_type"] for output in outputs} <= {"stream", "display_data"}
