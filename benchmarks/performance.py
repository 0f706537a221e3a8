"""Ours and the peers on the same work: ``make bench``, or ``python benchmarks/performance.py``.

Each candidate is a process of its own, with its own allocator and its own peak of memory; a parent
lets them take their turns, never two at once, and reports medians of 7 with the spread. A turn is
two steps, of which the second is timed: training is step after step, not step after pause. Before
anything is timed, all must find the same gradient in double precision, to 1e-5. A peer tries one
thread and all cores, and goes on with the faster. FLOPs are the algorithm's own, counted on the
plain loop; the rate of the machine is the best of a 2048x2048 product on all cores. Writes
``benchmarks/results/performance.json`` and ``docs/images/performance.png``; ``tools/results.py``
then puts the table into docs/performance.md.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parent))
import peers
from quickstudy.checkpoint import write_atomically
from quickstudy.execution import executing
from quickstudy.experiments.reproduce import code_commit
from quickstudy.learner import MetaLearner
from quickstudy.learners import (
    MAML,
    BlackBoxLSTM,
    InContextTransformer,
    ProtoNet,
)
from quickstudy.memory import keep_memory
from quickstudy.nn import Conv4
from quickstudy.task import Task
from quickstudy.testing import make_task

RESULTS = Path(__file__).parent / "results" / "performance.json"
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "performance.png"
REPEATS = 7
PEERS = ("#2667c9", "#1a7f5a", "#5b6770", "#0f8b8d")
OURS = "quickstudy"
MIXED = "ours in bfloat16"
GRAPHS = "ours, the graph of one step held"
GIVEN_BACK = "ours, memory given back"
LAYERS = "ours, first block layer by layer"
LIBRARY = "ours, library convolutions"
OWN: dict[str, dict[str, Any]] = {
    OURS: {},
    MIXED: {},
    GRAPHS: {"graphs": 1},
    "ours, one task at a time": {"tasks_at_once": 1},
    "ours by vmap": {"stacked": False},
    LAYERS: {"folded": False},
    LIBRARY: {"products_up_to": 0},
    GIVEN_BACK: {},
}


@dataclass(frozen=True)
class Workload:
    """A training step, or one task at serving: ``kind`` is maml, protonet, lstm, transformer."""

    name: str
    kind: str
    tasks: int
    way: int
    shot: int
    query: int
    steps: int = 0
    pool: bool = False
    serving: bool = False
    size: int = 28

    def task(self, dtype: torch.dtype = torch.float32) -> Task:
        image = (1 if self.size == 28 else 3, self.size, self.size)
        how = {"shot": self.shot, "query": self.query, "seed": 0}
        return make_task(image, self.way, self.tasks, **how).to(dtype)

    def learner(self) -> MetaLearner:
        torch.manual_seed(0)
        if self.kind == "maml":
            how: dict[str, Any] = {"batch_norm": "transductive", "downsample": self.down}
            backbone = Conv4(**how) if self.size == 28 else Conv4(3, 32, image_size=84, **how)
            network = nn.Sequential(backbone, nn.Linear(backbone.out_features, self.way))
            return MAML(network, inner_lr=peers.INNER_LR, inner_steps=self.steps)
        if self.kind == "protonet":
            return ProtoNet(Conv4(batch_norm="transductive"))
        if self.kind == "lstm":
            return BlackBoxLSTM(Conv4(), outputs=self.way)
        return InContextTransformer(Conv4(), outputs=self.way)

    @property
    def down(self) -> Any:
        return "pool" if self.pool else "stride"

    @property
    def candidates(self) -> list[str]:
        if self.serving or self.kind in ("lstm", "transformer"):
            return [OURS]
        if self.kind == "protonet":
            return [OURS, LAYERS, GIVEN_BACK, "easyfsl"]
        own = [OURS, MIXED] + ([GRAPHS] if self.steps > 5 else [])
        if self.steps == 1 and not self.pool and self.query != 5 and self.tasks > 8:
            own = [name for name in OWN if name != GRAPHS]
        return own + list(peers.MAML_PEERS)


MAML_SHAPES = [
    ("32 tasks, 1 query, 1 step", 32, 5, 1, 1),
    ("32 tasks, 5 queries, 1 step", 32, 5, 5, 1),
    ("16 tasks, 15 queries, 1 step", 16, 5, 15, 1),
    ("8 tasks, 1 query, 1 step", 8, 5, 1, 1),
    ("8 tasks, 1 query, 5 steps", 8, 5, 1, 5),
    ("8 tasks, 1 query, 20 steps", 8, 5, 1, 20),
    ("8 tasks, 20-way, 1 query, 5 steps", 8, 20, 1, 5),
]
PHOTOS = "MAML, photos of 84x84: 2 tasks, 15 queries"
WORKLOADS = [
    *(Workload(f"MAML: {n}", "maml", t, w, 1, q, s) for n, t, w, q, s in MAML_SHAPES),
    Workload("MAML, pooled network: 32 tasks, 1 query, 1 step", "maml", 32, 5, 1, 1, 1, True),
    Workload("MAML, pooled network: 16 tasks, 15 queries, 1 step", "maml", 16, 5, 1, 15, 1, True),
    *(
        Workload(f"{PHOTOS}, {n} step{'s' * (n > 1)}", "maml", 2, 5, 1, 15, n, True, size=84)
        for n in (1, 20)
    ),
    Workload("ProtoNet: 60-way, 5 queries", "protonet", 1, 60, 1, 5, pool=True),
    Workload("LSTM: 20 tasks, 5-way", "lstm", 20, 5, 1, 1, pool=True),
    Workload("transformer: 20 tasks, 5-way", "transformer", 20, 5, 1, 1, pool=True),
    *(
        Workload(f"adapt and predict: {kind}", kind, 1, 5, 5, 1, 5, serving=True)
        for kind in ("protonet", "maml", "lstm", "transformer")
    ),
]


def runner(workload: Workload, candidate: str, dtype: torch.dtype) -> tuple[nn.Module, Any]:
    """A module with parameters, and one step that leaves gradients on them."""
    learner, task = workload.learner().to(dtype), workload.task(dtype)
    if candidate in OWN:
        if workload.serving:
            return learner, partial(serve, learner.eval(), task)

        def step() -> None:
            mixed = candidate == MIXED
            with (
                executing(**OWN[candidate]),
                torch.autocast("cpu", torch.bfloat16, enabled=mixed),
            ):
                loss = learner.loss(task)
                loss.backward()  # type: ignore[no-untyped-call]

        return learner, step
    ours = learner.network if workload.kind == "maml" else learner.encoder
    assert isinstance(ours, nn.Module)
    outputs = workload.way if workload.kind == "maml" else None
    network = peers.plain_network(ours, pool=workload.pool, outputs=outputs, size=workload.size)
    if workload.kind == "maml":
        return network, partial(peers.MAML_PEERS[candidate], network, task, workload.steps)
    return network, partial(peers.easyfsl, network, task)


@torch.no_grad()
def serve(learner: MetaLearner, task: Task) -> None:
    phi = learner.adapt(task.support_x, task.support_y, task.n_way)
    learner.predict(phi, task.query_x[:, :1])


def work(index: int, candidate: str, threads: int) -> None:
    """A worker: answers each line of standard input with the seconds of a step, then its memory."""
    torch.set_num_threads(threads)
    if candidate in OWN and candidate != GIVEN_BACK:
        keep_memory()
    workload = WORKLOADS[index]
    module, step = runner(workload, candidate, torch.float32)
    start = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    print("ready", flush=True)
    for line in sys.stdin:
        if line.strip() == "end":
            break
        for _ in range(2):
            module.zero_grad()
            began = time.perf_counter()
            step()
            seconds = time.perf_counter() - began
        print(seconds, flush=True)
    print(resident("VmHWM") - start, flush=True)


def resident(what: str) -> float:
    """MiB of memory of this process: ``VmRSS`` now, ``VmHWM`` the most so far (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if what in line).split()[1]) / 1024


