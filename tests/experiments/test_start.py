"""Beginning with another learner's encoder: exactly its weights, once, and no class that leaks."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from quickstudy.checkpoint import load_state
from quickstudy.cli import app
from quickstudy.embedding import NormedEncoder
from quickstudy.experiments.recipe import TrainingProtocol, load_recipe, recipe_names
from quickstudy.experiments.run import Machine, load_run, run_experiment
from quickstudy.experiments.spec import Experiment, LearnerName
from quickstudy.experiments.start import build_started, keep_encoder
from quickstudy.experiments.targets import BASELINES, find_target
from quickstudy.training import train

SMALL: dict[str, Any] = {"data": "alphabets", "classes": 30, "size": 16, "filters": 4, "way": 3}
SMALL |= {"query": 2, "tasks": 2, "steps": 2}
MACHINE = Machine(accelerator="cpu", validation=None, threads=1)
OTHERS = {*BASELINES, "tables", "table-transformer"}  # which have no encoder of images to learn


def trained(folder: Path, learner: LearnerName = "protonet", **changes: Any) -> str:
    """A run of a learner whose batch norm has moved, too."""
    run_experiment(Experiment(learner, **{**SMALL, **changes}), folder, MACHINE, quiet=True)
    return str(folder)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return trained(tmp_path_factory.mktemp("start") / "protonet")


def encoders(learner: nn.Module) -> list[nn.Module]:
    own = [getattr(learner, name, None) for name in ("encoder", "query_encoder")]
    if not any(own):
        own = [learner.network[0]]  # type: ignore[index, operator]
    return [e[0] if isinstance(e, NormedEncoder) else e for e in own if e is not None]  # type: ignore[misc]


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", [name for name in get_args(LearnerName) if name not in OTHERS])
def test_every_learner_begins_with_the_features_of_its_start(
    name: LearnerName, source: str
) -> None:
    experiment = Experiment(name, **SMALL, start=source, seed=5)
    learner, plain = build_started(experiment, source).eval(), experiment.build_learner().eval()
    x = torch.rand(6, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    (wanted,) = (encoder(x) for encoder in encoders(find_target(source)[1].eval()))
    for encoder, other in zip(encoders(learner), encoders(plain), strict=True):
        assert torch.equal(encoder(x), wanted)
        assert not torch.allclose(other(x), wanted)
    kept = {k: v for k, v in plain.state_dict().items() if not k.startswith(("encoder", "network"))}
    if name != "maml++":  # whose norms of every step follow the encoder's
        assert equal(kept, {k: learner.state_dict()[k] for k in kept})


def test_per_step_norms_and_a_second_encoder_begin_there_too(source: str) -> None:
    learner = build_started(Experiment("maml++", **SMALL), source)
    first = next(iter(learner.norms.values()))  # type: ignore[operator, union-attr]
    layer = next(m for m in encoders(find_target(source)[1])[0].modules() if hasattr(m, "policy"))
    assert torch.equal(first.weight[0], layer.weight)  # type: ignore[union-attr, index]
    two = Experiment("matching", **SMALL, options={"query_encoder": True})
    states = [encoder.state_dict() for encoder in encoders(build_started(two, source))]
    assert len(states) == 2
    assert all(equal(state, encoders(find_target(source)[1])[0].state_dict()) for state in states)


@pytest.mark.parametrize("learner", ["lstm", "maml", "anil"])
def test_whatever_has_learned_an_encoder_can_be_the_start(
    learner: LearnerName, tmp_path: Path
) -> None:
    run = trained(tmp_path / "run", learner)
    begun = build_started(Experiment("protonet", **SMALL), run)
    (own,), (theirs,) = encoders(begun), encoders(load_run(run)[1])
    assert equal(own.state_dict(), theirs.state_dict())


def test_ink_is_fitted_before_and_after(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", fit_ink=True)
    begun = build_started(Experiment("maml", **SMALL, fit_ink=True), run)
    assert equal(encoders(begun)[0].state_dict(), encoders(load_run(run)[1])[0].state_dict())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 20}, "does not fit: its size is 16, and here it is 20"),
        ({"filters": 5}, "does not fit: its filters is 4, and here it is 5"),
        ({"channels": 3}, "does not fit: its channels is 1, and here it is 3"),
        ({"backbone": "mlp"}, "does not fit: its backbone is 'conv4', and here it is 'mlp'"),
        ({"downsample": "stride"}, "its downsample is 'pool', and here it is 'stride'"),
        ({"norm_scale": False}, "its norm_scale is True, and here it is False"),
        ({"fit_ink": True}, "its fit_ink is False, and here it is True"),
        ({"init": "glorot"}, "start brings the first weights, and init=glorot others"),
        ({"data": "sinusoid"}, "start is an encoder of images; sinusoids and tables have none"),
        ({"learner": "nearest"}, "nearest trains nothing that could begin with"),
        ({"learner": "scratch"}, "scratch trains nothing that could begin with"),
    ],
)
def test_an_encoder_that_does_not_fit_is_refused(
    changes: dict[str, Any], message: str, source: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build_started(Experiment(**{"learner": "lstm", **SMALL, **changes}), source)


def test_a_start_without_an_encoder_is_refused(tmp_path: Path) -> None:
    experiment = Experiment("lstm", **SMALL)
    for name in BASELINES:
        with pytest.raises(ValueError, match=f"{name} has learned no encoder to begin with"):
            build_started(experiment, name)
    with pytest.raises(FileNotFoundError, match=r"nowhere is no run folder.*protonet-omniglot"):
        build_started(experiment, "nowhere")
    run = trained(tmp_path / "run", "maml++")
    with pytest.raises(ValueError, match="a batch norm for every inner step, and no one encoder"):
        build_started(experiment, run)


def test_classes_held_out_must_not_have_been_seen(source: str, tmp_path: Path) -> None:
    """Not by the start, nor by what that began with; classes 20 to 29 are held out here."""
    fewer = {**SMALL, "classes": 20}
    own = Experiment("lstm", **fewer)
    leak = r"was trained on 10 of the classes that this split \(.*\) holds out, such as 'synthetic"
    with pytest.raises(ValueError, match=leak):
        build_started(own, source)
    middle = trained(tmp_path / "middle", **fewer)
    build_started(own, middle)
    described = json.loads((tmp_path / "middle" / "run.json").read_text())
    described["experiment"]["start"] = source
    (tmp_path / "middle" / "run.json").write_text(json.dumps(described))
    with pytest.raises(ValueError, match=f"{source} was trained on 10"):
        build_started(own, middle)
    digits = {**SMALL, "data": "digits", "split": "random", "way": 2}
    build_started(Experiment("lstm", **digits), source)


def test_a_start_whose_data_have_changed_is_refused(source: str, tmp_path: Path) -> None:
    shutil.copytree(source, tmp_path / "run")
    described = json.loads((tmp_path / "run" / "run.json").read_text())
    described["split_fingerprint"] = "0" * 16
    (tmp_path / "run" / "run.json").write_text(json.dumps(described))
    with pytest.raises(ValueError, match=r"was begun on other data: .*; what it has seen cannot"):
        build_started(Experiment("lstm", **SMALL), str(tmp_path / "run"))


def test_shipped_weights_start_what_holds_out_the_same_characters(omniglot_root: Path) -> None:
    def own(**changes: Any) -> Experiment:
        return Experiment("lstm", root=str(omniglot_root), **changes)

    build_started(own(split="vinyals"), "protonet-omniglot")
    for split in ("published", "maml"):
        with pytest.raises(ValueError, match=r"protonet-omniglot was trained on .* holds out"):
            build_started(own(split=split), "protonet-omniglot")


def test_a_run_that_was_started_goes_on_without_its_start(
    tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit as one that never stopped; until the first checkpoint it begins again."""
    gone = tmp_path / "protonet"
    shutil.copytree(source, gone)
    experiment = Experiment("lstm", **{**SMALL, "steps": 4}, start=str(gone))
    run_experiment(experiment, tmp_path / "whole", MACHINE, quiet=True)
    for _ in range(2):  # the second time without its checkpoint
        run_experiment(
            experiment, tmp_path / "parts", MACHINE, quiet=True, minutes=1e-9, resume=True
        )
        checkpoint = tmp_path / "parts" / "checkpoint.safetensors"
        assert load_state(checkpoint)["step"] == 1
        shutil.move(checkpoint, tmp_path / "kept")
    shutil.move(tmp_path / "kept", checkpoint)
    shutil.rmtree(gone)
    monkeypatch.chdir(tmp_path)
    app(["train", "--resume", "parts", "--quiet"], standalone_mode=False)
    whole, parts = (load_run(tmp_path / name)[1].state_dict() for name in ("whole", "parts"))
    assert equal(whole, parts)
    with pytest.raises(FileNotFoundError, match="is no run folder"):
        run_experiment(experiment, tmp_path / "new", MACHINE, quiet=True)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["lstm", "transformer", "cnp", "mann", "anil", "baseline"])
