"""A step of MAML++ beside one of MAML: ``python benchmarks/maml_plus_plus.py``.

16 tasks, 5-way 1-shot, 5 inner steps, Conv4 with strides. The two take turns in one process, and
the processor's own time is counted on one thread, so that other work on the machine matters less.
Prints the median of each and of the ratio of neighbours.
"""

import statistics
import time

import torch
from torch import nn

from quickstudy.learner import MetaLearner
from quickstudy.learners import MAML, MAMLPlusPlus
from quickstudy.memory import keep_memory
from quickstudy.nn import Conv4
from quickstudy.nn.norm import Policy
from quickstudy.task import Task
from quickstudy.testing import make_task

TURNS = 9
POLICIES: tuple[Policy, ...] = ("transductive", "inductive")


def network(policy: Policy) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(Conv4(downsample="stride", batch_norm=policy), nn.Linear(64, 5))


def seconds(learner: MetaLearner, task: Task) -> float:
    """Of one step, the second of two."""
    for _ in range(2):
        learner.zero_grad()
        began = time.process_time()
        learner.loss(task).backward()  # type: ignore[no-untyped-call]
        taken = time.process_time() - began
    return taken


def main() -> None:
    keep_memory()
    torch.set_num_threads(1)
    for query in (1, 5):
        task = make_task((1, 28, 28), 5, 16, shot=1, query=query).to(torch.float32)
        for policy in POLICIES:
            plain = MAML(network(policy), inner_lr=0.1, inner_steps=5)
            plus = MAMLPlusPlus(network(policy), inner_steps=5)
            turns = [(seconds(plain, task), seconds(plus, task)) for _ in range(TURNS)]
            maml, multi = (1e3 * statistics.median(column) for column in zip(*turns, strict=True))
            ratio = statistics.median(b / a for a, b in turns)
            print(
                f"{query} queries per class, {policy}: MAML {maml:.0f} ms, MAML++ {multi:.0f} ms, "
                f"{ratio:.2f} times"
            )


if __name__ == "__main__":
    main()
