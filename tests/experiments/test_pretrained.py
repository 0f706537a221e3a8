"""The weights that come along are those of their cards, and do on Omniglot what the cards say."""

import hashlib
import shutil
from pathlib import Path

import pytest

import quickstudy
from quickstudy.evaluation import evaluate
from quickstudy.experiments.card import load_cards
from quickstudy.experiments.pretrained import shipped
from quickstudy.experiments.recipe import load_recipe, recipe_names


def test_cards_are_of_recipes_as_they_stand() -> None:
    for name, card in load_cards().items():
        assert card.digest == load_recipe(name).digest, name
        assert name == card.recipe


def test_every_recipe_that_ships_has_its_weights() -> None:
    wanted = [n for n in recipe_names() if load_recipe(n).ships and n in load_cards()]
    assert shipped() == sorted(wanted)
    folder = Path(quickstudy.__file__).parent / "experiments" / "recipes" / "weights"
    assert {f.stem for f in folder.glob("*")} == {*shipped()}
    assert sum(f.stat().st_size for f in folder.glob("*")) < 10_000_000


@pytest.mark.parametrize("name", shipped())
def test_shipped_weights_reach_their_card(name: str, omniglot_root: Path) -> None:
    """The first 50 of the card's test tasks, of which the mean varies as the card's spread says."""
    card, recipe = load_cards()[name], load_recipe(name)
    learner = quickstudy.load(name)
    result = card.results[0]
    tasks = recipe.test_tasks(result.cell, recipe.experiment(str(omniglot_root), seed=card.seed))
    for changed, value in result.cell.at_test.items():
        setattr(learner, changed, value)
    found = evaluate(learner, tasks, n_tasks=50, batch_norm=result.column)
    half = max(100 * found.ci95, result.ci95 * (result.tasks / 50) ** 0.5)
    assert abs(100 * found.mean - result.mean) <= half, (found, result.figure)


def test_which_shipped_weights_have_seen_which_alphabets() -> None:
    """As docs/recipes.md says."""
    splits = {n: load_recipe(n).protocol.split for n in shipped() if not n.startswith("table")}
    assert splits.pop("protonet-unseen-alphabets") == "published"
    assert load_recipe("protonet-synthetic").protocol.data == "alphabets"
    assert splits.pop("protonet-synthetic") is None
    others = {n for n in splits if "omniglot" not in n and "maml-split" not in n}
    assert others == {"protonet-drawings"}
    assert {*splits.values()} <= {"vinyals", "maml"}


def test_the_lstm_that_ships_is_above_90() -> None:
    card = load_cards()["lstm-omniglot-5w1s"]
    result = next(r for r in card.results if r.column == "inductive")
    assert card.complete
    assert result.mean - result.ci95 > 90


def test_unknown_names_and_foreign_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileNotFoundError, match=f"'nothing'.*{shipped()[0]}"):
        quickstudy.load("nothing")
    name = shipped()[0]
    copy = tmp_path / "weights.safetensors"
    shutil.copyfile(
        Path(quickstudy.__file__).parent / f"experiments/recipes/weights/{name}.safetensors", copy
    )
    assert hashlib.sha256(copy.read_bytes()).hexdigest() == load_cards()[name].weights
    data = bytearray(copy.read_bytes())
    data[-1] ^= 1
    copy.write_bytes(data)
    monkeypatch.setattr("quickstudy.experiments.pretrained.weights_file", lambda _: copy)
    with pytest.raises(ValueError, match="not the file its result card was written for"):
        quickstudy.load(name)


def test_loading_gives_a_learner_that_does_not_train() -> None:
    assert not quickstudy.load(shipped()[0]).training
