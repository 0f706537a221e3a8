"""A short run of the soak: what is hostile is refused, what is not is answered, and it stays up."""

import base64
import importlib.util
import socket
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs quickstudy[app]")

from quickstudy.model import Model


@pytest.fixture(scope="module")
def soak() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "soak.py"
    spec = importlib.util.spec_from_file_location("soak", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_hostile_and_ordinary_requests_mixed(soak: ModuleType, start: Any, tmp_path: Path) -> None:
    few = [(base64.b64decode(soak.drawing(c)), str(c)) for c in range(5)]
    Model.learn(few, encoder="drawing").save(tmp_path / "soak.qs")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ("serve", "soak.qs", "--port", str(port), "--rate", "1e9")
    server = start("quickstudy", *words, cwd=tmp_path, QUICKSTUDY_TOKEN=soak.TOKEN)
    with socket.socket() as probe:
        while probe.connect_ex(("127.0.0.1", port)):
            assert server.poll() is None, server.err
            time.sleep(0.1)
    found = soak.soak(port, server.process.pid, 100, clients=2)
    assert not found["wrong"], found
    answered = {status for counts in found["answered"].values() for status in counts}
    assert {200, 204, 400, 401, 403, 404, 405, 413, 422} <= answered
    assert all(found["answered"].values()), "some of every kind were sent"
    assert sum(sum(counts.values()) for counts in found["answered"].values()) >= 100
    assert found["health"]["asked"] > 10
    assert found["health"]["max_ms"] < 5000
    assert found["memory_after_mib"] < 1.5 * found["memory_before_mib"]
    assert server.poll() is None
    server.process.terminate()
    server.wait()
