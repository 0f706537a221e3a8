"""Omniglot: 1623 characters of 50 alphabets, each drawn by 20 people.

Lake, Salakhutdinov and Tenenbaum, "Human-level concept learning through probabilistic program
induction", Science 350 (2015). The images come from https://github.com/brendenlake/omniglot.
"""

import contextlib
import hashlib
import io
import os
import warnings
from collections import Counter
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from quickstudy.data.dataset import ClassDataset
from quickstudy.files import Files
from quickstudy.locks import alone

__all__ = ["ALPHABETS", "cache_dir", "omniglot"]

SetName = Literal["background", "evaluation"]
Resample = Literal["lanczos", "nearest"]

# Alphabets of the two published parts, with how many characters each has.
ALPHABETS: dict[SetName, dict[str, int]] = {
    "background": {
        "Alphabet_of_the_Magi": 20,
        "Anglo-Saxon_Futhorc": 29,
        "Arcadian": 26,
        "Armenian": 41,
        "Asomtavruli_(Georgian)": 40,
        "Balinese": 24,
        "Bengali": 46,
        "Blackfoot_(Canadian_Aboriginal_Syllabics)": 14,
        "Braille": 26,
        "Burmese_(Myanmar)": 34,
        "Cyrillic": 33,
        "Early_Aramaic": 22,
        "Futurama": 26,
        "Grantha": 43,
        "Greek": 24,
        "Gujarati": 48,
        "Hebrew": 22,
        "Inuktitut_(Canadian_Aboriginal_Syllabics)": 16,
        "Japanese_(hiragana)": 52,
        "Japanese_(katakana)": 47,
        "Korean": 40,
        "Latin": 26,
        "Malay_(Jawi_-_Arabic)": 40,
        "Mkhedruli_(Georgian)": 41,
        "N_Ko": 33,
        "Ojibwe_(Canadian_Aboriginal_Syllabics)": 14,
        "Sanskrit": 42,
        "Syriac_(Estrangelo)": 23,
        "Tagalog": 17,
        "Tifinagh": 55,
    },
    "evaluation": {
        "Angelic": 20,
        "Atemayar_Qelisayer": 26,
        "Atlantean": 26,
        "Aurek-Besh": 26,
        "Avesta": 26,
        "Ge_ez": 26,
        "Glagolitic": 45,
        "Gurmukhi": 45,
        "Kannada": 41,
        "Keble": 26,
        "Malayalam": 47,
        "Manipuri": 40,
        "Mongolian": 30,
        "Old_Church_Slavonic_(Cyrillic)": 45,
        "Oriya": 46,
        "Sylheti": 28,
        "Syriac_(Serto)": 23,
        "Tengwar": 25,
        "Tibetan": 42,
        "ULOG": 26,
    },
}
_DRAWERS = 20
_SIDE = 105

# SHA-256 over (path, pixels) of every image, as `_decode` computes it.
_FINGERPRINTS: dict[SetName, str] = {
    "background": "a124c5a5a976a2325d0833f6ed0f099009f18539b78de62d281d2188a44c0646",
    "evaluation": "aea28c3ae3e13f70f5ca1e76e5dc886e9f9958b67730065a5efab5629664ea76",
}

_URL = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/images_{}.zip"
_MD5: dict[SetName, str] = {
    "background": "68d2efa1b9178cc56df9314c21c6e718",
    "evaluation": "6b91aef0f799c5bb55b94e3f2daec811",
}


