"""The code is laid out as CONTRIBUTING.md says."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import quickstudy

PACKAGE = Path(quickstudy.__file__).parent
TABLE = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
ROWS = [re.findall(r"`([\w/.]+)`", row) for row in re.findall(r"^\| (`[^|]*) \|", TABLE, re.M)]
RANK = {name.rstrip("/").removesuffix(".py"): i for i, row in enumerate(ROWS) for name in row}
FILES = sorted(p for p in PACKAGE.rglob("*.py"))


def top(path: Path) -> str:
    """The entry of the package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(body: list[ast.stmt]) -> Iterator[str]:
    """Modules of ours that are imported when a file is, and not for types alone."""
    for node in body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("quickstudy"):
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names]
            yield from names if module == "quickstudy" else [module]
        elif isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test):
            yield from imported(node.body)


def test_every_entry_has_its_row() -> None:
    entries = {top(path) for path in FILES}
    assert entries == RANK.keys(), "CONTRIBUTING.md's table and the package differ"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_upwards(path: Path) -> None:
    own = RANK[top(path)]
    for module in imported(ast.parse(path.read_text()).body):
        name = module.split(".")[1] if "." in module else "__init__"
        if name in RANK:
            assert RANK[name] <= own, f"{path.name} imports {module}, which is further down"


def test_the_mathematics_and_the_backbones_know_nothing_of_tasks() -> None:
    for path in FILES:
        if top(path) in ("functional", "nn"):
            tree = ast.parse(path.read_text())
            assert "quickstudy.task" not in list(imported(tree.body))
            names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
            names |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
            assert not names & {"task", "tasks", "Task"}, path
