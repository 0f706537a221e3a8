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

from quickstudy.data import alphabets
from quickstudy.encoders import DrawingEncoder, PhotoEncoder
from quickstudy.examples import Example
from quickstudy.export import export_onnx, export_torch
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
    from quickstudy.data.folder import decode_image

    pixels = [decode_image(e.item, "", (32, 32), 3) for e in new]  # type: ignore[arg-type]
    return np.stack(pixels).astype(np.float32) / 255


LEARNERS = ["protonet-omniglot", "matching-omniglot", "maml-omniglot-5w1s", *HEADS]


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


def test_what_cannot_be_exported_is_said() -> None:
    class Letters:
        name, kind, fingerprint = "letters", "text", "1"

        def __call__(self, examples: Any) -> Any:
            return np.array([[e.item.count(c) for c in "aeiou"] for e in examples], np.float32)

    few = [Example("banana", "fruit", ""), Example("fish and chips", "dish", "")]
    model = Model.learn(few, encoder=Letters())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="drawings and photos can be exported; letters encodes te"):
        export_torch(model, "nowhere.pt2")