def omniglot(
    root: str | os.PathLike[str] | None = None,
    *,
    part: Literal["all", "background", "evaluation"] = "all",
    size: int = 28,
    resample: Resample = "lanczos",
    invert: bool = False,
    verify: bool = True,
) -> ClassDataset:
    """Load Omniglot: uint8 ``[M,1,size,size]``, ink 255 on 0, 20 examples per character.

    Classes are named ``Alphabet/characterNN`` and grouped by alphabet: the 964 characters of the
    background set, then the 659 of the evaluation set, each in the order of their names. The
    result is kept in `cache_dir`, so that the next load of the same files is a memory map.

    Args:
        root: a folder with ``images_background`` and ``images_evaluation``, at its top or one
            folder down, as folders or as zips (read without extracting them). By default the
            published zips are downloaded once into `cache_dir`.
        part: which of the two published sets.
        size: side of the images.
        resample: how they are shrunk from 105x105. ``"lanczos"`` gives the grey, smooth images that
            users expect; ``"nearest"`` takes single pixels. The code of MAML, Reptile and ProtoNet
            hands 1-bit images to Pillow, which then takes the nearest pixel whatever filter it is
            asked for: their figures belong to those images.
        invert: ink 0 on 255 instead, as the files have it.
        verify: refuse files that are not, image for image, the published ones. Packing and PNG
            encoding may differ.

    Raises:
        FileNotFoundError: ``root`` does not hold the part.
        ConnectionError: the download failed; what came is kept, and the next call goes on.
        ValueError: a file cannot be read or is not as published; names the file.
    """
    if part != "all" and part not in ALPHABETS:
        raise ValueError(f"part is {part!r}; expected 'all', 'background' or 'evaluation'")
    if size < 1:
        raise ValueError(f"size is {size}; expected at least 1 pixel")
    if resample not in get_args(Resample):
        raise ValueError(f"resample is {resample!r}; expected 'lanczos' or 'nearest'")
    parts: tuple[SetName, ...] = ("background", "evaluation") if part == "all" else (part,)
    with contextlib.ExitStack() as stack:
        sources = {
            p: stack.enter_context(Files(_download(p) if root is None else _find(Path(root), p)))
            for p in parts
        }
        shown = f"{size}" + f" {resample}" * (resample != "lanczos") + " inverted" * invert
        key = "\0".join(
            f"{p} {shown} {_FINGERPRINTS[p] if verify else 'unverified'} {files.signature()}"
            for p, files in sources.items()
        )
        cached = cache_dir() / f"omniglot-{part}-{size}-{_sha256(key)[:16]}"
        with contextlib.suppress(OSError, ValueError, KeyError, EOFError):
            return ClassDataset.open(cached)
        decoded = [_decode(files, p, size, resample, verify) for p, files in sources.items()]
    sizes = {name: n for _, counts in decoded for name, n in counts.items()}
    images = np.concatenate([images for images, _ in decoded])
    dataset = ClassDataset.from_sizes(
        torch.from_numpy(255 - images if invert else images),
        list(sizes.values()),
        list(sizes),
        [name.split("/")[0] for name in sizes],
    )
    try:
        dataset.save(cached)
    except OSError as error:
        warnings.warn(f"Omniglot is not cached, and loads slowly again: {error}", stacklevel=2)
    return dataset


def cache_dir() -> Path:
    """Where downloads and decoded data are kept: ``$QUICKSTUDY_CACHE``, or the system's place."""
    if folder := os.environ.get("QUICKSTUDY_CACHE"):
        return Path(folder)
    import pooch  # type: ignore[import-untyped]

    return Path(pooch.os_cache("quickstudy"))


def _find(root: Path, part: SetName) -> Path:
    """The folder or zip of one part."""
    stem = f"images_{part}"
    if root.stem == stem and root.exists():
        return root
    if not root.is_dir():
        raise FileNotFoundError(f"Omniglot root {root} is not a folder")
    for base in (root, *sorted(path for path in root.iterdir() if path.is_dir())):
        for path in (base / stem, base / f"{stem}.zip"):
            if path.exists():
                return path
    raise FileNotFoundError(
        f"{root} holds neither a folder {stem} nor {stem}.zip (looked there and one folder "
        f"down); download {_URL.format(part)} into it"
    )


def _download(part: SetName) -> Path:
    """The published zip of one part, from the cache or else from the official repository."""
    import pooch

    url = _URL.format(part)
    folder = cache_dir()
    folder.mkdir(parents=True, exist_ok=True)
    name = f"images_{part}.zip"
    downloader = Resuming(folder / f"{name}.part")
    with alone(folder / f"{name}.lock"):
        try:
            pooch.retrieve(url, f"md5:{_MD5[part]}", name, folder, downloader=downloader)
        except OSError as error:
            raise ConnectionError(
                f"could not download {url}. What came so far is kept in {folder}, and the next "
                "try goes on from there. Without a network, fetch the zips some other way and "
                f"name their folder: omniglot(root=...), or --root. The reason: {error}"
            ) from error
    return folder / name


