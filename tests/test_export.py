"""An exported model answers as the model itself."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from quickstudy.cli import main
from quickstudy.data import alphabets
from quickstudy.encoders import DrawingEncoder, LearnedEncoder, PhotoEncoder
from quickstudy.examples import Example
from quickstudy.experiments.run import Machine, run_experiment
from quickstudy.experiments.spec import Experiment
from quickstudy.export import Deployed, export_onnx, export_torch
from quickstudy.heads import HEADS
from quickstudy.model import Model


def examples(instances: range) -> list[Example]:
    drawn = alphabets(4, 8, size=56, first_class=70)
    found = []
    for c in range(4):
        for e in instances:
            file = io.BytesIO()
            pixels = 255 - drawn.read(torch.tensor([c]), torch.tensor([e]))[0, 0].numpy()
            Image.fromarray(pixels).save(file, "PNG")
            found.append(Example(file.getvalue(), f"symbol {c}", f"{c} {e}"))
    return found


def photo_encoder() -> PhotoEncoder:
    torch.manual_seed(0)
    return PhotoEncoder(nn.Sequential(nn.Conv2d(3, 8, 5, stride=3), nn.ReLU()), size=32)


def expected(model: Model) -> Any:
    return np.array([[*a.probabilities.values()] for a in model.predict(examples(range(4, 8)))])


def prepared(model: Model) -> Any:
    """The same examples as the exported graph takes them."""
    new = examples(range(4, 8))
    if isinstance(model.encoder, DrawingEncoder):
        return model.encoder(new)
    from quickstudy.images import decode_image

    pixels = [decode_image(e.item, "", (32, 32), 3) for e in new]  # type: ignore[arg-type]
    return np.stack(pixels).astype(np.float32) / 255


def test_a_graph_takes_classes_for_as_frequent_as_the_model_does() -> None:
    few = [*examples(range(4)), *examples(range(4, 8))[:8]]
    alike, own = (
        Model.learn(few, encoder="drawing", head="centroid", prior=prior)
        for prior in ("alike", "examples")
    )
    with torch.no_grad():
        p, _ = Deployed(own).eval()(torch.as_tensor(prepared(own)))
    assert np.allclose(p, expected(own), atol=1e-4)
    assert not np.allclose(p, expected(alike), atol=1e-3)


LEARNERS = ["protonet-omniglot", "protonet-drawings", "matching-omniglot"]
LEARNERS += ["maml-omniglot-5w1s", *HEADS]


@pytest.mark.parametrize("head", LEARNERS)
def test_onnx_runtime_gives_the_same_answers(head: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="needs quickstudy[export]")
    runtime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    model = Model.learn(examples(range(4)), encoder="drawing", head=head, false_reject=0.1)
    export_onnx(model, tmp_path / "m.onnx")
    session = runtime.InferenceSession(tmp_path / "m.onnx")
    x, want = prepared(model), expected(model)
    for n in (1, 3, 16):
        got, familiar = session.run(None, {"x": x[:n]})
        assert np.allclose(got, want[:n], atol=1e-4)
        assert familiar.shape == (n,)
    kept = session.get_modelmeta().custom_metadata_map
    assert json.loads(kept["classes"]) == [f"symbol {c}" for c in range(4)]
    assert json.loads(kept["threshold"]) == model.classifier.threshold_


def test_a_photo_model_goes_along_with_its_encoder(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="needs quickstudy[export]")
    runtime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    model = Model.learn(examples(range(4)), encoder=photo_encoder(), head="ridge")
    export_onnx(model, tmp_path / "m.onnx")
    got, _ = runtime.InferenceSession(tmp_path / "m.onnx").run(None, {"x": prepared(model)})
    assert np.allclose(got, expected(model), atol=1e-4)


@pytest.mark.parametrize("head", ["protonet-omniglot", "maml-omniglot-5w1s"])
def test_torch_export_gives_the_same_answers(head: str, tmp_path: Path) -> None:
    model = Model.learn(examples(range(4)), encoder="drawing", head=head)
    export_torch(model, tmp_path / "m.pt2")
    program = torch.export.load(tmp_path / "m.pt2").module()
    got, _ = program(torch.from_numpy(prepared(model)))
    assert np.allclose(got.numpy(), expected(model), atol=1e-4)


class Letters:
    name, kind, fingerprint = "letters", "text", "1"

    def __call__(self, examples: Any) -> Any:
        return np.array([[e.item.count(c) for c in "aeiou"] for e in examples], np.float32)


def test_of_sentences_the_graph_takes_features(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="needs quickstudy[export]")
    runtime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    few = [("banana", "fruit"), ("fish and chips", "dish"), ("kiwi", "fruit")]
    model = Model.learn(few, encoder=Letters())  # type: ignore[arg-type]
    export_onnx(model, tmp_path / "m.onnx")
    session = runtime.InferenceSession(tmp_path / "m.onnx")
    kept = session.get_modelmeta().custom_metadata_map
    assert (json.loads(kept["encoder"]), json.loads(kept["input"])) == ("letters", [5])
    new = ["papaya", "chips"]
    want = [[*answer.probabilities.values()] for answer in model.predict(new)]
    x = Letters()([Example(text, None, "") for text in new])
    assert np.allclose(session.run(None, {"x": x})[0], want, atol=1e-4)


def test_of_what_you_trained_the_encoder_is_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxscript", reason="needs quickstudy[export]")
    runtime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    monkeypatch.chdir(tmp_path)
    for name, options in (("mine", {"filters": 4}), ("mlp", {"backbone": "mlp"})):
        run_experiment(
            Experiment("protonet", data="alphabets", classes=9, size=16, steps=1, way=3, **options),
            Path(name),
            Machine(accelerator="cpu", validation=None),
            quiet=True,
        )
        monkeypatch.setattr("sys.argv", ["quickstudy", "export", name, "--onnx"])
        with pytest.raises(SystemExit, match=r"^0$"):
            main()
        assert capsys.readouterr().out == f"{name}.onnx\n"
        session = runtime.InferenceSession(f"{name}.onnx")
        encoder = LearnedEncoder.of(name)
        new = examples(range(2))
        x = DrawingEncoder(16)(new)
        assert np.allclose(session.run(["features"], {"x": x})[0], encoder(new), atol=1e-4)
    export_torch(encoder, "mlp.pt2")
    found = torch.export.load("mlp.pt2").module()(torch.from_numpy(x))
    assert np.allclose(found.numpy(), encoder(new), atol=1e-4)


@pytest.mark.parametrize("head", ["tables", "logistic"])
def test_of_tables_no_graph_is_made(head: str) -> None:
    """It would take columns scaled already, and say nothing of that."""
    rows = [({"age": 20 + i, "plan": "ab"[i % 2]}, "xy"[i % 2]) for i in range(8)]
    model = Model.learn(rows, head=head)
    with pytest.raises(ValueError, match=r"a model of tables cannot be exported.*serve"):
        Deployed(model)
