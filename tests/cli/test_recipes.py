"""Reproducing from the shell: the list, a budget, Ctrl-C, and what is wrong in one line."""

import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from quickstudy.cli import main
from quickstudy.experiments.pretrained import shipped
from quickstudy.experiments.recipe import load_recipe, recipe_names

RECIPE = """
title = "Tiny"
kind = "ours"
paper = "nobody"
cells = [{ way = 3, shot = 1, query = 2, tasks = 4, published = 33.0 }]
[protocol]
learner = "protonet"
data = "alphabets"
backbone = "mlp"
classes = 40
size = 8
way = 3
shot = 1
query = 2
tasks = 1
steps = STEPS
"""


def call(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["quickstudy", *words])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0), *capfd.readouterr()


def test_a_recipe_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(RECIPE.replace("STEPS", "5"))
    words = ("reproduce", "mine.toml", "--threads", "1", "--out=runs", "--quiet")
    status, out, err = call(monkeypatch, capfd, *words, "--budget", "1e-9")
    assert status == 0
    assert "1 of the protocol's 5 steps" in out
    assert "the same command goes on with mine.toml; without --budget to its end" in err
    status, out, err = call(monkeypatch, capfd, *words, "mine.toml", "--budget=9")
    assert status == 0
    assert out.count("5 of the protocol's 5 steps") == 1, "named twice, done once"
    assert "goes on" not in err
    assert "3w1s" in out
    assert "batch norm" not in out, "a column that would be empty"
    assert "runs/mine/card.md" in err
    card = json.loads((tmp_path / "runs" / "mine" / "card.json").read_text())
    assert card["command"] == "quickstudy reproduce mine.toml --threads 1 --out=runs mine.toml"
    assert card["results"][0]["column"] is None


def test_a_card_says_the_precision_and_a_run_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(RECIPE.replace("STEPS", "2"))
    words = ("reproduce", "mine.toml", "--threads", "1", "--quiet")
    status, _, err = call(monkeypatch, capfd, *words, "--precision", "bf16-mixed")
    assert status == 0, err
    card = json.loads((tmp_path / "runs" / "mine" / "card.json").read_text())
    assert card["machine"].endswith("1 thread, trained in bf16-mixed")
    status, _, err = call(monkeypatch, capfd, *words)
    assert status == 2
    assert "its precision is 'bf16-mixed', this one's is '32-true'" in err


def test_the_list_has_every_recipe(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = call(monkeypatch, capfd, "reproduce", "--list")
    assert status == 0
    for name in recipe_names():
        assert f" {name} " in out
    assert "98.7 ± 0.4" in out
    assert "not yet run" in out
    status, out, _ = call(monkeypatch, capfd, "reproduce", "--list", "Reptile-Omniglot", "cnp")
    found = [name for name in recipe_names() if f" {name} " in out]
    assert found == [n for n in recipe_names() if "reptile-omniglot" in n or "cnp" in n]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("reproduce",), "name a recipe"),
        (("reproduce", "protonet-cifar"), "there is no recipe 'protonet-cifar'"),
        (("reproduce", "protonet-omniglot", "no"), "there is no recipe 'no'"),
        (("reproduce", "protonet-omniglot-papper"), "did you mean protonet-omniglot-paper"),
        (("reproduce", "MAML-sinusoid-5shot"), "did you mean maml-sinusoid-5shot?"),
        (("reproduce", "mine.toml"), "there is no file mine.toml"),
        (("reproduce", "--list", "xyz"), "no recipe is called anything with xyz"),
        (("reproduce", "protonet-miniimagenet-5w1s"), "data=miniimagenet needs a root (--root)"),
        (("reproduce", "wrong.toml"), "wrong.toml: protocol.steps"),
        (("evaluate", "protonet"), "protonet is no run folder"),
    ],
)
def test_what_is_wrong_is_one_line(
    words: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.toml").write_text(RECIPE.replace("STEPS", "'many'"))
    status, out, err = call(monkeypatch, capfd, *words)
    assert status == 2
    assert message in err
    assert len(err.splitlines()) == 1
    assert not out
    assert not (tmp_path / "runs").exists()


def test_ctrl_c_leaves_a_checkpoint_to_go_on_from(tmp_path: Path, start: Any) -> None:
    (tmp_path / "mine.toml").write_text(RECIPE.replace("STEPS", "1000000"))
    process = start("quickstudy", "reproduce", "mine.toml", "--quiet", cwd=tmp_path)
    checkpoint = tmp_path / "runs" / "mine" / "checkpoint.safetensors"
    for _ in range(600):
        if checkpoint.exists():
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert "the same command goes on with mine.toml" in process.err
    assert checkpoint.exists()


def test_shipped_weights_are_evaluated_by_name(
    omniglot_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    name = shipped()[0]
    words = ("evaluate", name, "--root", str(omniglot_root), "--tasks", "20", "--json")
    status, out, _ = call(monkeypatch, capfd, *words)
    assert status == 0
    found = json.loads(out)
    assert found["mean"] > 0.5
    assert found["about"]["learner"] == load_recipe(name).protocol.learner
    assert Path(found["file"]).is_relative_to(Path("runs") / name)


def test_two_processes_write_one_card(tmp_path: Path, start: Any) -> None:
    (tmp_path / "mine.toml").write_text(RECIPE.replace("STEPS", "3"))
    words = ("reproduce", "mine.toml", "--quiet", "--device", "cpu", "--threads", "1")
    for process in start.two("quickstudy", *words, cwd=tmp_path):
        assert process.wait() == 0, process.err
    card = json.loads((tmp_path / "runs" / "mine" / "card.json").read_text())
    assert (card["steps"], len(card["results"])) == (3, 1)
    assert card["machine"].endswith("2 processes of 1 thread")
