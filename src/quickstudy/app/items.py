"""What arrives: images, texts and rows, and how images are stored; no web here."""

import base64
import binascii
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from PIL import Image, ImageOps

from quickstudy.images import open_image

__all__ = ["Charge", "Item", "Kind", "blank", "content_of", "image_url", "small_image"]

Kind = Literal["drawing", "photo", "text"]
Charge = Callable[[int], None]

_STORED: dict[Kind, tuple[int, str]] = {"drawing": (84, "PNG"), "photo": (224, "JPEG")}
_STORED_BYTES = 1 << 16
_BEGINS = {"PNG": b"\x89PNG", "JPEG": b"\xff\xd8"}
_FOR_URLS = str.maketrans("-_", "+/")  # of base64, as it stands in addresses


@dataclass(frozen=True)
class Item:
    """An example as it arrives: an encoded image, a text, or a row of a table by its columns."""

    image: str | None = None
    text: str | None = None
    row: Mapping[str, Any] | None = None


def content_of(kind: Kind, item: Item, where: str, taken: str) -> str | bytes:
    """What an item holds: a text, or the bytes of an image.

    Args:
        kind: what it has to be.
        item: as it arrived.
        where: what to call it in a message.
        taken: begins to say what is expected, if it is not of that kind.

    Raises:
        ValueError: it is of another kind, or is no base64.
    """
    if kind == "text":
        if item.text is None or not item.text.strip():
            raise ValueError(f"{where} has no text; {taken} sentences")
        return item.text
    if item.image is None:
        raise ValueError(f"{where} has no image; {taken} {kind}s")
    head, comma, encoded = item.image.rpartition(",")
    if comma and not (head.startswith("data:image/") and head.endswith(";base64")):
        raise ValueError(f"{where}: its image is neither base64 nor a data URL of an image")
    encoded = "".join(encoded.split()).translate(_FOR_URLS)
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{where}: its image is not base64 ({error})") from error


def small_image(data: bytes, kind: Kind, where: str, most: int, charge: Charge | None) -> bytes:
    """An image as it is stored and encoded; one that was stored before comes back unchanged.

    Args:
        data: the bytes of its file.
        kind: a drawing or a photo.
        where: what to call it in a message.
        most: pixels that it may have.
        charge: told how many it had.

    Raises:
        ValueError: it cannot be read, or has too many pixels.
    """
    side, form = _STORED[kind]
    image = open_image(data, where, "RGB", most)
    if charge is not None:
        charge(image.width * image.height)
    stored = image.size == (side, side) and data.startswith(_BEGINS[form])
    if stored and len(data) <= _STORED_BYTES:
        return data
    file = io.BytesIO()
    ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS).save(file, form, quality=90)
    return file.getvalue()


def blank(gray: int) -> Item:
    """A drawing of one pixel."""
    file = io.BytesIO()
    Image.new("L", (1, 1), gray).save(file, "PNG")
    return Item(image_url(file.getvalue()))


def image_url(data: bytes) -> str:
    """A stored image, as pages take it."""
    kind = "png" if data.startswith(_BEGINS["PNG"]) else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
