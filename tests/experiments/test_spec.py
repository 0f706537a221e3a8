"""One description of a run: declared once, checked, said in one line, and the same everywhere."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from quickstudy.cli import app
from quickstudy.experiments.recipe import TrainingProtocol, load_recipe
from quickstudy.experiments.run import Machine, run_experiment
from quickstudy.experiments.spec import (
    LEARNERS,
    OF_TABLES,
    Experiment,
    LearnerName,
    LearnerSpec,
    Setup,
)

OLD_RUN = {
    "learner": "maml",
    "options": {"inner_lr": 0.1},
    "data": "alphabets",
    "root": None,
    "split": "published",
    "rotations": True,
    "validation_groups": 0,
    "size": 28,
    "channels": 1,
    "invert": False,
    "skip_corrupt": False,
    "classes": 30,
    "way": 5,
    "shot": 1,
    "most_shot": None,
    "query": 2,
    "tasks": 1,
    "within_group": False,
    "augment": 0.0,
    "steps": 2,
    "lr": 0.001,
    "optimizer": "adam",
    "schedule": "cosine",
    "halve_every": 2000,
    "average": 0.0,
    "backbone": "conv4",
    "filters": 64,
    "downsample": "pool",
    "batch_norm": "inductive",
    "seed": 3,
}
"""The fields of a run of 0.1.0, when they were those of a dataclass."""


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"way": 1}, "way is 1; expected at least 2"),
        ({"steps": 0}, "steps is 0; expected at least 1"),
        ({"lr": 0.0}, "lr is 0.0; expected more than 0"),
        ({"lr": float("nan")}, "lr is nan; expected a finite number"),
        ({"average": 1.0}, "average is 1.0; expected less than 1"),
        ({"shot": "3"}, "shot is '3'; expected an integer"),
        ({"shot": True}, "shot is True; expected an integer"),
        ({"rotations": 1}, "rotations is 1; expected true or false"),
        ({"channels": 2}, "channels is 2; expected one of 1, 3"),
        ({"schedule": "slow"}, "schedule is 'slow'; expected one of constant, cosine, linear, h"),
        ({"wey": 3}, "there is no field 'wey'; there are: learner, options, way"),
        ({"shot": 2, "most_shot": 1}, "most_shot is 1, less than shot, 2"),
        ({"way": 4, "first_way": 5}, "first_way is 5, more than way, 4"),
        ({"keep_encoder": True}, "keep_encoder keeps an encoder that has learned: name its start"),
        ({"options": {"scale": 1.0}}, "protonet has no option 'scale'; it has: joint_norm"),
        ({"options": {"classes": 5}}, "protonet has no option 'classes'; it has: joint_norm"),
        ({"backbone": "efficientnet-lite0"}, "channels is 1; efficientnet-lite0 takes photos"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(given: dict[str, Any], message: str) -> None:
    for make in (Experiment, Experiment("protonet").replace):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}") as error:
            make(**{"learner": "protonet", **given})
        assert "\n" not in str(error.value)


def test_it_is_what_it_was_made_of_for_good() -> None:
    own = Experiment("maml", way=3, options={"inner_lr": 0.1})
    assert own.replace(way=5).replace(way=3) == own
    assert own.replace(learner="protonet", options={}).learner == "protonet"
    with pytest.raises(ValueError, match="frozen"):
        own.way = 4  # type: ignore[misc]


NEWER = {"frequency_spread", "init", "norm_scale", "one_turn", "resample"}
NEWER |= {"backbone_config", "columns", "fit_ink", "invented", "keep_encoder"}
NEWER |= {"first_way", "numbers", "pens", "start"}


def test_runs_of_before_are_read(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"experiment": OLD_RUN}))
    own = Experiment.load(tmp_path)
    assert own.model_dump(exclude=NEWER) == OLD_RUN
    newer = {name: getattr(own, name) for name in NEWER}
    fields = Experiment.model_fields
    assert newer == {name: fields[name].get_default(call_default_factory=True) for name in NEWER}
    assert Experiment(**own.about()["experiment"]) == own
    for text, message in (
        ('{"experiment": {"learner": "maml", "wey": 5}}', "there is no field 'wey'"),
        ('{"experiment": {"way": 5}}', "'learner'"),
        ("{}", "it has no 'experiment'"),
        ("{", "does not describe a run"),
    ):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(ValueError, match=message) as error:
            Experiment.load(tmp_path)
        assert str(tmp_path / "run.json") in str(error.value)


def test_every_field_says_what_it_means() -> None:
    for model in (Experiment, LearnerSpec):
        assert all(field.description for field in model.model_fields.values())


def test_a_recipe_has_the_fields_of_a_run_and_says_how_long() -> None:
    """Those of a place (where the data lies) and of a run (its seed) are not a recipe's."""
    assert {*Experiment.model_fields} - {*TrainingProtocol.model_fields} == {
        "root",
        "skip_corrupt",
        "seed",
    }
    needed = {name for name, field in TrainingProtocol.model_fields.items() if field.is_required()}
    assert needed == {"learner", "data", "shot", "query", "tasks", "steps"}
    other = {
        name
        for name in Setup.model_fields
        if name not in needed
        and TrainingProtocol.model_fields[name].get_default(call_default_factory=True)
        != Experiment.model_fields[name].get_default(call_default_factory=True)
    }
    assert other == {"rotations", "schedule"}


