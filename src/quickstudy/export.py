"""A learned task as one graph, from pixels to answers; and an encoder that you trained."""

import logging
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from quickstudy.checkpoint import map_tensors, write_atomically
from quickstudy.encoders import (
    AbsentEncoder,
    DrawingEncoder,
    LearnedEncoder,
    PhotoEncoder,
    PixelEncoder,
)
from quickstudy.estimator import image_shape
from quickstudy.extras import need
from quickstudy.learner import MetaLearner, Phi
from quickstudy.model import Model
from quickstudy.plain import to_json

__all__ = ["Deployed", "export_onnx", "export_torch"]


class Deployed(nn.Module):
    """What a model does with prepared examples, as a plain module without a task in sight.

    ``[n,C,H,W]`` (0..1: ink 1 for drawings, RGB for photos) ``-> [n,N]`` probabilities, and
    ``[n]``, how familiar each example is: below the model's threshold it is of no known class.
    Where the encoder is no torch module, as that of sentences, the graph takes its features
    ``[n,D]`` instead.

    Args:
        model: of any kind but tables.

    Raises:
        ValueError: it is a model of tables.
    """

    allowance: Tensor
    log_prior: Tensor

    def __init__(self, model: Model) -> None:
        super().__init__()
        encoder = model.encoder
        if encoder.kind == "table":
            raise ValueError(
                "a model of tables cannot be exported: no graph reads words, dates and holes; "
                "quickstudy serve answers for it over REST"
            )
        if isinstance(encoder, PhotoEncoder) and isinstance(encoder.network.module, nn.Module):
            self.encoder: nn.Module = encoder.network
            self.input_shape: tuple[int, ...] = encoder.network.input_shape
        elif isinstance(encoder, DrawingEncoder):
            takes_images = image_shape(model.classifier.learner_) is not None
            self.encoder = nn.Identity() if takes_images else nn.Flatten()
            self.input_shape = encoder.shape
        elif isinstance(encoder, PixelEncoder):
            self.encoder = nn.Identity()
            self.input_shape = encoder.shape
        elif isinstance(encoder, LearnedEncoder):
            self.encoder = nn.Sequential(encoder.network, nn.Flatten())
            self.input_shape = encoder.shape
        else:
            if isinstance(encoder, AbsentEncoder):
                encoder([])  # says what is missing
            self.encoder = nn.Identity()
            self.input_shape = model.classifier.support_x_.shape[1:]
        classifier = model.classifier
        self.learner: MetaLearner = classifier.learner_
        self.phi: Phi = map_tensors(classifier.phi_, _single)
        self.temperature = classifier.temperature_
        self.register_buffer("log_prior", torch.from_numpy(classifier.log_prior()).float())
        sizes = torch.bincount(torch.from_numpy(classifier.support_y_))
        self.register_buffer("allowance", (sizes == 1).float() * classifier.allowance_)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.learner.predict(self.phi, self.encoder(x).unsqueeze(0))[0]
        largest, best = logits.max(-1)
        p: Tensor = (logits / self.temperature + self.log_prior).softmax(-1)
        return p, largest + self.allowance[best]


class _Embedding(nn.Module):
    """An encoder that you trained, ``[n,C,H,W] -> [n,D]``."""

    def __init__(self, encoder: LearnedEncoder) -> None:
        super().__init__()
        self.network = encoder.network
        self.input_shape = encoder.shape

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.network(x).flatten(1)
        return features


def export_onnx(model: Model | LearnedEncoder, path: str | os.PathLike[str]) -> None:
    """Write a model for ONNX Runtime; any number of examples at a time.

    Input ``x`` is as `Deployed` says, outputs are ``probabilities`` ``[n,N]`` and ``familiarity``
    ``[n]``. The file's metadata has the encoder, the classes and the threshold of familiarity,
    below which an example is of none. Of an encoder that you trained, the output is ``features``
    ``[n,D]``.

    Raises:
        ModuleNotFoundError: ``onnx`` or ``onnxscript`` is not installed.
    """
    onnx = need("onnx", "export")
    need("onnxscript", "export")
    deployed, example = _ready(model)
    encoder = isinstance(model, LearnedEncoder)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision, we do not
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = Path(folder) / "model.onnx"
        torch.onnx.export(
            deployed,
            (example,),
            file,
            input_names=["x"],
            output_names=["features"] if encoder else ["probabilities", "familiarity"],
            dynamic_shapes={"x": {0: torch.export.Dim("n", min=1)}},
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        proto = onnx.load(file)
    about: dict[str, Any] = {"input": [*deployed.input_shape]}
    if isinstance(model, LearnedEncoder):
        about |= {"encoder": model.name, "images": model.images}
    else:
        about |= {**model.about(), "classes": [*model.counts]}
    for name, value in about.items():
        proto.metadata_props.add(key=name, value=to_json(value))
    write_atomically(path, proto.SerializeToString())


def export_torch(model: Model | LearnedEncoder, path: str | os.PathLike[str]) -> None:
    """Write a model as a `torch.export` program (``.pt2``), for what ONNX cannot hold.

    Inputs and outputs are those of `export_onnx`.
    """
    deployed, example = _ready(model)
    n = {0: torch.export.Dim("n", min=1)}
    program = torch.export.export(deployed, (example,), dynamic_shapes={"x": n})
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.pt2"
        torch.export.save(program, file)
        write_atomically(path, file.read_bytes())


def _ready(model: Model | LearnedEncoder) -> tuple[Deployed | _Embedding, Tensor]:
    deployed: Deployed | _Embedding = (
        _Embedding(model) if isinstance(model, LearnedEncoder) else Deployed(model)
    )
    deployed.eval()
    for parameter in deployed.parameters():
        parameter.requires_grad_(False)
    return deployed, torch.rand(2, *deployed.input_shape)


def _single(z: Tensor) -> Tensor:
    """Single precision, like the encoders."""
    return z.float() if z.is_floating_point() else z
