"""Recipes: complete, checked, and turned into runs that are what they say."""

from pathlib import Path

import pytest

from quickstudy.experiments.recipe import Recipe, load_recipe, recipe_names
from quickstudy.experiments.spec import LEARNERS

MINIMAL = """
title = "Tiny"
kind = "ours"
paper = "nobody"
cells = [{ shot = 1 }]
[protocol]
learner = "protonet"
data = "alphabets"
shot = 1
query = 3
tasks = 2
steps = 4
"""
OMNIGLOT = ("5w1s", "5w5s", "20w1s", "20w5s")
ALL_FOUR = ("protonet", "matching", "r2d2", "maml", "fomaml", "reptile", "meta-sgd", "anil")
BLACK_BOXES = ("transformer", "lstm", "mann")


def write(folder: Path, text: str) -> str:
    (folder / "mine.toml").write_text(text)
    return str(folder / "mine.toml")


@pytest.mark.parametrize("name", recipe_names())
def test_a_shipped_recipe_builds_its_learner(name: str) -> None:
    recipe = load_recipe(name)
    experiment = recipe.experiment()
    assert (experiment.learner, experiment.steps) == (
        recipe.protocol.learner,
        max(1, recipe.protocol.steps),
    )
    if recipe.protocol.learner not in ("baseline", "simpleshot"):  # they count the classes
        learner = experiment.build_learner()
        for cell in recipe.cells:
            if recipe.protocol.data != "sinusoid":
                assert learner.max_way is None or cell.way <= learner.max_way
            assert all(hasattr(learner, changed) for changed in cell.at_test)
    for cell in recipe.cells:
        assert cell.published is None or recipe.kind in ("faithful", "adapted", "beyond")


def test_every_learner_has_a_recipe_and_the_main_ones_all_four_cells() -> None:
    recipes = [load_recipe(name) for name in recipe_names()]
    assert {r.protocol.learner for r in recipes} == {*LEARNERS}
    for learner in ALL_FOUR + BLACK_BOXES:
        cells = {
            cell.label
            for r in recipes
            if r.protocol.learner == learner and r.protocol.data == "omniglot"
            for cell in r.cells
        }
        assert cells >= {*OMNIGLOT}, learner
    assert {r.protocol.data for r in recipes} >= {"omniglot", "miniimagenet", "sinusoid"}


def test_the_published_figures_are_those_of_the_papers_table() -> None:
    table = {
        "matching-omniglot": (98.1, 98.9, 93.8, 98.5),
        "protonet-omniglot-paper": (98.8, 99.7, 96.0, 98.9),
        "maml-omniglot-paper": (98.7, 99.9, 95.8, 98.9),
        "fomaml-omniglot-paper": (98.3, 99.2, 89.4, 97.9),
        "meta-sgd-omniglot-paper": (99.53, 99.93, 95.93, 98.97),
    }
    for stem, figures in table.items():
        names = [n for n in recipe_names() if n.startswith(stem) and "beyond" not in n]
        found = {c.label: c.published for name in names for c in load_recipe(name).cells}
        assert tuple(found[cell] for cell in OMNIGLOT) == figures
    reptile = [
        c for run in ("5way", "20way") for c in load_recipe(f"reptile-omniglot-paper-{run}").cells
    ]
    by_column = {(c.label, c.columns[0]): c.published for c in reptile}
    for column, figures in {
        "inductive": (95.39, 98.90, 88.14, 96.65),
        "transductive": (97.68, 99.48, 89.43, 97.12),
    }.items():
        assert tuple(by_column[cell, column] for cell in OMNIGLOT) == figures  # type: ignore[index]
    sinusoids = {
        "maml": {5: (1.13, 0.85, 0.71), 10: (0.77, 0.56), 20: (0.48,)},
        "meta-sgd": {5: (0.90, 0.63, 0.50), 10: (0.53, 0.35), 20: (0.31,)},
    }
    for learner, rows in sinusoids.items():
        for points, errors in rows.items():
            own = load_recipe(f"{learner}-sinusoid-{points}shot")
            assert own.protocol.shot == points
            assert tuple(cell.published for cell in own.cells) == errors


def test_meta_sgd_is_tested_on_5_shots_by_networks_trained_on_1() -> None:
    """Li et al. 2017, section 4.2; each class of theirs has 15 test images."""
    for run in ("5way", "20way"):
        own = load_recipe(f"meta-sgd-omniglot-paper-{run}")
        assert (own.protocol.shot, own.protocol.query) == (1, 15)
        assert [(cell.shot, cell.query) for cell in own.cells] == [(1, 15), (5, 15)]


