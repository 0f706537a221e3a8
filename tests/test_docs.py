"""Everything the README and the docs print is run, with the numbers made small."""

import importlib
import inspect
import pkgutil
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import quickstudy
from quickstudy.cli import main
from quickstudy.data import alphabets

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
SMALLER = {
    r"alphabets\(1000\)": "alphabets(40)",
    r"range\(500\)": "range(3)",
    r"query=10\)\)\)": "query=10), n_tasks=5))",
    r"n_tasks=5(?=\)$|, about)": "n_tasks=2",
}
QUICK = {
    "train": "--steps 2 --validation-tasks 2 --data alphabets --classes 40 --quiet",
    "evaluate": "--tasks 2",
    "compare": "--tasks 2 --query 2",
    "demo": "--classes 40 --scale 0.005 --tasks 2 --data alphabets",
    **dict.fromkeys(("data", "reproduce", "learn", "predict", "add", "info", "report"), ""),
}
TINY = """
title = "Stands for the recipes, which need hours"
kind = "ours"
paper = "none"
cells = [{ shot = 1, query = 2, tasks = 2, columns = ["inductive"] }]
[protocol]
learner = "protonet"
data = "alphabets"
classes = 40
shot = 1
query = 2
tasks = 1
steps = 2
"""
CUSTOMERS = """age,visits,since,plan
31,4,2024-01-31,free
44,,2019-07-01,paid
28,1,2024-03-05,free
51,12,2018-02-14,paid
"""


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.M | re.S)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with what the examples speak of: ``photos/CLASS/*.png``, ``new.png``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path / "cache"))
    drawn = alphabets(16, 6)
    for c in range(16):
        folder = tmp_path / "photos" / f"symbol{c:02}"
        folder.mkdir(parents=True)
        for e in range(6):
            x = drawn.read(torch.tensor([c]), torch.tensor([e]))[0, 0]
            Image.fromarray((255 - x).numpy()).save(folder / f"{e}.png")
    (tmp_path / "photos" / "symbol03" / "5.png").rename(tmp_path / "new.png")
    (tmp_path / "omniglot").mkdir()
    (tmp_path / "tiny.toml").write_text(TINY)
    (tmp_path / "customers.csv").write_text(CUSTOMERS)
    (tmp_path / "new.csv").write_text("age,visits,since\n33,?,2023-05-01\n")
    return tmp_path


# tests/test_site.py runs the code of these, and compares what it prints with what they say.
COMPARED = {ROOT / "docs" / name for name in ("index.md", "lecture.md")}
COMPARED |= {page for page in PAGES if page.parent.name == "learners" and page.stem != "index"}


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page not in COMPARED],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_python_examples_run(page: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = "\n".join(blocks(page, "python"))
    for long, short in SMALLER.items():
        code = re.sub(long, short, code, flags=re.M)
    exec(compile(code, str(page), "exec"), {"__name__": "__main__"})
    if page.name == "README.md":
        score, answer = capsys.readouterr().out.splitlines()
        assert re.match(r"\d+\.\d\d ± \d+\.\d\d% \(5 tasks, batch norm inductive\)", score)
        assert answer.split()[0].startswith("symbol")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_run(
    page: Path,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Every ``quickstudy`` line of a page, in order; synthetic data stands for Omniglot."""
    text = "".join(blocks(page, "console")).replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.startswith("quickstudy ")]
    assert lines or page.name != "README.md"
    for line in lines:
        words = shlex.split(line)[1:]
        extra = [] if "--resume" in words else shlex.split(QUICK[words[0]])
        if {"folder", "sinusoid", "tables"} & {*words}:
            extra = [w for w in extra if w not in ("--data", "alphabets", "--classes", "40")]
        if words[0] == "train" and "--resume" not in words and "pmf" not in words:
            if "--data" in extra:  # what others than Omniglot do not heed
                for flag in {"--root", "--split", "--validation-groups"} & {*words}:
                    del words[words.index(flag) : words.index(flag) + 2]
            if not {"sinusoid", "tables"} & {*words}:
                extra += ["--size", "16"]
                extra += [] if "--backbone" in words else ["--filters", "16"]
        if words[0] == "evaluate" and "nearest" in words:
            extra += ["--data", "digits", "--way", "5"]  # which need not be drawn
        elif words[0] == "evaluate" and "omniglot" in words:
            extra += ["--data", "alphabets"]
        if words[0] == "reproduce" and "--list" not in words:
            words[1] = "tiny.toml"
        monkeypatch.setattr(sys, "argv", ["quickstudy", *words, *extra])
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code, f"{line}\n{capfd.readouterr().err}"


def test_everything_public_is_documented() -> None:
    for info in pkgutil.walk_packages(quickstudy.__path__, "quickstudy."):
        if info.name.endswith("__main__"):
            continue
        module = importlib.import_module(info.name)
        assert module.__doc__, f"{info.name} has no docstring"
        for name in getattr(module, "__all__", ()):
            thing = getattr(module, name)
            if inspect.isclass(thing) or inspect.isfunction(thing):
                assert inspect.getdoc(thing), f"{info.name}.{name} has no docstring"


def test_pages_name_only_files_that_exist() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} points to {target}"


def test_setup_commands_are_the_makefiles() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", (ROOT / "README.md").read_text(), re.M):
        assert re.search(rf"^{target}:", makefile, re.M)
