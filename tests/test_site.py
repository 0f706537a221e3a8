"""The documentation site builds without a warning, is complete, and needs no other host."""

import contextlib
import html
import importlib
import importlib.util
import inspect
import io
import pkgutil
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import quickstudy
from quickstudy.experiments.spec import LEARNERS, Experiment
from quickstudy.learners import Logistic, ProtoMAML
from quickstudy.nn import Conv4
from quickstudy.testing import make_task

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {
    page: page.read_text() for page in (DOCS / "learners").glob("*.md") if page.stem != "index"
}


@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_has_a_page(name: str) -> None:
    class_name = LEARNERS[name][0]
    about = [text for text in PAGES.values() if f"`{class_name}`" in text and f"`{name}`" in text]
    assert about, f"no page of docs/learners names {class_name} and {name}"
    assert any(f"quickstudy train {name} " in t or f"evaluate {name} " in t for t in about)


def test_every_page_says_what_it_should() -> None:
    for page, text in PAGES.items():
        for part in (f"(../images/phi/{page.stem}.svg)", "[the results](../results.md)"):
            assert part in text, f"{page.name} lacks {part}"
        for part in ("The code", "promise", "Differs from the paper", "Use it"):
            assert re.search(rf"^## .*{part}", text, re.M), f"{page.name} lacks {part}"


@pytest.mark.parametrize(
    "name",
    [
        *("protonet", "matching", "r2d2", "nearest", "soft-nearest", "simpleshot", "baseline"),
        *("maml", "anil", "meta-sgd", "maml++", "reptile", "scratch"),
        *("lstm", "mann", "transformer", "cnp", "proto-maml", "logistic"),
    ],
)
def test_a_page_says_what_is_in_phi(name: Any) -> None:
    heads = {"proto-maml": ProtoMAML, "logistic": Logistic}
    task = make_task((1, 28, 28), way=5).to(torch.float32)
    learner = (
        heads[name](Conv4())
        if name in heads
        else Experiment(name, data="alphabets").build_learner()
    )
    phi = learner.eval().adapt(task.support_x, task.support_y, 5)
    stem = {"soft-nearest": "nearest", "maml++": "maml-plus-plus"}.get(name, name)
    (said,) = re.findall(r"`phi` is `.*?\n\n", (DOCS / f"learners/{stem}.md").read_text(), re.S)
    assert {*re.findall(r'"(\w+)":', said)} == {*phi}


@pytest.mark.parametrize(
    "page", [DOCS / "index.md", DOCS / "lecture.md", *PAGES], ids=lambda page: page.stem
)
def test_examples_print_what_they_say(page: Path) -> None:
    """What a page's code prints is what its comments show, line by line."""
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S))
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(code, str(page), "exec"), {"__name__": "__main__"})
    assert said.getvalue().splitlines() == re.findall(r"^# (.*)", code, re.M)


def test_equations_are_typeset(site: Path) -> None:
    typeset = {
        page.stem for page in (site / "learners").glob("*.html") if "<math" in page.read_text()
    }
    assert typeset == {page.stem for page in PAGES}
    assert (site / "lecture.html").read_text().count('<div class="equation"><math') >= 8
    for page in site.rglob("*.html"):
        text = re.sub(r"<(script|style|pre|code)\b.*?</\1>", "", page.read_text(), flags=re.S)
        raw = re.search(r"\\[(\[a-z]|\$[^$]*\$|arithmatex", re.sub(r"<[a-z][^>]*>", "", text))
        assert not raw, f"{page.name} shows {raw[0]!r}"


def test_an_equation_that_cannot_be_typeset_stops_the_build() -> None:
    hooks = load("hooks")
    with pytest.raises(Exception, match=r"cannot typeset .*nosuch"):
        hooks.on_page_content(r'<span class="arithmatex">\(a \nosuch b\)</span>')


