"""The inputs of a request, one after the other: photographs, ids and vectors, as multipart/form-data or as JSON."""

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool

from service.errors import problem, reason
from service.routes import forms
from service.routes.common import LARGEST_ID, MOST_ERRORS, metrics_of, settings_of
from service.routes.forms import Form
from training.errors import BadValue, FC7Error, NotAnImage, NotReady, TryAgain

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
_JSON: Final = "application/json"
_LONGEST_KIND: Final = 100  # characters of a media type
_MOST_VALUES: Final = 5000  # of an input: a vector's, and its fields
_LARGE_BYTES: Final = 2**18  # of JSON that the event loop does not read itself
_LONGEST_VALUE: Final = 20  # characters of what should be a photograph


class Input(BaseModel):
    """One input: `image`, `id` or `vector`, and no other of them."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str | None = Field(None, max_length=1000, description="what the answer calls it; left out, its id or its position")
    image: str | None = Field(None, description="the file's bytes, in base64")
    id: int | None = Field(None, ge=0, le=LARGEST_ID, description="an indexed photograph")
    vector: list[float] | None = Field(None, description="an FC7 feature, as many numbers as the index has components")


class Inputs(BaseModel):
    """The body of a request about several inputs; results come in the same order."""

    model_config = ConfigDict(extra="forbid", strict=True)

    inputs: list[Input] = Field(min_length=1)


@dataclass(frozen=True)
class ParsedInput:
    """An input that was read; exactly one of `data`, `item`, `vector` and `error` is there."""

    name: str
    data: bytes | None = None
    item: int | None = None
    vector: list[float] | None = None
    error: FC7Error | None = None

    def check(self) -> None:
        """Raises the error that reading it gave."""
        if self.error:
            raise self.error


def form_description(**texts: dict[str, Any]) -> dict[str, Any]:
    """The description of a form of photographs, and of its texts."""
    images = {"type": "array", "items": {"type": "string", "format": "binary"}, "description": "one photograph or several"}
    return {forms.MEDIA_TYPE: {"schema": {"type": "object", "properties": {"image": images, **texts}, "required": ["image"]}}}


def body_description(photographs_only: bool) -> dict[str, Any]:
    """The description of a body that `read` takes."""
    content = {**form_description(), _JSON: {"schema": {"$ref": "#/components/schemas/Inputs"}}}
    return {"requestBody": {"required": photographs_only, "content": content}}


def parameter_descriptions(model: type[BaseModel]) -> list[dict[str, Any]]:
    """The description of a query string that `query_string` reads."""
    properties = model.model_json_schema()["properties"]
    return [
        {"name": name, "in": "query", "required": False, "schema": schema, "description": schema.pop("description")}
        for name, schema in properties.items()
    ]


def query_string(request: Request, model: type[M]) -> M:
    """The query string, checked. Raises RequestValidationError. FastAPI's own way takes a quarter of a search by id."""
    try:
        return model.model_validate_strings(dict(request.query_params))
    except ValidationError as error:
        errors = [{**item, "loc": ("query", *item["loc"])} for item in error.errors(include_url=False)]
        raise RequestValidationError(errors) from error


async def read(request: Request) -> list[ParsedInput]:
    """The inputs in the body, in order; none where there is no body.

    What cannot be read of a single one is its own `error`. Raises BadValue and RequestValidationError for what is wrong with all,
    and NotAnImage for a body of another kind.
    """
    kind = _kind(request)
    if kind is None:
        return []
    if kind == forms.MEDIA_TYPE:
        form = await read_form(request)
        for field, data in form.others:
            raise BadValue(field, f"{len(data)} bytes", "in the query string; a form holds photographs named image alone")
        parsed = [ParsedInput(name, data) for name, data in form.images]
    elif kind == _JSON:
        body, most = await request.body(), settings_of(request).max_images
        large = len(body) > _LARGE_BYTES
        parsed = await run_in_threadpool(_from_json, body, most) if large else _from_json(body, most)
        _check_number(request, len(parsed))
    else:
        raise NotAnImage(f"the body is {kind}; send {forms.MEDIA_TYPE} with fields named image, or {_JSON}")
    return parsed