def test_runs_of_one_file_share_what_they_do_not_change() -> None:
    one, five = (load_recipe(f"maml-omniglot-paper-{run}").protocol for run in ("5w1s", "5w5s"))
    assert (one.shot, five.shot) == (1, 5)
    options = {"inner_lr": 2.0, "inner_steps": 1, "adapt_norm": False}
    assert one.options == five.options == options
    assert load_recipe("maml-omniglot-paper-20w1s").protocol.options["inner_steps"] == 5


def test_the_digest_follows_the_protocol_and_not_the_words(tmp_path: Path) -> None:
    def digest(text: str) -> str:
        return load_recipe(write(tmp_path, text)).digest

    assert digest(MINIMAL) == digest(MINIMAL.replace("nobody", "somebody"))
    assert digest(MINIMAL) != digest(MINIMAL.replace("steps = 4", "steps = 5"))
    assert digest(MINIMAL) != digest(MINIMAL.replace("shot = 1 }", "shot = 2 }"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("steps = 4", "steps = -4", r"mine.toml: protocol.steps: .*greater than or equal to 0"),
        ("steps = 4", "", "protocol.steps: Field required"),
        ("steps = 4", "steps = 4\nstep = 5", "protocol.step: Extra inputs"),
        ("steps = 4", "stps = 4", "protocol.stps: Extra inputs"),
        ("steps = 4", "steps = 0", "steps is 0, and protonet has to be trained"),
        (
            "{ shot = 1 }",
            "{ shot = 1, balanced = true, instance = 2 }",
            "balanced is of queries of classes; 5-way, 2nd instance has none",
        ),
        (
            "cells =",
            "members = ['a', 'b']\ncells =",
            "members have been trained: steps should be 0",
        ),
        ('"protonet"', '"protonets"', "protocol.learner"),
        ("steps = 4", "steps = 4\nsplit = 'vinyals'", "has its own split"),
        ('"alphabets"', '"omniglot"', "needs a split"),
        ("steps = 4", "steps = 4\noptions = { scale = 3.0 }", "protonet has no option 'scale'"),
        ("cells = [{ shot = 1 }]", "cells = []", "cells: List should have at least 1"),
        ("{ shot = 1 }", "{ shot = 1, published = 'high' }", r"cells.0.published"),
        ("[protocol]", "[protocol", "is not TOML"),
        ("steps = 4", "steps = 4\noptions = 3", "runs, protocol and options should be tables"),
        ("[protocol]", "[runs]\na = 1\n[protocol]", "should be tables"),
        ("[protocol]", "[runs.a]\nprotocol = 1\n[protocol]", "should be tables"),
        ("[protocol]", '[runs."../../x"]\n[protocol]', r"a run is called '../../x'; expected"),
        ("[protocol]", '[runs."/tmp/x"]\n[protocol]', r"a run is called '/tmp/x'; expected"),
        ("[protocol]", "[runs]\na = " + 9999 * "[" + "\n[protocol]", "is not TOML"),
        ('"protonet"', '"maml"\noptions = { inner_lr = 0.1 }', "inner_lr and inner_loss belong"),
        ("steps = 4", "steps = 4\ncolumns = 9", "columns is for tables, and would do nothing here"),
        (
            "{ shot = 1 }",
            "{ shot = 1, at_test = { refine = -3 } }",
            "refine is -3; expected",
        ),
        ("{ shot = 1 }", "{ shot = 1, at_test = { refine = 2.5 } }", "refine is 2.5; expected"),
        (
            "steps = 4",
            "steps = 4\noptions = { refine = 5 }",
            "at_test of every cell should",
        ),
        ("{ shot = 1 }", "{ shot = 1, at_test = { k = [1, 3] } }", "k is to be chosen, but there"),
    ],
)
def test_a_recipe_that_is_wrong_says_where(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in MINIMAL
    with pytest.raises(ValueError, match=message):
        load_recipe(write(tmp_path, MINIMAL.replace(old, new, 1)))


def test_an_unknown_name_says_which_there_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="maml-omniglot-5w1s"):
        load_recipe("maml-omniglot")
    with pytest.raises(FileNotFoundError, match="--list"):
        load_recipe("nothing")
    several = MINIMAL + "[runs.a]\n[runs.b]\nprotocol = { steps = 9 }\n"
    path = write(tmp_path, several)
    assert load_recipe(f"{path}:b").protocol.steps == 9
    assert isinstance(load_recipe(f"{path}:a"), Recipe)
    with pytest.raises(FileNotFoundError, match="no run 'c'; it has: a, b"):
        load_recipe(f"{path}:c")
