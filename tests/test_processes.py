"""Several processes: the weights of one, and an end for all when one is lost."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from quickstudy.checkpoint import load_state, load_weights, save_state
from quickstudy.experiments.spec import Experiment
from quickstudy.processes import first_goes, processes
from quickstudy.task import Task
from quickstudy.training import train

FABRIC_RUN = (str(Path(sys.executable).with_name("fabric")), "run", "--devices", "2")
TINY = {"data": "alphabets", "classes": 30, "size": 16, "way": 3, "query": 2, "tasks": 2}
TINY |= {"steps": 5, "lr": 0.1}
EXPERIMENTS = {
    "maml": Experiment(
        "maml", filters=8, optimizer="sgd", options={"inner_steps": 3, "inner_lr": 0.1}, **TINY
    ),
    "reptile": Experiment("reptile", filters=8, optimizer="sgd", **TINY),
    "protonet": Experiment("protonet", filters=8, optimizer="sgd", **TINY),
}
EACH = """
import sys
from pathlib import Path
from quickstudy.cli import main
from quickstudy.experiments.spec import Experiment
from quickstudy.experiments.run import Machine, run_experiment

machine = Machine(accelerator="cpu", threads=1, validation=None)
for name, experiment in {experiments}.items():
    run_experiment(experiment, Path(name), machine, quiet=True)
mixed = Machine(accelerator="cpu", threads=1, validation=None, precision="bf16-mixed")
run_experiment({experiments}["maml"], Path("mixed"), mixed, quiet=True)
sys.argv = ["quickstudy", *{train}, "--out", "whole"]
main()
"""
TRAIN = (
    *("train", "protonet", "--data", "alphabets", "--classes", "30", "--backbone", "mlp"),
    *("--size", "8", "--way", "3", "--query", "2", "--steps", "40", "--validation-tasks", "2"),
    *("--checkpoint-every", "5", "--accelerator", "cpu", "--threads", "1", "--quiet"),
)
FAULTY = """
import os, signal
from quickstudy.cli import main
from quickstudy.data import EpisodeSampler

sound = EpisodeSampler.__getitem__

def faulty(self, index):
    if index == 41:  # the second process's 21st batch
        {fault}
    return sound(self, index)

EpisodeSampler.__getitem__ = faulty
main()
"""
CALLBACKS = """
import os, sys
import torch
from quickstudy.experiments.spec import Experiment
from quickstudy.processes import launch
from quickstudy.training import train

fabric = launch("cpu", 1, "32-true")
experiment = Experiment(
    "protonet", data="alphabets", classes=30, size=8, way=3, query=2, backbone="mlp"
)
last = fabric.global_rank == 1

def run(folder, **settings):
    learner = experiment.build_learner()
    return train(
        learner, experiment.sampler("train"), steps=8, run_dir=folder, fabric=fabric,
        optimizer=torch.optim.SGD(learner.parameters(), lr=0.0), progress=False, validate_every=2,
        validation=experiment.sampler("validation"), validation_tasks=2, **settings
    )

def slip(step, evaluation):
    if last and step == 4:
        raise ValueError("a slip")

ends = [run("asked", on_validation=lambda step, evaluation: last and step == 4)]
ends += [run("asked", resume=True), run("patient", patience=2)]
ends += [run("patient", patience=2, resume=True)]
for end in ends:
    print(fabric.global_rank, end.steps, end.stopped)