async def read_form(request: Request) -> Form:
    """The photographs and texts of a form. Raises BadValue for one that is not well made, NotAnImage for another kind of body."""
    kind = _kind(request)
    if kind is None:
        return Form([], [])
    if kind != forms.MEDIA_TYPE:
        raise NotAnImage(f"the body is {kind}; send {forms.MEDIA_TYPE} with fields named image")
    return await forms.read(request.headers["content-type"], request.stream(), settings_of(request).max_images)


def no_image() -> RequestValidationError:
    """What a request without the photograph that it needs is told."""
    return RequestValidationError([{"type": "missing", "loc": ("body", "image"), "msg": "Field required", "input": None}])


async def each(
    request: Request, parsed: Sequence[ParsedInput], work: Callable[[ParsedInput], Awaitable[T]]
) -> list[T | FC7Error]:
    """The results of `work` for all inputs side by side, or the error that one gave.

    The error of a single input is the request's own, and so is one that says nothing of the input: TryAgain and NotReady.
    """
    if len(parsed) == 1:
        parsed[0].check()
        return [await work(parsed[0])]

    async def one(input: ParsedInput) -> T | FC7Error:
        try:
            input.check()
            return await work(input)
        except (TryAgain, NotReady):
            raise
        except FC7Error as error:
            if counted := reason(error):
                metrics_of(request).rejected(counted)
            return error

    tasks = [asyncio.ensure_future(one(input)) for input in parsed]
    try:
        return await asyncio.gather(*tasks)
    finally:
        while tasks:  # emptied, as an error's traceback holds this frame, and the task the error
            tasks.pop().cancel()


def results(request: Request, kind: Callable[..., T], parsed: Sequence[ParsedInput], answers: Sequence[T | FC7Error]) -> list[T]:
    """What `each` gave, as the results of an answer: an error is a result of this kind by its name."""
    return [
        kind(name=input.name, error=problem(answer, request.app.state.folders)) if isinstance(answer, FC7Error) else answer
        for input, answer in zip(parsed, answers, strict=True)
    ]


def _kind(request: Request) -> str | None:
    """The media type of the body; None where there is none."""
    headers = request.headers
    if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
        return None
    return headers.get("content-type", "of no stated type").split(";")[0].strip().lower()[:_LONGEST_KIND]


def _from_json(body: bytes, most: int) -> list[ParsedInput]:
    values = sum(body.count(mark) for mark in (b",", b"[", b"{"))
    if values > most * _MOST_VALUES:  # a parser would take a hundred times the body's size
        raise BadValue("body", f"{values} values", f"JSON of at most {most * _MOST_VALUES}")
    try:
        inputs = Inputs.model_validate_json(body).inputs
    except ValidationError as error:
        errors = [{**item, "loc": ("body", *item["loc"])} for item in error.errors(include_url=False)[:MOST_ERRORS]]
        raise RequestValidationError(errors) from error
    return [_parse(input, position) for position, input in enumerate(inputs)]


def _parse(input: Input, position: int) -> ParsedInput:
    name = input.name or (f"input {position}" if input.id is None else str(input.id))
    fields = [field for field in ("image", "id", "vector") if getattr(input, field) is not None]
    if len(fields) != 1:
        got = " and ".join(fields) or "none of them"
        return ParsedInput(name, error=BadValue(f"inputs.{position}", got, "one of image, id and vector"))
    if input.image is None:
        return ParsedInput(name, item=input.id, vector=input.vector)
    try:
        return ParsedInput(name, base64.b64decode(input.image, validate=True))
    except (binascii.Error, ValueError):
        return ParsedInput(name, error=BadValue(f"inputs.{position}.image", _beginning(input.image), "base64"))


def _beginning(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."


def _check_number(request: Request, number: int) -> None:
    most = settings_of(request).max_images
    if number > most:
        raise BadValue("image", f"{number} files", f"at most {most} files a request")
