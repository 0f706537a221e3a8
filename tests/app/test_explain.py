"""What the service tells of how learners came to their answers is what they did."""

import base64
import io
import json
import threading
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

pytest.importorskip("fastapi", reason="needs quickstudy[app]")
from fastapi.testclient import TestClient

from quickstudy.app import Workbench, create_app, take
from quickstudy.app.explain import lesson
from quickstudy.app.unknown import FALSE_REJECT, Unknown
from quickstudy.app.workbench import FullError, Item
from quickstudy.data import alphabets
from quickstudy.learners import MAML, BlackBoxLSTM, MatchingNetwork, ProtoNet
from quickstudy.nn import MLP

DRAWN = alphabets(4, 6, size=84, first_class=40)


def drawing(label: int, instance: int = 0) -> Item:
    pixels = 255 - DRAWN.read(torch.tensor([label]), torch.tensor([instance]))[0, 0].numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return Item(base64.b64encode(file.getvalue()).decode())


def task(n: int = 3, sizes: tuple[int, ...] = (2, 3, 1), size: int = 6) -> Any:
    """Features of ``n`` classes, and queries."""
    generator = torch.Generator().manual_seed(0)
    y = torch.repeat_interleave(torch.arange(n), torch.tensor(sizes))
    centres = 4 * torch.randn(n, size, generator=generator)
    x = centres[y] + torch.randn(len(y), size, generator=generator)
    query = centres + torch.randn(n, size, generator=generator)
    return x.unsqueeze(0), y.unsqueeze(0), query.unsqueeze(0)


def test_places_in_the_map_are_as_far_apart_as_in_the_space() -> None:
    """Of three examples the plane holds all there is; and it is theirs, whatever is asked."""
    x, y, query = task(sizes=(1, 1, 1))
    learner = ProtoNet(nn.Flatten()).eval()
    told = lesson(learner, learner.adapt(x, y, 3), x, y, 3)
    places = torch.tensor(told.shown["map"]["examples"])
    assert torch.cdist(places, places) == pytest.approx(torch.cdist(x[0], x[0]), abs=1e-2)
    assert told.shown["map"]["kept"] == pytest.approx(1)
    assert told.shown["map"]["typical"] is None, "no class has another example"
    near = told.answers(x)
    assert [reason["at"] for reason in near] == told.shown["map"]["examples"]
    for i, reason in enumerate(told.answers(query)):
        expected = (query[0, i] - x[0]).norm(dim=-1).tolist()
        assert reason["distances"] == pytest.approx(expected, abs=1e-3)


def test_typical_distances_are_to_the_mean_of_the_others() -> None:
    x, y, _ = task()
    learner = ProtoNet(nn.Flatten()).eval()
    told = lesson(learner, learner.adapt(x, y, 3), x, y, 3)
    distances = []
    for i, label in enumerate(y[0].tolist()):
        others = [j for j, other in enumerate(y[0].tolist()) if other == label and j != i]
        if others:
            distances.append(float((x[0, i] - x[0, others].mean(0)).norm()))
    assert len(distances) == 5
    assert told.shown["map"]["typical"] == pytest.approx(np.mean(distances), abs=1e-3)


def test_examples_that_are_all_the_same_have_a_map() -> None:
    x, y = torch.ones(1, 2, 4), torch.tensor([[0, 1]])
    learner = ProtoNet(nn.Flatten()).eval()
    shown = lesson(learner, learner.adapt(x, y, 2), x, y, 2).shown
    assert shown["map"]["examples"] == [[0, 0], [0, 0]]
    json.dumps(shown, allow_nan=False)


def test_attention_adds_up_to_the_answer() -> None:
    """Of classes of unequal size, too."""
    x, y, query = task()
    learner = MatchingNetwork(nn.Flatten(), scale=3.0).eval()
    phi = learner.adapt(x, y, 3)
    probabilities = learner.predict(phi, query)[0].softmax(-1)
    for row, reason in zip(
        probabilities, lesson(learner, phi, x, y, 3).answers(query), strict=True
    ):
        shares = torch.zeros(3).index_add(0, y[0], torch.tensor(reason["attention"]))
        assert shares.tolist() == pytest.approx(row.tolist(), abs=1e-3)
    full = MatchingNetwork(MLP(6, [5], 4), reading_steps=2).eval()
    phi = full.adapt(x, y, 3)
    assert lesson(full, phi, x, y, 3).answers(query) == [{}] * 3, "its attention is another"


def test_what_was_read_ends_in_the_answer() -> None:
    x, y, query = task()
    torch.manual_seed(0)
    learner = BlackBoxLSTM(MLP(6, [5], 4), outputs=5).eval()
    with torch.no_grad():
        phi = learner.adapt(x, y, 3)
        last = learner.predict(phi, query)[0].softmax(-1)
        told = lesson(learner, phi, x, y, 3).answers(query)
    for row, reason in zip(last, told, strict=True):
        assert reason["growth"]["examples"] == [1, 2, 3, 4, 5, 6]
        assert reason["growth"]["probabilities"][-1] == pytest.approx(row.tolist(), abs=1e-3)
        assert reason["growth"]["probabilities"][0] != reason["growth"]["probabilities"][-1]


