"""The queue of trainings: complete, and what it keeps is what a run needs to go on."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from quickstudy.experiments.recipe import load_recipe, recipe_names

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def campaign(load_tool: Callable[[str], ModuleType]) -> ModuleType:
    return load_tool("campaign")


def test_every_recipe_is_in_the_queue_or_finished(campaign: ModuleType, tmp_path: Path) -> None:
    assert len({*campaign.QUEUE}) == len(campaign.QUEUE)
    assert {name.partition("@")[0] for name in campaign.QUEUE} <= {*recipe_names()}
    rest = [name for name in recipe_names() if name not in campaign.QUEUE]
    for name in rest:
        adapted = load_recipe(name).kind == "adapted"  # its -paper recipe is trained instead
        no_data = load_recipe(name).protocol.data in ("miniimagenet", "folder")
        assert adapted or no_data or campaign.finished(name, tmp_path), name


def test_unfinished_runs_are_kept_and_go_on(campaign: ModuleType, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "maml-omniglot-paper-20w5s"
    run.mkdir(parents=True)
    for name in ("run.json", "metrics.csv", "checkpoint.safetensors", "campaign.log"):
        (run / name).write_text(name)
    (tmp_path / "runs" / "empty").mkdir()
    campaign.copy(tmp_path / "runs", tmp_path / "kept")
    kept = tmp_path / "kept" / run.name
    assert {file.name for file in kept.iterdir()} == {
        "run.json",
        "metrics.csv",
        "checkpoint.safetensors",
    }
    assert [folder.name for folder in (tmp_path / "kept").iterdir()] == [run.name]


def test_seeds_are_apart(campaign: ModuleType, tmp_path: Path) -> None:
    name = "maml-omniglot-paper-20w5s@2"
    run = campaign.folder_of(name, tmp_path / "runs")
    assert run == tmp_path / "runs" / "seed2" / "maml-omniglot-paper-20w5s"
    assert campaign.name_of(run) == name
    run.mkdir(parents=True)
    (run / "checkpoint.safetensors").write_text("")
    campaign.copy(tmp_path / "runs", tmp_path / "kept")
    kept = campaign.folder_of(name, tmp_path / "kept")
    assert (kept / "checkpoint.safetensors").is_file()
    assert campaign.finished("nearest-omniglot", tmp_path)
    assert not campaign.finished("nearest-omniglot@2", tmp_path)


def test_checkpoints_in_the_repository_are_of_recipes_as_they_stand(campaign: ModuleType) -> None:
    from quickstudy.experiments.spec import Experiment

    for checkpoint in (ROOT / "checkpoints").rglob("checkpoint.safetensors"):
        name, saved = campaign.name_of(checkpoint.parent), Experiment.load(checkpoint.parent)
        recipe, _, seed = name.partition("@")
        assert saved == load_recipe(recipe).experiment(saved.root, int(seed or 0)), name
        assert not campaign.finished(name, ROOT / "runs"), f"{name} can be removed"
