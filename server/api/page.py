"""The playground at `/`: a few fixed files, open to all. If the API needs a key, the page asks for it."""

from pathlib import Path

from fastapi import APIRouter, Response

from gram.server.api.problems import ProblemError

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_FILES = {path.name: path for path in (Path(__file__).parents[1] / "page").iterdir() if path.suffix in _TYPES}

page = APIRouter(include_in_schema=False)
"""The routes for people, not for programs."""


@page.get("/")
async def index() -> Response:
    """The page itself."""
    return await file("index.html")


@page.get("/page/{name}")
async def file(name: str) -> Response:
    """A file of the page. The name is looked up among the files that the server found at its start; it never becomes a path."""
    if name not in _FILES:
        raise ProblemError(404, f"the page has no file {name!r}; the page is at /")
    path = _FILES[name]
    return Response(path.read_bytes(), media_type=_TYPES[path.suffix])
