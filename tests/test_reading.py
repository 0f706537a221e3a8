"""What is written for people can be read by all: contrast, names, keyboards, small screens."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quickstudy.model import Model
from quickstudy.report import Report

CUT = """() => [...document.querySelectorAll("pre > code")]
    .filter(code => code.scrollWidth > code.clientWidth).map(code => code.innerText)"""


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("own", "default"),
        ("learners/maml", "default"),
        ("learners/maml", "slate"),
        ("reference/index", "slate"),
    ],
)
def test_axe_finds_nothing_serious_in_the_docs(
    browser: Any, site: Path, serious: Callable[[Any], list[str]], name: str, scheme: str
) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto((site / f"{name}.html").as_uri())
    page.evaluate("scheme => { document.body.dataset.mdColorScheme = scheme; }", scheme)
    page.wait_for_timeout(300)  # colours fade
    assert serious(page) == []
    page.close()


@pytest.mark.parametrize(
    "name",
    ["index", "own", "results", "results/adapted", "results/real", "experiments", "learners/maml"],
)
def test_code_is_not_cut_and_pages_fit_a_phone(browser: Any, site: Path, name: str) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto((site / f"{name}.html").as_uri())
    assert page.evaluate(CUT) == []
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    page.close()


def test_a_report(browser: Any, tmp_path: Path, serious: Callable[[Any], list[str]]) -> None:
    rng = np.random.default_rng(0)
    pairs = [(rng.random((20, 20)) * (n % 3 + 1) / 3, f"class {n % 3}") for n in range(12)]
    model = Model.learn(pairs, encoder="drawing")
    found = Report.of(model, [*pairs[:6], (rng.random((20, 20)), "new")])
    (tmp_path / "report.html").write_text(found.html("drawings"))
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto((tmp_path / "report.html").as_uri())
    assert serious(page) == []
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    page.close()
