"""Imports by names that moved go on working, and say the new name."""

import importlib
import json
import re
import sys
from pathlib import Path

import pytest

import quickstudy
from quickstudy._moved import MOVED


@pytest.mark.parametrize("old", MOVED)
def test_modules_are_found_by_their_old_names(old: str) -> None:
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=f"{old} is now {MOVED[old]}"):
        module = importlib.import_module(old)
    assert module is importlib.import_module(MOVED[old])
    assert module.__spec__ is not None
    assert module.__spec__.name == MOVED[old]


def test_names_are_found_where_they_were_and_as_they_were_called() -> None:
    from quickstudy.experiments import recipe

    with pytest.warns(DeprecationWarning, match=r"recipe\.Protocol is now .*TrainingProtocol"):
        assert recipe.Protocol is recipe.TrainingProtocol
    with pytest.raises(AttributeError, match="nonsense"):
        _ = recipe.nonsense


def test_the_root_has_what_a_user_needs() -> None:
    assert len(set(quickstudy.__all__)) == len(quickstudy.__all__)
    for name in quickstudy.__all__:
        assert getattr(quickstudy, name).__name__ == name
    with pytest.raises(AttributeError, match="nonsense"):
        _ = quickstudy.nonsense  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_name_that_was_public_is_found_or_says_what_to_use() -> None:
    """Of the modules and names that the reference had before the code was laid out anew."""
    names = json.loads((Path(__file__).parent / "names-0.1.json").read_text())
    assert sum(map(len, names.values())) > 200
    refused = []
    for module, public in names.items():
        for name in public:
            try:
                getattr(importlib.import_module(module), name)
            except ImportError as error:
                refused.append(str(error))
    assert len(refused) == 14
    assert all(re.fullmatch(r"quickstudy\.[\w.]+ is gone; use .+", line) for line in refused)