def test_the_learner_alone_is_the_learner_of_the_run() -> None:
    own = load_recipe("maml-omniglot-5w1s").experiment(seed=7)
    spec = LearnerSpec(**json.loads(own.learner_spec().model_dump_json()))
    torch.manual_seed(1)
    before = torch.get_rng_state()
    alone, whole = spec.build(7).state_dict(), own.build_learner().state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    assert alone.keys() == whole.keys()
    assert all(torch.equal(alone[name], whole[name]) for name in whole)
    assert not LearnerSpec.model_fields.keys() & {"data", "root", "lr", "seed", "steps"}
    baseline = Experiment("baseline", data="alphabets", classes=10)
    assert baseline.learner_spec().options == {"classes": 40}
    assert Experiment("maml", data="sinusoid").learner_spec().inputs == "sinusoid"


def test_a_learner_that_counts_classes_says_so() -> None:
    with pytest.raises(ValueError, match="baseline needs the option 'classes'"):
        LearnerSpec(learner="baseline").build()
    assert LearnerSpec(learner="baseline", options={"classes": 7}).build().max_way is None


def test_a_run_goes_on_only_as_it_began(tmp_path: Path) -> None:
    """With its seed, its rates and its very data; more steps may follow, from wherever they lie."""
    rng = np.random.default_rng(0)
    for place in ("here", "there"):
        for name in range(6):
            (tmp_path / place / str(name)).mkdir(parents=True)
            for i in range(4):
                file = tmp_path / "here" / str(name) / f"{i}.png"
                if place == "there":
                    shutil.copy(file, tmp_path / place / str(name))
                else:
                    Image.fromarray(rng.integers(0, 255, (8, 8), np.uint8)).save(file)
    chosen = {"data": "folder", "size": 8, "backbone": "mlp", "way": 2, "query": 2, "channels": 1}
    chosen |= {"learner": "protonet", "split": "random", "root": str(tmp_path / "here")}
    machine, run = Machine(validation=None), tmp_path / "run"
    experiment = Experiment(**chosen, steps=2)
    run_experiment(experiment, run, machine, quiet=True)
    moved = Experiment(**{**chosen, "root": str(tmp_path / "there")}, steps=3)
    assert run_experiment(moved, run, machine, resume=True, quiet=True).steps == 3
    for change in ({"seed": 1}, {"lr": 0.5}, {"way": 3}):
        ((name, value),) = change.items()
        other = Experiment(**{**chosen, **change}, steps=4)
        says = rf"run was begun with {name} .*, not {value!r}; go on"
        with pytest.raises(ValueError, match=says):
            run_experiment(other, run, machine, resume=True, quiet=True)
    Image.new("L", (8, 8), 7).save(tmp_path / "here" / "0" / "0.png")
    with pytest.raises(ValueError, match=r"run was begun on other data: the fingerprint of its"):
        run_experiment(Experiment(**chosen, steps=4), run, machine, resume=True, quiet=True)
    with pytest.warns(UserWarning, match=r"run was begun on other data: .*; the tasks are of what"):
        app(
            [
                "evaluate",
                str(run),
                "--query",
                "2",
                "--tasks",
                "2",
                "--out",
                str(tmp_path / "scores.json"),
            ],
            standalone_mode=False,
        )


