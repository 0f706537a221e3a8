"""Keeping memory between steps, and knowing before a run whether it fits."""

import copy
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from quickstudy.data import EpisodeSampler, alphabets
from quickstudy.execution import executing
from quickstudy.learner import MetaLearner
from quickstudy.learners import MAML, ProtoNet, Reptile
from quickstudy.memory import available_bytes, check_memory, keep_memory, return_memory, step_bytes
from quickstudy.nn import Conv4
from quickstudy.task import Task
from quickstudy.testing import make_task
from quickstudy.training import train


def test_it_is_done_where_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUICKSTUDY_KEEP_MEMORY", raising=False)
    assert keep_memory() == (platform.libc_ver()[0] == "glibc")


def test_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUICKSTUDY_KEEP_MEMORY", "0")
    assert not keep_memory()


def test_another_libc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUICKSTUDY_KEEP_MEMORY", raising=False)
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    assert not keep_memory()
    monkeypatch.setenv("QUICKSTUDY_KEEP_MEMORY", "")  # which is put back
    assert not return_memory()


RETURNED = """
import sys, threading
from pathlib import Path
import numpy as np
from quickstudy import memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20

getattr(memory, sys.argv[1])()
memory.keep_memory()
before = resident()
for _ in range(3):
    thread = threading.Thread(target=lambda: [np.ones(16 << 20, np.uint8) for _ in range(3)])
    thread.start()
    thread.join()
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
@pytest.mark.parametrize(("wanted", "least", "most"), [("return", -9, 9), ("keep", 40, 200)])
def test_what_threads_held_is_given_back_or_kept(wanted: str, least: int, most: int) -> None:
    words = [sys.executable, "-c", RETURNED, f"{wanted}_memory"]
    environment = {k: v for k, v in os.environ.items() if k != "QUICKSTUDY_KEEP_MEMORY"}
    said = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert least <= int(said.stdout) <= most


def a_task(tasks: int, query: int = 5) -> Task:
    return make_task((1, 28, 28), 5, tasks, shot=2, query=query).to(torch.float32)


def maml(steps: int = 1, **options: bool) -> MAML:
    return MAML(nn.Sequential(Conv4(), nn.Linear(64, 5)), inner_steps=steps, **options)


MEASURE = """
import sys
from pathlib import Path
import torch
from torch import nn
from quickstudy.execution import executing
from quickstudy.learners import MAML, ProtoNet
from quickstudy.memory import step_bytes
from quickstudy.nn import Conv4
from quickstudy.testing import make_task

torch.set_num_threads(1)
tasks, query, steps = map(int, sys.argv[2:])
learner = ProtoNet(Conv4())
if sys.argv[1] == "maml":
    learner = MAML(nn.Sequential(Conv4(), nn.Linear(64, 5)), inner_steps=steps)
task = make_task((1, 28, 28), 5, tasks, shot=2, query=query).to(torch.float32)
learner.loss(task[:1]).backward()

def resident(what):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if what in line).split()[1])

with executing(tasks_at_once=tasks):
    expected = step_bytes(learner, task)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    learner.loss(task).backward()
print(expected, resident("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measured by Linux")
@pytest.mark.parametrize("step", ["maml 4 15 1", "maml 4 5 3", "protonet 8 25 0"])
def test_the_estimate_is_right_to_a_factor_of_two(step: str, tmp_path: Path, start: Any) -> None:
    (tmp_path / "measure.py").write_text(MEASURE)
    process = start(str(tmp_path / "measure.py"), *step.split(), cwd=tmp_path)
    assert process.wait() == 0, process.err
    expected, measured = map(int, process.out.split())
    assert measured > 50e6, "too little to tell from the rest"
    assert measured / 2 < expected < 2 * measured


@pytest.mark.parametrize("learner", [ProtoNet(Conv4()), maml(), Reptile(nn.Sequential(Conv4()))])
def test_estimating_changes_nothing(learner: MetaLearner) -> None:
    before, rng = copy.deepcopy(learner.state_dict()), torch.get_rng_state()
    learner.train()
    assert step_bytes(learner, a_task(2)) > 0
    assert learner.training
    assert torch.equal(rng, torch.get_rng_state())
    assert all(torch.equal(v, before[k]) for k, v in learner.state_dict().items())


def test_more_needs_more() -> None:
    protonet = ProtoNet(Conv4())
    sizes = [step_bytes(protonet, a_task(tasks)) for tasks in (1, 2, 8)]
    assert sizes[2] == pytest.approx(sizes[1] + 6 * (sizes[1] - sizes[0]), rel=1e-6)
    assert step_bytes(protonet, a_task(1, query=50)) > 3 * sizes[0]
    one, four = (step_bytes(maml(steps), a_task(1)) for steps in (1, 4))
    with executing(graphs=3):
        three_of_four = step_bytes(maml(4), a_task(1))
    assert four > 1.6 * one
    assert one < three_of_four < four
    assert step_bytes(maml(4, first_order=True), a_task(1)) < four


def test_a_run_that_does_not_fit_says_what_would(monkeypatch: pytest.MonkeyPatch) -> None:
    class Tasks:
        def __getitem__(self, i: int) -> Task:
            return a_task(12)

    learner, cpu = ProtoNet(Conv4()), torch.device("cpu")
    free = step_bytes(learner, a_task(5))
    monkeypatch.setattr("quickstudy.memory.available_bytes", lambda device: free)
    with pytest.raises(MemoryError, match=r"12 tasks with 10 support and 25 .*\(--tasks 5\)"):
        train(learner, Tasks(), steps=1, progress=False)
    check_memory(learner, a_task(5), cpu)
    monkeypatch.setattr("quickstudy.memory.available_bytes", lambda device: 10**6)
    with pytest.raises(MemoryError, match="even one task does not fit"):
        check_memory(learner, a_task(12), cpu)
    monkeypatch.setenv("QUICKSTUDY_CHECK_MEMORY", "0")
    check_memory(learner, a_task(12), cpu)
    monkeypatch.delenv("QUICKSTUDY_CHECK_MEMORY")
    monkeypatch.setattr("quickstudy.memory.available_bytes", lambda device: None)
    check_memory(learner, a_task(12), cpu)


def test_a_run_whose_tasks_grow_must_fit_when_they_have(monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {"way": (2, 20), "shot": 1, "query": 1, "tasks": 2}
    tasks = EpisodeSampler(alphabets(30, n_examples=2), **settings, grow=4)
    learner = ProtoNet(Conv4())
    free = step_bytes(learner, tasks[0])
    assert free < step_bytes(learner, tasks[4])
    monkeypatch.setattr("quickstudy.memory.available_bytes", lambda device: free)
    with pytest.raises(MemoryError, match="2 tasks with 20 support and 20 query"):
        train(learner, tasks, steps=1, progress=False)


def test_available_memory() -> None:
    free = available_bytes(torch.device("cpu"))
    assert free is None or 10**6 < free < 2**50
    assert available_bytes(torch.device("meta")) is None