def test_steps_end_where_so_many_steps_lead() -> None:
    x, y, _ = task()
    torch.manual_seed(0)
    learner = MAML(MLP(6, [8], 3), inner_lr=0.1, inner_steps=3).eval()
    with torch.no_grad():
        curve = lesson(learner, learner.adapt(x, y, 3), x, y, 3).shown["curve"]
        learner.inner_steps = 10
        right = (learner.predict(learner.adapt(x, y, 3), x).argmax(-1) == y).float().mean()
    assert curve["taken"] == 3
    assert len(curve["loss"]) == len(curve["accuracy"]) == 11
    assert curve["accuracy"][-1] == pytest.approx(float(right), abs=1e-3)
    assert curve["loss"][-1] < curve["loss"][0]


def test_unknown_keeps_its_promise_and_is_said_only_where_it_can_be() -> None:
    """At most a tenth of new examples of known classes, on average over tasks."""
    learner, wrong, asked = ProtoNet(nn.Flatten()).eval(), 0, 0
    generator = torch.Generator().manual_seed(1)
    for _ in range(40):
        centres = 5 * torch.randn(3, 8, generator=generator)
        y = torch.arange(3).repeat(6)
        x = (centres[y] + torch.randn(18, 8, generator=generator)).unsqueeze(0)
        unknown = Unknown.of(learner, x, y.unsqueeze(0))
        assert unknown is not None
        assert unknown.shown == {"false_reject": FALSE_REJECT, "held_out": 18}
        phi = learner.adapt(x, y.unsqueeze(0), 3)
        labels = torch.arange(3).repeat(10)
        new = centres[labels] + torch.randn(30, 8, generator=generator)
        wrong += int(unknown(learner.predict(phi, new.unsqueeze(0))[0]).sum())
        asked += 30
        far = learner.predict(phi, 50 + centres.unsqueeze(0))[0]
        assert unknown(far).all()
    assert wrong / asked <= FALSE_REJECT + 0.02
    x, y, _ = task(sizes=(2, 2, 2))
    assert Unknown.of(learner, x, y) is None, "of six examples nobody knows"
    matching = MatchingNetwork(nn.Flatten()).eval()
    assert Unknown.of(matching, x.repeat(1, 4, 1), y.repeat(1, 4)) is None


def test_a_task_is_taken_along_as_a_file() -> None:
    ort = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    pytest.importorskip("onnxscript", reason="needs quickstudy[export]")
    bench = Workbench()
    client = TestClient(create_app(bench, requests_a_second=1e6), base_url="http://localhost")
    name = bench.create("drawing")
    url = f"/api/tasks/{name}/model"
    assert client.get(url).status_code == 422
    bench.add(name, [(f"symbol {c}", drawing(c, e)) for c in range(3) for e in range(2)])
    file = client.get(url, params={"format": "onnx"})
    assert file.headers["content-disposition"] == 'attachment; filename="model.onnx"'
    session = ort.InferenceSession(file.content)
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == ["symbol 0", "symbol 1", "symbol 2"]
    x = next(iter(bench._tasks[name].examples.values())).numbers["drawing"]
    probabilities, _ = session.run(None, {"x": x[None]})
    assert probabilities.argmax() == 0
    assert client.get(url, params={"format": "zip"}).status_code == 422


def test_one_file_is_made_at_a_time_and_a_late_one_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench, going, made = Workbench(), threading.Event(), []

    def slow(*_: Any) -> bytes:
        made.append(1)
        assert going.wait(20)
        return b"file"

    monkeypatch.setattr("quickstudy.app.workbench.model_file", slow)
    name = bench.create("drawing")
    bench.add(name, [(f"symbol {c}", drawing(c)) for c in range(2)])
    first = threading.Thread(target=bench.model, args=(name, "onnx"))
    first.start()
    while not made:
        pass
    with pytest.raises(FullError, match="try again in a moment"):
        bench.model(name, "onnx")
    going.set()
    first.join()
    assert bench.model(name, "onnx") == b"file"
    assert len(made) == 1
    bench.rename(name, "symbol 0", "zero")
    bench.model(name, "onnx")
    assert len(made) == 2, "of another task, another file"


def test_a_package_that_is_missing_for_a_file_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any) -> Any:
        raise ModuleNotFoundError("this needs onnx: pip install 'quickstudy[export]'")

    monkeypatch.setattr(take, "export_onnx", missing)
    bench = Workbench()
    client = TestClient(create_app(bench), base_url="http://localhost")
    name = bench.create("drawing")
    bench.add(name, [(f"symbol {c}", drawing(c)) for c in range(2)])
    answer = client.get(f"/api/tasks/{name}/model?format=onnx")
    assert answer.status_code == 501
    assert "quickstudy[export]" in answer.json()["detail"]


def test_photos_to_start_from() -> None:
    client = TestClient(create_app(), base_url="http://localhost")
    found = client.get("/api/starters/photo").json()
    assert [one["label"] for one in found["examples"]] == ["palace", "palace", "flower", "flower"]
    assert "danielbuechele" in found["credit"]
    for one in (*found["examples"], found["ask"]):
        data = base64.b64decode(one["image"].partition("base64,")[2])
        assert Image.open(io.BytesIO(data)).size == (224, 224)
