import contextlib
import io
import os
import shutil
import struct
import time
import tracemalloc
import warnings
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features

from quickstudy import images
from quickstudy.class_folders import class_folders
from quickstudy.data.dataset import ClassDataset
from quickstudy.data.folder import image_folder, read_image
from quickstudy.files import Files
from quickstudy.images import is_image, open_image

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def save(path: Path, colour: tuple[int, int, int] = RED, size: tuple[int, int] = (6, 6)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    save(tmp_path / "root" / "b" / "2.png", BLUE)
    save(tmp_path / "root" / "a" / "2.PNG", GREEN)
    save(tmp_path / "root" / "a" / "1.bmp", RED)
    return tmp_path / "root"


def pack(files: Path, to: Path, *, folders: bool = False) -> Path:
    with zipfile.ZipFile(to, "w") as archive:
        for path in sorted(files.rglob("*"), reverse=True):
            if path.is_file() or folders:
                archive.write(path, path.relative_to(files.parent))
    return to


def one(path: Path, image: Image.Image, name: str = "x.png", **options: object) -> torch.Tensor:
    """The pixels that `image_folder` makes of this image, as ``[C,H,W]``."""
    size, channels = options.pop("size", 4), options.pop("channels", 3)
    (path / "b").mkdir(parents=True, exist_ok=True)
    image.save(path / "b" / name, **options)  # type: ignore[arg-type]
    save(path / "a" / "a.png")
    data = image_folder(path, size=size, channels=channels)  # type: ignore[arg-type]
    return data.storage[1]


def test_classes_and_images_stand_in_order(root: Path) -> None:
    (root / ".cache").mkdir()
    (root / "a" / "._1.png").touch()
    save(root / ".cache" / "x.png")
    data = image_folder(root, size=4)
    assert data.names == ("a", "b")
    assert data.groups is None
    assert data.sizes.tolist() == [2, 1]
    assert data.storage.dtype == torch.uint8
    assert data.storage.shape == (3, 3, 4, 4)
    assert data.storage[:, :, 1, 2].tolist() == [list(RED), list(GREEN), list(BLUE)]
    inverted = image_folder(str(root), size=4, invert=True)
    assert torch.equal(inverted.storage, 255 - data.storage)


@pytest.mark.parametrize("folders", [True, False])
def test_a_zip_gives_the_same(root: Path, tmp_path: Path, folders: bool) -> None:
    packed = image_folder(pack(root, tmp_path / "data.zip", folders=folders), size=4)
    assert packed.names == ("a", "b")
    assert packed.fingerprint == image_folder(root, size=4).fingerprint
    assert image_folder(root.parent, size=4).names == ("a", "b")


def test_two_levels_make_groups(tmp_path: Path) -> None:
    for name in ("Greek/alpha", "Greek/beta", "Latin/alpha"):
        save(tmp_path / name / "1.png")
    data = image_folder(tmp_path, size=2)
    assert data.names == ("Greek/alpha", "Greek/beta", "Latin/alpha")
    assert data.groups == ("Greek", "Greek", "Latin")
    assert image_folder(tmp_path / "Greek", size=2).names == ("alpha", "beta")
    save(tmp_path / "x" / "1.png")
    mixed = image_folder(tmp_path, size=2)
    assert mixed.groups is None
    assert mixed.names[-1] == "x"
    save(tmp_path / "x" / "y" / "1.png")
    assert image_folder(tmp_path / "x" / "..", size=2).names[-2:] == ("x", "x/y")


@pytest.mark.parametrize(("size", "shape"), [(5, (5, 5)), ((4, 8), (4, 8)), ((9, 3), (9, 3))])
def test_the_middle_is_kept(tmp_path: Path, size: object, shape: tuple[int, int]) -> None:
    image = Image.new("RGB", (60, 20), RED)
    image.paste(GREEN, (20, 0, 40, 20))
    pixels = one(tmp_path, image, size=size)
    assert pixels.shape == (3, *shape)
    middle = pixels[:, shape[0] // 2, shape[1] // 2]
    assert torch.allclose(middle.int(), torch.tensor(GREEN, dtype=torch.int32), atol=5)
    if shape == (4, 8):
        assert pixels[0, 0, 0] > 200, "twice as wide as high: some red at the sides"
    else:
        assert int(pixels[0].max()) < 60


def test_modes_are_converted(tmp_path: Path) -> None:
    def colour(image: Image.Image, name: str = "x.png", **options: object) -> list[int]:
        (tmp_path / "b" / "x.png").unlink(missing_ok=True)
        (tmp_path / "b" / "x.tif").unlink(missing_ok=True)
        return one(tmp_path, image, name, **options)[:, 2, 2].tolist()

    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert colour(clear) == [255, 255, 255]
    assert colour(Image.new("RGBA", (4, 4), (0, 0, 0, 127))) == [128, 128, 128]
    assert colour(Image.new("LA", (4, 4), (0, 0))) == [255, 255, 255]
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([9, 9, 9, 10, 20, 30])
    assert colour(palette) == [10, 20, 30]
    assert colour(palette, transparency=1) == [255, 255, 255]
    assert colour(palette, transparency=0) == [10, 20, 30]
    assert colour(Image.new("1", (4, 4), 1)) == [255] * 3
    wide = Image.fromarray(np.full((4, 4), 0x80FF, np.uint16))
    assert colour(wide) == [0x80] * 3
    assert colour(wide, "x.tif") == [0x80] * 3
    assert colour(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "x.tif") == list(RED)
    assert colour(Image.new("RGB", (4, 4), (100, 100, 100)), channels=1) == [100]
    with pytest.raises(ValueError, match=r"x\.tif: .*its pixels are floats"):
        colour(Image.new("F", (4, 4), 0.5), "x.tif")


def test_others_run_while_a_large_transparent_image_is_laid_on_paper() -> None:
    image = Image.new("RGBA", (3000, 3000), (10, 20, 30, 128))
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)

    def held() -> float:
        """The longest pause of another thread, for the time that decoding takes."""
        with ThreadPoolExecutor(1) as pool:
            began = last = time.perf_counter()
            done, longest = pool.submit(open_image, file.getvalue(), "it", "RGB"), 0.0
            while not done.done():
                time.sleep(0.001)
                longest, last = max(longest, time.perf_counter() - last), time.perf_counter()
        return longest / (last - began)

    assert min(held() for _ in range(5)) < 0.2  # with Image.alpha_composite: more than 0.3


def test_paper_shows_through_as_pillow_has_it() -> None:
    levels = np.arange(256, dtype=np.uint8)
    pixels = np.stack([*np.meshgrid(levels, levels), *np.meshgrid(levels[::-1], levels)], 2)
    image = Image.fromarray(pixels[..., [0, 2, 0, 1]])
    file = io.BytesIO()
    image.save(file, "PNG")
    expected = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    found = open_image(file.getvalue(), "it", "RGB")
    assert np.array_equal(np.asarray(found), np.asarray(expected)[..., :3])


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 8), RED)
    image.paste(GREEN, (0, 0, 8, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise by 90 degrees
    pixels = one(tmp_path, image, size=8, exif=exif)
    assert pixels[:, 4, 7].tolist() == list(GREEN)
    assert pixels[:, 4, 0].tolist() == list(RED)


def test_corrupt_images(root: Path, tmp_path: Path) -> None:
    whole = save(root / "a" / "3.png", size=(50, 50)).read_bytes()
    (root / "a" / "3.png").write_bytes(whole[: len(whole) // 2])
    (root / "a" / "4.jpg").write_text("not an image")
    (root / "b" / "5.png").touch()
    with pytest.raises(ValueError, match=r"cannot read the image .*/a/3.png: .*corrupt='skip'"):
        image_folder(root)
    for source in (root, pack(root, tmp_path / "data.zip")):
        message = r"left out 3 images that cannot be read: .*/a/3\.png, .*/a/4\.jpg, .*/b/5\.png$"
        with pytest.warns(UserWarning, match=message) as caught:
            data = image_folder(source, size=4, corrupt="skip")
        assert len(caught) == 1
        assert caught[0].filename == __file__
        assert data.sizes.tolist() == [2, 1]
        assert data.storage[:, :, 0, 0].tolist() == [list(RED), list(GREEN), list(BLUE)]
        with pytest.warns(UserWarning, match="left out 3 images"):
            mapped = image_folder(source, size=4, corrupt="skip", memmap=tmp_path / "map")
        assert mapped.fingerprint == data.fingerprint
    (root / "b" / "2.png").write_text("")
    with (
        pytest.warns(UserWarning, match=r"left out 4 images .*, \.\.\.$"),
        pytest.raises(ValueError, match=r"no image of .*/root/b can be read"),
    ):
        image_folder(root, corrupt="skip", memmap=tmp_path / "empty")
    assert not (tmp_path / "empty").exists()


def test_a_damaged_zip_member_is_a_corrupt_image(root: Path, tmp_path: Path) -> None:
    packed = pack(root, tmp_path / "data.zip")
    content = packed.read_bytes()
    at = content.index(b"IDAT")
    packed.write_bytes(content[:at] + b"XXXX" + content[at + 4 :])
    with pytest.raises(ValueError, match=r"cannot read .*data\.zip/root/.*Bad CRC"):
        image_folder(packed)
    with pytest.warns(UserWarning, match="left out 1 images"), pytest.raises(ValueError):  # noqa: PT011
        image_folder(packed, corrupt="skip")
    packed.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"data\.zip is not a zip file that can be read"):
        image_folder(packed)


@pytest.mark.parametrize("pixels", [10_000 * 10_000, 20_000 * 20_000])
def test_decompression_bombs_are_corrupt(root: Path, pixels: int) -> None:
    out = io.BytesIO()
    Image.new("1", (8, 8)).save(out, "PNG")
    side = round(pixels**0.5)
    bomb = bytearray(out.getvalue())
    bomb[16:24] = struct.pack(">II", side, side)
    bomb[29:33] = struct.pack(">I", zlib.crc32(bomb[12:29]))
    (root / "a" / "bomb.png").write_bytes(bomb)
    with pytest.raises(ValueError, match=r"a/bomb\.png: .* pixels"):
        image_folder(root)


def test_no_decoder_starts_a_program(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a file is called: PostScript is a language, which Pillow has Ghostscript run."""
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    (root / "a" / "photo.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(x) run\n%%EOF\n"
    )
    with contextlib.suppress(OSError), Image.open(root / "a" / "photo.png") as image:
        image.load()  # what we must not do
    assert (tmp_path / "ran").exists(), "the trap works"
    (tmp_path / "ran").unlink()
    with pytest.raises(ValueError, match=r"a/photo\.png: it is damaged, or no image at all"):
        image_folder(root)
    assert not (tmp_path / "ran").exists()
    assert {"EPS", "PSD", "WMF"}.isdisjoint(images.DECODERS)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_no_image(root: Path) -> None:
    """Nobody writes into it: whoever reads it waits for ever."""
    os.mkfifo(root / "a" / "pipe.png")
    with pytest.raises(ValueError, match=r"a/pipe\.png is no ordinary file"):
        image_folder(root)
    with pytest.raises(ValueError, match=r"a/pipe\.png is no ordinary file"):
        read_image(root / "a" / "pipe.png")
    with pytest.warns(UserWarning, match="left out 1 images"):
        image_folder(root, corrupt="skip")


def test_huge_files_are_corrupt(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quickstudy.plain.MOST_BYTES", 2**20)
    with (root / "a" / "huge.png").open("wb") as file:
        file.truncate(2**20 + 1)
    with pytest.raises(ValueError, match=r"a/huge\.png is larger than 1 MiB"):
        image_folder(root)


def test_huge_zip_members_are_corrupt(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quickstudy.files.MOST_BYTES", 2**20)
    with zipfile.ZipFile(tmp_path / "z.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(root / "a" / "2.PNG", "a/1.png")
        archive.writestr("b/1.png", bytes(2**20 + 1))
    with pytest.raises(ValueError, match=r"z\.zip/b/1\.png: unpacks to more than 1 MiB"):
        image_folder(tmp_path / "z.zip")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_is_packed_otherwise_is_read_and_bounded(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: int
) -> None:
    """Zipfile unpacks these without a bound: 3 KB may be 3 GB."""
    with zipfile.ZipFile(tmp_path / "z.zip", "w", method) as archive:
        archive.write(root / "a" / "2.PNG", "a/1.png")
        archive.writestr("b/1.png", bytes(1 << 25))
    with Files(tmp_path / "z.zip") as files:
        assert files.read("a/1.png") == (root / "a" / "2.PNG").read_bytes()
        assert len(files.read("b/1.png")) == 1 << 25
        monkeypatch.setattr("quickstudy.files.MOST_BYTES", 1 << 20)
        tracemalloc.start()
        with pytest.raises(ValueError, match=r"z\.zip/b/1\.png: .* more than 1 MiB"):
            files.read("b/1.png")
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
        tracemalloc.stop()
        data = bytearray((tmp_path / "z.zip").read_bytes())
    data[60] ^= 255
    (tmp_path / "z.zip").write_bytes(data)
    with (
        Files(tmp_path / "z.zip") as files,
        pytest.raises(ValueError, match=r"cannot read .*1\.png"),
    ):
        files.read("a/1.png")


def test_members_of_one_name_are_said(root: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile's own
        for name in ("a/1.png", "a/1.png", "b/1.png"):
            archive.write(root / "a" / "2.PNG", name)
    with pytest.warns(UserWarning, match=r"2 members are called a/1\.png; only the last is read"):
        image_folder(tmp_path / "z.zip")


def test_a_third_folder_beside_train_and_test_is_left_out(root: Path, tmp_path: Path) -> None:
    for part in ("train", "test"):
        for name in ("a", "b"):
            shutil.copytree(root / "a", tmp_path / "d" / part / name)
    shutil.copytree(root / "a", tmp_path / "d" / "unlabeled")
    with pytest.warns(UserWarning, match="only train is read, and not unlabeled"):
        assert image_folder(tmp_path / "d").names == ("a", "b")


def test_a_class_inside_a_class_is_said(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "a", tmp_path / "d" / "cat")
    shutil.copytree(root / "a", tmp_path / "d" / "cat" / "edited")
    with pytest.warns(
        UserWarning, match="cat/edited lies inside the class cat, and is taken for a"
    ):
        assert len(image_folder(tmp_path / "d").names) == 2


def test_too_few_classes(tmp_path: Path, root: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such folder or zip: .*nowhere"):
        image_folder(tmp_path / "nowhere")
    (tmp_path / "void").mkdir()
    with pytest.raises(ValueError, match="void holds no images; expected a folder for each of at"):
        image_folder(tmp_path / "void")
    save(tmp_path / "single" / "a" / "1.png")
    with pytest.raises(ValueError, match="single holds only the class 'a'; expected"):
        image_folder(tmp_path / "single")
    (root / "empty").mkdir()
    for source in (root, pack(root, tmp_path / "z.zip", folders=True)):
        with pytest.raises(ValueError, match=r"class folder .*/empty holds no images"):
            image_folder(source)
    (root / "empty").rmdir()
    save(tmp_path / "flat" / "stray.png")
    with pytest.raises(ValueError, match=r"stray\.png lies in no class folder; expected .*/CLASS/"):
        image_folder(tmp_path / "flat")


def test_images_beside_the_class_folders_are_left_out_and_named(root: Path) -> None:
    for name in ("stray.png", "other.png"):
        save(root / name)
    with pytest.warns(UserWarning, match=r"other\.png lies in no class folder, nor do 1 more"):
        assert image_folder(root, size=4).sizes.tolist() == [2, 1]


def test_what_is_not_read_is_counted_by_its_ending(root: Path) -> None:
    for name in ("a/1.mov", "a/2.MOV", "b/notes.txt", "b/README", "a/Thumbs.db", "b/desktop.ini"):
        (root / name).touch()
    with pytest.warns(UserWarning, match=r"not read: 2 \.mov, 1 without an ending, 1 \.txt"):
        assert image_folder(root, size=4).sizes.tolist() == [2, 1]


def test_a_class_of_files_that_are_not_read_is_left_out_and_named(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "_endings", lambda: {"png", "bmp"})
    (root / "phone").mkdir()
    (root / "phone" / "IMG_1.HEIC").write_bytes(b"ftypheic")
    says = r"class folder .*phone holds no images \(not read: 1 \.heic \(needs quickstudy\[heic\]\)"
    with pytest.warns(UserWarning, match=says):
        assert image_folder(root, size=4).names == ("a", "b")


@pytest.mark.parametrize("name", ["x.jfif", "x.jpe", "x.pnm", "x.avif", "x.heic", "x.HEIF"])
def test_formats_of_cameras_and_browsers_are_read(tmp_path: Path, name: str) -> None:
    kinds = {"jfif": "JPEG", "jpe": "JPEG", "pnm": "PPM", "avif": "AVIF"}
    kind = kinds.get(name[2:].lower(), "HEIF")
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF")
    if kind == "HEIF":
        pytest.importorskip("pillow_heif", reason="needs quickstudy[heic]")
    if not is_image(name):
        raise AssertionError("it is not taken for an image")
    pixels = one(tmp_path, Image.new("RGB", (64, 64), GREEN), name, format=kind)
    assert torch.allclose(pixels[:, 2, 2].int(), torch.tensor(GREEN).int(), atol=12)


@pytest.mark.parametrize(
    "parts",
    [("train", "test"), ("Training", "Validation", "Testing"), ("support", "query")],
)
def test_of_parts_with_the_same_classes_the_first_is_read(
    tmp_path: Path, parts: tuple[str, ...]
) -> None:
    for i, part in enumerate(parts):
        for name in ("cat", "dog"):
            save(tmp_path / part / name / f"{i}.png")
    with pytest.warns(UserWarning, match=f"hold the same classes; only {parts[0]} is read"):
        data = image_folder(tmp_path, size=4)
    assert data.n_classes == 2
    assert data.n_examples == 2


def test_parts_with_classes_of_their_own_are_all_read(tmp_path: Path) -> None:
    for name in ("train/cat", "train/dog", "test/bird"):
        save(tmp_path / name / "1.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert image_folder(tmp_path, size=4).groups == ("test", "train", "train")


def test_folders_that_systems_make_are_no_classes(root: Path) -> None:
    for name in ("a/@eaDir/1.png", "__MACOSX/a", "#recycle", "$RECYCLE.BIN"):
        save(root / name / "thumb.jpg")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert image_folder(root, size=4).names == ("a", "b")


@pytest.mark.parametrize("first", ["a first", "z last"])
def test_a_link_leads_to_what_is_really_there(tmp_path: Path, first: str) -> None:
    for name in (first, "middle"):
        save(tmp_path / name / "1.png")
    (tmp_path / "middle" / "again").symlink_to(tmp_path)
    (tmp_path / "middle" / "other").symlink_to(tmp_path / first)
    (tmp_path.parent / "elsewhere").mkdir(exist_ok=True)
    save(tmp_path.parent / "elsewhere" / "2.png")
    (tmp_path / "outside").symlink_to(tmp_path.parent / "elsewhere")
    assert set(image_folder(tmp_path, size=4).names) == {first, "middle", "outside"}


def test_names_in_zips_are_read_as_they_were_meant(root: Path, tmp_path: Path) -> None:
    packed = pack(root, tmp_path / "x.zip")
    data = packed.read_bytes()
    for part in (b"root/a/", b"root/b/", b"root/"):
        data = data.replace(part, part.replace(b"/", b"\\"))
    packed.write_bytes(data)
    assert image_folder(packed, size=4).fingerprint == image_folder(root, size=4).fingerprint

    def renamed(raw: bytes) -> Path:
        """A zip whose second class has this name, not said to be in UTF-8."""
        plain = b"_" * len(raw)
        with zipfile.ZipFile(tmp_path / "y.zip", "w") as archive:
            for name in ("a", plain.decode()):
                archive.write(root / "b" / "2.png", f"{name}/1.png")
        (tmp_path / "y.zip").write_bytes((tmp_path / "y.zip").read_bytes().replace(plain, raw))
        return tmp_path / "y.zip"

    assert image_folder(renamed("ключ".encode()), size=4).names == ("a", "ключ")
    with pytest.warns(UserWarning, match="not in UTF-8 were read as code page 437"):
        assert image_folder(renamed("Grün".encode("cp437")), size=4).names == ("Grün", "a")


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_bits_in_use_are_kept(tmp_path: Path, bits: int) -> None:
    ramp = np.linspace(0, 2**bits - 1, 16).astype(np.uint16)
    pixels = one(tmp_path, Image.fromarray(np.tile(ramp, (16, 1))), "x.tif", size=16)
    assert pixels[0, 0].tolist() == (ramp >> (bits - 8)).tolist()


def test_white_on_transparent_ground_is_seen(tmp_path: Path) -> None:
    ink = Image.new("RGBA", (4, 4), (255, 255, 255, 0))
    ink.putpixel((2, 2), (255, 255, 255, 255))
    pixels = one(tmp_path, ink)
    assert pixels[0, 2, 2] == 255
    assert pixels[0, 0, 0] == 0


def test_bad_arguments(root: Path) -> None:
    with pytest.raises(ValueError, match="size is 0; expected at least 1"):
        image_folder(root, size=0)
    with pytest.raises(ValueError, match=r"channels is 4; expected 1 \(grey\) or 3"):
        image_folder(root, channels=4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="corrupt is 'keep'; expected 'skip' or 'refuse'"):
        image_folder(root, corrupt="keep")  # type: ignore[arg-type]


def test_memmap_is_the_same_and_opens_again(root: Path, tmp_path: Path) -> None:
    data = image_folder(root, size=(4, 6), channels=1)
    for _ in range(2):
        mapped = image_folder(root, size=(4, 6), channels=1, memmap=tmp_path / "map")
    assert torch.equal(mapped.storage, data.storage)
    assert ClassDataset.open(tmp_path / "map").fingerprint == data.fingerprint
    (root / "a" / "1.bmp").write_text("")
    with pytest.raises(ValueError, match=r"1\.bmp"):
        image_folder(root, memmap=tmp_path / "map")
    assert ClassDataset.open(tmp_path / "map").fingerprint == data.fingerprint
    with pytest.raises(FileExistsError, match="no saved ClassDataset"):
        image_folder(root, memmap=root)


def test_memmap_never_holds_the_images_together(root: Path, tmp_path: Path) -> None:
    for i in range(60):
        save(root / "a" / f"{i}.png")
    image_folder(root, size=8, memmap=tmp_path / "warm")
    tracemalloc.start()
    data = image_folder(root, size=256, memmap=tmp_path / "map")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert data.storage.nbytes > 12e6
    assert peak < 3e6


def test_links_are_followed_once(root: Path, tmp_path: Path) -> None:
    save(tmp_path / "elsewhere" / "1.png")
    os.symlink(tmp_path / "elsewhere", root / "c")
    os.symlink(root, root / "a" / "loop")
    assert Files(root).names == ["a/1.bmp", "a/2.PNG", "b/2.png", "c/1.png"]


def test_signature_follows_the_files(root: Path, tmp_path: Path) -> None:
    packed = pack(root, tmp_path / "z.zip")
    signatures = {Files(packed).signature(), Files(root).signature()}
    assert Files(root).signature() in signatures
    save(root / "a" / "1.bmp", BLUE)
    signatures |= {Files(pack(root, packed)).signature(), Files(root).signature()}
    assert len(signatures) == 4


def test_no_warning_for_good_images(root: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image_folder(root)


def test_an_image_with_a_broken_tag_is_read_as_it_lies(tmp_path: Path) -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01\x03\0\xff\xff\xff\xff"
    pixels = one(tmp_path, Image.new("RGB", (16, 16), GREEN), "x.jpg", exif=exif)
    assert torch.allclose(pixels[:, 2, 2].int(), torch.tensor(GREEN).int(), atol=12)


def test_heic_without_its_package_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_endings", lambda: {"png"})
    with pytest.raises(ValueError, match=r"x\.heic: HEIC needs quickstudy\[heic\]"):
        images.open_image(b"\0\0\0\x18ftypheic" + bytes(64), "x.heic", "RGB")


def test_a_zip_of_folders_in_folders_without_end_is_refused(tmp_path: Path) -> None:
    """A name of 64 KiB has 32,768 folders around it, whose names have a gigabyte together."""
    with zipfile.ZipFile(tmp_path / "deep.zip", "w") as archive:
        archive.writestr("a/" * 2000 + "x.png", b"")
    with pytest.raises(ValueError, match=r"deep\.zip has folders more than 64 deep: a/a/a"):
        Files(tmp_path / "deep.zip")


def test_very_many_folders_without_images_are_looked_through_in_time(tmp_path: Path) -> None:
    """Each was looked for among all files: 50,000 took minutes."""
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        archive.writestr("class/x.png", b"")
        for i in range(5000):
            archive.writestr(f"{i}/x.txt", b"")
    began = time.monotonic()
    with pytest.warns(UserWarning, match="holds no images"):
        assert [*class_folders(Files(tmp_path / "many.zip"))] == ["class"]
    assert time.monotonic() - began < 2
