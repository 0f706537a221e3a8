"""Fixtures that every test may use."""

import functools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from quickstudy import data

settings.register_profile("quickstudy", deadline=None)
settings.load_profile("quickstudy")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUICKSTUDY_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _drawn_once() -> Iterator[None]:
    """Commands of the same process share their synthetic classes, which are slow to draw."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "alphabets", functools.lru_cache(maxsize=32)(data.alphabets))
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
