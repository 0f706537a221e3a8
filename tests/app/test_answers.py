"""Tasks that are answered together are answered as each alone."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("fastapi", reason="needs quickstudy[app]")

from quickstudy.app import Workbench, answers
from quickstudy.app.answers import fit, logits_of, parts
from quickstudy.app.workbench import SHOWN, FullError, Item
from quickstudy.heads import load_learner, usual_temperature

CPU = torch.device("cpu")


def drawn(seed: int) -> Item:
    import base64

    pixels = np.random.default_rng(seed).integers(0, 2, (84, 84)).astype(bool)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return Item(base64.b64encode(file.getvalue()).decode())


@pytest.mark.parametrize("source", [*SHOWN["drawing"].values()])
def test_a_learner_in_two_parts_is_the_learner(source: str) -> None:
    """And so it is in one pass for tasks of one size, and for those of others."""
    torch.manual_seed(0)
    encoder, head = parts(source, CPU)
    whole = head if source == "nearest" else load_learner(source)
    if source.startswith("maml"):
        whole.inner_steps = 3
    tasks = [(2, 4), (5, 5), (2, 4), (2, 6), (2, 4)]
    x = [torch.rand(size, 1, 28, 28) for _, size in tasks]
    y = [torch.arange(size) % way for way, size in tasks]
    queries = [torch.rand(count, 1, 28, 28) for count in (1, 1, 1, 1, 3)]
    with torch.no_grad():
        fitted = [fit(source, *task, way) for *task, (way, _) in zip(x, y, tasks, strict=True)]
        together = logits_of(head, fitted, [encoder(each) for each in queries])
        for i, (way, _) in enumerate(tasks):
            phi = whole.adapt(x[i].unsqueeze(0), y[i].unsqueeze(0), way)
            alone = whole.predict(phi, queries[i].unsqueeze(0))[0]
            assert torch.allclose(together[i], alone, atol=1e-3)
            assert torch.equal(together[i].argmax(-1), alone.argmax(-1))
            usual = usual_temperature(source, y[i].bincount().tolist())
            assert fitted[i].temperature == usual


def test_tasks_alike_go_in_one_pass_and_large_ones_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    _, head = parts("maml-omniglot-5w1s", CPU)
    passes: list[int] = []
    whole = head.predict

    def counted(phi: Any, x: torch.Tensor) -> torch.Tensor:
        passes.append(len(x))
        return whole(phi, x)

    x, y = torch.rand(4, 1, 28, 28), torch.arange(4) % 2
    with torch.no_grad():
        fitted = [fit("maml-omniglot-5w1s", x, y, 2) for _ in range(3)]
        monkeypatch.setattr(answers, "_SMALL", 1000)
        large = [fit("maml-omniglot-5w1s", x, y, 2) for _ in range(3)]
        monkeypatch.setattr(head, "predict", counted)
        logits_of(head, fitted, [x[:1]] * 3)
        logits_of(head, fitted, [x[:1], x[:2], x[:1]])
        logits_of(head, large, [x[:1]] * 3)
    assert passes == [3, 2, 1, 1, 1, 1]


def asked_together(bench: Workbench, asked: Sequence[tuple[str, list[Item]]]) -> list[Any]:
    """What is answered to requests that have all come before one is computed."""
    with bench._computing:
        waiting = [bench.ask(task, items, then=lambda answer: answer) for task, items in asked]
    return [future.exception() or future.result() for future in waiting]


def taught(bench: Workbench, name: str, classes: int) -> str:
    task = bench.create("drawing")
    bench.add(task, [(f"{name} {c}", drawn(c)) for c in range(classes)])
    return task


def test_requests_that_wait_are_encoded_in_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Workbench()
    tasks = [taught(bench, name, 3) for name in "abcd"]
    asked = [(task, [drawn(i % 3)]) for i, task in enumerate(tasks)]
    alone = [bench.predict(*one) for one in asked]
    seen: list[int] = []
    encoder = parts("protonet-drawings", CPU).encoder
    encoder.register_forward_pre_hook(lambda _, x: seen.append(len(x[0])))
    together = asked_together(bench, asked)
    assert seen == [4], "four requests, one pass"
    for i, (one, other) in enumerate(zip(alone, together, strict=True)):
        assert one["classes"] == other["classes"] == [f"{'abcd'[i]} {c}" for c in range(3)]
        for name, own in one["learners"].items():
            first, second = own["answers"][0], other["learners"][name]["answers"][0]
            assert first["label"] == second["label"]
            assert np.allclose(first["probabilities"], second["probabilities"], atol=1e-3)
            assert first.get("looked_at") == second.get("looked_at")
    seen.clear()
    many = asked_together(bench, [(tasks[0], [drawn(0)] * 40)] * 3)
    assert seen == [40, 40, 40], "so many items together, and no more"
    assert all(len(one["learners"]["ProtoNet"]["answers"]) == 40 for one in many)


def test_a_request_that_fails_fails_alone() -> None:
    bench = Workbench()
    kept, gone = taught(bench, "a", 2), taught(bench, "b", 2)
    right, wrong, last = [(kept, [drawn(1)]), (gone, [drawn(1)]), (kept, [drawn(0)])]
    with bench._computing:
        waiting = [bench.ask(task, items, then=str) for task, items in (right, wrong, last)]
        bench.delete(gone)
    assert "'label': 'a 1'" in waiting[0].result()
    assert isinstance(waiting[1].exception(), KeyError)
    assert "'label': 'a 0'" in waiting[2].result()


def test_a_task_is_learned_once_for_as_long_as_it_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench, learned = Workbench(), []
    monkeypatch.setattr(
        "quickstudy.app.workbench.fit", lambda *words: (learned.append(words[0]), fit(*words))[1]
    )
    task = taught(bench, "a", 2)
    asked_together(bench, [(task, [drawn(0)]), (task, [drawn(1)])])
    bench.predict(task, [drawn(0)])
    assert sorted(learned) == sorted(SHOWN["drawing"].values())
    bench.rename(task, "a 0", "b")
    bench.predict(task, [drawn(0)])
    assert len(learned) == 2 * len(SHOWN["drawing"])


def test_a_file_for_predict_waits_for_no_graph() -> None:
    bench = Workbench()
    task = taught(bench, "a", 2)
    with bench._making:
        assert bench.model(task, "qs")
        with pytest.raises(FullError, match="a graph is being made already"):
            bench.model(task, "onnx")
