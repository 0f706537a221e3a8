"""What a name stands for, on the command line and in Python."""

from pathlib import Path

import pytest
import torch

from quickstudy.evaluation import Evaluation, evaluate, result_path
from quickstudy.experiments.card import load_cards
from quickstudy.experiments.run import Machine, run_experiment
from quickstudy.experiments.spec import Experiment, LearnerSpec
from quickstudy.experiments.targets import (
    BASELINES,
    build_baseline,
    find_target,
    nearest_in_space,
    run_folder,
    tasks_to_test,
    trained_by,
    trained_on,
    with_data,
)
from quickstudy.learners import MAML, Ensemble, NearestNeighbour, ProtoNet, Scratch
from quickstudy.nn import MLP


def test_a_name_is_a_run_folder_or_shipped_weights_or_a_baseline(tmp_path: Path) -> None:
    plan = Experiment("nearest", data="alphabets", classes=20)
    run_experiment(plan, tmp_path / "r", Machine(accelerator="cpu"), quiet=True)
    experiment, learner = find_target(tmp_path / "r")
    assert (experiment, type(learner)) == (plan, NearestNeighbour)
    experiment, learner = find_target("protonet-omniglot")
    assert (experiment.learner, type(learner)) == ("protonet", ProtoNet)
    for name in BASELINES:
        assert find_target(name)[0].learner == name
    with pytest.raises(FileNotFoundError, match=r"elsewhere is no run folder.*nearest, scratch"):
        find_target("elsewhere")


def test_a_result_is_kept_under_a_name_that_says_what_it_is(tmp_path: Path) -> None:
    assert run_folder(tmp_path) == tmp_path
    assert run_folder("protonet-omniglot") == Path("runs/protonet-omniglot")
    about = {"part": "test", "way": 5, "shot": 1, "nearest": 3, "query": 15}
    path = result_path(Evaluation((0.5,), about=about), tmp_path)
    assert path == tmp_path / "evaluations" / "test-5-1-nearest3-plain.json"
    frozen = Evaluation((0.5,), batch_norm="transductive")
    assert result_path(frozen, "r").name == "frozen-transductive.json"


def test_other_data_gets_the_split_that_suits_it() -> None:
    experiment = Experiment("protonet", split="maml", rotations=False)
    assert with_data(experiment) == experiment
    assert with_data(experiment, "digits").split == "random"
    assert with_data(experiment, "omniglot").split == "published"
    assert with_data(experiment, "omniglot", split="group").split == "group"
    experiment = experiment.replace(rotations=True)
    assert with_data(experiment, "digits").rotations
    assert with_data(experiment, "folder").rotations is False
    assert with_data(experiment, "folder", rotations=True).rotations is True
    mine = experiment.replace(data="folder", root="here")
    assert with_data(mine, "folder", root="there").rotations is True
    changed = with_data(experiment, root=Path("here"), way=7, rotations=True)
    assert (changed.split, changed.root, changed.way) == ("maml", "here", 7)
    assert changed.rotations


def test_baselines_fit_the_experiment() -> None:
    experiment = Experiment("protonet", way=7, downsample="stride", data="alphabets", classes=20)
    scratch = build_baseline("scratch", experiment)
    assert isinstance(scratch, Scratch)
    assert scratch.max_way == 7
    assert isinstance(build_baseline("nearest", experiment), NearestNeighbour)
    sinusoid = Experiment("maml", data="sinusoid")
    assert build_baseline("scratch", sinusoid).inner_steps == 200
    with pytest.raises(ValueError, match="nearest cannot learn sinusoids"):
        build_baseline("nearest", sinusoid)


def test_neighbours_in_the_space_of_a_learner() -> None:
    learner = ProtoNet(MLP(784, [], 4))
    near = nearest_in_space(learner, k=3)
    assert near.encoder is learner.encoder
    with pytest.raises(ValueError, match="MAML has no encoder"):
        nearest_in_space(MAML(MLP(784, [], 4)))


def test_test_tasks_say_whether_they_are_the_same() -> None:
    experiment = Experiment("nearest", data="alphabets", classes=20)
    learner = experiment.build_learner()
    one, about = tasks_to_test(experiment, query=2)
    same, about_same = tasks_to_test(experiment, query=2)
    other, about_other = tasks_to_test(experiment, query=2, seed=1)
    assert about["tasks"] == about_same["tasks"] != about_other["tasks"]
    assert torch.equal(one[0].query_x, same[0].query_x)
    assert not torch.equal(one[0].query_x, other[0].query_x)
    assert (about["way"], about["shot"], about["part"]) == (5, 1, "test")
    assert evaluate(learner, one, n_tasks=2, about=about).about == about


def test_weights_alone_are_a_target_of_which_nobody_knows_what_they_have_seen(
    tmp_path: Path,
) -> None:
    spec = LearnerSpec(learner="protonet", size=16, filters=4)
    both = Ensemble([spec.build(1), spec.build(2)])
    both.save_pretrained(tmp_path / "both")
    for place in (tmp_path / "both", tmp_path / "both" / "model.safetensors"):
        with pytest.warns(UserWarning, match="nothing says on which classes .* was trained"):
            experiment, learner = find_target(place)
        assert isinstance(learner, Ensemble)
        assert (experiment.learner, experiment.size, experiment.data) == (
            "protonet",
            16,
            "omniglot",
        )
    assert run_folder(tmp_path / "both") == tmp_path / "both"
    assert run_folder(tmp_path / "both" / "model.safetensors") == Path("runs/model")


def test_what_split_a_target_was_trained_on(tmp_path: Path) -> None:
    run = Experiment("protonet", data="alphabets", classes=30, size=16, filters=4, steps=1)
    run_experiment(run, tmp_path / "r", Machine(accelerator="cpu", validation=None), quiet=True)
    assert trained_on(tmp_path / "r") == run.splits.fingerprint
    assert trained_on("protonet-omniglot") == load_cards()["protonet-omniglot"].fingerprint
    assert trained_on("protonet-omniglot") != trained_on("maml-omniglot-5w1s")
    assert trained_on("nearest") is None
    assert trained_by(tmp_path / "r") == run
    by_recipe = trained_by("protonet-omniglot")
    assert by_recipe is not None
    assert (by_recipe.learner, by_recipe.split) == ("protonet", "vinyals")
    (tmp_path / "weights.safetensors").touch()
    assert trained_by("nearest") is trained_by(tmp_path / "weights.safetensors") is None
