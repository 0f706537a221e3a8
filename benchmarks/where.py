"""Where the time and the memory of a MAML step go: ``python benchmarks/where.py``.

Every operation of a step is timed as it is dispatched, and summed by kind, with the FLOPs it does;
what is left of the step's time, measured without this, is Python and autograd. Memory is what
tensors hold at the peak of a step, without what the allocator and libraries add to it. Writes
``benchmarks/results/where.json``, which ``tools/results.py`` puts into docs/performance.md.
"""

import json
import os
import statistics
import sys
import time
from collections import Counter
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

sys.path.insert(0, str(Path(__file__).parent))
from performance import GRAPHS, OURS, PHOTOS, WORKLOADS, matrix_rate, runner
from quickstudy.checkpoint import write_atomically
from quickstudy.experiments.reproduce import code_commit
from quickstudy.memory import keep_memory

RESULTS = Path(__file__).parent / "results" / "where.json"
REPEATS = 9
STEPS = ("MAML: 32 tasks, 1 query, 1 step", "MAML: 16 tasks, 15 queries, 1 step")
MEMORY = (
    ("MAML: 8 tasks, 1 query, 1 step", OURS),
    ("MAML: 8 tasks, 1 query, 20 steps", OURS),
    ("MAML: 8 tasks, 1 query, 20 steps", GRAPHS),
    (f"{PHOTOS}, 1 step", OURS),
    (f"{PHOTOS}, 20 steps", OURS),
    (f"{PHOTOS}, 20 steps", GRAPHS),
)
KINDS = {
    "convolutions by the library": ("aten::convolution",),
    "products of matrices": ("aten::bmm", "aten::mm", "aten::addmm", "aten::baddbmm"),
    "patches and changes of layout": ("aten::clone", "aten::constant_pad_nd", "aten::copy_"),
    "batch norm": ("aten::native_batch_norm", "aten::addcmul", "aten::mean"),
    "ReLU": ("aten::relu", "aten::threshold"),
}


class Timer(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seconds, self.flops = Counter[str](), Counter[str]()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        began = time.perf_counter()
        found = function(*args, **(kwargs or {}))
        seconds = time.perf_counter() - began
        name = function._schema.name
        kind = next((k for k, v in KINDS.items() if name.startswith(v)), None)
        if kind is None:
            big = any(isinstance(t, Tensor) and t.dim() > 3 for t in tree_leaves(args))
            kind = "sums of gradients, steps of parameters" if big else "everything else"
        self.seconds[kind] += seconds
        self.flops[kind] += flops(name, args, found)
        return found


def flops(name: str, args: Any, found: Any) -> float:
    if name == "aten::convolution":
        return 2.0 * found.numel() * args[1][0].numel()
    if name == "aten::convolution_backward":
        return 2.0 * args[0].numel() * args[2][0].numel() * sum(args[-1][:2])
    if name in KINDS["products of matrices"]:
        return 2.0 * found.numel() * args[-1].shape[-2]
    return 0.0


def measure(name: str) -> dict[str, Any]:
    workload = next(w for w in WORKLOADS if w.name == name)
    _, step = runner(workload, OURS, torch.float32)
    step()
    whole, timers = [], []
    for _ in range(REPEATS):
        began = time.perf_counter()
        step()
        whole.append(time.perf_counter() - began)
        with Timer() as timer:
            step()
        timers.append(timer)
    seconds = statistics.median(whole)
    rows = [
        {
            "kind": kind,
            "seconds": statistics.median(timer.seconds[kind] for timer in timers),
            "gflop": timers[0].flops[kind] / 1e9,
        }
        for kind, _ in timers[0].seconds.most_common()
    ]
    rest = seconds - sum(row["seconds"] for row in rows)
    rows.append({"kind": "Python and autograd", "seconds": rest, "gflop": 0})
    print(f"{name}: {1e3 * seconds:.0f} ms")
    for row in rows:
        print(f"  {row['kind']:40} {1e3 * row['seconds']:7.1f} ms {row['gflop']:6.1f} GFLOP")
    return {"workload": name, "seconds": seconds, "rows": rows}


def memory(name: str, candidate: str) -> dict[str, Any]:
    """What is held at the peak of a step, and the parameters of its inner steps alone."""
    workload = next(w for w in WORKLOADS if w.name == name)
    learner, step = runner(workload, candidate, torch.float32)
    step()
    learner.zero_grad()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    assert profiler.profiler is not None
    events = profiler.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    size = sum(p.numel() * p.element_size() for p in learner.parameters())
    row = {
        "workload": name,
        "candidate": candidate,
        "held_mib": max(accumulate(change for _, change in changes)) / 2**20,
        "parameters_mib": workload.steps * workload.tasks * size / 2**20,
    }
    print(f"{name}, {candidate}: {row['held_mib']:.0f} MiB, {row['parameters_mib']:.0f} parameters")
    return row


def main() -> None:
    keep_memory()
    torch.set_num_threads(os.cpu_count() or 1)
    found = {
        "command": "python benchmarks/where.py",
        "commit": code_commit(),
        "date": time.strftime("%Y-%m-%d"),
        "repeats": REPEATS,
        "matrix_gflops": matrix_rate() / 1e9,
        "parts": [measure(name) for name in STEPS],
        "memory": [memory(*which) for which in MEMORY],
    }
    write_atomically(RESULTS, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
