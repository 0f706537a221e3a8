"""The encoder of a learner that you trained."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from quickstudy.checkpoint import check_finite
from quickstudy.devices import find_device
from quickstudy.encoders.encoder import Array, Kind, fingerprint_of
from quickstudy.encoders.images import images_as_they_are
from quickstudy.examples import Example

__all__ = ["LearnedEncoder"]


class LearnedEncoder:
    """The encoder of a learner that you trained: images to its features ``[n,D]``.

    Args:
        name: the run folder or the file of weights that it came from.
        about: plain values from which the learner can be built.
        images: the encoder that gives what it takes, by name.
        weights: of the learner's encoder.
        device: where it computes.

    Raises:
        ValueError: the learner has no encoder.
    """

    kind: Kind = "image"

    def __init__(
        self,
        name: str,
        about: dict[str, Any],
        images: str,
        weights: dict[str, Tensor],
        device: str | torch.device | None = None,
    ) -> None:
        from quickstudy.heads import rebuild_learner

        count = sum(value.numel() for value in weights.values())
        network = getattr(rebuild_learner(about, count + 10_000_000), "encoder", None)
        if not isinstance(network, nn.Module):
            raise ValueError(f"the learner of {name} has no encoder; give it as the head instead")
        check_finite(weights, name)
        network.load_state_dict(weights)
        self.name, self.about, self.images = name, about, images
        self.device = find_device(device)
        pixels = images_as_they_are(images)
        if pixels is None:
            raise ValueError(f"{name} was trained on images as they are, not on {images}")
        self.network, self._pixels, self.shape = network.to(self.device), pixels, pixels.shape
        self.fingerprint = fingerprint_of(network, images)

    @classmethod
    def of(cls, path: str, device: str | torch.device | None = None) -> "LearnedEncoder":
        """The encoder of a run folder or a file of weights.

        Raises:
            ValueError: its learner has no encoder of images.
        """
        from quickstudy.experiments.pretrained import taken_images
        from quickstudy.heads import describe_learner

        about, learner = describe_learner(path)
        images, network = taken_images(path), getattr(learner, "encoder", None)
        if images is None or not isinstance(network, nn.Module):
            raise ValueError(
                f"the learner of {path} has no encoder of images; learn a task with it as the head"
            )
        return cls(path, about, images, dict(network.state_dict()), device)

    def __call__(self, examples: Sequence[Example]) -> Array:
        with torch.no_grad():
            x = torch.from_numpy(self._pixels(examples)).to(self.device)
            z: Array = self.network(x).flatten(1).cpu().numpy()
        return z
