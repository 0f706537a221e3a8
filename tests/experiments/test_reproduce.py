"""Reproducing: resumable, honest about its budget, and told on a card."""

import csv
import json
import re
from pathlib import Path

import pytest
import torch

from quickstudy.checkpoint import load_weights
from quickstudy.evaluation import evaluate
from quickstudy.experiments.card import Card, Result, Verdict
from quickstudy.experiments.pretrained import load
from quickstudy.experiments.recipe import Cell, Recipe, load_recipe, shipped
from quickstudy.experiments.reproduce import digest, reproduce
from quickstudy.experiments.run import Machine, run_experiment
from quickstudy.experiments.spec import Experiment
from quickstudy.learner import temporarily
from quickstudy.learners import Ensemble

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
    with (tmp_path / "r" / "metrics.csv").open(newline="") as log:
        rows = {int(row["step"]): row["validation"] for row in csv.DictReader(log)}
    assert {*card.validation} == {4, 8}
    for step, value in card.validation.items():
        assert value == pytest.approx(100 * float(rows[step]), abs=1e-3)
    assert card.digest == own.digest
    assert [(r.cell.label, r.column) for r in card.results] == [
        ("5w1s", "inductive"),
        ("5w1s", "transductive"),
        ("3w2s", "inductive"),
    ]
    assert [card.verdict(r, own) for r in card.results] == [None] * 3  # it follows no paper
    assert [bool(r.paper) for r in card.results] == [True, False, False]
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
    assert (first.steps, first.complete) == (1, False)
    last = reproduce(own, tmp_path / "parts", minutes=60, quiet=True, say=quiet)
    assert (last.steps, last.complete) == (8, True)
    assert last.training_minutes > first.training_minutes > 0
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
    with pytest.raises(ValueError, match=r"its lr is 0\.001, this one's is 0\.01"):
        reproduce(recipe(tmp_path, more="lr = 1e-2"), tmp_path / "r", quiet=True, say=quiet)
    with pytest.raises(ValueError, match="its seed is 0, this one's is 1"):
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
    ("mean", "ci95", "steps", "expected"),
    [
        (98.2, 0.2, 8, "reproduced"),
        (97.71, 0.2, 8, "reproduced"),  # 98.3 - 0.3 - 0.5 is 97.5
        (97.7, 0.3, 8, "not settled"),
        (98.3, 0.9, 8, "not settled"),  # a wide interval earns nothing
        (97.2, 0.2, 8, "below"),
        (97.71, 0.2, 3, "reproduced"),
        (97.7, 0.3, 3, "cut short"),
        (97.2, 0.2, 3, "cut short"),
        (99.0, 0.2, 8, "not settled"),
        (99.4, 0.2, 3, "above"),
    ],
)
def test_verdicts(tmp_path: Path, mean: float, ci95: float, steps: int, expected: Verdict) -> None:
    own = recipe(tmp_path).model_copy(update={"kind": "faithful"})
    cell = Cell(shot=1, published=98.3, interval=0.3)
    result = Result(cell=cell, column=None, mean=mean, ci95=ci95, tasks=600)
    card = a_card(own, steps, result)
    assert card.verdict(result, own) == expected
    assert card.verdict(result, own.model_copy(update={"kind": "adapted"})) is None
    settled = card.model_copy(update={"settled": True})
    assert (settled.verdict(result, own) == "cut short") is False


def test_an_error_is_judged_by_its_size(tmp_path: Path) -> None:
    own = load_recipe("maml-sinusoid-5shot")
    cell = own.cells[0]
    assert (cell.published, cell.interval) == (1.13, 0.18)
    cases = ((1.0, "reproduced"), (0.7, "above"), (1.6, "below"), (1.41, "reproduced"))
    for mean, expected in cases:
        result = Result(cell=cell, column=None, mean=mean, ci95=0.01, tasks=600)
        assert a_card(own, own.protocol.steps, result).verdict(result, own) == expected
        assert result.difference.startswith(f"{mean - 1.13:+.2f}")


def test_a_card_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    own = recipe(tmp_path)
    card = a_card(own, 8, Result(cell=own.cells[0], column="inductive", mean=1, ci95=1, tasks=6))
    old = card.model_dump() | {"budget_minutes": 6.0}
    old["results"][0]["verdict"] = "within"
    (tmp_path / "card.json").write_text(json.dumps(old))
    assert Card.load(tmp_path / "card.json") == card


def test_a_card_shows_where_a_training_was_heading(tmp_path: Path) -> None:
    own = recipe(tmp_path)
    card = reproduce(own, tmp_path / "r", command="x", quiet=True, say=quiet)
    heading = {step: float(step) for step in range(1, 48)}
    (line,) = re.findall(
        "- Validation: (.*)\\.", card.model_copy(update={"validation": heading}).markdown(own)
    )
    shown = [int(step) for step in re.findall(r"at step (\d+)", line)]
    assert shown == sorted(shown)
    assert shown[-1] == 47
    assert 5 <= len(shown) <= 10
    assert "Validation" not in card.model_copy(update={"validation": {}}).markdown(own)


def test_a_training_that_has_settled_is_not_trained_on(tmp_path: Path) -> None:
    """A fifth of the protocol without a better validation is its end, and the card says so."""
    still = recipe(tmp_path, steps=100, more='schedule = "constant"\nlr = 1e-12')
    card = reproduce(still, tmp_path / "still", quiet=True, say=quiet)
    assert card.settled
    assert card.complete
    assert card.steps < 100
    assert "validation had long brought nothing new" in (tmp_path / "still/card.md").read_text()
    falling = recipe(tmp_path, steps=40, more='schedule = "cosine"\nlr = 1e-12')
    assert reproduce(falling, tmp_path / "falling", quiet=True, say=quiet).steps == 40