class Worker:
    """A candidate's process, seen from the parent."""

    def __init__(self, index: int, candidate: str, threads: int) -> None:
        self.candidate, self.threads = candidate, threads
        self.times: list[float] = []
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker", str(index), candidate, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def ready(self) -> None:
        """Wait until it has started."""
        assert self.process.stdout is not None
        self.process.stdout.readline()

    def ask(self, line: str) -> float:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def end(self) -> float:
        """End it, and wait until it is gone; its memory."""
        memory = self.ask("end")
        self.process.wait()
        return memory


def same_gradient(workload: Workload) -> float:
    """The largest distance of any candidate's gradient from ours, relative, in double precision."""
    found = {}
    for candidate in workload.candidates:
        if candidate not in (MIXED, GIVEN_BACK):
            module, step = runner(workload, candidate, torch.float64)
            step()
            gradients = [g for p in module.parameters() if (g := p.grad) is not None]
            found[candidate] = torch.cat([g.flatten() for g in gradients])
    ours = found[OURS]
    return max(float((g - ours).norm() / ours.norm()) for g in found.values())


def flops(workload: Workload) -> float:
    """Of one step, as a plain loop takes it."""
    one = Workload(**{**workload.__dict__, "tasks": 1})
    plain = {"maml": "clone and adapt (learn2learn)", "protonet": "easyfsl"}
    with FlopCounterMode(display=False) as counter:
        runner(one, OURS if workload.serving else plain.get(workload.kind, OURS), torch.float32)[
            1
        ]()
    return float(counter.get_total_flops()) * workload.tasks


