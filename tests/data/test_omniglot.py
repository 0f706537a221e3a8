import hashlib
import importlib
import io
import shutil
import threading
import warnings
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from quickstudy.data.omniglot import ALPHABETS, Resuming, cache_dir, omniglot

module = importlib.import_module("quickstudy.data.omniglot")
TINY = {"background": {"Alpha": 2, "Beta": 1}, "evaluation": {"Gamma-1": 1, "Gamma": 2}}


def drawings(part: str) -> dict[str, np.ndarray]:
    """Ink (bool ``[105,105]``) by path, of a tiny Omniglot."""
    random = np.random.default_rng(len(part))
    return {
        f"{alphabet}/character{c:02d}/{i:04d}_{d:02d}.png": random.random((105, 105)) < 0.1
        for i, (alphabet, c) in enumerate(
            (alphabet, c) for alphabet, n in TINY[part].items() for c in range(1, n + 1)
        )
        for d in range(1, 21)
    }


def png(ink: np.ndarray, mode: str = "1") -> bytes:
    out = io.BytesIO()
    Image.fromarray(~ink).convert(mode).save(out, "PNG")
    return out.getvalue()


def fill(folder: Path, part: str, mode: str = "1") -> Path:
    for path, ink in drawings(part).items():
        file = folder / f"images_{part}" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(ink, mode))
    return folder