def test_an_encoder_that_is_kept_stays_and_all_else_is_trained(
    name: LearnerName, source: str, tmp_path: Path
) -> None:
    """As it was when it began, batch norm's averages too, whether a run goes on or not."""
    experiment = Experiment(name, **SMALL, start=source, keep_encoder=True)
    run_experiment(experiment, tmp_path / "whole", MACHINE, quiet=True)
    for _ in range(2):
        run_experiment(
            experiment, tmp_path / "parts", MACHINE, quiet=True, minutes=1e-9, resume=True
        )
    (whole, parts), begun = (
        [load_run(tmp_path / name)[1] for name in ("whole", "parts")],
        build_started(experiment, source),
    )
    assert equal(encoders(whole)[0].state_dict(), encoders(begun)[0].state_dict())
    assert equal(whole.state_dict(), parts.state_dict())
    kept = {id(p) for p in encoders(begun)[0].parameters()}
    after = dict(whole.named_parameters())
    for key, before in begun.named_parameters():
        assert torch.equal(before, after[key]) == (id(before) in kept), key


@pytest.mark.parametrize("average", [0.0, 0.9])
@pytest.mark.parametrize("batch_norm", ["inductive", "transductive"])
def test_a_longer_training_looks_at_each_image_once(
    source: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    average: float,
    batch_norm: Any,
) -> None:
    """And learns what it would have from the images, whether it goes on or not."""
    longer: dict[str, Any] = {
        **SMALL,
        "steps": 40,
        "tasks": 8,
        "average": average,
        "batch_norm": batch_norm,
    }
    experiment = Experiment("lstm", **longer, start=source, keep_encoder=True)
    machine = dataclasses.replace(MACHINE, validation={"query": 1}, validation_tasks=3)
    run_experiment(experiment, tmp_path / "whole", machine)
    said = "the encoder that is kept sees 5600 images, once" in capsys.readouterr().err
    assert said == (batch_norm == "inductive")
    for minutes in (1e-9, None):
        run_experiment(
            experiment, tmp_path / "parts", machine, quiet=True, minutes=minutes, resume=True
        )
    whole, parts = (load_run(tmp_path / name, "final")[1] for name in ("whole", "parts"))
    assert equal(whole.state_dict(), parts.state_dict())
    begun = encoders(find_target(source)[1])[0].state_dict()
    assert equal(encoders(whole)[0].state_dict(), begun)

    learner = build_started(experiment, source)
    keep_encoder(learner)
    optimizer, scheduler = experiment.build_optimizer(learner)
    train(
        learner,
        experiment.sampler("train"),
        steps=40,
        optimizer=optimizer,
        scheduler=scheduler,
        progress=False,
        average=average,
    )
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(learner.state_dict()[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("at_first", [4, 40])
def test_a_run_goes_on_with_images_or_vectors_as_it_began(
    source: str, tmp_path: Path, at_first: int
) -> None:
    """Though its steps are others now; and one of before, which does not say, with images."""
    experiment = Experiment("lstm", **{**SMALL, "tasks": 8}, start=source, keep_encoder=True)
    run = tmp_path / "run"
    for steps in (at_first, 44, 48):
        run_experiment(experiment.replace(steps=steps), run, MACHINE, quiet=True, resume=True)
        assert json.loads((run / "run.json").read_text())["embedded"] == (at_first == 40)
    if at_first == 4:
        described = json.loads((run / "run.json").read_text())
        del described["embedded"]
        (run / "run.json").write_text(json.dumps(described))
        run_experiment(experiment.replace(steps=52), run, MACHINE, quiet=True, resume=True)
    assert load_state(run / "checkpoint.safetensors")["step"] == (52 if at_first == 4 else 48)


@pytest.mark.parametrize("changes", [{"augment": 0.5}, {"pens": 0.5}, {"steps": 2}])
def test_images_that_differ_each_time_or_are_few_are_seen_as_they_come(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any]
) -> None:
    settings = {**SMALL, "steps": 40, "tasks": 8, **changes}
    experiment = Experiment("lstm", **settings, start=source, keep_encoder=True)
    run_experiment(experiment, tmp_path / "run", MACHINE)
    assert "once" not in capsys.readouterr().err


def test_an_encoder_that_is_kept_answers_in_training_as_in_a_test(source: str) -> None:
    two = Experiment("matching", **SMALL, options={"query_encoder": True, "reading_steps": 1})
    learner = build_started(two, source)
    keep_encoder(learner)
    x = torch.rand(6, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    wanted = encoders(find_target(source)[1].eval())[0](x)
    for encoder in encoders(learner.train()):
        assert torch.equal(encoder(x), wanted)
        assert torch.equal(encoder(wanted), wanted)
    for name in ("protonet", "maml"):
        with pytest.raises(ValueError, match="has no encoder with more to train beside it"):
            keep_encoder(Experiment(name, **SMALL).build_learner())  # type: ignore[arg-type]


def test_the_flag_the_description_and_the_recipe_say_it(tmp_path: Path, source: str) -> None:
    words = ["train", "transformer", "--start", source, "--out", str(tmp_path / "run"), "--quiet"]
    flags = {**SMALL, "steps": 1, "validation_tasks": 2}
    for name, value in flags.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    app(words, standalone_mode=False)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["experiment"]["start"] == source
    assert Experiment.load(tmp_path / "run").start == source
    with pytest.raises(ValueError, match=r"was begun with start .*, not None; go on"):
        run_experiment(
            Experiment.load(tmp_path / "run").replace(start=None),
            tmp_path / "run",
            MACHINE,
            resume=True,
            quiet=True,
        )
    recipe = load_recipe("protonet-omniglot")
    changed = recipe.protocol.model_dump(exclude_defaults=True) | {"start": "r2d2-omniglot"}
    other = recipe.model_copy(update={"protocol": TrainingProtocol(**changed)})
    assert other.digest != recipe.digest
    assert other.experiment().start == "r2d2-omniglot"


def test_recipes_begin_with_what_is_shipped_and_of_their_own_split() -> None:
    for recipe in map(load_recipe, recipe_names()):
        if recipe.protocol.start is not None:
            protocol = load_recipe(recipe.protocol.start).protocol
            assert load_recipe(recipe.protocol.start).ships
            assert (protocol.data, protocol.split) == (recipe.protocol.data, recipe.protocol.split)
