"""Fixtures that every test may use."""

import functools
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import settings

from quickstudy import data

settings.register_profile("quickstudy", deadline=None)
settings.load_profile("quickstudy")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests out of the user's cache; their processes share one."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUICKSTUDY_CACHE", str(folder / "cache"))
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
