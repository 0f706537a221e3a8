"""Encoders of timm, Hugging Face and sentence-transformers, by the names of their models."""

from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from quickstudy.encoders.photos import PhotoEncoder
from quickstudy.extras import need

__all__ = ["Pooled", "hugging_face", "sentence_transformer", "timm_model", "without_bars"]


def timm_model(model: str, device: torch.device) -> PhotoEncoder:
    """A model of timm, prepared by its own transform; `PhotoNetwork` normalises."""
    timm = need("timm", "vision")
    network = timm.create_model(model, pretrained=True, num_classes=0)
    about = timm.data.resolve_model_data_config(network)
    plain = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    transform = timm.data.create_transform(**{**about, **plain}, is_training=False)
    return PhotoEncoder(
        network,
        name=f"timm:{model}",
        size=about["input_size"][-1],
        mean=about["mean"],
        std=about["std"],
        device=device,
        prepare=lambda image: 255 * transform(image),
        prepared=str(about),
    )


class Pooled(nn.Module):
    """What a model of Hugging Face makes of an image as a whole."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        both: Any = getattr(self.network, "get_image_features", None)  # of images and texts
        out = self.network(pixel_values=x) if both is None else both(pixel_values=x)
        if isinstance(out, Tensor):
            return out
        pooled: Tensor | None = getattr(out, "pooler_output", None)
        if pooled is not None:
            return pooled
        whole: Tensor = out.last_hidden_state
        return whole.mean(1)


def hugging_face(model: str, device: torch.device) -> PhotoEncoder:
    """A vision model of Hugging Face, prepared by its processor; `PhotoNetwork` normalises."""
    transformers = need("transformers", "vision")
    without_bars()
    network = transformers.AutoModel.from_pretrained(model)
    processor = transformers.AutoImageProcessor.from_pretrained(model)

    def prepare(image: Image.Image) -> Tensor:
        pixels = processor(image, do_rescale=False, do_normalize=False, return_tensors="pt")
        x: Tensor = pixels["pixel_values"][0]
        return x

    return PhotoEncoder(
        Pooled(network),
        name=f"hf:{model}",
        size=prepare(Image.new("RGB", (64, 64))).shape[-1],
        mean=processor.image_mean,
        std=processor.image_std,
        device=device,
        prepare=prepare,
        prepared=str(processor),
    )


def sentence_transformer(model: str, device: torch.device) -> Any:
    """A model of sentence-transformers."""
    library = need("sentence_transformers", "text")
    without_bars()
    return library.SentenceTransformer(model, device=str(device))


def without_bars() -> None:
    """Loading a model takes a moment, and is nothing to tell of."""
    need("transformers", "text").utils.logging.disable_progress_bar()
