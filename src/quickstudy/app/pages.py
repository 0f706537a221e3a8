"""The page, its style and its scripts: files that come along, read once, under fixed names."""

from importlib import resources

from fastapi import FastAPI
from fastapi.responses import Response

__all__ = ["STATIC", "add_page"]

STATIC = "/static/"
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Permissions-Policy": "camera=(self), geolocation=(), microphone=()",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def add_page(app: FastAPI) -> None:
    """Serve the page at ``/``, and what it loads under `STATIC`."""
    for file in resources.files("quickstudy.app").joinpath("page").iterdir():
        kind = _TYPES.get(file.name[file.name.rfind(".") :])
        if kind is not None:
            path = "/" if file.name == "index.html" else STATIC + file.name
            _add(app, path, file.read_bytes(), kind)


def _add(app: FastAPI, path: str, content: bytes, kind: str) -> None:
    async def static() -> Response:
        return Response(content, media_type=kind, headers=_HEADERS)

    app.add_api_route(path, static, include_in_schema=False, response_class=Response)
