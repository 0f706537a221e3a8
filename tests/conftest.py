"""Fixtures that every test may use."""

import functools
import importlib.util
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import settings

from quickstudy import data
from quickstudy.locks import alone

BROWSER = [
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]

settings.register_profile("quickstudy", deadline=None)
settings.load_profile("quickstudy")


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for all processes of one run of the tests."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session", autouse=True)
def _own_cache(shared_folder: Path) -> Iterator[None]:
    """Keep the tests out of the user's cache; their processes share one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUICKSTUDY_CACHE", str(shared_folder / "cache"))
        yield


@pytest.fixture(scope="session", autouse=True)
def _drawn_once() -> Iterator[None]:
    """Synthetic classes are slow to draw: few for validation and test, and once a process."""
    drawn = functools.lru_cache(maxsize=32)(data.alphabets)

    @functools.wraps(data.alphabets)
    def few(n_classes: int, *args: Any, first_class: int = 0, **kwargs: Any) -> data.ClassDataset:
        n = min(n_classes, 40) if first_class else n_classes
        return drawn(n, *args, first_class=first_class, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "alphabets", few)
        yield


@pytest.fixture(scope="session")
def omniglot_root() -> Path:
    """The folder with the real Omniglot: ``$QUICKSTUDY_DATA``, or else ``../shared/data``."""
    default = Path(__file__).parents[2] / "shared" / "data"
    root = Path(os.environ.get("QUICKSTUDY_DATA", default))
    for folder in (root, root / "omniglot"):
        if any(folder.glob("images_background*")):
            return folder
    pytest.skip(f"no Omniglot in {root}; set QUICKSTUDY_DATA to a folder that holds its zips")


BEGIN = """
import os, runpy, sys
for descriptor, name in enumerate(("out", "err"), start=1):
    os.dup2(os.open(f"{written}.{name}", os.O_WRONLY | os.O_CREAT), descriptor)
os.chdir(cwd)
os.environ.clear()
os.environ.update(environment)
sys.argv = words
if words[0] == "quickstudy":
    from quickstudy.cli import main
    main()
else:
    runpy.run_path(words[0], run_name="__main__")
"""


class Started:
    """A process of its own, which began as a fork of one that has imported everything.

    It spares the seconds that torch and Lightning take to import; all else is as if a shell had
    started it. Like a `subprocess.Popen`, but ``out`` and ``err`` can be read at any time.
    """

    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["quickstudy.experiments.run", "quickstudy.cli", "torch._dynamo"])

    def __init__(self, *words: str, cwd: Path, **environment: str) -> None:
        self._written = Path(tempfile.mkdtemp(dir=cwd), "written")
        known = {
            "words": list(words),
            "cwd": str(cwd),
            "environment": {**os.environ, "OMP_NUM_THREADS": "1", **environment},
            "written": str(self._written),
        }
        self.process = self.server.Process(target=exec, args=(BEGIN, known), daemon=True)
        self.process.start()

    @classmethod
    def two(cls, *words: str, cwd: Path) -> "list[Started]":
        """Two that are to work together, told so as torchrun would tell them."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        both = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "two"}
        both |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "1"}
        return [
            cls(*words, cwd=cwd, **both, RANK=rank, LOCAL_RANK=rank, GROUP_RANK="0")
            for rank in ("0", "1")
        ]

    out = property(lambda self: self._written.with_suffix(".out").read_text())
    err = property(lambda self: self._written.with_suffix(".err").read_text())

    def poll(self) -> int | None:
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        assert self.process.pid
        os.kill(self.process.pid, number)

    def wait(self, timeout: float = 100) -> int:
        self.process.join(timeout)
        assert self.process.exitcode is not None, f"{timeout} seconds were not enough"
        return self.process.exitcode


@pytest.fixture(scope="session")
def start() -> type[Started]:
    """``start("quickstudy", *words, cwd=...)``, or a Python file: see `Started`."""
    return Started


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Of a module, and not of all: its event loop would be in the way of others."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=BROWSER)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def serious() -> Callable[[Any], list[str]]:
    """What axe-core finds serious, or worse, on a page of a browser."""
    axe = pytest.importorskip("axe_playwright_python.base", reason="needs axe-playwright-python")

    def find(page: Any) -> list[str]:
        page.evaluate(axe.AXE_SCRIPT)
        return [
            f"{one['id']}: {one['nodes'][0]['html'][:150]}"
            for one in page.evaluate("() => axe.run()")["violations"]
            if one["impact"] in ("serious", "critical")
        ]

    return find


@pytest.fixture(scope="session")
def site(shared_folder: Path) -> Path:
    """Built by the first process of the tests that asks for it."""
    folder = shared_folder / "site"
    with alone(shared_folder / "site.lock"):
        if not folder.exists():
            command = ["mkdocs", "build", "--strict", "--quiet", "--site-dir", f"{folder}.new"]
            build = subprocess.run(
                [sys.executable, "-m", *command],
                cwd=Path(__file__).parents[1],
                env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
                capture_output=True,
                text=True,
            )
            assert not build.returncode, build.stdout + build.stderr
            assert "WARNING" not in build.stderr, build.stderr
            Path(f"{folder}.new").rename(folder)
    return folder


@pytest.fixture(scope="session")
def load_tool() -> Callable[[str], ModuleType]:
    """A script of ``tools/`` as a module."""

    def load(name: str) -> ModuleType:
        path = Path(__file__).parents[1] / "tools" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module

    return load
