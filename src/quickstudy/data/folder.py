"""Images in class folders, or in a zip of class folders."""

import math
import os
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quickstudy._moved import names_from
from quickstudy.class_folders import class_names, images_of_classes
from quickstudy.data.dataset import ClassDataset, atomic_folder
from quickstudy.files import Files
from quickstudy.images import decode_image
from quickstudy.plain import read_file

__all__ = ["image_folder", "read_image"]

__getattr__ = names_from(
    __name__,
    {
        "class_folders": "quickstudy.class_folders",
        "decode_image": "quickstudy.images",
        "is_image": "quickstudy.images",
    },
)


def image_folder(
    root: str | os.PathLike[str],
    *,
    size: int | tuple[int, int] = 84,
    channels: Literal[1, 3] = 3,
    corrupt: Literal["skip", "refuse"] = "refuse",
    invert: bool = False,
    memmap: str | os.PathLike[str] | None = None,
) -> ClassDataset:
    """Load a folder (or zip) of class folders as uint8 ``[M,channels,height,width]``.

    A folder that holds images is a class, at any depth. Its name is its path below the deepest
    folder that holds all the classes; if every class lies two levels or more below that, the
    folder around a class is its group (``Greek/character01`` has the group ``Greek``). Classes
    and images stand in the order of their names.

    Files that are not named like an image, folders with nothing else in them and images beside the
    class folders are left out, and a warning counts them. Where ``train`` and ``test`` hold the
    same classes, ``train`` is read, and a warning says so. Hidden files and what systems put into
    folders (thumbnails, ``desktop.ini``) are left out.

    Images are turned as their EXIF tag says, laid over white where they are transparent, shrunk
    or enlarged (Lanczos) until they just cover ``size``, and cut to it around the centre. With a
    square ``size`` that is the common "resize the short side, then centre crop". 16-bit images
    keep their upper 8 bits (of those in use: 16, 12 or 8); of an animation the first frame is read.
    White on transparent ground is laid over black.

    Args:
        root: folder or ``.zip``.
        size: side of the images, or (height, width).
        channels: 3 for RGB, 1 for grey.
        corrupt: what to do with an image that cannot be read, or that has more pixels than
            ``PIL.Image.MAX_IMAGE_PIXELS``: raise, or leave it out and warn once.
        invert: swap black and white, for dark drawings on light paper.
        memmap: a folder to write the images to, one by one, and to read them from. With it the
            images never stand in memory together; `ClassDataset.open` opens it again.

    Raises:
        FileNotFoundError: there is no ``root``.
        ValueError: an image is corrupt, a class has no images, or there are fewer than two
            classes; names the file or folder.
    """
    height, width = _check_size(size, channels)
    if corrupt not in ("skip", "refuse"):
        raise ValueError(f"corrupt is {corrupt!r}; expected 'skip' or 'refuse'")
    with Files(root) as files:
        classes = images_of_classes(files)
        n_images = sum(len(names) for names in classes.values())
        shape = (n_images, channels, height, width)
        read: Counter[str] = Counter()
        failed: list[str] = []

        def images() -> Iterator[NDArray[np.uint8]]:
            for folder, names in classes.items():
                for name in names:
                    where = files.where(name)
                    try:
                        data = decode_image(files.read(name), where, (height, width), channels)
                    except ValueError as error:
                        if corrupt == "refuse":
                            raise ValueError(
                                f"{error} (corrupt='skip' or --skip-corrupt leaves such images out)"
                            ) from error
                        failed.append(where)
                    else:
                        read[folder] += 1
                        yield 255 - data if invert else data

        def dataset(storage: NDArray[np.uint8]) -> ClassDataset:
            if failed:
                _warn(failed)
            if empty := [folder for folder in classes if not read[folder]]:
                raise ValueError(f"no image of {files.where(empty[0])} can be read")
            names, groups = class_names(list(classes))
            sizes = [read[folder] for folder in classes]
            return ClassDataset.from_sizes(
                torch.from_numpy(storage[: sum(sizes)]), sizes, names, groups
            )

        if memmap is None:
            storage = np.empty(shape, np.uint8)
            for i, image in enumerate(images()):
                storage[i] = image
            return dataset(storage)
        with atomic_folder(memmap) as folder:
            with (folder / "storage.npy").open("wb") as file:
                np.lib.format.write_array_header_1_0(
                    file, {"descr": "|u1", "fortran_order": False, "shape": shape}
                )
                start = file.tell()
                for image in images():
                    file.write(image.tobytes())
                file.truncate(start + math.prod(shape))
            mapped = np.load(folder / "storage.npy", mmap_mode="c")
            dataset(mapped).save_classes(folder)
            del mapped
    return ClassDataset.open(memmap)


def read_image(
    path: str | os.PathLike[str],
    *,
    size: int | tuple[int, int] = 84,
    channels: Literal[1, 3] = 3,
    invert: bool = False,
) -> Tensor:
    """One image file, made ready exactly as `image_folder` does: uint8 ``[channels,H,W]``.

    Args:
        path: the file.
        size: side of the image, or (height, width).
        channels: 3 for RGB, 1 for grey.
        invert: swap black and white.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a readable image.
    """
    pixels = decode_image(read_file(path), str(path), _check_size(size, channels), channels)
    return torch.from_numpy(255 - pixels if invert else pixels.copy())


def _check_size(size: int | tuple[int, int], channels: int) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise ValueError(f"size is {size}; expected at least 1 pixel")
    if channels not in (1, 3):
        raise ValueError(f"channels is {channels}; expected 1 (grey) or 3 (RGB)")
    return height, width


def _warn(failed: list[str]) -> None:
    shown = ", ".join(failed[:3]) + (", ..." if len(failed) > 3 else "")
    warnings.warn(f"left out {len(failed)} images that cannot be read: {shown}", stacklevel=4)
