"""The loop: what it computes, what it keeps, and that nothing is ever lost."""

import copy
import csv
import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from quickstudy.checkpoint import load_state, load_weights
from quickstudy.data import SinusoidSampler, TaskSource
from quickstudy.evaluation import evaluate
from quickstudy.experiments.spec import Experiment
from quickstudy.learner import MetaLearner
from quickstudy.learners import MAML, BlackBoxLSTM, MatchingNetwork, NearestNeighbour, ProtoNet
from quickstudy.locks import BusyError
from quickstudy.nn import MLP, Conv4
from quickstudy.processes import launch
from quickstudy.task import Task
from quickstudy.testing import make_task
from quickstudy.training import CHECKPOINT, train


class Tasks:
    """An endless source of learnable image tasks."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def __getitem__(self, index: int) -> Task:
        return make_task((1, 16, 16), 3, 2, 1, 3, self.seed * 10_000 + index).to(torch.float32)


def build(name: str) -> MetaLearner:
    torch.manual_seed(0)
    if name == "protonet":
        return ProtoNet(Conv4(1, 4, image_size=16))
    if name == "lstm":
        return BlackBoxLSTM(Conv4(1, 4, image_size=16), outputs=3, hidden=8)
    if name == "dropout":
        return ProtoNet(nn.Sequential(nn.Flatten(), nn.Linear(256, 8), nn.Dropout(0.5)))
    return MAML(nn.Sequential(Conv4(1, 4, image_size=16), nn.Linear(4, 3)), inner_lr=0.1)


def quick(learner: MetaLearner, tasks: TaskSource, **settings: Any) -> Any:
    return train(learner, tasks, **{"progress": False, "log_every": 2, **settings})


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    theirs = b.state_dict()
    return all(torch.equal(v, theirs[k]) for k, v in a.state_dict().items())


def metrics(run: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))


@pytest.mark.parametrize("name", ["protonet", "maml", "lstm"])
def test_train_is_the_plain_loop(name: str) -> None:
    plain, ours = build(name), build(name)
    optimizer = torch.optim.Adam(plain.parameters(), lr=1e-3)
    tasks = Tasks()
    for step in range(6):
        loss = plain.loss(tasks[step])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    quick(ours, tasks, steps=6, validation=Tasks(1), validation_tasks=4, validate_every=2)
    assert same_weights(ours, plain)
    assert not same_weights(ours, build(name))


def test_training_learns() -> None:
    learner = MAML(MLP(1, [20, 20], 1), inner_lr=0.02)
    validation = SinusoidSampler(shot=10, query=20, tasks=50, seed=1)
    tasks = SinusoidSampler(shot=10, query=10, tasks=4)
    result = quick(
        learner, tasks, steps=150, validation=validation, validation_tasks=50, validate_every=50
    )
    assert result.best is not None
    before = MAML(MLP(1, [20, 20], 1), inner_lr=0.02)
    from quickstudy.evaluation import evaluate

    assert result.best.mean < 0.9 * evaluate(before, validation, n_tasks=50).mean


class Stopping(Tasks):
    """Presses Ctrl-C while the training thread waits for batch ``at``."""

    def __init__(self, at: int, number: int = signal.SIGINT) -> None:
        super().__init__()
        self.at, self.number = at, number

    def __getitem__(self, index: int) -> Task:
        if index == self.at:
            os.kill(os.getpid(), self.number)
            time.sleep(0.3)
        return super().__getitem__(index)


@pytest.mark.parametrize("name", ["maml", "dropout"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_run_resumes_exactly(tmp_path: Path, name: str, number: int) -> None:
    def run(tasks: TaskSource, folder: str, resume: bool = False) -> MetaLearner:
        learner = build(name)
        optimizer = torch.optim.Adam(learner.parameters(), lr=1e-3)
        torch.manual_seed(5)
        quick(
            learner,
            tasks,
            steps=12,
            optimizer=optimizer,
            scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 12),
            validation=Tasks(1),
            validation_tasks=4,
            validate_every=4,
            checkpoint_every=5,
            run_dir=tmp_path / folder,
            resume=resume,
        )
        return learner

    before = signal.getsignal(number)
    whole = run(Tasks(), "whole")
    with pytest.raises(KeyboardInterrupt, match="stopped at step"):
        run(Stopping(8, number), "cut")
    cut = load_state(tmp_path / "cut" / "checkpoint.safetensors")
    assert 1 <= cut["step"] < 12
    resumed = run(Tasks(), "cut", resume=True)
    assert same_weights(resumed, whole)
    for file in ("best.safetensors", "final.safetensors"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    columns = [
        [
            (r["step"], r["loss"], r["accuracy"], r["validation"])
            for r in metrics(tmp_path / f)
            if int(r["step"]) % 4 == 0
        ]
        for f in ("whole", "cut")
    ]
    assert [row[0] for row in columns[0]] == [row[0] for row in columns[1]] == ["4", "8", "12"]
    assert [row[2:] for row in columns[0]] == [row[2:] for row in columns[1]]
    assert signal.getsignal(number) is before


def test_a_stop_ends_a_validation_which_is_made_up_for(tmp_path: Path) -> None:
    """Not after the last of 10,000 tasks; and the run ends as if nobody had stopped it."""

    def run(validation: TaskSource, folder: str, resume: bool = False) -> MetaLearner:
        learner = build("protonet")
        settings: dict[str, Any] = {"steps": 8, "validate_every": 4, "validation_tasks": 100}
        settings |= {"run_dir": tmp_path / folder, "resume": resume, "patience": 9}
        quick(learner, Tasks(), validation=validation, **settings)
        return learner

    whole = run(Tasks(1), "whole")
    asked: list[int] = []

    class Stops(Tasks):
        def __getitem__(self, index: int) -> Task:
            if asked:
                asked.append(index)
            elif index == 2:
                asked.append(index)
                os.kill(os.getpid(), signal.SIGTERM)
            return super().__getitem__(index)

    with pytest.raises(KeyboardInterrupt, match="stopped at step 4 of 8"):
        run(Stops(1), "cut")
    assert len(asked) < 40, "the validation went on"
    assert not (tmp_path / "cut" / "best.safetensors").exists()
    assert same_weights(run(Tasks(1), "cut", resume=True), whole)
    for file in ("best.safetensors", "final.safetensors"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    rows = [
        [{k: v for k, v in row.items() if k not in ("seconds", "tasks_per_second")} for row in log]
        for log in (metrics(tmp_path / "whole"), metrics(tmp_path / "cut"))
    ]
    assert rows[0] == rows[1]


@pytest.mark.skipif(sys.platform == "win32", reason="needs file locks")
def test_one_training_at_a_time_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / ".checkpoint.0123abcd.quickstudy.tmp").write_text("of one that was killed")

    class Again(Tasks):
        def __getitem__(self, index: int) -> Task:
            if index == 3 and self.seed == 0:
                with pytest.raises(BusyError, match="another process is at work in"):
                    quick(build("protonet"), Tasks(2), steps=8, run_dir=tmp_path, resume=True)
            return super().__getitem__(index)

    assert quick(build("protonet"), Again(), steps=8, run_dir=tmp_path).steps == 8
    assert not list(tmp_path.glob(".*"))
    assert quick(build("protonet"), Tasks(), steps=9, run_dir=tmp_path, resume=True).steps == 9


def test_signals_in_one_second_are_one_request(tmp_path: Path) -> None:
    """As torchrun passes on a Ctrl-C that has already reached the process itself."""

    class Twice(Stopping):
        def __getitem__(self, index: int) -> Task:
            if index == self.at:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.05)
            return super().__getitem__(index)

    with pytest.raises(KeyboardInterrupt, match="stopped at step"):
        quick(build("protonet"), Twice(8), steps=12, run_dir=tmp_path / "cut")
    assert (tmp_path / "cut" / "checkpoint.safetensors").exists()


def test_kill_nine_and_resume_gives_the_same_bits(tmp_path: Path, start: Any) -> None:
    """A real process, killed twice at moments it does not choose."""
    command = [
        *("quickstudy", "train", "protonet", "--data", "alphabets"),
        *("--classes", "30", "--size", "8", "--backbone", "mlp", "--way", "3", "--steps", "200"),
        *("--checkpoint-every", "3", "--validate-every", "40", "--threads", "1", "--quiet"),
        *("--validation-tasks", "30"),
    ]
    whole = start(*command, "--checkpoint-every", "200", "--out", "whole", cwd=tmp_path)
    checkpoint = tmp_path / "cut" / "checkpoint.safetensors"
    begin = [*command, "--out", "cut"]
    resume = ["quickstudy", "train", "--resume", "cut", "--quiet"]
    seen = 0
    for arguments, reach in ((begin, 20), (resume, 70)):
        process = start(*arguments, cwd=tmp_path)
        while process.poll() is None:
            if checkpoint.exists() and load_state(checkpoint)["step"] >= reach:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.02)
        assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
        step = load_state(checkpoint)["step"]
        assert seen < step < 200
        seen = step
    for process in (whole, start(*resume, cwd=tmp_path)):
        assert process.wait() == 0, process.err
    for name in ("final.safetensors", "best.safetensors"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    rows = metrics(tmp_path / "cut")
    steps = [int(row["step"]) for row in rows]
    assert steps == sorted(set(steps)), "rows are doubled or out of order"
    assert not list((tmp_path / "cut").glob(".*.tmp"))


def test_run_folder_is_readable(tmp_path: Path) -> None:
    learner = build("protonet")
    quick(learner, Tasks(), steps=4, run_dir=tmp_path, about={"note": "mine"}, tensorboard=True)
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["note"] == "mine"
    assert run["versions"]["torch"] == torch.__version__
    rows = metrics(tmp_path)
    assert [row["step"] for row in rows] == ["2", "4"]
    assert 0 <= float(rows[0]["accuracy"]) <= 1
    assert list((tmp_path / "tensorboard").glob("events*"))
    fresh = ProtoNet(Conv4(1, 4, image_size=16))
    load_weights(tmp_path / "final.safetensors", fresh)
    assert same_weights(fresh, learner)


def test_existing_run_is_not_overwritten(tmp_path: Path) -> None:
    quick(build("protonet"), Tasks(), steps=2, run_dir=tmp_path)
    with pytest.raises(FileExistsError, match="already holds a run"):
        quick(build("protonet"), Tasks(), steps=2, run_dir=tmp_path)


def test_nothing_to_train_and_bad_numbers() -> None:
    with pytest.raises(ValueError, match="nothing to train"):
        quick(NearestNeighbour(), Tasks(), steps=2)
    with pytest.raises(ValueError, match="steps is 0"):
        quick(build("protonet"), Tasks(), steps=0)
    with pytest.raises(ValueError, match="needs a run_dir"):
        quick(build("protonet"), Tasks(), steps=1, resume=True)


def test_diverging_loss_is_named() -> None:
    learner = MAML(MLP(1, [20], 1), inner_lr=1e20)
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        quick(learner, SinusoidSampler(shot=5, query=5), steps=50)


def test_mixed_precision_trains() -> None:
    """A step computes in it, an evaluation does not, and the weights stay as they are."""
    learner = build("dropout")
    found: list[tuple[bool, torch.dtype]] = []
    linear = next(m for m in learner.modules() if isinstance(m, nn.Linear))
    linear.register_forward_hook(lambda m, x, y: found.append((m.training, y.dtype)))
    fabric = launch("cpu", 1, "bf16-mixed")
    quick(learner, Tasks(), steps=4, fabric=fabric, validation=Tasks(1), validation_tasks=2)
    assert {*found} == {(True, torch.bfloat16), (False, torch.float32)}
    assert "convert_input" not in vars(fabric.strategy.precision), "the Fabric is left as it was"
    assert all(p.dtype == torch.float32 for p in learner.parameters())
    own = fabric.strategy.precision.convert_input = lambda task: task
    quick(build("dropout"), Tasks(), steps=1, fabric=fabric)
    assert fabric.strategy.precision.convert_input is own, "with what its user put there"
    assert not same_weights(learner, build("dropout"))


def test_precisions_that_there_are() -> None:
    with pytest.raises(ValueError, match="expected one of: 32-true, bf16-mixed, 16-mixed"):
        launch("cpu", 1, "64-true")
    with pytest.raises(ValueError, match="there is no device 'tpu' here; there are: auto, cpu"):
        launch("tpu", 1, "32-true")
    with pytest.raises(ValueError, match="16-mixed is for GPUs"):
        launch("cpu", 1, "16-mixed")


def test_what_does_not_fit_shows_before_the_run_begins(tmp_path: Path) -> None:
    """Nothing is written, and the learner and the random numbers stay as they were."""
    learner = BlackBoxLSTM(MLP(8, [4], 4), outputs=2)
    before, rng = copy.deepcopy(learner.state_dict()), torch.get_rng_state()
    with pytest.raises(ValueError, match=r"n_way=3.*at most 2"):
        train(learner, [make_task((8,), 3).to(torch.float32)], steps=1, run_dir=tmp_path / "r")
    assert not (tmp_path / "r").exists()
    assert learner.training
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(torch.equal(v, before[k]) for k, v in learner.state_dict().items())


def test_an_average_of_the_weights_is_what_is_kept(tmp_path: Path) -> None:
    """By hand: after every step, average <- 0.9 average + 0.1 weights, from the first step on."""
    experiment = Experiment("protonet", data="alphabets", classes=30, query=2, steps=4, lr=1e-2)
    learner = experiment.build_learner()
    by_hand = experiment.build_learner()
    tasks = experiment.sampler("train")
    train(learner, tasks, steps=4, run_dir=tmp_path / "r", average=0.9, progress=False)
    optimizer = torch.optim.Adam(by_hand.parameters(), lr=1e-3)
    by_hand.train()
    average: dict[str, torch.Tensor] = {}
    for step in range(4):
        optimizer.zero_grad()
        by_hand.loss(tasks[step]).backward()
        optimizer.step()
        for name, value in by_hand.state_dict().items():
            old = average.get(name, value)
            average[name] = 0.9 * old + 0.1 * value
    for name, value in learner.state_dict().items():
        torch.testing.assert_close(value, average[name], rtol=1e-5, atol=1e-6)


def test_an_average_survives_a_stop(tmp_path: Path) -> None:
    experiment = Experiment("protonet", data="alphabets", classes=30, query=2, steps=6)
    tasks = experiment.sampler("train")
    whole, parts = experiment.build_learner(), experiment.build_learner()
    train(whole, tasks, steps=6, average=0.9, progress=False)
    how: dict[str, Any] = {"steps": 6, "average": 0.9, "progress": False, "resume": True}
    first = train(parts, tasks, run_dir=tmp_path / "r", minutes=0.0, **how)
    assert first.steps == 1
    again = experiment.build_learner()
    assert train(again, tasks, run_dir=tmp_path / "r", **how).steps == 6
    for name, value in again.state_dict().items():
        assert torch.equal(value, whole.state_dict()[name])


def test_a_budget_of_minutes_leaves_a_checkpoint_and_no_final_weights(tmp_path: Path) -> None:
    experiment = Experiment("protonet", data="alphabets", classes=30, query=2, steps=6)
    result = train(
        experiment.build_learner(),
        experiment.sampler("train"),
        steps=6,
        minutes=0.0,
        run_dir=tmp_path / "r",
        progress=False,
    )
    assert result.steps == 1
    assert (tmp_path / "r" / "checkpoint.safetensors").exists()
    assert not (tmp_path / "r" / "final.safetensors").exists()


def test_weights_that_are_no_numbers_are_never_saved(tmp_path: Path) -> None:
    learner = ProtoNet(MLP(256, [8], 4))

    class Breaking(Tasks):
        def __getitem__(self, index: int) -> Task:
            task = super().__getitem__(index)
            return replace(task, query_x=task.query_x * 1e30) if index == 7 else task

    with pytest.raises(FloatingPointError, match="no longer finite at step 8; the checkpoint befo"):
        quick(learner, Breaking(), steps=20, run_dir=tmp_path, checkpoint_every=2, log_every=20)
    saved = load_state(tmp_path / CHECKPOINT)
    assert saved["step"] == 6
    assert all(bool(torch.isfinite(value).all()) for value in saved["learner"].values())


class _Listed:
    """A source of random tasks: another first one each time."""

    def __getitem__(self, index: int) -> Task:
        return make_task((1, 16, 16), 3, 2, 1, 3, int(torch.randint(10**6, ()))).to(torch.float32)


class _Lighter(Tasks):
    def __getitem__(self, index: int) -> Task:
        task = super().__getitem__(index)
        return replace(task, support_x=task.support_x + 1)


def test_a_run_goes_on_with_the_learner_and_the_tasks_it_began_with(tmp_path: Path) -> None:
    where: dict[str, Any] = {"run_dir": tmp_path / "run", "resume": True}
    quick(build("protonet"), Tasks(), steps=2, **where)
    matching = MatchingNetwork(Conv4(1, 4, image_size=16))
    with pytest.raises(ValueError, match="with the learner ProtoNet, and this one has Matching"):
        quick(matching, Tasks(), steps=4, **where)
    learner = build("protonet")
    sgd = torch.optim.SGD(learner.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="with the optimizer Adam, and this one has SGD"):
        quick(learner, Tasks(), steps=4, optimizer=sgd, **where)
    with pytest.raises(ValueError, match="on tasks of other seed, way, shot, number or classes"):
        quick(build("protonet"), Tasks(1), steps=4, **where)
    with pytest.raises(ValueError, match="on tasks of other examples than these"):
        quick(build("protonet"), _Lighter(), steps=4, **where)
    assert quick(build("protonet"), Tasks(), steps=4, **where).steps == 4
    where["run_dir"] = tmp_path / "random"
    for steps in (2, 4):  # of which nothing can be told
        assert quick(build("protonet"), _Listed(), steps=steps, **where).steps == steps


def test_a_list_of_too_few_batches_is_refused_before_anything_is_done() -> None:
    tasks = [Tasks()[i] for i in range(3)]
    assert quick(build("protonet"), tasks, steps=3).steps == 3
    with pytest.raises(ValueError, match="steps is 4, and there are 3 batches of tasks"):
        quick(build("protonet"), tasks, steps=4)
    with pytest.raises(ValueError, match="n_tasks is 10, and there are 6 tasks"):
        evaluate(build("protonet"), tasks, n_tasks=10)


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ((Tasks()[i] for i in range(2)), r"tasks is a generator; expected a sampler or a list"),
        ([tuple(Tasks()[0].tensors())], r"tasks\[0\] is a tuple; expected a quickstudy\.Task"),
        (torch.zeros(3, 4), r"tasks\[0\] is a Tensor; expected a quickstudy\.Task"),
    ],
)
def test_what_gives_no_tasks_is_refused(tasks: Any, message: str) -> None:
    for use in (lambda: quick(build("protonet"), tasks, steps=1), lambda: _evaluated(tasks)):
        with pytest.raises(TypeError, match=message):
            use()


def _evaluated(tasks: Any) -> None:
    evaluate(build("protonet"), tasks, n_tasks=1)


def test_a_run_with_a_schedule_of_a_function_goes_on_exactly(tmp_path: Path) -> None:
    def run(folder: str, *sittings: int) -> MetaLearner:
        for steps in sittings:
            learner = build("protonet")
            optimizer = torch.optim.Adam(learner.parameters(), lr=1e-2)
            warm = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, (step + 1) / 4))
            how = {"optimizer": optimizer, "scheduler": warm, "resume": True}
            quick(learner, Tasks(), steps=steps, run_dir=tmp_path / folder, **how)
        return learner

    assert same_weights(run("two", 2, 6), run("one", 6))


def test_an_optimizer_of_another_learner_is_refused() -> None:
    learner, other = build("protonet"), build("protonet")
    own = torch.optim.Adam(learner.parameters())
    theirs = torch.optim.Adam(other.parameters())
    with pytest.raises(ValueError, match="the optimizer has no parameter of this ProtoNet"):
        quick(learner, Tasks(), steps=1, optimizer=theirs)
    scheduler: Any = torch.optim.lr_scheduler.StepLR(theirs, 1)
    with pytest.raises(ValueError, match="the scheduler is of another optimizer"):
        quick(learner, Tasks(), steps=1, optimizer=own, scheduler=scheduler)
    with pytest.raises(TypeError, match="expected one over learner"):
        quick(learner, Tasks(), steps=1, optimizer=torch.optim.Adam)
    with pytest.raises(TypeError, match="expected an optimizer of one step"):
        quick(learner, Tasks(), steps=1, optimizer=torch.optim.LBFGS(learner.parameters()))
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(own)
    with pytest.raises(TypeError, match="ReduceLROnPlateau waits for a figure"):
        quick(learner, Tasks(), steps=1, optimizer=own, scheduler=scheduler)
    with pytest.raises(ValueError, match=r"steps is 2\.5; expected a whole number"):
        quick(learner, Tasks(), steps=2.5)
    assert same_weights(learner, other)


@pytest.mark.parametrize("began_with", [True, False])
@pytest.mark.parametrize("what", ["average of the weights", "scheduler"])
def test_a_run_goes_on_with_its_average_and_its_schedule(
    tmp_path: Path, what: str, began_with: bool
) -> None:
    def run(has: bool, steps: int, **how: Any) -> None:
        learner = build("protonet")
        optimizer = torch.optim.Adam(learner.parameters())
        if has and what == "scheduler":
            how["scheduler"] = torch.optim.lr_scheduler.StepLR(optimizer, 1)
        elif has:
            how["average"] = 0.9
        quick(learner, Tasks(), steps=steps, optimizer=optimizer, run_dir=tmp_path / "r", **how)

    run(began_with, 1)
    before, after = ("with", "without") if began_with else ("without", "with")
    with pytest.raises(ValueError, match=f"a training {before} an? {what}, and .* one {after}$"):
        run(not began_with, 2, resume=True)
    run(began_with, 2, resume=True)
