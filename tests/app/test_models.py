"""Models of one's own behind the server: they answer as `quickstudy predict` does."""

import base64
import gc
import io
import json
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("fastapi", reason="needs quickstudy[app]")
from fastapi.testclient import TestClient

from quickstudy.app import Models, create_app
from quickstudy.cli import main
from quickstudy.data import alphabets
from quickstudy.encoders import DrawingEncoder
from quickstudy.estimator import FewShotClassifier
from quickstudy.experiments.architecture import LearnerSpec
from quickstudy.model import Model


class Points:
    """Texts such as "1 2" as they are."""

    name = "points"
    kind: Literal["image", "text"] = "text"
    fingerprint = "points 1"

    def __call__(self, examples: Any) -> Any:
        return np.array([[float(v) for v in e.item.split()] for e in examples], np.float32)


def drawn(label: int, instance: int, size: tuple[int, int] = (84, 84), form: str = "PNG") -> bytes:
    data = alphabets(6, 8, size=84, first_class=40)
    pixels = 255 - data.read(torch.tensor([label]), torch.tensor([instance]))[0, 0].numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).resize(size).save(file, form)
    return file.getvalue()


def calling(*paths: Any, **settings: Any) -> TestClient:
    app = create_app(models=Models(paths), **{"requests_a_second": 1e6, **settings})
    return TestClient(app, base_url="http://localhost")


