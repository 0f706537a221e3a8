"""Keeping memory between steps: done where there is glibc, and off by a switch."""

import platform

import pytest

from quickstudy.memory import keep_memory


def test_it_is_done_where_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUICKSTUDY_KEEP_MEMORY", raising=False)
    assert keep_memory() == (platform.libc_ver()[0] == "glibc")


def test_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUICKSTUDY_KEEP_MEMORY", "0")
    assert not keep_memory()


def test_another_libc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUICKSTUDY_KEEP_MEMORY", raising=False)
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    assert not keep_memory()