def pack(path: Path, part: str, **changes: bytes | None) -> Path:
    """Write a zip of one part, with some members changed, added or (``None``) left out."""
    members: dict[str, bytes | None] = {p: png(ink) for p, ink in drawings(part).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("__MACOSX/._images", b"junk")
        for name, data in (members | changes).items():
            if data is not None:
                archive.writestr(f"images_{part}/{name}", data)
    return path


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Let a tiny Omniglot be the published one, with its fingerprint worked out afresh."""
    if "omniglot_root" in request.fixturenames:
        return
    for part in TINY:
        digest = hashlib.sha256()
        for path, ink in sorted(drawings(part).items()):
            digest.update(path.encode() + b"\0" + np.packbits(ink).tobytes())
        monkeypatch.setitem(module.ALPHABETS, part, TINY[part])
        monkeypatch.setitem(module._FINGERPRINTS, part, digest.hexdigest())
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(request.getfixturevalue("tmp_path") / "cache"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for part in TINY:
        pack(tmp_path / "data" / f"images_{part}.zip", part)
    return tmp_path / "data"


def test_real_omniglot(omniglot_root: Path) -> None:
    data = omniglot(omniglot_root)
    assert omniglot(omniglot_root).fingerprint == data.fingerprint
    assert data.storage.dtype == torch.uint8
    assert data.storage.shape == (32460, 1, 28, 28)
    assert data.n_classes == 964 + 659 == sum(n for p in ALPHABETS.values() for n in p.values())
    assert set(data.sizes.tolist()) == {20}
    assert list(dict.fromkeys(data.groups or ())) == [a for p in ALPHABETS.values() for a in p]
    assert not {*ALPHABETS["background"]} & {*ALPHABETS["evaluation"]}
    means = data.storage.float().mean((1, 2, 3))
    assert 0 < float(means.min()) < float(means.max()) < 100, "ink should be bright on dark"
    assert data.names[0] == "Alphabet_of_the_Magi/character01"
    assert data.names[964] == "Angelic/character01"


def test_layout_names_groups_and_pixels(root: Path) -> None:
    data = omniglot(root)
    assert data.names == (
        "Alpha/character01",
        "Alpha/character02",
        "Beta/character01",
        "Gamma-1/character01",
        "Gamma/character01",
        "Gamma/character02",
    )
    assert data.groups == ("Alpha", "Alpha", "Beta", "Gamma-1", "Gamma", "Gamma")
    inks = [ink for part in TINY for _, ink in sorted(drawings(part).items())]
    for row, ink in zip(data.storage, inks, strict=True):
        small = Image.fromarray(ink.astype(np.uint8) * 255).resize((28, 28), Image.LANCZOS)
        assert np.array_equal(row[0].numpy(), small)
    whole = omniglot(root, part="background", size=105)
    assert whole.n_classes == 3
    assert np.array_equal(whole.storage[7, 0].numpy() == 255, inks[7])


def test_all_layouts_give_the_same(root: Path, tmp_path: Path) -> None:
    expected = omniglot(root, part="background").fingerprint
    flat = fill(tmp_path / "flat", "background")
    layouts = [
        flat,
        fill(tmp_path / "nested" / "images_background", "background").parent,
        fill(tmp_path / "deep" / "omniglot-py", "background").parent,
        flat / "images_background",
        root / "images_background.zip",
        fill(tmp_path / "grey", "background", "L"),
        fill(tmp_path / "rgb", "background", "RGB"),
    ]
    (flat / "images_background" / ".DS_Store").touch()
    for layout in layouts:
        assert omniglot(layout, part="background").fingerprint == expected
        assert omniglot(str(layout), part="background").fingerprint == expected


def test_what_is_not_there(tmp_path: Path, root: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        omniglot(tmp_path / "nowhere")
    (root / "images_evaluation.zip").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds neither a folder images_evaluation nor"):
        omniglot(root)
    assert omniglot(root, part="background").n_classes == 3
    with pytest.raises(ValueError, match="part is 'test'; expected 'all', 'background' or"):
        omniglot(root, part="test")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="size is 0; expected at least 1"):
        omniglot(root, size=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {p: None for p in drawings("background") if p.startswith("Beta/")},
            "expected 2 alphabets, 3 characters, 60 images; found 1 alphabets, 2 characters, "
            "40 images; the first difference: Beta/character01 is missing",
        ),
        ({"Alpha/character01/0000_07.png": None}, "Alpha/character01 has 19 images, not 20"),
        ({"Zeta/character01/1_1.png": b""}, "Zeta/character01 is not part of it"),
        ({"notes.txt": b""}, "notes.txt does not belong in Omniglot"),
        ({"Alpha/character01/notes.txt": b""}, "character01/notes.txt does not belong"),
        ({"Beta/character01/0002_01.png": b"no png"}, "0002_01.png is not an image that can be"),
        (
            {"Beta/character01/0002_01.png": png(np.ones((9, 5), bool))},
            "0002_01.png is 5x9 pixels; Omniglot's images are 105x105",
        ),
        (
            {"Beta/character01/0002_01.png": png(np.ones((105, 105), bool))},
            "has the 3 characters and 60 images of Omniglot's background set, but some file names "
            "or pixels are not the published ones",
        ),
    ],
)
def test_unpublished_files_are_refused(
    tmp_path: Path, changes: dict[str, bytes | None], message: str
) -> None:
    pack(tmp_path / "images_background.zip", "background", **changes)
    for _ in range(2):
        with pytest.raises(ValueError, match=message):
            omniglot(tmp_path, part="background")


def test_verify_false_takes_them_but_never_for_verified(tmp_path: Path) -> None:
    name = "Beta/character01/0002_01.png"
    changes: dict[str, bytes | None] = {name: png(np.ones((9, 5), bool))}
    pack(tmp_path / "images_background.zip", "background", **changes)
    data = omniglot(tmp_path, part="background", verify=False)
    assert int(data.storage[40].min()) == 255
    with pytest.raises(ValueError, match="is 5x9 pixels"):
        omniglot(tmp_path, part="background")


def test_broken_zips_are_named(tmp_path: Path, root: Path) -> None:
    zip_ = root / "images_background.zip"
    whole = zip_.read_bytes()
    zip_.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"images_background.zip is not a zip file that can be"):
        omniglot(root)
    at = whole.index(b"IDAT") + 20
    zip_.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
    with pytest.raises(ValueError, match=r"cannot read .*/Alpha/character01/0000_01.png: Bad CRC"):
        omniglot(root)


def test_cache_is_used_until_the_source_changes(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flat = fill(tmp_path / "flat", "background")
    sources = {"zip": root, "folder": flat}
    first = {k: omniglot(path, part="background").fingerprint for k, path in sources.items()}

    def fail(*_: object) -> None:
        raise AssertionError("decoded again")

    with monkeypatch.context() as patch:
        patch.setattr(module, "_decode", fail)
        for k, path in sources.items():
            assert omniglot(path, part="background").fingerprint == first[k]
        with pytest.raises(AssertionError, match="decoded again"):
            omniglot(root, part="background", size=20)
    ink = np.zeros((105, 105), bool)
    (flat / "images_background/Alpha/character01/0000_01.png").write_bytes(png(ink))
    pack(root / "images_background.zip", "background", **{"Beta/character01/0002_01.png": png(ink)})
    for path in sources.values():
        with pytest.raises(ValueError, match="not the published ones"):
            omniglot(path, part="background")


def test_a_damaged_cache_is_made_again(root: Path) -> None:
    expected = omniglot(root).fingerprint
    (entry,) = cache_dir().glob("omniglot-all-28-*")
    for name, damage in [
        ("classes.json", b"{"),
        ("classes.json", b"{}"),
        ("storage.npy", b""),
        ("storage.npy", (entry / "storage.npy").read_bytes()[:999]),
    ]:
        (entry / name).write_bytes(damage)
        assert omniglot(root).fingerprint == expected
    shutil.rmtree(cache_dir())
    assert omniglot(root).fingerprint == expected


def test_an_unwritable_cache_is_no_error(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match="Omniglot is not cached") as caught:
        assert omniglot(root).n_classes == 6
    assert caught[0].filename == __file__


def test_processes_may_load_at_once(root: Path, tmp_path: Path, start: Any) -> None:
    (tmp_path / "load.py").write_text(
        "import sys, warnings\n"
        "warnings.simplefilter('error')\n"
        "import quickstudy.data.omniglot; m = sys.modules['quickstudy.data.omniglot']\n"
        f"m.ALPHABETS = {module.ALPHABETS!r}; m._FINGERPRINTS = {module._FINGERPRINTS!r}\n"
        f"print([m.omniglot({str(root)!r}).fingerprint for _ in range(3)])"
    )
    for process in [start(str(tmp_path / "load.py"), cwd=tmp_path) for _ in range(2)]:
        assert process.wait() == 0, process.err
        assert process.out == f"{[omniglot(root).fingerprint] * 3}\n"
    assert len(list(cache_dir().iterdir())) == 1


class Server:
    """A file on loopback; may drop the connection, ignore ``Range``, or answer with an error."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.drops: list[int] = []
        self.ranges = True
        self.status = 200
        self.asked: list[str | None] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(handler) -> None:  # noqa: N805
                self.answer(handler)

            def log_message(handler, *_: object) -> None:  # noqa: N805
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/images_{{}}.zip"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers["Range"]
        self.asked.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.ranges else 0
        if start >= len(self.content):
            handler.send_error(416)
            return
        if self.status != 200:
            handler.send_error(self.status)
            return
        body = self.content[start:]
        handler.send_response(206 if start else 200)
        if start:
            last = len(self.content) - 1
            handler.send_header("Content-Range", f"bytes {start}-{last}/{len(self.content)}")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: self.drops.pop(0)] if self.drops else body)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = Server(np.random.default_rng(0).bytes(1_000_000))
    monkeypatch.setattr(module, "_URL", server.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield server
    server.http.shutdown()
    server.http.server_close()


def test_download_goes_on_after_a_dropped_connection(server: Server, tmp_path: Path) -> None:
    server.drops = [300_000, 300_000]
    Resuming(tmp_path / "part")(server.url, tmp_path / "out", None)
    assert (tmp_path / "out").read_bytes() == server.content
    assert not (tmp_path / "part").exists()
    starts = [0 if asked is None else int(asked[6:-1]) for asked in server.asked]
    assert starts == sorted(set(starts))
    assert len(starts) == 3


def test_download_goes_on_in_the_next_call(server: Server, tmp_path: Path) -> None:
    server.drops = [500_000, 0]
    download = Resuming(tmp_path / "part", tries=1)
    with pytest.raises(OSError, match=r"."):
        download(server.url, tmp_path / "out", None)
    assert 400_000 < (tmp_path / "part").stat().st_size <= 500_000
    assert not (tmp_path / "out").exists()
    download(server.url, tmp_path / "out", None)
    assert (tmp_path / "out").read_bytes() == server.content


@pytest.mark.parametrize("too_much", [False, True])
def test_download_starts_again_where_it_cannot_go_on(
    server: Server, tmp_path: Path, too_much: bool
) -> None:
    server.ranges = too_much
    (tmp_path / "part").write_bytes(b"old" * (1_000_000 if too_much else 1000))
    Resuming(tmp_path / "part")(server.url, tmp_path / "out", None)
    assert (tmp_path / "out").read_bytes() == server.content
    assert len(server.asked) == 1 + too_much


def test_download_gives_up(server: Server, tmp_path: Path) -> None:
    server.drops = [0] * 9
    with pytest.raises(OSError, match=r"."):
        Resuming(tmp_path / "part", tries=2)(server.url, tmp_path / "out", None)
    assert len(server.asked) == 2
    server.status = 404
    with pytest.raises(OSError, match="404"):
        Resuming(tmp_path / "part")(server.url, tmp_path / "out", None)
    assert len(server.asked) == 3


def test_root_none_downloads_once(
    server: Server, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.content = (root / "images_background.zip").read_bytes()
    server.drops = [5000]
    md5 = hashlib.md5(server.content).hexdigest()
    monkeypatch.setitem(module._MD5, "background", md5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = omniglot(part="background")
    assert data.fingerprint == omniglot(root, part="background").fingerprint
    asked = len(server.asked)
    assert omniglot(part="background").fingerprint == data.fingerprint
    assert len(server.asked) == asked
    (cache_dir() / "images_background.zip").write_bytes(b"damaged")
    assert omniglot(part="background").fingerprint == data.fingerprint
    assert len(server.asked) == asked + 1


def test_a_wrong_download_is_refused(server: Server) -> None:
    with pytest.raises(ValueError, match="hash"):
        omniglot(part="background")
    assert not list(cache_dir().glob("*.zip"))
    assert not list(cache_dir().glob("*.part"))


def test_no_network_says_what_to_do(server: Server) -> None:
    server.http.shutdown()
    server.http.server_close()
    message = (
        r"could not download http.*images_background\.zip.*name their folder: "
        r"omniglot\(root=...\), or --root.*refused"
    )
    with pytest.raises(ConnectionError, match=message):
        omniglot()


def test_the_pixels_of_the_papers_are_those_that_pillow_gives_for_one_bit(root: Path) -> None:
    """It is asked for Lanczos, or for nothing; of 1-bit images it takes single pixels."""
    smooth, single, turned = (
        omniglot(root, resample="lanczos"),
        omniglot(root, resample="nearest"),
        omniglot(root, resample="nearest", invert=True),
    )
    for i, ink in enumerate(drawings("background").values()):
        file = Image.open(io.BytesIO(png(ink)))
        assert file.mode == "1"
        theirs = np.asarray(file.resize((28, 28), resample=Image.Resampling.LANCZOS))
        assert np.array_equal(single.storage[i, 0].numpy(), np.where(theirs, 0, 255))
        assert np.array_equal(turned.storage[i, 0].numpy(), np.where(theirs, 255, 0))
    assert {*single.storage.unique().tolist()} == {0, 255}
    assert len(smooth.storage.unique()) > 10
    assert len({data.fingerprint for data in (smooth, single, turned)}) == 3
    with pytest.raises(ValueError, match="resample is 'bicubic'; expected 'lanczos' or 'nearest'"):
        omniglot(root, resample="bicubic")  # type: ignore[arg-type]
