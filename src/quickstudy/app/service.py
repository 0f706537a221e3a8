"""The REST service and the page, around a `Workbench`."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel, ConfigDict, Field

from quickstudy import __version__
from quickstudy.app import starters
from quickstudy.app.guard import MOST_BYTES, Guard, Rates
from quickstudy.app.items import Item, Kind
from quickstudy.app.models import Models
from quickstudy.app.pages import add_page
from quickstudy.app.take import Format
from quickstudy.app.tasks import FullError
from quickstudy.app.workbench import Workbench
from quickstudy.plain import to_json

__all__ = ["create_app"]

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_LOOPBACK = ["localhost", "127.0.0.1", "[::1]"]

T = TypeVar("T")
Label = Annotated[str, Field(min_length=1, max_length=100, pattern=r"\S")]
Encoded = Annotated[str, Field(max_length=MOST_BYTES)]
Name = Annotated[str, Field(max_length=1000)]
Value = Annotated[str, Field(max_length=1000)] | bool | float | None
Text = Annotated[str, Field(min_length=1, max_length=4000)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewItem(_Body):
    """An image (base64, or a data URL), a text or a row, by the kind of the task or model."""

    image: Encoded | None = None
    text: Text | None = None
    row: Annotated[dict[Name, Value], Field(max_length=10_000)] | None = None


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


class NewBatch(NewItems):
    """What a model is to predict: each for itself, or all together."""

    together: Annotated[
        bool, Field(description="Answer by what each item shows of its class, too.")
    ] = False


class NewName(_Body):
    """A class, and what to call it."""

    old: Label
    new: Label


def create_app(
    workbench: Workbench | None = None,
    *,
    models: Models | None = None,
    token: str | None = None,
    hosts: list[str] | None = None,
    requests_a_second: float = 50.0,
    workers: int = 2,
    waiting: int = 64,
    seconds: float = 30.0,
) -> FastAPI:
    """The web app, for any ASGI server.

    Args:
        workbench: where tasks are kept.
        models: what else is asked for predictions.
        token: without it in ``Authorization: Bearer``, the API answers 401; ``None`` asks for none.
        hosts: names this server may be called by; default: loopback only.
        requests_a_second: allowed to each client on average; twice as many in a burst. A million
            pixels count as a request.
        workers: threads that decode, learn and predict. All else is answered meanwhile.
        waiting: requests that may wait for one of them.
        seconds: that a request may take before it is given up.
    """
    bench = Workbench() if workbench is None else workbench
    served = Models() if models is None else models

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        work.close()
        bench.close()

    app = FastAPI(
        title="quickstudy",
        lifespan=lifespan,
        version=__version__,
        default_response_class=_Answer,
        docs_url=None,  # would load scripts from another host
        redoc_url=None,
        description="Put a task together from a few examples, and ask several learners about it.",
    )
    figures = _Figures(bench)
    rates = Rates(requests_a_second)
    work = _Workers(workers, waiting, seconds)
    add_page(app)

    guarded: Any = {"responses": _RESPONSES}

    def charge(request: Request) -> Callable[[int], None]:
        return lambda pixels: rates.charge(_client(request), pixels / 1e6)

    @app.head("/api/health", include_in_schema=False)
    @app.get("/api/health", tags=["server"])
    async def health() -> dict[str, Any]:
        """Whether the server is up, and how many tasks it holds."""
        return {"status": "ok", "version": __version__, "tasks": len(bench)}

    @app.get("/metrics", tags=["server"], response_class=PlainTextResponse, **guarded)
    async def metrics() -> PlainTextResponse:
        """Figures for Prometheus."""
        return PlainTextResponse(generate_latest(figures.registry))

    @app.post("/api/tasks", status_code=201, tags=["tasks"], **guarded)
    async def create(body: NewTask, request: Request) -> Response:
        """A new task, empty or with examples; it is forgotten when nobody uses it for an hour."""

        def made() -> bytes:
            task = bench.create(body.kind)
            try:
                if body.examples:
                    bench.add(task, _labelled(body.examples), charge(request))
            except BaseException:
                bench.delete(task)
                raise
            return _json({"id": task, **bench.show(task)})

        return Response(await work(made), 201, media_type="application/json")

    @app.get("/api/tasks/{task}", tags=["tasks"], **guarded)
    async def show(task: str) -> Response:
        """The task with all its examples: keep it, and POST it again another day."""
        shown = await work(lambda: _json(bench.show(task)))
        return Response(shown, media_type="application/json")

    @app.delete("/api/tasks/{task}", status_code=204, tags=["tasks"], **guarded)
    async def delete(task: str) -> None:
        """Forget a task."""
        bench.delete(task)

    @app.post("/api/tasks/{task}/examples", status_code=201, tags=["tasks"], **guarded)
    async def add(task: str, body: NewExamples, request: Request) -> dict[str, Any]:
        """Add examples of classes known or new: all of them, or none if one cannot be read."""
        labelled, charged = _labelled(body.examples), charge(request)
        ids = await work(lambda: bench.add(task, labelled, charged))
        figures.examples.inc(len(ids))
        return {"ids": ids}

    @app.delete("/api/tasks/{task}/examples/{example}", status_code=204, tags=["tasks"], **guarded)
    async def remove(task: str, example: str) -> None:
        """Remove an example."""
        bench.remove(task, example)

    @app.post("/api/tasks/{task}/rename", tags=["tasks"], **guarded)
    async def rename(task: str, body: NewName) -> Response:
        """Rename a class; given the name of another class, the two become one."""

        def renamed() -> bytes:
            bench.rename(task, body.old, body.new)
            return _json(bench.show(task))

        return Response(await work(renamed), media_type="application/json")

    @app.post("/api/tasks/{task}/predict", tags=["tasks"], **guarded)
    async def predict(task: str, body: NewItems, request: Request) -> Response:
        """What each learner says of new items, with its reasons."""
        items, charged = [_item(item) for item in body.items], charge(request)
        with figures.seconds.time():
            answer: bytes = await work(lambda: bench.ask(task, items, charged, then=_json))
        figures.predictions.inc(len(items))
        return Response(answer, media_type="application/json")

    @app.get("/api/models", tags=["models"], **guarded)
    async def models_served() -> dict[str, Any]:
        """The models that this server was started with."""
        return {"models": served.about()}

    @app.post("/api/models/{model}/predict", tags=["models"], **guarded)
    async def predict_by_model(model: str, body: NewBatch, request: Request) -> Response:
        """What a model says of new items, and whether it calls them unknown."""
        items, charged = [_item(item) for item in body.items], charge(request)
        with figures.seconds.time():
            answer = await work(lambda: _json(served.predict(model, items, charged, body.together)))
        figures.predictions.inc(len(items))
        return Response(answer, media_type="application/json")

    @app.get("/api/tasks/{task}/model", tags=["tasks"], response_class=Response, **_FILE)
    async def model(task: str, format: Format = "qs") -> Response:
        """The task as a file: for `quickstudy predict`, or for ONNX Runtime."""
        content = await work(lambda: bench.model(task, format))
        attachment = {"Content-Disposition": f'attachment; filename="model.{format}"'}
        return Response(content, media_type="application/octet-stream", headers=attachment)

    @app.get("/api/starters/photo", tags=["server"], **guarded)
    async def photos() -> Response:
        """A few photos to start from, and whose they are."""
        return Response(await work(lambda: _json(starters.photos())), media_type="application/json")

    @app.exception_handler(KeyError)
    async def unknown(_: Request, error: KeyError) -> _Answer:
        return _Answer({"detail": f"there is no {str(error.args[0])[:100]!r} here"}, 404)

    @app.exception_handler(ValueError)
    async def unreadable(_: Request, error: ValueError) -> _Answer:
        return _Answer({"detail": str(error)}, 422)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> _Answer:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        return _Answer({"detail": f"{place}: {first['msg']}"}, 422)

    @app.exception_handler(FullError)
    async def full(_: Request, error: FullError) -> _Answer:
        return _Answer({"detail": str(error)}, 503, {"Retry-After": "60"})

    @app.exception_handler(ModuleNotFoundError)
    async def missing(_: Request, error: ModuleNotFoundError) -> _Answer:
        return _Answer({"detail": str(error)}, 501)

    app.add_middleware(_Count, requests=figures.requests)
    app.add_middleware(Guard, rates=rates, token=token)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts or _LOOPBACK)
    return app


_RESPONSES: dict[int | str, dict[str, Any]] = {
    code: {"description": description}
    for code, description in {
        400: "The body is not text, or the server is called by a name that is not its own",
        401: "The token is missing or wrong",
        403: "A page of another site asks",
        404: "There is no such task, example, class or model",
        408: "The request does not come to its end",
        413: "The request is too large",
        422: "Something in the request cannot be used; says what",
        429: "Too many requests; says when to come back",
        501: "A package for this kind of task is not installed",
        503: "The server or the task is full, or busy; says when to come back",
    }.items()
}
_FILE: Any = {
    "responses": {
        200: {"description": "The file", "content": {"application/octet-stream": {}}},
        **_RESPONSES,
    }
}


def _item(new: NewItem) -> Item:
    return Item(new.image, new.text, new.row)


def _labelled(examples: list[NewExample]) -> list[tuple[str, Item]]:
    return [(example.label, _item(example)) for example in examples]


def _client(request: Request) -> str:
    return request.client.host if request.client else ""


def _json(value: dict[str, Any]) -> bytes:
    return to_json(value, ensure_ascii=False).encode(errors="backslashreplace")  # half a character


class _Answer(JSONResponse):
    """JSON, whatever the names are that a file or a request has."""

    def render(self, content: Any) -> bytes:
        return _json(content)


class _Workers:
    """Threads that do what takes long, so that the event loop is always free to answer.

    Args:
        threads: how many.
        waiting: requests that may wait for one.
        seconds: after which a request is given up; what it began ends by itself.
    """

    def __init__(self, threads: int, waiting: int, seconds: float) -> None:
        self._threads = threads
        self._pool = self._new()
        self._most, self._seconds = threads + waiting, seconds
        self._begun, self._lock = 0, threading.Lock()

    async def __call__(self, task: Callable[[], T | Future[T]]) -> T:
        """What ``task`` returns, or what the future has that it returns: no thread waits for that.

        Raises:
            FullError: too much is being done, or it took too long.
        """
        with self._lock:
            if self._begun >= self._most:
                raise FullError("this server is busy; try later")
            future = self._pool.submit(task)
            self._begun += 1
        future.add_done_callback(self._ended)
        try:
            async with asyncio.timeout(self._seconds):
                found = await asyncio.shield(asyncio.wrap_future(future))
                if isinstance(found, Future):
                    return await asyncio.shield(asyncio.wrap_future(found))
                return found
        except TimeoutError as error:
            raise FullError(f"this took more than {self._seconds:g} s; ask for less") from error

    def _new(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._threads, thread_name_prefix="work")

    def close(self) -> None:
        """Drop what is waiting."""
        with self._lock:
            pool, self._pool = self._pool, self._new()  # an app may be started again
        pool.shutdown(wait=False, cancel_futures=True)

    def _ended(self, future: "Future[Any]") -> None:
        if not future.cancelled() and not future.exception():
            found = future.result()
            if isinstance(found, Future):
                found.add_done_callback(self._ended)
                return
        with self._lock:
            self._begun -= 1


class _Count:
    """Counts what is answered."""

    def __init__(self, app: Any, requests: Counter) -> None:
        self.app, self.requests = app, requests

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "other"

        async def counted(message: Any) -> None:
            if message["type"] == "http.response.start":
                self.requests.labels(method, str(message["status"])).inc()
            await send(message)

        await self.app(scope, receive, counted)


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
