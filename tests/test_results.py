"""The measured pages are what the cards say, and say nothing else."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def results() -> ModuleType:
    spec = importlib.util.spec_from_file_location("results", ROOT / "tools" / "results.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["results"] = module
    spec.loader.exec_module(module)
    return module


def test_the_pages_are_built_from_the_cards(results: ModuleType) -> None:
    pages = results.pages()
    assert len(pages) == 22
    for page, text in pages.items():
        assert page.read_text() == text, f"{page} differs: python tools/results.py writes it"


def test_every_recipe_is_on_the_page(results: ModuleType) -> None:
    page = (ROOT / "docs" / "results.md").read_text()
    for name in results.recipe_names():
        assert f"`{name}`" in page or f"[{name}]" in page


def test_every_figure_of_every_card_is_on_the_page(results: ModuleType) -> None:
    page = (ROOT / "docs" / "results.md").read_text()
    for card in results.load_cards().values():
        for result in card.results:
            assert page.count(result.figure) >= 2, card.recipe
