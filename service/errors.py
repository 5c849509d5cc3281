"""Errors -> problem+json (RFC 9457): the one place where an error of ours becomes an HTTP status."""

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from service.schemas import FieldError, Problem
from training.errors import BadImage, BadValue, Busy, FC7Error, ImageTooLarge, Mismatch, NotAnImage, NotFound, NotReady
from training.program import expected

MEDIA_TYPE = "application/problem+json"
LONGEST_VALUE = 100
RETRY_AFTER_S = 5
_STATUS: dict[type[FC7Error], HTTPStatus] = {
    NotAnImage: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    BadImage: HTTPStatus.UNPROCESSABLE_ENTITY,
    ImageTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    BadValue: HTTPStatus.UNPROCESSABLE_ENTITY,
    NotFound: HTTPStatus.NOT_FOUND,
    NotReady: HTTPStatus.SERVICE_UNAVAILABLE,
    Mismatch: HTTPStatus.SERVICE_UNAVAILABLE,
    Busy: HTTPStatus.SERVICE_UNAVAILABLE,
}
_log = logging.getLogger("fc7.service")


def problem(error: FC7Error) -> Problem:
    """An error of ours as a problem; kinds without a status of their own are the server's fault."""
    status = next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), HTTPStatus.INTERNAL_SERVER_ERROR)
    errors = None
    if isinstance(error, BadValue):
        errors = [FieldError(field=error.field, value=_short(error.value), detail=str(error))]
    return Problem(title=status.phrase, status=status, detail=str(error), errors=errors)


def answer(content: Problem, headers: dict[str, str] | None = None) -> JSONResponse:
    """A problem as an HTTP answer."""
    body = content.model_dump(mode="json", exclude_none=True)
    return JSONResponse(body, content.status, media_type=MEDIA_TYPE, headers=headers)


def install(app: FastAPI) -> None:
    """Makes every error of `app` answer as problem+json."""
    app.add_exception_handler(FC7Error, _on_ours)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_anything)


async def _on_ours(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, FC7Error)  # noqa: S101
    return answer(problem(error), {"Retry-After": str(RETRY_AFTER_S)} if isinstance(error, Busy) else None)


async def _on_validation(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    errors = [_field_error(item) for item in error.errors()]
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    return answer(Problem(title=status.phrase, status=status, detail="; ".join(e.detail for e in errors), errors=errors))


async def _on_http(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101
    title = HTTPStatus(error.status_code).phrase
    return answer(Problem(title=title, status=error.status_code, detail=str(error.detail)), dict(error.headers or {}))


async def _on_anything(request: Request, error: Exception) -> JSONResponse:
    _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    return answer(Problem(title=status.phrase, status=status, detail="an error inside the service; its log says more"))


def _field_error(item: dict[str, Any]) -> FieldError:
    field = str((item["loc"][1:] or item["loc"])[0])
    if item["type"] == "missing":
        return FieldError(field=field, value=None, detail=f"{field} is missing")
    value = _short(item.get("input"))
    if "UploadFile" in item["msg"]:
        return FieldError(field=field, value=value, detail=f"{field} must be an uploaded file, got the text {value!r}")
    return FieldError(field=field, value=value, detail=f"{field} must be {expected(item['msg'])}, got {value!r}")


def _short(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE] + "..."
