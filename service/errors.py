"""Errors -> problem+json (RFC 9457): where an error of ours becomes an HTTP status, and nowhere else."""

import logging
from http import HTTPStatus
from typing import Any, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from service.metrics import Metrics, Reason
from service.schemas import FieldError, Problem
from training.errors import BadImage, BadValue, FC7Error, ImageTooLarge, Mismatch, NotAnImage, NotFound, NotReady, TryAgain
from training.program import expected

MEDIA_TYPE = "application/problem+json"
LONGEST_VALUE = 100
LONGEST_DETAIL = 1000
RETRY_AFTER_S = 1
_log = logging.getLogger("fc7.service")


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
    NotReady: HTTPStatus.SERVICE_UNAVAILABLE,
    Mismatch: HTTPStatus.SERVICE_UNAVAILABLE,
    TryAgain: HTTPStatus.SERVICE_UNAVAILABLE,
    Refused: HTTPStatus.CONFLICT,
}


def problem(error: FC7Error) -> Problem:
    """An error of ours as a problem; kinds without a status of their own are the server's fault."""
    status = next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), HTTPStatus.INTERNAL_SERVER_ERROR)
    detail, errors = _short(str(error), LONGEST_DETAIL), None
    if isinstance(error, BadValue):
        errors = [FieldError(field=_short(error.field), value=_short(error.value), detail=detail)]
    return Problem(title=status.phrase, status=status, detail=detail, errors=errors)


def reason(error: FC7Error) -> Reason | None:
    """What a rejection for this error is counted under, if it is one."""
    if isinstance(error, TryAgain):
        return cast("Reason", error.reason)
    return next((_REASONS[kind] for kind in type(error).__mro__ if kind in _REASONS), None)


def answer(content: Problem, headers: dict[str, str] | None = None) -> JSONResponse:
    """A problem as an HTTP answer."""
    body = content.model_dump(mode="json", exclude_none=True)
    return JSONResponse(body, content.status, media_type=MEDIA_TYPE, headers=headers)


def answer_error(error: FC7Error, metrics: Metrics) -> JSONResponse:
    """An error of ours as an HTTP answer, counted where it is a rejection; with what can be done soon, when to try again."""
    if counted := reason(error):
        metrics.rejected(counted)
    return answer(problem(error), {"Retry-After": str(RETRY_AFTER_S)} if isinstance(error, TryAgain) else None)


def answer_http(error: HTTPException) -> JSONResponse:
    """An error of the framework's as an HTTP answer."""
    title = HTTPStatus(error.status_code).phrase
    return answer(Problem(title=title, status=error.status_code, detail=str(error.detail)), dict(error.headers or {}))


def install(app: FastAPI) -> None:
    """Makes every error of `app` answer as problem+json."""
    app.add_exception_handler(FC7Error, _on_ours)
    app.add_exception_handler(MemoryError, _on_no_memory)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)


async def _on_ours(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, FC7Error)  # noqa: S101
    return answer_error(error, request.app.state.metrics)


async def _on_no_memory(request: Request, error: Exception) -> JSONResponse:
    _log.error("no memory for %s %s", request.method, request.url.path, exc_info=error)
    return await _on_ours(request, TryAgain("batch_failed", "there is not the memory for this now"))


async def _on_validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    request.app.state.metrics.rejected("bad_value")
    errors = [_field_error(item) for item in error.errors()]
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    return answer(Problem(title=status.phrase, status=status, detail="; ".join(e.detail for e in errors), errors=errors))


async def _on_http(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101
    return answer_http(error)


def _field_error(item: dict[str, Any]) -> FieldError:
    where, path = item["loc"][0], item["loc"][1:] or item["loc"]
    field = _short(".".join(map(str, path if where == "body" else path[:1])))
    value = _short(item.get("input"))
    match item["type"]:
        case "missing":
            return FieldError(field=field, value=None, detail=f"{field} is missing")
        case "extra_forbidden":
            wanted = "left out"
        case "json_invalid":
            wanted = f"JSON ({item['ctx']['error']})"
        case _:
            wanted = expected(item["msg"])
    return FieldError(field=field, value=value, detail=f"{field} must be {wanted}, got {value!r}")


def _short(value: object, longest: int = LONGEST_VALUE) -> str:
    if isinstance(value, bytes):
        value = value[: longest + 1].decode(errors="replace")
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= longest else text[:longest] + "..."