class Resuming:
    """A pooch downloader that goes on where an interrupted download stopped.

    Args:
        part: keeps what has come, from one try to the next, until the file is whole.
        tries: how many connections in a row may end without bringing anything new.
        timeout: seconds to wait for the server.
    """

    def __init__(self, part: Path, *, tries: int = 3, timeout: float = 15) -> None:
        self.part = part
        self.tries = tries
        self.timeout = timeout

    def __call__(self, url: str, output_file: str | os.PathLike[str], _pooch: object) -> None:
        import requests

        failures = 0
        while True:
            before = self._size()
            try:
                self._fetch(url)
            except requests.HTTPError:
                raise
            except requests.RequestException:
                failures = 0 if self._size() > before else failures + 1
                if failures == self.tries:
                    raise
            else:
                self.part.replace(output_file)
                return

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _fetch(self, url: str) -> None:
        import requests

        start = self._size()
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        with requests.get(url, headers=headers, stream=True, timeout=self.timeout) as response:
            if response.status_code == requests.codes.range_not_satisfiable:
                self.part.unlink()
                raise requests.ConnectionError("the server has less than what came so far")
            response.raise_for_status()
            resumed = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
            length = response.headers.get("Content-Length")
            with self.part.open("ab" if start and resumed else "wb") as file:
                for block in response.iter_content(1 << 16):
                    file.write(block)
            received = self._size() - (start if resumed else 0)
            if length is not None and received < int(length):
                raise requests.ConnectionError(
                    f"the connection ended after {received} of {length} bytes"
                )


def _decode(
    files: Files, part: SetName, size: int, resample: Resample, verify: bool
) -> tuple[NDArray[np.uint8], dict[str, int]]:
    """One part's images ``[M,1,size,size]``, and the number of images of each class."""
    paths: dict[str, str] = {}
    for name in files.names:
        below = name.rpartition(f"images_{part}/")[2]
        if below.count("/") != 2 or not below.lower().endswith(".png"):
            raise ValueError(
                f"{files.where(name)} does not belong in Omniglot; "
                "expected only alphabet/characterNN/image.png"
            )
        paths[below] = name
    counts = dict(Counter(path.rpartition("/")[0] for path in sorted(paths)))
    if not counts:
        raise ValueError(f"{files.path} holds no images")
    if verify:
        _check_structure(files.path, part, counts)
    digest = hashlib.sha256()
    images = np.empty((len(paths), 1, size, size), np.uint8)
    for i, path in enumerate(sorted(paths)):
        ink = _ink(files.read(paths[path]), files.where(paths[path]))
        if verify and ink.shape != (_SIDE, _SIDE):
            raise ValueError(
                f"{files.where(paths[path])} is {ink.shape[1]}x{ink.shape[0]} pixels; "
                f"Omniglot's images are {_SIDE}x{_SIDE} (verify=False accepts any)"
            )
        digest.update(path.encode() + b"\0" + np.packbits(ink).tobytes())
        grey = Image.fromarray(ink.astype(np.uint8) * 255)
        images[i, 0] = np.asarray(grey.resize((size, size), Image.Resampling[resample.upper()]))
    if verify and digest.hexdigest() != _FINGERPRINTS[part]:
        raise ValueError(
            f"{files.path} has the {len(counts)} characters and {len(paths)} images of Omniglot's "
            f"{part} set, but some file names or pixels are not the published ones (fingerprint "
            f"{digest.hexdigest()[:16]}, expected {_FINGERPRINTS[part][:16]}); download "
            f"{_URL.format(part)} again, or pass verify=False"
        )
    return images, counts


def _ink(data: bytes, where: str) -> NDArray[np.bool_]:
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            return np.asarray(image.convert("L")) < 128
    except Exception as error:  # Pillow's decoders raise whatever a broken file makes them raise
        raise ValueError(f"{where} is not an image that can be read: {error}") from error


def _check_structure(source: Path, part: SetName, counts: dict[str, int]) -> None:
    expected = {
        f"{alphabet}/character{i:02d}": _DRAWERS
        for alphabet, n in ALPHABETS[part].items()
        for i in range(1, n + 1)
    }
    if counts == expected:
        return
    first = min(name for name in {*counts, *expected} if counts.get(name) != expected.get(name))
    wrong = (
        f"{first} is missing"
        if first not in counts
        else f"{first} is not part of it"
        if first not in expected
        else f"{first} has {counts[first]} images, not {_DRAWERS}"
    )
    raise ValueError(
        f"{source} is not Omniglot's published {part} set: expected {_summary(expected)}; found "
        f"{_summary(counts)}; the first difference: {wrong}. Pass verify=False to use it as it is"
    )


def _summary(counts: dict[str, int]) -> str:
    alphabets = {name.split("/")[0] for name in counts}
    return f"{len(alphabets)} alphabets, {len(counts)} characters, {sum(counts.values())} images"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
