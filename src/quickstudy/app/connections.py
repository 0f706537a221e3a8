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
                self.late = self.loop.call_later(seconds, transport.close)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._in_time()  # and when it has been answered, uvicorn waits for the next one
            elif self.late is None:
                self.late = self.loop.call_later(seconds, self.transport.close)

        def connection_lost(self, exc: Exception | None) -> None:
            self._in_time()
            super().connection_lost(exc)

        def _in_time(self) -> None:
            if self.late is not None:
                self.late.cancel()
                self.late = None

    return Impatient