def test_what_suits_drawings_is_not_taken_for_other_data_or_what_was_chosen() -> None:
    own = Experiment.suited("maml")
    assert (own.downsample, own.options["inner_lr"], own.tasks) == ("stride", 2.0, 16)
    chosen = Experiment.suited("maml", tasks=4, options={"inner_lr": 0.1, "inner_steps": 2})
    assert (chosen.tasks, chosen.options) == (4, {"inner_lr": 0.1, "inner_steps": 2})
    for data in ("folder", "sinusoid", "miniimagenet"):
        other = Experiment.suited("maml", data=data)  # type: ignore[arg-type]
        assert (other.downsample, other.options, other.steps) == ("pool", {}, 1000)
    assert Experiment.suited("protonet", data="alphabets").way == 20
    assert Experiment.suited("protonet", data="folder").way == 5
    assert Experiment.suited("reptile").optimizer == "sgd"


@pytest.mark.parametrize("name", LEARNERS)
def test_a_step_in_mixed_precision(name: LearnerName) -> None:
    """What learners keep between steps is in single precision, whatever a step computes in."""
    data = "tables" if name in OF_TABLES else "alphabets"
    how = {"data": data, "classes": 8, "way": 3, "query": 2, "size": 16, "filters": 4}
    experiment = Experiment.suited(name, **how)
    learner = experiment.build_learner().train()
    if not any(p.requires_grad for p in learner.parameters()):
        return
    with torch.autocast("cpu", torch.bfloat16):
        loss = learner.loss(experiment.sampler("train")[0])
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in learner.parameters())
    assert {v.dtype for v in learner.state_dict().values()} <= {
        *(torch.float32, torch.float64, torch.int64, torch.bool)
    }


def test_rotations_of_a_folder_are_no_classes_unless_asked_for() -> None:
    assert not Experiment.suited("protonet", data="folder").rotations
    assert Experiment.suited("protonet", data="folder", rotations=True).rotations
    assert Experiment.suited("protonet").rotations


def test_ways_grow_in_training_alone() -> None:
    small: dict[str, Any] = {"data": "digits", "split": "random", "query": 1}
    experiment = Experiment("lstm", way=4, first_way=2, steps=12, **small)
    assert experiment.build_learner().max_way == 4
    tasks = experiment.sampler("train")
    assert [tasks[i].n_way for i in range(8)] == [2, 2, 3, 3, 4, 4, 4, 4]
    assert experiment.replace(way=3).sampler("test")[0].n_way == 3


def test_a_step_in_words() -> None:
    words = Experiment.suited("maml", tasks=1).step_in_words
    assert words == (
        "1 task, 5-way 1-shot, 5 queries a class; 2000 steps of adam at 0.003, cosine, "
        "inner_lr 2.0, downsample stride"
    )
    points = Experiment.suited("maml", data="sinusoid", most_shot=20, query=1).step_in_words
    assert "25 tasks, 10 support points, 1 query point;" in points
    growing = Experiment.suited("lstm", way=20, first_way=5).step_in_words
    assert "1 task, 5- to 20-way 1-shot" in growing
    tables = Experiment.suited("tables", data="tables").step_in_words
    assert "up to 10-way 1 to 32-shot, 32 queries in all" in tables
    assert "1 query a class; 1 step of" in Experiment.suited("baseline", steps=1).step_in_words