def test_code_on_a_page_is_the_source(site: Path) -> None:
    for page in [*PAGES, DOCS / "lecture.md"]:
        built = (site / page.relative_to(DOCS)).with_suffix(".html").read_text()
        shown = html.unescape(re.sub(r"<[^>]*>", "", built))
        named = re.findall(r"<!-- source: (.*?) -->", page.read_text(), re.S)
        assert named, f"{page.name} has no code of its learner"
        for name in " ".join(named).split():
            missing = [line for line in code_of(name) if line not in shown]
            assert not missing, f"{page.name} lacks {missing[0]!r} of {name}"


def code_of(name: str) -> list[str]:
    """The lines of a function or method, without its docstring."""
    parts, thing = name.split("."), None
    for part in parts:
        thing = (
            getattr(thing, part)
            if hasattr(thing, part)
            else importlib.import_module(part if thing is None else f"{thing.__name__}.{part}")
        )
    lines = inspect.cleandoc("\n" + inspect.getsource(thing)).replace(thing.__doc__ or "", "")
    return [line for line in lines.splitlines() if line.strip('" ')]


def test_an_unknown_name_stops_the_build() -> None:
    hooks = load("hooks")
    for name in ("quickstudy.learners.maml.MAML.nosuch", "quickstudy.nosuch.MAML", "os.getcwd"):
        with pytest.raises(Exception, match=r"nosuch|getcwd"):
            hooks.on_page_markdown(f"<!-- source: {name} -->")


def test_the_lecture_comes_first() -> None:
    links = re.findall(r"\]\((\S+\.md)", (DOCS / "index.md").read_text())
    assert links[0] == "lecture.md"
    pages = re.findall(r"(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M)
    assert pages[:2] == ["index.md", "lecture.md"]
    assert "(docs/lecture.md)" in (ROOT / "README.md").read_text()


def test_reference_has_every_public_name(site: Path) -> None:
    text = "".join(page.read_text() for page in (site / "reference").glob("*.html"))
    documented = set(re.findall(r'id="(quickstudy\.[^"]*)"', text))
    paths: dict[tuple[str, int], set[str]] = {}
    for info in pkgutil.walk_packages(quickstudy.__path__, "quickstudy."):
        if info.name.endswith("__main__"):
            continue
        module = importlib.import_module(info.name)
        for name in getattr(module, "__all__", ()):
            key = (name, id(getattr(module, name)))
            paths.setdefault(key, set()).add(f"{info.name}.{name}")
    for known_as in paths.values():
        assert known_as & documented, f"not in docs/reference: {' or '.join(sorted(known_as))}"


def test_nothing_is_loaded_from_another_host(site: Path) -> None:
    elsewhere = r"""["'(]\s*((?:https?:)?//[^"')]*)"""
    for page in site.rglob("*.html"):
        text = page.read_text()
        loads = re.findall(r"<(?:script|link|img|iframe|source|object|embed)\b[^>]*>", text)
        loads += re.findall(r"<style\b.*?</style>", text, re.S)
        for tag in loads:
            found = re.search(elsewhere, tag)
            assert not found or "canonical" in tag, f"{page.name} loads {found[1]}"
    for sheet in site.rglob("*.css"):
        found = re.search(rf"(?:url|@import)\s*{elsewhere}", sheet.read_text())
        assert not found, f"{sheet.name} loads {found[1]}"


@pytest.mark.parametrize(
    ("script", "folder"), [("pictures", "phi"), ("lecture_pictures", "lecture")]
)
def test_pictures_are_those_of_the_script(script: str, folder: str, tmp_path: Path) -> None:
    load("pictures")
    drawn = {file.name: file.read_bytes() for file in load(script).draw_all(tmp_path)}
    kept = {file.name: file.read_bytes() for file in (DOCS / "images" / folder).iterdir()}
    assert drawn.keys() == kept.keys()
    stale = [name for name in drawn if drawn[name] != kept[name]]
    assert not stale, f"draw them again with python docs/{script}.py: {', '.join(stale)}"


def load(script: str) -> ModuleType:
    """A script of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(script, DOCS / f"{script}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[script] = module
    spec.loader.exec_module(module)
    return module
