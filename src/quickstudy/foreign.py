"""Networks of timm and Hugging Face as backbones: with their weights, or built from a description.

What was trained on one must open where nobody can be asked, and a stranger's file must not decide
what is loaded. So a run and its weights hold the network's own description, as plain values, and
nothing is fetched or run when they are read.
"""

import math
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from quickstudy.encoders.libraries import Pooled, without_bars
from quickstudy.encoders.photos import PhotoNetwork
from quickstudy.extras import need

__all__ = ["describe", "foreign"]

# fmt: off
_KINDS = {
    "beit", "bit", "clip", "convnext", "convnextv2", "cvt", "data2vec-vision", "deit", "dinov2",
    "dinov2_with_registers", "dinov3_convnext", "dinov3_vit", "efficientnet", "focalnet", "hiera",
    "ijepa", "levit", "mobilenet_v1", "mobilenet_v2", "mobilevit", "poolformer", "pvt", "regnet",
    "resnet", "siglip", "swin", "swinv2", "vit", "vit_msn",
}
# fmt: on
"""Of Hugging Face's models: those that take images, whose code comes with transformers."""

_OTHER_TEXT = ("text_model", "text_projection", "logit_scale", "logit_bias")
_NOT_KEPT = re.compile("^_|implementation|auto_map|quantization|dtype|label|backbone")
"""Of a configuration: where it came from, and what might load more than the network's code."""

_MOST_LAYERS, _LARGEST = 1000, 10**6
"""Of what a description may ask for: each layer is made before any number can be counted."""


def describe(name: str) -> dict[str, Any]:
    """What builds the network ``timm:MODEL`` or ``hf:MODEL`` again, but for its weights.

    Raises:
        ValueError: it is no network for images.
        ModuleNotFoundError: its library is not installed; says how to install it.
        OSError: there is no such model, or it cannot be reached.
    """
    source, _, model = name.partition(":")
    if source == "timm":
        about = _timm(model, pretrained=False)[1]
        return {"mean": [*about["mean"]], "std": [*about["std"]]}
    transformers = need("transformers", "vision")
    without_bars()
    config = transformers.AutoConfig.from_pretrained(model)
    _check_kind(config.model_type, name)
    processor = transformers.AutoImageProcessor.from_pretrained(model)
    mean, std = ([float(x) for x in of] for of in (processor.image_mean, processor.image_std))
    return {"config": _plain(config.to_dict()), "mean": mean, "std": std}


def foreign(
    name: str, size: int, described: dict[str, Any], *, pretrained: bool = True
) -> PhotoNetwork:
    """The network, for photos ``[n,3,size,size]``, 0..1; can be trained, also to second order.

    Args:
        name: ``timm:MODEL`` or ``hf:MODEL``.
        size: side of the images.
        described: by `describe`.
        pretrained: with its weights, which its library finds by the name; else with random ones,
            from the description alone.

    Raises:
        ValueError: the description is of no network that takes such images.
        ModuleNotFoundError: its library is not installed; says how to install it.
        OSError: there is no such model, or it cannot be reached.
    """
    source, _, model = name.partition(":")
    try:
        mean, std = (_three(described[key]) for key in ("mean", "std"))
        if min(std) <= 0:
            raise ValueError("a deviation is not above 0")
        config = None if source == "timm" or pretrained else _checked(described["config"], name)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{name} is not described as it should be: {error}") from error
    if source == "timm":
        network = _timm(model, pretrained)[0]
    elif config is None:
        network = _hugging_face(model)
    else:
        network = _from_config(config, name)
    encoder = PhotoNetwork(network, size, mean, std)
    try:
        with torch.no_grad():
            encoder.out_features = encoder(torch.zeros(1, 3, size, size)).shape[1]
    except (RuntimeError, ValueError, AssertionError) as error:
        raise ValueError(f"{name} takes no images of {size}x{size}: {error}") from error
    return encoder


def _timm(model: str, pretrained: bool) -> tuple[nn.Module, dict[str, Any]]:
    if not re.fullmatch(r"[a-zA-Z0-9_.]+", model):  # others are addresses
        raise ValueError(f"timm:{model} is not a name of timm's own")
    timm = need("timm", "vision")
    network = timm.create_model(model, pretrained=pretrained, num_classes=0)
    return network, timm.data.resolve_model_data_config(network)


def _hugging_face(model: str) -> nn.Module:
    transformers = need("transformers", "vision")
    without_bars()
    network = transformers.AutoModel.from_pretrained(model, attn_implementation="eager")
    return _image_part(network)


def _from_config(config: dict[str, Any], name: str) -> nn.Module:
    transformers = need("transformers", "vision")
    try:
        known = transformers.AutoConfig.for_model(**config)
        network = transformers.AutoModel.from_config(known, attn_implementation="eager")
    except Exception as error:  # of any kind: the values are a stranger's
        raise ValueError(f"{name} is described so that it cannot be built: {error}") from error
    return _image_part(network)


def _three(values: Any) -> list[float]:
    found = [float(value) for value in values]
    if len(found) != 3 or not all(map(math.isfinite, found)):
        raise ValueError(f"expected a number for each of three colours, found {values}")
    return found


def _checked(config: Any, name: str) -> dict[str, Any]:
    """What is used of a description, which asks for no more than a network has."""
    if not isinstance(config, dict):
        raise TypeError(f"its configuration is {config!r:.40}")
    _check_kind(config.get("model_type"), name)
    checked = _plain(config)
    for key, value in _leaves(checked):
        several = value if isinstance(value, list) else [value]
        whole = [v for v in several if isinstance(v, int)]
        if max(map(abs, whole), default=0) > _LARGEST or len(several) > _MOST_LAYERS:
            raise ValueError(f"{key} is {value!r:.40}, larger than of any network")
        if re.search("layer|depth|stage|block", key) and sum(whole) > _MOST_LAYERS:
            raise ValueError(f"{key} is {value!r:.40}; expected at most {_MOST_LAYERS} layers")
    return checked


def _leaves(config: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _leaves(value)
        else:
            yield key, value


def _image_part(network: Any) -> nn.Module:
    """Without its text tower, if it has one, whose weights would learn nothing."""
    for part in _OTHER_TEXT:
        if hasattr(network, part):
            delattr(network, part)
    return Pooled(network.float())


def _check_kind(kind: object, name: str) -> None:
    if kind not in _KINDS:
        raise ValueError(
            f"{name} is of the kind {kind!r}; expected one that takes images: "
            f"{', '.join(sorted(_KINDS))}"
        )


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _plain(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if not _NOT_KEPT.search(key)
    }
