"""The pages for people, and what they are made of: files of this package, each at its own path."""

from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request, Response

from service.routes import files
from training.errors import NotFound

_WEB: Final = Path(__file__).parents[1] / "web"
_MEDIA_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".txt": "text/plain; charset=utf-8",
}
_FILES: Final = {path.relative_to(_WEB).as_posix(): path for path in _WEB.rglob("*") if path.suffix in _MEDIA_TYPES}
router = APIRouter(include_in_schema=False)


@router.get("/")
def page(request: Request) -> Response:
    """The page to drop photographs on."""
    return _answer(request, "index.html")


@router.get("/docs")
def docs(request: Request) -> Response:
    """The page that shows the description of the endpoints."""
    return _answer(request, "docs/index.html")


@router.get("/web/{name:path}")
def part(request: Request, name: str) -> Response:
    """A script, style or picture of the pages."""
    return _answer(request, name)


def _answer(request: Request, name: str) -> Response:
    path = _FILES.get(name)
    if path is None:
        raise NotFound(f"no page has a part {name[:100]!r}")
    return files.answer(request, path, _MEDIA_TYPES[path.suffix])