sys.stdout.flush()
run("raised", on_validation=slip)
"""
GONE = "error: a process of this training is gone"


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=100
    )


def joined(a: Task, b: Task) -> Task:
    pairs = zip(a.tensors(), b.tensors(), strict=True)
    return Task(*(torch.cat(pair) for pair in pairs), n_way=a.n_way)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes of ``fabric run`` train: each experiment, and a ``whole`` run.

    It calls torchrun, so that both are tried.
    """
    folder = tmp_path_factory.mktemp("two")
    (folder / "each.py").write_text(EACH.format(experiments=EXPERIMENTS, train=TRAIN))
    with socket.socket() as probe:  # tests run side by side, and `fabric run` has one port for all
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    done = run(*FABRIC_RUN, "--main-port", port, "each.py", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_two_processes_have_the_weights_of_one(trained: Path, name: str) -> None:
    """Of one that learns from both batches: as one batch, or by the mean of two losses."""
    experiment = EXPERIMENTS[name]
    one, two = experiment.build_learner(), experiment.build_learner()
    start = {key: value.clone() for key, value in one.state_dict().items()}
    optimizer, scheduler = experiment.build_optimizer(one)
    tasks = experiment.sampler("train")
    one.train()
    for step in range(5):
        optimizer.zero_grad()
        first, second = tasks[2 * step], tasks[2 * step + 1]
        if name == "protonet":  # batch norm mixes the tasks of a batch; the first's averages stay
            before = [buffer.clone() for buffer in one.buffers()]
            (one.loss(second) / 2).backward()
            for buffer, old in zip(one.buffers(), before, strict=True):
                buffer.copy_(old)
            (one.loss(first) / 2).backward()
        else:
            one.loss(joined(first, second)).backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
    load_weights(trained / name / "final.safetensors", two)
    for key, value in one.state_dict().items():
        torch.testing.assert_close(two.state_dict()[key], value, atol=1e-6, rtol=1e-6, msg=key)
    kept = [key for key, value in one.state_dict().items() if torch.equal(value, start[key])]
    assert not [key for key in kept if key.endswith(".weight") or key.startswith("inner_")]
    assert json.loads((trained / name / "run.json").read_text())["processes"] == 2


def test_two_processes_in_mixed_precision(trained: Path) -> None:
    mixed, single = (load_file(trained / name / "final.safetensors") for name in ("mixed", "maml"))
    assert all(value.dtype == single[key].dtype for key, value in mixed.items())
    apart = {key: (value - single[key]).abs().max() for key, value in mixed.items()}
    assert 0 < max(apart.values()) < 0.1


def test_a_killed_process_ends_the_other_and_the_run_resumes_exactly(
    trained: Path, tmp_path: Path, start: Any
) -> None:
    """Killed under ``--devices 2``, resumed as by torchrun, compared with a run that is whole."""
    (tmp_path / "faulty.py").write_text(FAULTY.format(fault="os.kill(os.getpid(), signal.SIGKILL)"))
    cut = run(sys.executable, "faulty.py", *TRAIN, "--devices", "2", "--out", "cut", cwd=tmp_path)
    assert cut.returncode == 1
    assert GONE in cut.stderr
    assert "quickstudy train --resume cut" in cut.stderr
    assert load_state(tmp_path / "cut" / "checkpoint.safetensors")["step"] in (5, 10, 15, 20)

    for process in start.two("quickstudy", "train", "--resume", "cut", cwd=tmp_path):
        assert process.wait() == 0, process.err
    final = [run / "final.safetensors" for run in (tmp_path / "cut", trained / "whole")]
    assert final[0].read_bytes() == final[1].read_bytes()


def test_an_error_in_one_process_ends_the_other(tmp_path: Path, start: Any) -> None:
    (tmp_path / "faulty.py").write_text(FAULTY.format(fault="raise ValueError('a bad image')"))
    first, second = start.two(str(tmp_path / "faulty.py"), *TRAIN, "--out", "cut", cwd=tmp_path)
    assert second.wait() == 2
    assert "error: a bad image" in second.err
    assert first.wait() == 1
    assert GONE in first.err


def test_processes_end_together(tmp_path: Path, start: Any) -> None:
    """Whichever of them a callback ends, or fails in, and when patience has run out."""
    (tmp_path / "callbacks.py").write_text(CALLBACKS)
    both = start.two(str(tmp_path / "callbacks.py"), cwd=tmp_path)
    ends = ["4 callback"] * 2 + ["6 patience"] * 2
    for rank, process in enumerate(both):
        assert process.wait() == 1, process.err
        assert process.out.splitlines() == [f"{rank} {end}" for end in ends]
    assert "ValueError: a slip" in both[1].err
    assert "LostProcessError: a process of this training is gone" in both[0].err
    assert load_state(tmp_path / "raised" / "checkpoint.safetensors")["step"] == 4
    assert not (tmp_path / "raised" / "final.safetensors").exists()


WATCH = """
import subprocess, sys, threading, time
from quickstudy import processes

processes.GRACE = 0.1
child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
threading.Thread(target=processes._watch, args=([child],)).start()
time.sleep(60)
"""


def test_a_process_that_hangs_when_its_child_has_failed_is_ended(tmp_path: Path) -> None:
    ended = run(sys.executable, "-c", WATCH, cwd=tmp_path)
    assert ended.returncode == 1
    assert f"{GONE} (exit codes [3])" in ended.stderr


def test_a_run_resumes_on_as_many_processes(tmp_path: Path) -> None:
    experiment = EXPERIMENTS["protonet"]
    tasks = experiment.sampler("train")
    train(experiment.build_learner(), tasks, steps=1, run_dir=tmp_path, progress=False)
    checkpoint = tmp_path / "checkpoint.safetensors"
    state = load_state(checkpoint)
    save_state(checkpoint, {**state, "rng": state["rng"] * 2})
    with pytest.raises(ValueError, match="on 2 processes, and this is one on 1; start as many"):
        train(experiment.build_learner(), tasks, steps=2, run_dir=tmp_path, resume=True)


def test_one_process_goes_first() -> None:
    assert processes() == 1
    with first_goes() as first:
        assert first
