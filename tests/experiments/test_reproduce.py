"""Reproducing: resumable, honest about its budget, and told on a card."""

import json
import re
from pathlib import Path

import pytest
import torch

from quickstudy.checkpoint import load_weights
from quickstudy.evaluation import evaluate
from quickstudy.experiments.card import Card, verdict
from quickstudy.experiments.recipe import Cell, Recipe, load_recipe
from quickstudy.experiments.reproduce import reproduce

RECIPE = """
title = "Tiny"
kind = "ours"
paper = "nobody"
{ships}
cells = [
  {{ shot = 1, query = 3, tasks = 6, columns = ["inductive", "transductive"], published = 20.0 }},
  {{ way = 3, shot = 2, query = 3, tasks = 6, columns = ["inductive"] }},
]
[protocol]
learner = "{learner}"
data = "alphabets"
classes = 40
shot = 1
query = 3
tasks = 2
steps = {steps}
{more}
[validation]
tasks = 4
every = 4
"""


def recipe(
    folder: Path, learner: str = "protonet", steps: int = 8, ships: str = "", more: str = ""
) -> Recipe:
    path = folder / "tiny.toml"
    path.write_text(RECIPE.format(learner=learner, steps=steps, ships=ships, more=more))
    return load_recipe(str(path))


def quiet(line: str) -> None:
    assert line


def test_a_card_says_everything_and_its_figures_can_be_had_again(tmp_path: Path) -> None:
    own = recipe(tmp_path)
    card = reproduce(own, tmp_path / "r", command="quickstudy ...", quiet=True, say=quiet)
    assert card == Card.load(tmp_path / "r" / "card.json")
    assert (card.steps, card.protocol_steps, card.best_step) == (8, 8, card.best_step)
    assert card.best_step in (4, 8)
    assert card.digest == own.digest
    assert [(r.cell.label, r.column) for r in card.results] == [
        ("5w1s", "inductive"),
        ("5w1s", "transductive"),
        ("3w2s", "inductive"),
    ]
    assert [r.verdict for r in card.results][1:] == ["no published figure"] * 2
    experiment = own.experiment()
    learner = experiment.build_learner()
    load_weights(tmp_path / "r" / "weights.safetensors", learner)
    tasks = experiment.sampler("test", way=5, shot=1, query=3, tasks=1)
    again = evaluate(learner, tasks, n_tasks=6)
    assert card.results[0].mean == pytest.approx(100 * again.mean)
    assert card.results[0].ci95 == pytest.approx(100 * again.ci95)
    page = (tmp_path / "r" / "card.md").read_text()
    for said in (card.results[0].figure, card.fingerprint, "8 of the protocol's 8", card.weights):
        assert said
        assert said in page


def test_a_budget_stops_and_the_next_call_goes_on_to_the_same_end(tmp_path: Path) -> None:
    own = recipe(tmp_path)
    whole = reproduce(own, tmp_path / "whole", quiet=True, say=quiet)
    first = reproduce(own, tmp_path / "parts", minutes=1e-9, quiet=True, say=quiet)
    assert (first.steps, first.budget_minutes) == (1, 1e-9)
    last = reproduce(own, tmp_path / "parts", minutes=60, quiet=True, say=quiet)
    assert last.steps == 8
    assert last.budget_minutes == pytest.approx(60)
    assert last.weights == whole.weights
    assert [r.mean for r in last.results] == [r.mean for r in whole.results]
    run = json.loads((tmp_path / "parts" / "run.json").read_text())
    assert run["machine_options"]["validation"] == {"way": 5, "shot": 1, "query": 15}


def test_what_is_done_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = recipe(tmp_path)
    card = reproduce(own, tmp_path / "r", quiet=True, say=quiet)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("evaluated again")

    monkeypatch.setattr("quickstudy.experiments.reproduce.evaluate", never)
    again = reproduce(own, tmp_path / "r", quiet=True, say=quiet)
    assert again.results == card.results


def test_a_folder_of_another_protocol_is_refused(tmp_path: Path) -> None:
    reproduce(recipe(tmp_path), tmp_path / "r", quiet=True, say=quiet)
    with pytest.raises(ValueError, match=r"its lr is 0\.001, this recipe's is 0\.01"):
        reproduce(recipe(tmp_path, more="lr = 1e-2"), tmp_path / "r", quiet=True, say=quiet)
    with pytest.raises(ValueError, match="its seed is 0, this recipe's is 1"):
        reproduce(recipe(tmp_path), tmp_path / "r", seed=1, quiet=True, say=quiet)


