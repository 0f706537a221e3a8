import os
import random
import stat
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quickstudy.checkpoint import (
    clear_temporaries,
    load_state,
    load_weights,
    restore_rng,
    rng_state,
    save_state,
    save_weights,
    write_atomically,
)
from quickstudy.nn import MLP

plain = st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False)
nested = st.recursive(
    plain,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(state=nested)
def test_any_nesting_comes_back(state: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "state"
    save_state(path, state)
    assert load_state(path) == state


def test_optimiser_state_comes_back(tmp_path: Path) -> None:
    network = MLP(3, [4], 2)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
    network(torch.rand(5, 3)).sum().backward()
    optimizer.step()
    save_state(tmp_path / "s", optimizer.state_dict())
    loaded = load_state(tmp_path / "s")
    assert loaded["param_groups"] == optimizer.state_dict()["param_groups"]
    assert torch.equal(loaded["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])


def test_rng_comes_back(tmp_path: Path) -> None:
    save_state(tmp_path / "rng", rng_state())
    draw = [random.random(), np.random.rand(), torch.rand(1).item()]
    restore_rng(load_state(tmp_path / "rng"))
    assert [random.random(), np.random.rand(), torch.rand(1).item()] == draw


def test_objects_are_refused_by_place(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"cannot save a object \(at /a/1\)"):
        save_state(tmp_path / "s", {"a": [1, object()]})
    assert not list(tmp_path.iterdir())


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    write_atomically(path, "old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("quickstudy.checkpoint.os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


@pytest.mark.skipif(os.name != "posix", reason="modes and links of POSIX")
def test_written_for_whom_the_user_says(tmp_path: Path) -> None:
    """The umask decides on a new file, and one that is replaced keeps its mode and its link."""
    before = os.umask(0o077)
    try:
        write_atomically(tmp_path / "new", "x")
        os.umask(0o002)
        write_atomically(tmp_path / "shared", "x")
        write_atomically(tmp_path / "new", "y")
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("new", "shared")]
    assert modes == [0o600, 0o664]
    (tmp_path / "link").symlink_to("new")
    write_atomically(tmp_path / "link", "z")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "new").read_text() == "z"


def test_leftovers_of_killed_writes_are_removed(tmp_path: Path) -> None:
    for name in (".f.0123abcd.quickstudy.tmp", ".g.0123abcd.quickstudy.tmp", ".mine.tmp"):
        (tmp_path / name).write_text("half")
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / ".h.0123abcd.quickstudy.tmp").write_text("of another process, still writing")
    write_atomically(tmp_path / "f", "whole")
    assert sorted(os.listdir(tmp_path)) == [".h.0123abcd.quickstudy.tmp", ".mine.tmp", "f"]
    clear_temporaries(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".mine.tmp", "f"]


def test_a_write_that_fails_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=r"Is a directory: '.*/folder'"):
        write_atomically(tmp_path / "folder", "x")
    assert os.listdir(tmp_path) == ["folder"]


def test_damaged_and_foreign_files(tmp_path: Path) -> None:
    network = MLP(3, [4], 2)
    save_weights(tmp_path / "w", network)
    whole = (tmp_path / "w").read_bytes()
    (tmp_path / "half").write_bytes(whole[: len(whole) // 2])
    for load in (load_state, lambda p: load_weights(p, network)):
        with pytest.raises(ValueError, match="is not a safetensors file that can be read"):
            load(tmp_path / "half")
        with pytest.raises(FileNotFoundError):
            load(tmp_path / "none")
    with pytest.raises(ValueError, match="not written by quickstudy"):
        load_state(tmp_path / "w")
    with pytest.raises(ValueError, match=r"has \[4\] for 'layers.0.bias', where \[5\]"):
        load_weights(tmp_path / "w", MLP(3, [5], 2))


WRITER = """
import itertools, torch
from quickstudy.checkpoint import save_state

for step in itertools.count(1):
    save_state("state", {"step": step, "x": torch.full((50_000 + step % 7,), float(step))})
"""


def test_a_file_is_read_whole_while_another_takes_its_place(tmp_path: Path, start: Any) -> None:
    """What a training that goes on does to a run that somebody evaluates."""
    path = tmp_path / "state"
    (tmp_path / "writer.py").write_text(WRITER)
    writer = start(str(tmp_path / "writer.py"), cwd=tmp_path)
    try:
        while not path.exists():
            assert writer.poll() is None
        steps, reads, until = set[int](), 0, time.monotonic() + 60
        while reads < 200 or (len(steps) <= 10 and time.monotonic() < until):
            state = load_state(path)
            assert bool((state["x"] == state["step"]).all())
            steps.add(state["step"])
            reads += 1
    finally:
        writer.process.kill()
        writer.wait()
    assert len(steps) > 10, "the file was never replaced in between"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_text()))
    reader.start()
    write_atomically(tmp_path / "pipe", "through")
    reader.join()
    assert read == ["through"]
    assert (tmp_path / "pipe").is_fifo()


def test_long_names_may_be_written(tmp_path: Path) -> None:
    name = 80 * "\u5b57" + ".qs"
    write_atomically(tmp_path / name, "x")
    assert [p.name for p in tmp_path.iterdir()] == [name]