def matrix_rate() -> float:
    """FLOPs a second of a large product in single precision, the best of some."""
    a = torch.randn(2048, 2048)
    times = []
    for _ in range(30):
        began = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - began)
    return float(2 * 2048**3 / min(times))


def has_bfloat16() -> bool:
    """Whether the processor computes in bfloat16; without, a step takes up to ten times as long."""
    return bool(torch.cpu.get_capabilities().get("avx512_bf16"))


def machine() -> str:
    """What decides which rows are fast."""
    vectors = torch.backends.cpu.get_cpu_capability()
    if has_bfloat16():
        vectors += " with bfloat16"
    return f"{platform.machine()}, {os.cpu_count()} cores, {vectors}"


def measure(index: int, rate: float) -> dict[str, Any]:
    workload, cores = WORKLOADS[index], os.cpu_count() or 1
    print(f"\n{index + 1} of {len(WORKLOADS)}, {workload.name}", flush=True)
    apart = 0.0 if len(workload.candidates) == 1 else same_gradient(workload)
    if apart > 1e-5:
        raise SystemExit(f"{workload.name}: gradients differ by {apart:.1e}")
    workers = []
    candidates = [c for c in workload.candidates if c != MIXED or has_bfloat16()]
    for candidate in candidates:
        workers.append(Worker(index, candidate, cores))
        if candidate not in OWN:
            workers.append(Worker(index, candidate, 1))
    for worker in workers:
        worker.ready()
    first = {id(worker): min(worker.ask("step"), worker.ask("step")) for worker in workers}
    for slower in [
        max((w for w in workers if w.candidate == name), key=lambda w: first[id(w)])
        for name in candidates
        if name not in OWN
    ]:
        slower.end()
        workers.remove(slower)
    for _ in range(REPEATS):
        for worker in workers:
            worker.times.append(worker.ask("step"))
    work, rows = flops(workload), []
    for worker in workers:
        memory = worker.end()
        median = statistics.median(worker.times)
        rows.append(
            {
                "candidate": worker.candidate,
                "threads": worker.threads,
                "seconds": median,
                "fastest": min(worker.times),
                "slowest": max(worker.times),
                "tasks_a_second": workload.tasks / median,
                "memory_mib": memory,
                "of_matrix_rate": work / median / rate,
            }
        )
    peer = [r["seconds"] for r in rows if r["candidate"] not in OWN]
    for row in rows:
        row["times_the_fastest_peer"] = min(peer) / row["seconds"] if peer else None
    report(rows)
    return {"workload": workload.name, "gflop": work / 1e9, "apart": apart, "rows": rows}


