"""Minutes from nothing to an accuracy: ``python benchmarks/time_to_accuracy.py ROOT``.

Each entrant learns 5-way 1-shot Omniglot (MAML's split, rotations as classes; ``ROOT`` is a folder
with the published zips) on one thread, in a process of its own, and is tested every now and then on
the same 1,000 tasks of characters not trained on. The clock is its CPU time, begun with the first
step and stopped while it is tested: how busy the machine is matters little. The entrants:

- ``quickstudy``: what `quickstudy train NAME` does by default (MAML with ``--batch-norm
  transductive``, as in its paper);
- MAML as in learn2learn's example for Omniglot: tasks one after another, 32 a step, one inner step
  of 0.5, Adam at 0.003. learn2learn 0.2.0 does not build on Python 3.11, so its clone-and-adapt is
  written out (`peers.py`); its sampler, which opens each image again, is left out, in its favour;
- ProtoNet as in its authors' code: 60 ways, 5 queries, Adam at 0.001, halved every 2,000 episodes.

Writes ``benchmarks/results/time-to-accuracy.json``, from which ``tools/results.py`` makes a table
of docs/performance.md.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
import peers
from quickstudy.data import EpisodeSampler, prefetch
from quickstudy.evaluation import evaluate
from quickstudy.experiments.reproduce import code_commit
from quickstudy.experiments.spec import Experiment
from quickstudy.learner import MetaLearner
from quickstudy.memory import keep_memory
from quickstudy.training import train

OUT = Path(__file__).parent / "results" / "time-to-accuracy.json"
TARGETS = {"maml": 95.0, "protonet": 98.0}
TEST = 1000
Curve = list[tuple[float, int, float]]  # seconds, step, accuracy in %


class Clock:
    """Tests now and then, and counts no second of it."""

    def __init__(self, learner: MetaLearner, test: EpisodeSampler, every: float, most: float):
        self.learner, self.test, self.every, self.most = learner, test, every, most
        self.curve: Curve = []
        self.began, self.next = time.process_time(), every

    def seconds(self) -> float:
        return time.process_time() - self.began

    @property
    def due(self) -> bool:
        return self.seconds() >= self.next

    def look(self, step: int) -> bool:
        """Test; whether time is up."""
        now = self.seconds()
        accuracy = 100 * evaluate(self.learner, self.test, n_tasks=TEST).mean
        self.curve.append((round(now, 1), step, round(accuracy, 2)))
        print(f"{now:7.1f} s  step {step:5}  {accuracy:.2f}", file=sys.stderr, flush=True)
        self.began += self.seconds() - now
        self.next = now + self.every
        return now >= self.most


class Watched:
    """Lets the clock look at a training, as a logger of its figures."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def log_metrics(self, metrics: dict[str, float], step: int, /) -> None:
        if self.clock.due:
            self.clock.look(step)

    def log_hyperparams(self, params: dict[str, Any], /) -> None: ...

    def finalize(self, status: str, /) -> None: ...


def quickstudy(name: Any, root: str, every: float, most: float) -> Curve:
    """What `quickstudy train NAME` does, with its defaults."""
    policy: Any = "transductive" if name == "maml" else "inductive"
    experiment = Experiment.suited(name, root=root, split="maml", batch_norm=policy)
    learner = experiment.build_learner()
    optimizer, scheduler = experiment.build_optimizer(learner)
    clock = Clock(learner, tests(experiment), every, most)
    train(
        learner,
        experiment.sampler("train"),
        steps=experiment.steps,
        optimizer=optimizer,
        scheduler=scheduler,
        log_every=20,
        loggers=[Watched(clock)],
        progress=False,
    )
    clock.look(experiment.steps)
    return clock.curve


def tests(experiment: Experiment) -> EpisodeSampler:
    return EpisodeSampler(experiment.splits.test, way=5, shot=1, query=5, tasks=10, seed=1 << 32)


def peer(name: str, root: str, every: float, most: float) -> Curve:
    """A loop as others write it, on layers of `torch.nn`; ours, given its weights, is tested."""
    maml = name == "maml"
    shape = {"tasks": 32, "query": 1} if maml else {"way": 60}
    plan = Experiment(
        name,
        root=root,
        split="maml",
        downsample="stride" if maml else "pool",
        batch_norm="transductive",
        options={"inner_lr": peers.INNER_LR} if maml else {},
        **shape,
    )
    ours: Any = plan.build_learner()
    network = peers.plain_network(
        ours.network if maml else ours.encoder, pool=not maml, outputs=5 if maml else None
    )
    optimizer = torch.optim.Adam(network.parameters(), 3e-3 if maml else 1e-3)
    halve = torch.optim.lr_scheduler.StepLR(optimizer, 10**9 if maml else 2000, 0.5)
    clock = Clock(ours, tests(plan), every, most)
    for step, task in enumerate(prefetch(plan.sampler("train"), 0), 1):
        optimizer.zero_grad()
        if maml:
            peers.learn2learn(network, task, 1)
        else:
            peers.easyfsl(network, task)
        optimizer.step()
        halve.step()
        if clock.due:
            for own, theirs in zip(ours.parameters(), network.parameters(), strict=True):
                own.data.copy_(theirs.data)
            if clock.look(step):
                return clock.curve
    raise AssertionError("tasks have no end")


ENTRANTS: dict[str, Callable[..., Curve]] = {"quickstudy": quickstudy, "peer": peer}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--every", type=float, default=20, help="seconds between tests")
    parser.add_argument("--learners", nargs="+", choices=TARGETS, default=[*TARGETS])
    parser.add_argument("--entrants", nargs="+", choices=ENTRANTS, default=[*ENTRANTS])
    parser.add_argument("--only", nargs=2, metavar=("ENTRANT", "LEARNER"), help="in this process")
    args = parser.parse_args()
    if args.only:
        torch.set_num_threads(1)
        keep_memory()
        entrant, name = args.only
        print(json.dumps(ENTRANTS[entrant](name, args.root, args.every, 60 * args.minutes)))
        return
    for name in args.learners:
        for entrant in args.entrants:
            print(f"{name}, {entrant} ...", flush=True)
            command = [sys.executable, *sys.argv, "--only", entrant, name]
            said = subprocess.run(command, check=True, stdout=subprocess.PIPE)
            write(args, name, entrant, json.loads(said.stdout))
    for name, curves in json.loads(OUT.read_text())["curves"].items():
        soon = {entrant: reached(curve, TARGETS[name]) for entrant, curve in curves.items()}
        ours, theirs = soon.get("quickstudy"), soon.get("peer")
        times = f", {theirs / ours:.2f} times as fast" if ours and theirs else ""
        print(f"{name} to {TARGETS[name]}%, CPU s: ours {ours}, as others write it {theirs}{times}")


def reached(curve: Curve, target: float) -> float | None:
    """When, in CPU seconds; ``None`` if never."""
    return next((seconds for seconds, _, accuracy in curve if accuracy >= target), None)


def write(args: argparse.Namespace, name: str, entrant: str, curve: Curve) -> None:
    """Beside what is there already of others."""
    known = json.loads(OUT.read_text())["curves"] if OUT.is_file() else {}
    curves = {learner: {**known.get(learner, {})} for learner in TARGETS}
    curves[name][entrant] = curve
    result = {
        "commit": code_commit(),
        "command": f"python benchmarks/time_to_accuracy.py ROOT --minutes {args.minutes:g}",
        "cpu": platform.machine(),
        "targets": TARGETS,
        "curves": {
            learner: {e: each[e] for e in ENTRANTS if e in each} for learner, each in curves.items()
        },
    }
    OUT.write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