def test_shipped_weights_are_rounded_before_they_are_judged(tmp_path: Path) -> None:
    own = recipe(tmp_path, ships="ships = true")
    reproduce(own, tmp_path / "r", quiet=True, say=quiet)
    learner = own.experiment().build_learner()
    load_weights(tmp_path / "r" / "weights.safetensors", learner)
    for value in learner.state_dict().values():
        assert value.dtype == torch.float32
        assert torch.equal(value, value.half().float())


@pytest.mark.parametrize("learner", ["nearest", "scratch"])
def test_what_needs_no_training_gets_a_card_too(tmp_path: Path, learner: str) -> None:
    more = "batch_norm = 'transductive'"
    own = recipe(tmp_path, learner, steps=0, more=more)
    cells = [cell.model_copy(update={"columns": []}) for cell in own.cells]
    own = own.model_copy(update={"cells": cells})
    for _ in range(2):
        card = reproduce(own, tmp_path / "r", quiet=True, say=quiet)
        assert (card.steps, card.training_minutes) == (0, 0.0)
        assert card.results[0].mean > 20


def test_what_a_test_changes_is_put_back(tmp_path: Path) -> None:
    more = "inner_loss = 'mean'\noptions = { inner_lr = 0.1, inner_steps = 1 }"
    own = recipe(tmp_path, "maml", steps=1, more=more)
    zero = Cell(shot=1, query=3, tasks=4, columns=["inductive"], at_test={"inner_steps": 0})
    plain = Cell(shot=1, query=3, tasks=4, columns=["inductive"])
    found = {}
    for order in ((zero, plain), (plain, zero)):
        both = own.model_copy(update={"cells": [*order]})
        folder = tmp_path / str(order[0] is zero)
        card = reproduce(both, folder, quiet=True, say=quiet)
        found[order[0] is zero] = {r.cell.model_dump_json(): r.mean for r in card.results}
    assert found[True] == found[False]


def test_of_a_list_the_best_on_validation_tasks_is_tested(tmp_path: Path) -> None:
    more = "inner_loss = 'mean'\noptions = { inner_lr = 0.1 }"
    own = recipe(tmp_path, "maml", steps=1, more=more)
    chosen = Cell(shot=1, query=3, tasks=4, at_test={"inner_steps": 2, "inner_lr": [1e3, 0.1]})
    own = own.model_copy(update={"cells": [chosen]})
    reproduce(own, tmp_path / "r", quiet=True, say=quiet)
    (found,) = (tmp_path / "r" / "evaluations").iterdir()
    experiment = own.experiment()
    learner = experiment.build_learner()
    load_weights(tmp_path / "r" / "weights.safetensors", learner)
    tasks = experiment.sampler("validation", way=5, shot=1, query=3, tasks=1)
    scores = {}
    for rate in (1e3, 0.1):
        learner.inner_steps, learner.inner_lr = 2, rate  # type: ignore[assignment]
        scores[rate] = evaluate(learner, tasks, n_tasks=4).mean
    best = max(scores, key=lambda rate: scores[rate])
    assert json.loads(found.read_text())["about"]["at_test"] == {"inner_steps": 2, "inner_lr": best}


def test_instances_of_a_sequence(tmp_path: Path) -> None:
    own = recipe(tmp_path, "mann", steps=2, more="options = { protocol = 'offset' }")
    cells = [Cell(shot=3, query=1, tasks=4, instance=i, published=50.0) for i in (1, 3)]
    card = reproduce(own.model_copy(update={"cells": cells}), tmp_path / "r", quiet=True, say=quiet)
    labels = [r.cell.label for r in card.results]
    assert labels == ["5-way, 1st instance", "5-way, 3rd instance"]


@pytest.mark.parametrize(
    ("mean", "complete", "error", "expected"),
    [
        (98.2, True, False, "within"),
        (97.9, True, False, "within"),
        (97.0, True, False, "below"),
        (97.0, False, False, "budget too small to say"),
        (99.5, False, False, "above"),
        (99.5, True, True, "below"),
        (97.0, False, True, "above"),
    ],
)
def test_verdicts(mean: float, complete: bool, error: bool, expected: str) -> None:
    cell = Cell(shot=1, published=98.3, interval=0.3)
    assert verdict(cell, mean, 0.2, error=error, complete=complete) == expected


def test_a_card_that_was_tampered_with_is_no_card(tmp_path: Path) -> None:
    own = recipe(tmp_path)
    reproduce(own, tmp_path / "r", quiet=True, say=quiet)
    path = tmp_path / "r" / "card.json"
    path.write_text(re.sub(r'"mean": [\d.]+', '"mean": "high"', path.read_text()))
    with pytest.raises(ValueError, match=r"not a result card: results.0.mean"):
        Card.load(path)