def report(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        ratio = row["times_the_fastest_peer"]
        print(
            f"  {row['candidate']:32} {row['threads']} threads {1e3 * row['seconds']:8.1f} ms"
            f" ({1e3 * row['fastest']:.1f} to {1e3 * row['slowest']:.1f})"
            f" {row['tasks_a_second']:8.1f} tasks/s {row['memory_mib']:6.0f} MiB"
            f" {row['of_matrix_rate']:6.1%}" + ("" if ratio is None else f" {ratio:5.2f}x"),
            flush=True,
        )


def episodes() -> list[dict[str, Any]]:
    """Tasks sampled a second, 20-way with 6 images a class, one thread; see ``data.py``."""
    import data

    torch.set_num_threads(1)
    rates = data.episode_rates()
    torch.set_num_threads(os.cpu_count() or 1)
    slowest = statistics.median(rates["decoded"])
    return [
        {
            "candidate": name,
            "episodes_a_second": statistics.median(values),
            "fastest": max(values),
            "slowest": min(values),
            "times": statistics.median(values) / slowest,
        }
        for name, values in rates.items()
    ]


def draw(parts: list[dict[str, Any]]) -> None:
    """A line a workload: our speed and the peers', as multiples of the fastest peer's."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = [part for part in parts if part["rows"][0]["times_the_fastest_peer"] is not None]
    figure, axes = plt.subplots(figsize=(8.6, 0.52 * len(shown) + 1.3))
    colours = {OURS: "#c2571a"} | dict(zip([*peers.MAML_PEERS, "easyfsl"], PEERS, strict=True))
    for line, part in enumerate(shown):
        axes.axhline(line, color="#e4e7eb", linewidth=0.8, zorder=0)
        peer = min(r["seconds"] for r in part["rows"] if r["candidate"] not in OWN)
        for row in part["rows"]:
            name = row["candidate"]
            if name in colours:
                axes.plot(
                    *(peer / row["seconds"], line),
                    "D" if name == OURS else "o",
                    color=colours[name],
                    markersize=8 if name == OURS else 6,
                )
    axes.axvline(1, color="#9aa5b1", linewidth=1, zorder=0)
    axes.set_yticks(range(len(shown)), [part["workload"] for part in shown])
    axes.invert_yaxis()
    axes.set_xlim(0)
    axes.set_xlabel("speed, as multiples of the fastest peer's")
    axes.tick_params(length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    marks = [
        plt.Line2D([], [], marker="D" if n == OURS else "o", color=c, linestyle="", label=n)
        for n, c in colours.items()
    ]
    axes.legend(
        handles=marks, frameon=False, loc="upper center", bbox_to_anchor=(0.3, -0.12), ncol=5
    )
    figure.savefig(PICTURE, dpi=130, bbox_inches="tight", facecolor="white")
    plt.close(figure)


def main(chosen: list[str]) -> None:
    torch.set_num_threads(os.cpu_count() or 1)
    rate = matrix_rate()
    print(f"single-precision product: {rate / 1e9:.0f} GFLOP/s on {os.cpu_count()} cores")
    parts: list[dict[str, Any]] = []
    if not chosen:
        print("tasks sampled a second ...", flush=True)
    found = {
        "command": "make bench",
        "commit": code_commit(),
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "matrix_gflops": rate / 1e9,
        "repeats": REPEATS,
        "episodes": [] if chosen else episodes(),
        "parts": parts,
    }
    for i, workload in enumerate(WORKLOADS):
        if not chosen or any(word in workload.name for word in chosen):
            parts.append(measure(i, rate))
    if not chosen:
        write_atomically(RESULTS, json.dumps(found, indent=1) + "\n")
        draw(parts)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
    else:
        main(sys.argv[1:])
