"""Folders for others: written, read again, and what is refused; the hub itself stands aside."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import quickstudy
from quickstudy.estimator import FewShotClassifier
from quickstudy.experiments.spec import Experiment
from quickstudy.learner import MetaLearner
from quickstudy.learners import MAML, ProtoNet
from quickstudy.model import Model
from quickstudy.nn import MLP
from quickstudy.testing import make_task


@pytest.fixture
def learner() -> MetaLearner:
    own = Experiment("maml", data="alphabets", classes=9, size=16, way=3, filters=4)
    return own.build_learner().eval()


def test_a_learner_opens_from_its_folder_alone(tmp_path: Path, learner: MetaLearner) -> None:
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.add_(0.1)
    learner.save_pretrained(tmp_path / "mine")
    assert {f.name for f in (tmp_path / "mine").iterdir()} == {
        *("README.md", "config.json", "model.safetensors")
    }
    about = json.loads((tmp_path / "mine" / "config.json").read_text())
    assert (about["learner"], about["way"], about["filters"]) == ("maml", 3, 4)
    task = make_task((1, 16, 16), 3).to(torch.float32)
    for again in (
        MetaLearner.from_pretrained(tmp_path / "mine"),
        MAML.from_pretrained(str(tmp_path / "mine")),
        quickstudy.load(tmp_path / "mine"),
    ):
        assert torch.equal(again(task), learner(task))
    x = np.random.default_rng(0).random((6, 1, 16, 16))
    classifier = FewShotClassifier(str(tmp_path / "mine")).fit(x, [0, 0, 1, 1, 2, 2])
    assert classifier.predict(x).shape == (6,)


def test_the_card_is_runnable_and_not_overwritten(tmp_path: Path, learner: MetaLearner) -> None:
    learner.save_pretrained(tmp_path / "mine")
    card = (tmp_path / "mine" / "README.md").read_text()
    assert "- learner: maml" in card
    code = card.split("```python\n")[1].split("```")[0]
    space: dict[str, Any] = {}
    exec(code.replace("FOLDER-OR-NAME", str(tmp_path / "mine")), space)
    assert isinstance(space["loaded"], MAML)
    (tmp_path / "mine" / "README.md").write_text("my own words")
    learner.save_pretrained(tmp_path / "mine")
    assert (tmp_path / "mine" / "README.md").read_text() == "my own words"


def test_a_model_too(tmp_path: Path) -> None:
    red, blue = np.tile([[1.0, 0, 0]], (8, 8, 1)), np.tile([[0, 0, 1.0]], (8, 8, 1))
    model = Model.learn([(red, "red"), (blue, "blue")], encoder="pixels:8", head="centroid")
    model.save_pretrained(tmp_path / "colours")
    assert json.loads((tmp_path / "colours" / "config.json").read_text())["classes"] == {
        "blue": 1,
        "red": 1,
    }
    again = Model.from_pretrained(tmp_path / "colours")
    assert [answer.label for answer in again.predict([red * 0.5])] == ["red"]


def test_what_is_no_such_folder_is_refused(tmp_path: Path, learner: MetaLearner) -> None:
    with pytest.raises(ValueError, match="nothing says how to build this ProtoNet again"):
        ProtoNet(MLP(2, [3], 3)).save_pretrained(tmp_path / "mine")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"empty holds no model\.safetensors"):
        MetaLearner.from_pretrained(tmp_path / "empty")
    learner.save_pretrained(tmp_path / "mine")
    with pytest.raises(ValueError, match="mine holds a MAML; expected a ProtoNet"):
        ProtoNet.from_pretrained(tmp_path / "mine")
    with pytest.raises(ValueError, match="has no layout"):
        Model.from_pretrained(tmp_path / "mine")


def test_the_hub_is_asked_for_one_file_and_given_a_folder(
    tmp_path: Path, learner: MetaLearner, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="needs quickstudy[hub]")
    learner.save_pretrained(tmp_path / "mine")
    asked: list[Any] = []

    def download(repository: str, name: str, **how: Any) -> str:
        asked.append((repository, name, how))
        return str(tmp_path / "mine" / name)

    monkeypatch.setattr(hub, "hf_hub_download", download)
    MAML.from_pretrained("me/mine", revision="abc")
    assert asked == [("me/mine", "model.safetensors", {"revision": "abc", "token": None})]

    given: dict[str, Any] = {}

    def upload(*, repo_id: str, folder_path: str, commit_message: str) -> str:
        given.update(repo=repo_id, files={f.name for f in Path(folder_path).iterdir()})
        return "done"

    api = SimpleNamespace(
        create_repo=lambda name, **how: given.update(how),
        file_exists=lambda *names: True,
        upload_folder=upload,
    )
    monkeypatch.setattr(hub, "HfApi", lambda token: api)
    assert learner.push_to_hub("me/mine", private=True) == "done"
    assert given == {
        "private": True,
        "exist_ok": True,
        "repo": "me/mine",
        "files": {"config.json", "model.safetensors"},  # a card that is there stays
    }
