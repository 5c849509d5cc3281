"""Errors -> problem+json (RFC 9457): where an error of ours becomes an HTTP status, and nowhere else."""

import logging
import re
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeAlias, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from service.metrics import Metrics, Reason
from service.schemas import FieldError, Problem
from training.errors import BadImage, BadValue, FC7Error, Gone, ImageTooLarge, Mismatch, NotAnImage, NotFound, NotReady, TryAgain
from training.program import expected

MEDIA_TYPE = "application/problem+json"
LONGEST_VALUE = 100
LONGEST_DETAIL = 1000
RETRY_AFTER_S = 1
_PATH = re.compile(r"(?<![\w./:])/(?:[^\s/'\"`,;:()]+/)+([^\s/'\"`,;:()]*)")
_log = logging.getLogger("fc7.service")


Folders: TypeAlias = Mapping[Path, str]  # what strangers are to call them
_NONE: Folders = {}


class Refused(FC7Error):
    """What is on disk does not verify or does not belong together; the pair before it goes on answering."""


_REASONS: dict[type[FC7Error], Reason] = {
    ImageTooLarge: "too_large",
    NotAnImage: "not_an_image",
    BadImage: "bad_image",
    BadValue: "bad_value",
}
_STATUS: dict[type[FC7Error], HTTPStatus] = {
    NotAnImage: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    BadImage: HTTPStatus.UNPROCESSABLE_ENTITY,
    ImageTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    BadValue: HTTPStatus.UNPROCESSABLE_ENTITY,
    NotFound: HTTPStatus.NOT_FOUND,
    Gone: HTTPStatus.GONE,
    NotReady: HTTPStatus.SERVICE_UNAVAILABLE,
    Mismatch: HTTPStatus.SERVICE_UNAVAILABLE,
    TryAgain: HTTPStatus.SERVICE_UNAVAILABLE,
    Refused: HTTPStatus.CONFLICT,
}


_OF_THE_SERVER = {HTTPStatus.CONFLICT, HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.SERVICE_UNAVAILABLE}


def problem(error: FC7Error, folders: Folders = _NONE) -> Problem:
    """An error of ours as a problem; kinds without a status of their own are the server's fault.

    `folders` are called by their settings, and of any other path in what the server lacks only the end is shown.
    """
    status = next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), HTTPStatus.INTERNAL_SERVER_ERROR)
    # a wrong value is the client's own text: what became of a path in it would tell which the server has
    text = _detail(error) if isinstance(error, BadValue) else _hidden(str(error), folders, status in _OF_THE_SERVER)
    detail, errors = _short(text, LONGEST_DETAIL), None
    if isinstance(error, BadValue):
        errors = [FieldError(field=_short(error.field), value=_short(error.value), detail=detail)]
    return Problem(title=status.phrase, status=status, detail=detail, errors=errors)


def _detail(error: BadValue) -> str:
    """The error's text, with no more of the wrong value than its beginning."""
    text, value = str(error), repr(error.value)
    return text if len(value) <= LONGEST_VALUE else text.removesuffix(value) + value[:LONGEST_VALUE] + "..."


def _hidden(text: str, folders: Folders, of_the_server: bool) -> str:
    """A text in which folders are called by their names, and where it is `of_the_server` no other path is whole."""
    if "/" not in text:
        return text
    # a link may lead elsewhere than when the service began
    spellings = {str(path): name for folder, name in folders.items() for path in (folder.absolute(), folder.resolve())}
    for path in sorted(spellings, key=len, reverse=True):
        text = re.sub(re.escape(path) + r"(?![\w-])", spellings[path], text)
    return _PATH.sub(r"\1", text) if of_the_server else text


def reason(error: FC7Error) -> Reason | None:
    """What a rejection for this error is counted under, if it is one."""
    if isinstance(error, TryAgain):
        return cast("Reason", error.reason)
    return next((_REASONS[kind] for kind in type(error).__mro__ if kind in _REASONS), None)


def answer(content: Problem, headers: dict[str, str] | None = None) -> JSONResponse:
    """A problem as an HTTP answer."""
    body = content.model_dump(mode="json", exclude_none=True)
    return JSONResponse(body, content.status, media_type=MEDIA_TYPE, headers=headers)


def answer_error(error: FC7Error, metrics: Metrics, folders: Folders = _NONE) -> JSONResponse:
    """An error of ours as an HTTP answer, counted where it is a rejection; with what can be done soon, when to try again."""
    if counted := reason(error):
        metrics.rejected(counted)
    return answer(problem(error, folders), {"Retry-After": str(RETRY_AFTER_S)} if isinstance(error, TryAgain) else None)


def answer_http(error: HTTPException) -> JSONResponse:
    """An error of the framework's as an HTTP answer."""
    title = HTTPStatus(error.status_code).phrase
    return answer(Problem(title=title, status=error.status_code, detail=str(error.detail)), dict(error.headers or {}))


def install(app: FastAPI, folders: Folders) -> None:
    """Makes every error of `app` answer as problem+json. Of `folders` strangers learn but the names that are given here."""
    app.state.folders = folders
    app.add_exception_handler(FC7Error, _on_ours)
    app.add_exception_handler(MemoryError, _on_no_memory)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)


async def _on_ours(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, FC7Error)  # noqa: S101
    folders, text = request.app.state.folders, str(error)
    if not isinstance(error, BadValue) and text != _hidden(text, folders, of_the_server=True):
        _log.info("%s", text)
    return answer_error(error, request.app.state.metrics, folders)


async def _on_no_memory(request: Request, error: Exception) -> JSONResponse:
    _log.error("no memory for %s %s", request.method, request.url.path, exc_info=error)
    return await _on_ours(request, TryAgain("batch_failed", "there is not the memory for this now"))


async def _on_validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    request.app.state.metrics.rejected("bad_value")
    errors = [_field_error(item) for item in error.errors()]
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    return answer(Problem(title=status.phrase, status=status, detail="; ".join(e.detail for e in errors), errors=errors))


async def _on_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        error.headers = {**(error.headers or {}), "Allow": ", ".join(sorted(_methods(request)))}
    return answer_http(error)


def _methods(request: Request) -> set[str]:
    """What may be asked of the request's path, by all routes that it is of; HEAD is answered wherever GET is."""
    scope, methods = request.scope, set[str]()
    for route in (*request.app.state.routes, *request.app.routes):
        if isinstance(route, Route) and route.matches(scope)[0] is not Match.NONE:
            methods |= route.methods or set()
    return methods | ({"HEAD"} if "GET" in methods else set())


def _field_error(item: dict[str, Any]) -> FieldError:
    where, path = item["loc"][0], item["loc"][1:] or item["loc"]
    field = _short(".".join(map(str, path if where == "body" else path[:1])))
    value = _short(item.get("input"))
    match item["type"]:
        case "missing":
            return FieldError(field=field, value=None, detail=f"{field} is missing")
        case "extra_forbidden":
            wanted = "left out"
        case "json_invalid":  # whose input is the whole body
            return FieldError(field=field, value=None, detail=f"{field} must be JSON ({item['ctx']['error']})")
        case _:
            wanted = expected(item["msg"])
    return FieldError(field=field, value=value, detail=f"{field} must be {wanted}, got {value!r}")


def _short(value: object, longest: int = LONGEST_VALUE) -> str:
    if isinstance(value, bytes):
        value = value[: longest + 1].decode(errors="replace")
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= longest else text[:longest] + "..."
