"""Ctrl-C, SIGTERM and SIGHUP as a request that a training grants when its step is done."""

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["stop_signals"]

SIGNALS = [signal.SIGINT, signal.SIGTERM]
if hasattr(signal, "SIGHUP"):  # a terminal that was closed
    SIGNALS.append(signal.SIGHUP)


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C, SIGTERM or SIGHUP sets; another, a second later, interrupts at once.

    One Ctrl-C under torchrun is several signals: the terminal's, and those torchrun passes on.
    Outside the main thread, which alone receives signals, nothing sets it.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {s: signal.getsignal(s) for s in SIGNALS}
    asked = math.inf

    def ask(number: int, frame: Any) -> None:
        nonlocal asked
        if time.monotonic() > asked + 1:
            raise KeyboardInterrupt
        asked = min(asked, time.monotonic())
        stop.set()

    for number in before:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