def asked(*images: bytes) -> dict[str, Any]:
    return {"items": [{"image": base64.b64encode(image).decode()} for image in images]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``symbols.qs`` of five classes, which may say "unknown"; ``two.qs`` of two, which may not."""
    folder = tmp_path_factory.mktemp("models")
    few = [(drawn(c, e), f"symbol {c}") for c in range(5) for e in range(6)]
    Model.learn(few, encoder="drawing", false_reject=0.1).save(folder / "symbols.qs")
    Model.learn(few[:12], encoder="drawing").save(folder / "two.qs")
    return folder


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """What ``quickstudy`` exits with and prints."""

    def run(*words: Any) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["quickstudy", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return run


def test_a_model_answers_as_predict_does(folder: Path, printed: Any, tmp_path: Path) -> None:
    """Images of other sizes, proportions and formats too; and what is none of its classes."""
    images = [drawn(c, 7) for c in range(5)]
    images += [
        drawn(1, 7, (300, 90)),
        drawn(2, 7, (40, 200), "JPEG"),
        drawn(3, 7, (33, 33), "WEBP"),
    ]
    noise = np.random.default_rng(0).integers(0, 255, (200, 120)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    images.append(file.getvalue())
    for i, image in enumerate(images):
        (tmp_path / f"{i}.png").write_bytes(image)
    files = [tmp_path / f"{i}.png" for i in range(len(images))]
    code, out, err = printed("predict", folder / "symbols.qs", *files, "--json", "--no-cache")
    assert code == 0, err
    said = [json.loads(line) for line in out.splitlines()]
    found = calling(folder / "symbols.qs").post("/api/models/symbols/predict", json=asked(*images))
    assert found.status_code == 200, found.text
    assert found.json()["classes"] == [f"symbol {c}" for c in range(5)]
    for answer, own in zip(found.json()["answers"], said, strict=True):
        likeliest = found.json()["classes"][int(np.argmax(answer["probabilities"]))]
        assert answer["label"] == likeliest
        assert (None if answer["unknown"] else answer["label"]) == own["label"]
        assert answer["probabilities"] == pytest.approx([*own["probabilities"].values()], abs=1e-9)
    unknown = [answer["unknown"] for answer in found.json()["answers"]]
    assert unknown[-1], "noise is none of the classes"
    assert not all(unknown[:5])


def test_a_model_answers_many_together_as_predict_does(folder: Path) -> None:
    client, model = calling(folder / "symbols.qs"), Model.load(folder / "symbols.qs")
    images = [drawn(c, e) for c in range(5) for e in (6, 7, 8)]
    alone, together = (
        client.post("/api/models/symbols/predict", json={**asked(*images), "together": each}).json()
        for each in (False, True)
    )
    said = [*model.predict(images, together=True)]
    for answer, own in zip(together["answers"], said, strict=True):
        assert answer["probabilities"] == pytest.approx([*own.probabilities.values()], abs=1e-9)
    assert alone != together
    Model.learn(
        [(drawn(c, e), f"symbol {c}") for c in range(5) for e in range(2)],
        encoder="drawing",
        head="maml-omniglot-5w1s",
    ).save(folder / "maml.qs")
    client = calling(folder / "maml.qs")
    (about,) = client.get("/api/models").json()["models"]
    assert about["together"] is False
    refused = client.post("/api/models/maml/predict", json={**asked(*images), "together": True})
    assert refused.status_code == 422
    assert "the head maml-omniglot-5w1s has no encoder" in refused.json()["detail"]


def test_what_is_served_is_listed(folder: Path) -> None:
    assert calling().get("/api/models").json() == {"models": []}
    symbols, two = (
        calling(folder / "symbols.qs", folder / "two.qs").get("/api/models").json()["models"]
    )
    classes = [f"symbol {c}" for c in range(5)]
    assert symbols == {
        "name": "symbols",
        "kind": "drawing",
        "encoder": "drawing",
        "classes": classes,
        "examples": 30,
        "unknown": True,
        "together": True,
    }
    assert (two["name"], two["classes"], two["unknown"]) == ("two", classes[:2], False)


def test_each_kind_of_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    few = [(drawn(c, e), str(c)) for c in range(2) for e in range(2)]
    for encoder in ("pixels:16", "inverted:16"):
        Model.learn(few, encoder=encoder, head="centroid").save(f"{encoder[:4]}.qs")
    LearnerSpec(learner="protonet", size=32, channels=3, filters=4).build().save_pretrained("mine")
    Model.learn(few, encoder="mine", head="centroid").save("own.qs")
    Model.learn([("0 1", "a"), ("5 5", "b")], encoder=Points(), head="centroid").save("points.qs")
    monkeypatch.setattr("quickstudy.model.built_in_encoder", lambda *_: Points())
    client = calling("points.qs")
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    (texts,) = client.get("/api/models").json()["models"]
    assert texts["kind"] == "text"
    found = client.post("/api/models/points/predict", json={"items": [{"text": "5 4"}]}).json()
    assert found["answers"][0]["label"] == "b"
    refused = client.post("/api/models/points/predict", json=asked(drawn(0, 0)))
    assert refused.status_code == 422
    assert refused.json()["detail"] == "item 1 has no text; this model takes sentences"
    images = calling("pixe.qs", "inve.qs", "own.qs").get("/api/models").json()["models"]
    assert {own["name"]: own["kind"] for own in images} == {
        "pixe": "photo",
        "inve": "drawing",
        "own": "photo",
    }


def test_a_table_is_asked_by_rows(tmp_path: Path) -> None:
    rows = [{"age": str(20 + 5 * i), "plan": "ab"[i % 2], "id": f"n{i}"} for i in range(8)]
    labels = ["young" if i < 4 else "old" for i in range(8)]
    model = Model.learn(list(zip(rows, labels, strict=True)), head="logistic")
    model.save(tmp_path / "people.qs")
    client = calling(tmp_path / "people.qs")
    (about,) = client.get("/api/models").json()["models"]
    assert (about["kind"], about["encoder"]) == ("table", "table")
    assert about["columns"] == [
        {"name": "age", "kind": "number", "levels": []},
        {"name": "plan", "kind": "category", "levels": ["a", "b"]},
    ]
    asked = [{"age": 21, "plan": "a"}, {"age": "54", "plan": None, "id": "x", "more": True}]
    path = "/api/models/people/predict"
    found = client.post(path, json={"items": [{"row": {**row, "id": "x"}} for row in asked]})
    assert [answer["label"] for answer in found.json()["answers"]] == ["young", "old"]
    said = [*model.predict([{**row, "id": "x"} for row in asked])]
    for answer, own in zip(found.json()["answers"], said, strict=True):
        assert answer["probabilities"] == pytest.approx([*own.probabilities.values()], abs=1e-9)
    for item, words in (
        ({"text": "hello"}, "item 1 has no row; this model takes rows of a table"),
        ({"row": {"plan": "a"}}, "item 1: the column 'age' is missing"),
        ({"row": {"age": [1]}}, "age"),
    ):
        refused = client.post(path, json={"items": [item]})
        assert refused.status_code == 422
        assert words in str(refused.json()["detail"])


def test_what_cannot_be_answered(folder: Path) -> None:
    client = calling(folder / "two.qs")
    path = "/api/models/two/predict"
    assert client.post("/api/models/three/predict", json=asked(drawn(0, 0))).status_code == 404
    file = io.BytesIO()
    Image.new("1", (9000, 9000)).save(file, "PNG")
    for body, said in (
        (asked(drawn(0, 0), b"no image"), "item 2"),
        (asked(file.getvalue()), "81,000,000 pixels; at most 40,000,000"),
        ({"items": [{"text": "hello"}]}, "item 1 has no image; this model takes drawings"),
        ({"items": []}, "items"),
        ({"items": asked(drawn(0, 0))["items"] * 65}, "items"),
    ):
        refused = client.post(path, json=body)
        assert refused.status_code == 422
        assert said in refused.json()["detail"]
    assert client.post(path, json=asked(*[drawn(0, 0)] * 64)).status_code == 200
    assert "quickstudy_predictions_total 64.0" in client.get("/metrics").text


def test_pixels_are_paid_for_before_they_are_decoded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    charged: list[int] = []

    def predict(*_: Any, **__: Any) -> Any:
        assert charged == [3000 * 2000]
        return iter([])

    monkeypatch.setattr(Model, "predict", predict)
    (item,) = asked(drawn(0, 0, (3000, 2000)))["items"]
    from quickstudy.app.workbench import Item

    Models([folder / "two.qs"]).predict("two", [Item(item["image"])], charged.append)
    assert charged


def test_a_model_is_held_as_it_was_read(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "symbols.qs", tmp_path / "mine.qs")
    client = calling(tmp_path / "mine.qs")
    before = client.post("/api/models/mine/predict", json=asked(drawn(4, 7))).json()
    shutil.copy(folder / "two.qs", tmp_path / "mine.qs")
    assert client.post("/api/models/mine/predict", json=asked(drawn(4, 7))).json() == before
    (tmp_path / "mine.qs").unlink()
    assert client.post("/api/models/mine/predict", json=asked(drawn(4, 7))).json() == before


class Absent(DrawingEncoder):
    """An encoder that is no part of quickstudy."""

    def __init__(self) -> None:
        super().__init__()
        self.name, self.fingerprint = "hf:some/one", "1"


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["none.qs"], "none.qs"),
        (["text.qs"], "text.qs"),
        (["classifier.qs"], "classifier.qs holds a classifier without an encoder"),
        (["absent.qs"], "absent.qs: this model needs the encoder 'hf:some/one'"),
        (["two.qs", "more/two.qs"], "two.qs and more/two.qs are both called two"),
    ],
)
def test_what_cannot_be_served_is_said_before_it_listens(
    names: list[str],
    said: str,
    folder: Path,
    tmp_path: Path,
    printed: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("more").mkdir()
    for name in ("two.qs", "more/two.qs"):
        shutil.copy(folder / "two.qs", name)
    Path("text.qs").write_text("no model")
    FewShotClassifier("centroid").fit([[0.0], [1.0]], ["a", "b"]).save("classifier.qs")
    few = [(drawn(c, 0), str(c)) for c in range(2)]
    Model.learn(few, encoder=Absent(), head="centroid").save("absent.qs")
    monkeypatch.setattr("uvicorn.run", lambda *_, **__: pytest.fail("it listens"))
    code, _, err = printed("serve", *names)
    assert code == 2
    assert len(err.splitlines()) == 1
    assert err.startswith("error: ")
    assert said in err


def test_an_encoder_that_is_named_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = [(drawn(c, 0), str(c)) for c in range(2)]
    Model.learn(few, encoder=Absent(), head="centroid").save(tmp_path / "absent.qs")
    Model.learn(few, encoder="drawing").save(tmp_path / "usual.qs")
    loaded: list[str] = []

    def load(name: str, _: Any) -> Any:
        loaded.append(name)
        return Absent()

    monkeypatch.setattr("quickstudy.model.load_encoder", load)
    models = Models([tmp_path / "absent.qs", tmp_path / "usual.qs"], encoder="hf:some/one")
    assert loaded == ["hf:some/one"], "and for the one that needs it alone"
    from quickstudy.app.workbench import Item

    image = base64.b64encode(drawn(1, 0)).decode()
    assert models.predict("absent", [Item(image)])["answers"][0]["label"] == "1"


def test_serve_takes_models_and_what_you_trained(
    folder: Path, tmp_path: Path, printed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    LearnerSpec(learner="protonet", filters=4).build().save_pretrained("trained")
    apps: list[Any] = []
    monkeypatch.setattr("uvicorn.run", lambda app, **_: apps.append(app))
    code, _, err = printed("serve", folder / "two.qs", "trained", "trained/model.safetensors")
    assert code == 0, err
    client = TestClient(apps[0], base_url="http://localhost")
    assert [own["name"] for own in client.get("/api/models").json()["models"]] == ["two"]
    assert client.get("/api/health").json()["tasks"] == 0, (
        "and that it was tried out leaves nothing"
    )
    assert gc.get_freeze_count() > 10_000, "torch's own objects are not looked through any more"
    gc.unfreeze()
    few = [{"label": str(c), "image": base64.b64encode(drawn(c, 0)).decode()} for c in range(2)]
    made = client.post("/api/tasks", json={"examples": few})
    assert made.status_code == 201, made.text
    task = made.json()["id"]
    answer = client.post(f"/api/tasks/{task}/predict", json=asked(drawn(0, 1)))
    assert answer.status_code == 200, answer.text
    shown = answer.json()["learners"]
    assert [*shown][-2:] == ["trained", "model.safetensors"]
    assert len(shown) == 7


def test_half_characters_in_names_are_answered(tmp_path: Path) -> None:
    """A file's classes and columns may be called anything that JSON can say."""
    rows = [({"\ud800": i, "x": i % 3}, "ab"[i % 2]) for i in range(6)]
    model = Model.learn(rows, head="centroid")
    model.classifier.classes_ = np.array(["a\ud801", "b"])
    model.save(tmp_path / "m.qs")
    client = calling(tmp_path / "m.qs")
    (shown,) = client.get("/api/models").json()["models"]
    assert shown["classes"] == ["a\ud801", "b"]
    assert shown["columns"][0]["name"] == "\ud800"
    bad = client.post("/api/models/m/predict", json={"items": [{"row": {}}]})
    assert bad.status_code == 422
    assert "the model was learned from: \ud800, x" in bad.json()["detail"]
