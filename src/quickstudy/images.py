"""What an image file holds: which files are images, and how their bytes become pixels."""

import contextlib
import importlib.util
import io
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError, features

__all__ = ["count_pixels", "decode_image", "is_image", "not_read", "open_image"]

DECODERS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "JPEG2000", "PPM", "AVIF", "HEIF")
"""Of Pillow's decoders those that only decode: its one for PostScript starts a program."""

_ENDINGS = {"bmp", "gif", "jfif", "jp2", "jpe", "jpeg", "jpg", "pbm", "pgm", "png", "pnm", "ppm"}
_ENDINGS |= {"tif", "tiff", "webp"}  # of any Pillow
_NEEDS = {
    "avif": "a Pillow that was built with AVIF",
    "heic": "quickstudy[heic]",
    "heif": "quickstudy[heic]",
}
_SYSTEM_FILES = {"desktop.ini", "ehthumbs.db", "icon\r", "picasa.ini", "thumbs.db"}


def is_image(name: str) -> bool:
    """Whether a file is named like an image that can be read here.

    AVIF needs a Pillow that was built with it, HEIC and HEIF the extra ``quickstudy[heic]``.
    """
    return _suffix(name) in _endings()


@cache
def _decoders() -> list[str]:
    _endings()
    Image.preinit()
    for plugin in ("Avif", "Jpeg2K", "Tiff", "WebP"):  # Image.init would bring them all
        with contextlib.suppress(ImportError):
            importlib.import_module(f"PIL.{plugin}ImagePlugin")
    return [name for name in DECODERS if name in Image.OPEN]


def not_read(names: Iterable[str]) -> str | None:
    """How many of these files are no images, by what their names end with; ``None`` if none is."""
    other = [name.rpartition("/")[2] for name in names if not is_image(name)]
    ends = Counter(_suffix(name) for name in other if name.lower() not in _SYSTEM_FILES)
    if not ends:
        return None
    return "not read: " + ", ".join(
        f"{count} {'.' + end if end else 'without an ending'}"
        + (f" (needs {_NEEDS[end]})" if end in _NEEDS else "")
        for end, count in sorted(ends.items(), key=lambda pair: (-pair[1], pair[0]))
    )


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1][1:].lower()


@cache
def _endings() -> set[str]:
    found = set(_ENDINGS)
    if features.check("avif"):
        found.add("avif")
    if importlib.util.find_spec("pillow_heif"):
        importlib.import_module("pillow_heif").register_heif_opener()
        found |= {"heic", "heif"}
    return found


def decode_image(
    data: bytes, where: str, size: tuple[int, int], channels: Literal[1, 3]
) -> NDArray[np.uint8]:
    """An encoded image as `image_folder` prepares it: uint8 ``[channels, *size]``.

    Args:
        data: the bytes of the file.
        where: what to call it in a message.
        size: height and width.
        channels: 3 for RGB, 1 for grey.

    Raises:
        ValueError: as `open_image`.
    """
    image = open_image(data, where, "L" if channels == 1 else "RGB")
    pixels = np.asarray(ImageOps.fit(image, (size[1], size[0]), Image.Resampling.LANCZOS))
    return pixels[None] if channels == 1 else np.moveaxis(pixels, 2, 0)


def open_image(
    data: bytes, where: str, mode: Literal["L", "RGB"], max_pixels: int | None = None
) -> Image.Image:
    """An encoded image, upright, on white where it is transparent.

    Only decoders that run no other program are asked (`DECODERS`), whatever the file is called.

    Args:
        data: the bytes of the file.
        where: what to call it in a message.
        mode: grey or RGB.
        max_pixels: what it may have at most, before it is decoded; default:
            ``PIL.Image.MAX_IMAGE_PIXELS``.

    Raises:
        ValueError: it cannot be read, or has too many pixels.
    """
    with _opened(data, where, max_pixels) as image:
        return _to_mode(_upright(image), mode)


def count_pixels(data: bytes, where: str, max_pixels: int | None = None) -> int:
    """How many pixels an encoded image has, looked up without decoding it.

    Args:
        data: as of `open_image`, also below.
        where: what to call it in a message.
        max_pixels: what it may have at most.

    Raises:
        ValueError: it is no image, or has too many pixels.
    """
    with _opened(data, where, max_pixels) as image:
        return image.width * image.height


@contextlib.contextmanager
def _opened(data: bytes, where: str, max_pixels: int | None) -> Iterator[Image.Image]:
    """An image before it is decoded; whatever goes wrong with it within the block names it."""
    most = max_pixels or Image.MAX_IMAGE_PIXELS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=_decoders()) as image:
                if most and image.width * image.height > most:
                    raise ValueError(
                        f"it has {image.width * image.height:,} pixels; at most {most:,} are taken"
                    )
                yield image
    except UnidentifiedImageError as error:
        fault = "it is damaged, or no image at all"
        if "heic" not in _endings() and data[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1"):
            fault = "HEIC needs quickstudy[heic]"
        raise ValueError(f"cannot read the image {where}: {fault}") from error
    except (ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot read the image {where}: {error}") from error
    except Exception as error:  # Pillow's decoders raise whatever a broken file makes them raise
        raise ValueError(f"cannot read the image {where}: {error!r}") from error


def _upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF tag says, if that can be read."""
    image.load()
    with contextlib.suppress(Exception):  # the pixels of an image with a broken tag may be whole
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _to_mode(image: Image.Image, mode: Literal["L", "RGB"]) -> Image.Image:
    """Grey or RGB, 8 bits.

    Of 16-bit pixels the upper 8 bits, or, if none is that large, of 12-bit or 8-bit ones, as
    microscopes and scanners put them into such files. On white where it is transparent; on black,
    if only that shows anything.
    """
    if image.mode == "F":
        raise ValueError("its pixels are floats, of which nothing says what is white")
    if image.mode.startswith("I"):
        wide = np.asarray(image).clip(0, 65535)
        bits = next(bits for bits in (8, 12, 16) if wide.max() < 1 << bits)
        image = Image.fromarray((wide >> (bits - 8)).astype(np.uint8))
    if "A" in image.mode or "transparency" in image.info:
        image = _as(image, "RGBA")
        laid = _on("white", image)
        if _is_blank(laid):
            on_black = _on("black", image)
            laid = laid if _is_blank(on_black) else on_black
        image = laid
    return image if image.mode == mode else _as(_as(image, "RGB"), mode)


def _as(image: Image.Image, mode: str) -> Image.Image:
    return image if image.mode == mode else image.convert(mode)


def _on(paper: str, image: Image.Image) -> Image.Image:
    """Other threads run meanwhile, as they do not while `Image.alpha_composite` does the same."""
    laid = Image.new("RGB", image.size, paper)
    laid.paste(image, mask=image)
    return laid


def _is_blank(image: Image.Image) -> bool:
    pixels = np.asarray(image.convert("L"))
    return bool(pixels.min() == pixels.max())