def test_without_classes_to_validate_on_it_trains_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from quickstudy.experiments.spec import Experiment

    monkeypatch.setattr(Experiment, "has_validation", property(lambda self: False))
    own = recipe(tmp_path, steps=4, more='schedule = "constant"')
    assert reproduce(own, tmp_path / "r", quiet=True, say=quiet).steps == 4


def a_card(recipe: Recipe, steps: int, *results: Result) -> Card:
    return Card(
        recipe=recipe.name,
        digest=recipe.digest,
        command="",
        seed=0,
        commit="",
        date="2026-01-01",
        data="",
        fingerprint=None,
        steps=steps,
        protocol_steps=recipe.protocol.steps,
        training_minutes=1.0,
        best_step=None,
        weights="",
        versions={},
        machine="",
        results=list(results),
    )


def test_a_card_that_was_tampered_with_is_no_card(tmp_path: Path) -> None:
    own = recipe(tmp_path)
    reproduce(own, tmp_path / "r", quiet=True, say=quiet)
    path = tmp_path / "r" / "card.json"
    path.write_text(re.sub(r'"mean": [\d.]+', '"mean": "high"', path.read_text()))
    with pytest.raises(ValueError, match=r"not a result card: results.0.mean"):
        Card.load(path)


TOGETHER = """
title = "Together"
kind = "beyond"
paper = "nobody"
members = [{members}]
cells = [
  {{ way = 3, shot = 1, query = 3, tasks = 6 {cell} }},
  {{ way = 3, shot = 1, query = 3, tasks = 6, at_test = {{ refine = 4 }}, balanced = true }},
]
[protocol]
learner = "protonet"
data = "alphabets"
size = 28
classes = 40
shot = 1
query = 3
tasks = 2
steps = 0
"""


def together(folder: Path, *members: str, cell: str = "") -> Recipe:
    path = folder / "together.toml"
    path.write_text(TOGETHER.format(members=", ".join(f'"{m}"' for m in members), cell=cell))
    return load_recipe(str(path))


def test_a_recipe_may_ask_trained_learners_together(tmp_path: Path) -> None:
    names = ("protonet-omniglot", "matching-omniglot")
    own = together(tmp_path, *names)
    card = reproduce(own, tmp_path / "r", quiet=True, say=quiet)
    assert (card.steps, card.protocol_steps, card.training_minutes) == (0, 0, 0)
    assert card.complete
    page = (tmp_path / "r" / "card.md").read_text()
    assert card.members == {name: digest(load(name)) for name in names}
    assert len({*card.members.values()}) == 2
    for name, code in card.members.items():
        assert f"{name} (`{code}`)" in page
    assert "Trained for" not in page
    labels = ["3w1s", "3w1s, queries together, balanced"]
    assert [result.cell.label for result in card.results] == labels
    learner = load(tmp_path / "r" / "weights.safetensors")
    assert isinstance(learner, Ensemble)
    tasks = own.experiment().sampler("test", way=3, shot=1, query=3, tasks=1)
    for known in (learner, Ensemble([load(name) for name in names])):
        alone = evaluate(known, tasks, n_tasks=6)
        assert card.results[0].mean == pytest.approx(100 * alone.mean)
        with temporarily(known, refine=4):
            both = evaluate(known, tasks, n_tasks=6, balanced=True)
        assert card.results[1].mean == pytest.approx(100 * both.mean)
    fewer = reproduce(together(tmp_path, names[0]), tmp_path / "r", quiet=True, say=quiet)
    assert fewer.weights != card.weights
    assert fewer.digest != card.digest


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (["nobody"], "nobody is no run folder, and none of nearest"),
        (
            ["protonet-omniglot", "tables"],
            "tables does not fit: inputs is 'tables', and here 'images'",
        ),
        (["SMALL"], "SMALL does not fit: size is 20, and here 28"),
        (["SEEN"], "SEEN was trained on 80 of the classes that this split"),
        (["protonet-drawings"], "protonet-drawings was trained on 80 of the classes"),
        (["REFINED"], "a member was trained with refine 3: at_test of every cell should"),
        (["protonet-omniglot", "protonet-omniglot"], "protonet-omniglot is named twice"),
    ],
)
def test_members_that_do_not_fit_are_refused(
    members: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    quick = {"data": "alphabets", "filters": 4, "steps": 1}
    for name, changes in {
        "SMALL": {"size": 20},
        "SEEN": {"classes": 400},
        "REFINED": {"classes": 40, "options": {"refine": 3}},
    }.items():
        if name in members:
            machine = Machine(accelerator="cpu", validation=None)
            experiment = Experiment("protonet", **{**quick, **changes})
            run_experiment(experiment, tmp_path / name, machine, quiet=True)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        reproduce(together(tmp_path, *members), tmp_path / "r", quiet=True, say=quiet)


def test_no_member_has_seen_what_any_cell_tests_on(tmp_path: Path, omniglot_root: Path) -> None:
    cell = ", data = 'omniglot', split = 'maml', rotations = true"
    own = together(tmp_path, "protonet-omniglot", cell=cell)
    with pytest.raises(
        ValueError, match=r"was trained on \d+ of the classes that this split \(maml"
    ):
        reproduce(own, tmp_path / "r", root=omniglot_root, quiet=True, say=quiet)


def test_the_ensemble_that_comes_along_asks_what_comes_along() -> None:
    assert {*load_recipe("ensemble-omniglot-beyond").members} <= {*shipped()}
