"""The REST service and the page, around a `Workbench`."""

import hmac
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel, ConfigDict, Field

from quickstudy import __version__
from quickstudy.app.workbench import FullError, Item, Kind, Workbench

__all__ = ["create_app"]

MOST_BYTES = 8 << 20
_LOOPBACK = ["localhost", "127.0.0.1", "[::1]", "testserver"]
_CLIENTS = 10_000

Label = Annotated[str, Field(min_length=1, max_length=100, pattern=r"\S")]
Encoded = Annotated[str, Field(max_length=MOST_BYTES)]
Text = Annotated[str, Field(min_length=1, max_length=4000)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewItem(_Body):
    """An image (base64, or a data URL) or a text, by the kind of the task."""

    image: Encoded | None = None
    text: Text | None = None


class NewExample(NewItem):
    """An item with its class; an ``id`` is ignored, so that what is shown can be sent back."""

    label: Label
    id: Annotated[str, Field(max_length=100)] | None = None


class NewTask(_Body):
    """A task, empty or with examples, as ``GET /api/tasks/{task}`` shows one."""

    kind: Kind = "drawing"
    examples: Annotated[list[NewExample], Field(max_length=500)] = []


class NewExamples(_Body):
    """Labelled examples."""

    examples: Annotated[list[NewExample], Field(min_length=1, max_length=100)]


class NewItems(_Body):
    """What to predict."""

    items: Annotated[list[NewItem], Field(min_length=1, max_length=64)]


class NewName(_Body):
    """A class, and what to call it."""

    old: Label
    new: Label


def create_app(
    workbench: Workbench | None = None,
    *,
    token: str | None = None,
    hosts: list[str] | None = None,
    requests_a_second: float = 50.0,
) -> FastAPI:
    """The web app, for any ASGI server.

    Args:
        workbench: where tasks are kept.
        token: without it in ``Authorization: Bearer``, the API answers 401; ``None`` asks for none.
        hosts: names this server may be called by; default: loopback only.
        requests_a_second: allowed to each client on average; twice as many in a burst.
    """
    bench = Workbench() if workbench is None else workbench
    app = FastAPI(
        title="quickstudy",
        version=__version__,
        docs_url=None,  # would load scripts from another host
        redoc_url=None,
        description="Put a task together from a few examples, and ask several learners about it.",
    )
    figures = _Figures(bench)
    page = resources.files("quickstudy.app").joinpath("page.html").read_text("utf-8")

    def allowed(request: Request) -> None:
        presented = request.headers.get("authorization", "").removeprefix("Bearer ").encode()
        if token is not None and not hmac.compare_digest(presented, token.encode()):
            raise HTTPException(401, "this server asks for its token: Authorization: Bearer TOKEN")

    guarded: Any = {"dependencies": [Depends(allowed)], "responses": _RESPONSES}

    @app.get("/", include_in_schema=False)
    def index() -> HTMLResponse:
        return HTMLResponse(page, headers=_PAGE_HEADERS)

    @app.get("/api/health", tags=["server"])
    def health() -> dict[str, Any]:
        """Whether the server is up, and how many tasks it holds."""
        return {"status": "ok", "version": __version__, "tasks": len(bench)}

    @app.get("/metrics", tags=["server"], response_class=PlainTextResponse, **guarded)
    def metrics() -> PlainTextResponse:
        """Figures for Prometheus."""
        return PlainTextResponse(generate_latest(figures.registry))

    @app.post("/api/tasks", status_code=201, tags=["tasks"], **guarded)
    def create(body: NewTask) -> dict[str, Any]:
        """A new task, empty or with examples; it is forgotten when nobody uses it for an hour."""
        task = bench.create(body.kind)
        try:
            if body.examples:
                bench.add(task, [(e.label, _item(e)) for e in body.examples])
        except BaseException:
            bench.delete(task)
            raise
        return {"id": task, **bench.show(task)}

    @app.get("/api/tasks/{task}", tags=["tasks"], **guarded)
    def show(task: str) -> dict[str, Any]:
        """The task with all its examples: keep it, and POST it again another day."""
        return bench.show(task)

    @app.delete("/api/tasks/{task}", status_code=204, tags=["tasks"], **guarded)
    def delete(task: str) -> None:
        """Forget a task."""
        bench.delete(task)

    @app.post("/api/tasks/{task}/examples", status_code=201, tags=["tasks"], **guarded)
    def add(task: str, body: NewExamples) -> dict[str, Any]:
        """Add examples of classes known or new: all of them, or none if one cannot be read."""
        ids = bench.add(task, [(e.label, _item(e)) for e in body.examples])
        figures.examples.inc(len(ids))
        return {"ids": ids}

    @app.delete("/api/tasks/{task}/examples/{example}", status_code=204, tags=["tasks"], **guarded)
    def remove(task: str, example: str) -> None:
        """Remove an example."""
        bench.remove(task, example)

    @app.post("/api/tasks/{task}/rename", tags=["tasks"], **guarded)
    def rename(task: str, body: NewName) -> dict[str, Any]:
        """Rename a class; given the name of another class, the two become one."""
        bench.rename(task, body.old, body.new)
        return bench.show(task)

    @app.post("/api/tasks/{task}/predict", tags=["tasks"], **guarded)
    def predict(task: str, body: NewItems) -> dict[str, Any]:
        """What each learner says of new items, with its reasons."""
        with figures.seconds.time():
            answer = bench.predict(task, [_item(item) for item in body.items])
        figures.predictions.inc(len(body.items))
        return answer

    @app.exception_handler(KeyError)
    def unknown(_: Request, error: KeyError) -> JSONResponse:
        return JSONResponse({"detail": f"there is no {str(error.args[0])[:100]!r} here"}, 404)

    @app.exception_handler(ValueError)
    def unreadable(_: Request, error: ValueError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 422)

    @app.exception_handler(RequestValidationError)
    def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        return JSONResponse({"detail": f"{place}: {first['msg']}"}, 422)

    @app.exception_handler(FullError)
    def full(_: Request, error: FullError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 503, {"Retry-After": "60"})

    @app.exception_handler(ModuleNotFoundError)
    def missing(_: Request, error: ModuleNotFoundError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 501)

    @app.middleware("http")
    async def count(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        response = await call_next(request)
        figures.requests.labels(request.method, str(response.status_code)).inc()
        return response

    app.add_middleware(_Guard, requests_a_second=requests_a_second)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts or _LOOPBACK)
    return app


_RESPONSES: dict[int | str, dict[str, Any]] = {
    code: {"description": description}
    for code, description in {
        400: "The body is not text, or the server is called by a name that is not its own",
        401: "The token is missing or wrong",
        404: "There is no such task, example or class",
        413: "The request is too large",
        422: "Something in the request cannot be used; says what",
        429: "Too many requests; says when to come back",
        501: "A package for this kind of task is not installed",
        503: "The server or the task is full",
    }.items()
}
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def _item(new: NewItem) -> Item:
    return Item(new.image, new.text)


class _Figures:
    """The metrics that Prometheus reads."""

    def __init__(self, bench: Workbench) -> None:
        self.registry = CollectorRegistry()
        shared: Any = {"namespace": "quickstudy", "registry": self.registry}
        self.requests = Counter("requests", "Requests", ["method", "status"], **shared)
        self.examples = Counter("examples", "Examples added", **shared)
        self.predictions = Counter("predictions", "Items predicted", **shared)
        self.seconds = Histogram("predict_seconds", "Time of a prediction request", **shared)
        Gauge("tasks", "Tasks held", **shared).set_function(lambda: len(bench))


class _Guard:
    """Refuses bodies that are too large and clients that ask too often, before anything is read."""

    def __init__(self, app: Any, requests_a_second: float) -> None:
        self.app, self.rate = app, requests_a_second
        self.buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if not self._take(str((scope.get("client") or ("",))[0])):
            refusal = JSONResponse({"detail": "too many requests"}, 429, {"Retry-After": "1"})
            await refusal(scope, receive, send)
            return
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"0")
        too_large = JSONResponse({"detail": f"a request has at most {MOST_BYTES} bytes"}, 413)
        if not length.isdigit() or int(length) > MOST_BYTES:
            await too_large(scope, receive, send)
            return
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > MOST_BYTES:
                await too_large(scope, receive, send)
                return
        read = False

        async def replay() -> Any:
            nonlocal read
            if read:
                return await receive()
            read = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, replay, send)

    def _take(self, client: str) -> bool:
        now, capacity = time.monotonic(), 2 * self.rate
        left, then = self.buckets.pop(client, (capacity, now))
        left = min(capacity, left + (now - then) * self.rate)
        self.buckets[client] = (max(0.0, left - 1), now)
        while len(self.buckets) > _CLIENTS:
            self.buckets.popitem(last=False)
        return left >= 1
