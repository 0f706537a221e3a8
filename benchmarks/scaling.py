"""One process against two, and one thread against two: ``python benchmarks/scaling.py``.

Each process takes a batch of its own, so two do twice the work of one a step; perfect scaling is
twice the tasks a second. One, one with two threads, two, and two that average nothing take turns.
Writes ``benchmarks/results/scaling.json``, which docs/scale.md shows, with the FLOPs of a step (the
algorithm's own, counted on the plain loop) and the bytes of the gradient.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parent))
from quickstudy.execution import executing
from quickstudy.learner import MetaLearner
from quickstudy.learners import MAML, ProtoNet
from quickstudy.memory import keep_memory
from quickstudy.nn import Conv4
from quickstudy.processes import launch
from quickstudy.task import Task
from quickstudy.testing import make_task
from results_file import keep

OUT = Path(__file__).parent / "results" / "scaling.json"
COMMAND = "python benchmarks/scaling.py"
REPEATS, SECONDS = 7, 1.2
MAML_NAME = "MAML, second order: 32 tasks, 5-way 1-shot, 1 query, 1 step"
PROTONET_NAME = "ProtoNet: 1 task, 60-way 1-shot, 5 queries"
STEPS = (MAML_NAME, PROTONET_NAME)


def step_of(name: str) -> tuple[MetaLearner, Task]:
    """The learner and the batch of one process."""
    torch.manual_seed(0)
    way, tasks, query = (5, 32, 1) if name == MAML_NAME else (60, 1, 5)
    task = make_task((1, 28, 28), way, tasks, shot=1, query=query, seed=0).to(torch.float32)
    if name == PROTONET_NAME:
        return ProtoNet(Conv4()), task
    network = nn.Sequential(Conv4(batch_norm="transductive", downsample="stride"), nn.Linear(64, 5))
    return MAML(network, inner_lr=0.4), task


def measure(name: str, fabric: Any) -> dict[str, Any]:
    """In turn: the first process alone, with one thread and with two; both apart, both together."""
    if fabric.is_global_zero:
        print(f"{name} ...", flush=True)
    learner, task = step_of(name)
    gflop = flops(learner, task) / 1e9
    optimizer = torch.optim.Adam(learner.parameters())
    shared, averaging = fabric.setup(*copies(name))
    shared.mark_forward_method("loss")

    def apart() -> None:
        optimizer.zero_grad()
        learner.loss(task).backward()
        optimizer.step()

    def together() -> None:
        averaging.zero_grad()
        fabric.backward(shared.loss(task))
        averaging.step()

    def seconds(step: Callable[[], None], steps: int, takes_part: bool = True) -> float:
        fabric.barrier()
        began = time.perf_counter()
        for _ in range(steps if takes_part else 0):
            step()
        fabric.barrier()
        return (time.perf_counter() - began) / steps

    rates: dict[str, list[float]] = {"one": [], "threads": [], "apart": [], "two": []}
    seconds(apart, 2)
    steps = max(2, round(SECONDS / fabric.broadcast(seconds(together, 2))))
    for _ in range(REPEATS):
        for threads, how in ((1, "one"), (2, "threads")):
            torch.set_num_threads(threads)
            seconds(apart, 1, fabric.is_global_zero)
            rates[how].append(len(task) / seconds(apart, steps, fabric.is_global_zero))
        torch.set_num_threads(1)
        rates["apart"].append(2 * len(task) / seconds(apart, steps))
        rates["two"].append(2 * len(task) / seconds(together, steps))
    parameters = sum(p.numel() for p in learner.parameters())
    return {
        "step": name,
        "tasks": len(task),
        "parameters": parameters,
        "gradient_bytes": 4 * parameters,
        "gflop": gflop,
        "tasks_a_second": rates,
        "medians": {how: statistics.median(each) for how, each in rates.items()},
    }


def copies(name: str) -> tuple[MetaLearner, torch.optim.Optimizer]:
    learner, _ = step_of(name)
    return learner, torch.optim.Adam(learner.parameters())


def flops(learner: MetaLearner, task: Task) -> float:
    """Of one step, as a plain loop takes it."""
    counter = FlopCounterMode(display=False)
    with executing(tasks_at_once=1, stacked=False, graphs=None), counter:
        learner.loss(task[:1]).backward()
    return float(counter.get_total_flops()) * len(task)


def main() -> None:
    keep_memory()
    fabric = launch("cpu", 2, "32-true")
    torch.set_num_threads(1)
    parts = [measure(name, fabric) for name in STEPS]
    result = {
        "command": COMMAND,
        "parts": parts,
        "repeats": REPEATS,
        "torch": torch.__version__,
    }
    if fabric.is_global_zero:
        print(json.dumps(result, indent=1))
        keep(OUT, result)


if __name__ == "__main__":
    main()
