"""The benchmarks run: small, and without looking at how long anything takes."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
pytest.importorskip("higher")
pytest.importorskip("torchopt")


ONLY_PHOTOS = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import all
all.parts = lambda photos, omniglot: {"photos": ["photos.py"]}
all.main()
"""


def load(name: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> ModuleType:
    """A benchmark, that writes its results elsewhere."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    if hasattr(module, "OUT"):
        monkeypatch.setattr(module, "OUT", folder / "found.json")
    if hasattr(module, "ENOUGH"):
        monkeypatch.setattr(module, "ENOUGH", 0)
    return module


def found(
    name: str, *words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> dict[str, Any]:
    """What a benchmark wrote, given these words."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *words])
    load(name, monkeypatch, tmp_path).main()
    written: dict[str, Any] = json.loads((tmp_path / "found.json").read_text())
    return written


def test_photos(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package)
    words = ("--photos", "3", "--runs", "1")
    rows = found("photos", *words, monkeypatch=monkeypatch, tmp_path=tmp_path)["rows"]
    assert {"quickstudy", "DataLoader, PyTorch", "DataLoader, ONNX Runtime"} < rows.keys()
    peers = [r["times_the_best_peer"] for name, r in rows.items() if name.startswith("DataLoader")]
    assert max(peers) == 1


def test_shares(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = load("shards", monkeypatch, tmp_path)
    monkeypatch.chdir(tmp_path)
    module.prepare(5)
    assert module.shares(1, "few") == module.FEW
    assert module.shares(2, "many") == 5


def test_commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = load("commands", monkeypatch, tmp_path)
    monkeypatch.chdir(tmp_path)
    module.prepare()
    assert Path("photos.qs").is_file()
    words = module.COMMANDS["info"]
    cpu, wall = module.measure(words)
    assert cpu > 0
    assert wall > 0
    for name in ("info", "predict, one photo", "predict, one sentence"):
        subprocess.run(module.COMMANDS[name], check=True, capture_output=True)


def test_steps_of_all_candidates(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One of each kind; `measure` refuses candidates whose gradients differ."""
    module = load("performance", monkeypatch, tmp_path)
    by_name = {workload.name: workload for workload in module.WORKLOADS}
    for name in (
        "MAML: 8 tasks, 1 query, 1 step",
        f"{module.PHOTOS}, 1 step",
        "ProtoNet: 60-way, 5 queries",
    ):
        small = module.Workload(**{**by_name[name].__dict__, "tasks": 1, "query": 1})
        assert module.same_gradient(small) < 1e-5
    for kind in ("LSTM: 20 tasks, 5-way", "adapt and predict: maml"):
        assert module.flops(by_name[kind]) > 1e8


def test_scaling_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = load("scaling", monkeypatch, tmp_path)
    learner, task = module.step_of(module.MAML_NAME)
    assert module.flops(learner, task) == pytest.approx(10.5e9, rel=0.02)


def test_load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: Any) -> None:
    threads = torch.get_num_threads()
    module = load("load", monkeypatch, tmp_path)
    result = module.measure(8 * module.CLIENTS)
    torch.set_num_threads(threads)
    assert result["wrong"] == 0
    assert result["requests"] == 8 * module.CLIENTS
    assert not os.path.exists(module.OUT)


def test_what_recipes_take(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    words = ("nowhere", "lstm-sinusoid-5shot", "--steps", "1")
    threads = torch.get_num_threads()
    took = found("recipes", *words, monkeypatch=monkeypatch, tmp_path=tmp_path)["recipes"]
    torch.set_num_threads(threads)
    row = took["lstm-sinusoid-5shot"]
    assert row["hours"] == pytest.approx(row["seconds"] * 5000 / 3600, abs=1e-3)


def test_all_of_them_are_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    parts = load("all", monkeypatch, tmp_path).parts("photos", "omniglot")
    scripts = {word for command in parts.values() for word in command if word.endswith(".py")}
    assert len(scripts) == len(parts) == 8
    assert all((BENCHMARKS / name).is_file() for name in scripts)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_them_with_one_line(number: signal.Signals, tmp_path: Path) -> None:
    """Nothing goes on, and nothing that was begun is left in the folder for temporary files."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", ONLY_PHOTOS, str(BENCHMARKS)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    assert process.stdout is not None
    assert any("preparing" in line for line in iter(process.stdout.readline, ""))
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)  # until nobody holds the pipe
    assert process.returncode == 130
    assert errors == "\nstopped; the results of what had ended before are kept\n"
    assert not list(tmp_path.iterdir())
