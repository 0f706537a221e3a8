"""Connections that may not be held open for nothing."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["connections"]


def connections(most: int, seconds: float) -> type[H11Protocol]:
    """Uvicorn's protocol for HTTP, less patient.

    Args:
        most: connections at once; one more is closed.
        seconds: within which a request has to begin, and its head to end.
    """

    class Impatient(H11Protocol):
        def connection_made(self, transport: Any) -> None:
            self.late: asyncio.TimerHandle | None = None
            super().connection_made(transport)
            if len(self.connections) > most:
                transport.close()
            else:
                self.late = self.loop.call_later(seconds, self._close_if_late)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.late is None and not self._busy():
                self.late = self.loop.call_later(seconds, self._close_if_late)

        def connection_lost(self, exc: Exception | None) -> None:
            if self.late is not None:
                self.late.cancel()
            super().connection_lost(exc)

        def _close_if_late(self) -> None:
            self.late = None
            if not self._busy():
                self.transport.close()

        def _busy(self) -> bool:
            """Whether a request is being answered."""
            return self.cycle is not None and not self.cycle.response_complete

    return Impatient
