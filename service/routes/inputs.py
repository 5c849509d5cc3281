"""The inputs of a request, one after the other: photographs, ids and vectors, as multipart/form-data or as JSON."""

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from reprlib import Repr
from typing import Any, Final, TypeVar, get_origin

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json, to_json

from service.errors import problem, reason
from service.routes import forms
from service.routes.common import LARGEST_ID, MOST_ERRORS, engine_of, metrics_of, settings_of
from service.routes.forms import Form
from training.errors import BadValue, FC7Error, NotAnImage, NotReady, TryAgain

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
_JSON: Final = "application/json"
_LONGEST_KIND: Final = 100  # characters of a media type
_MOST_VALUES: Final = 5000  # of an input: a vector's, and its fields
_LARGE_BYTES: Final = 2**16  # of JSON that the event loop does not read itself
_PIECE: Final = 2**20  # characters of base64, a multiple of 4
_LONGEST_VALUE: Final = 20  # characters of what should be a photograph
_LONGEST_SHOWN: Final = 200  # characters of any other wrong value
_short: Final = Repr()
_short.maxstring = _short.maxother = _short.maxlong = _LONGEST_SHOWN
_short.maxlist = _short.maxdict = 20


class Input(BaseModel):
    """One input: `image`, `id` or `vector`, and no other of them."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str | None = Field(None, max_length=1000, description="what the answer calls it; left out, its id or its position")
    image: str | None = Field(None, description="the file's bytes, in base64")
    id: int | None = Field(None, ge=0, le=LARGEST_ID, description="an indexed photograph")
    vector: list[float] | None = Field(
        None, fail_fast=True, description="an FC7 feature, as many numbers as the index has components"
    )


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
        query = request.query_params
        lists = {name: query.getlist(name) for name in _lists_of(model) if name in query}
        return model.model_validate({**query, **lists})
    except ValidationError as error:
        errors = [{**item, "loc": ("query", *item["loc"])} for item in error.errors(include_url=False)]
        raise RequestValidationError(errors) from error


@cache
def _lists_of(model: type[BaseModel]) -> list[str]:
    return [name for name, field in model.model_fields.items() if get_origin(field.annotation) is list]


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
        work = partial(_from_json, body, most)
        parsed = await engine_of(request).read(work) if len(body) > _LARGE_BYTES else work()
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
    """The inputs, checked one by one once it is known that they are not too many, until ten errors are found."""
    values = sum(body.count(mark) for mark in (b",", b"[", b"{"))
    if values > most * _MOST_VALUES:  # a parser would take a hundred times the body's size
        raise BadValue("body", f"{values} values", f"JSON of at most {most * _MOST_VALUES}")
    try:
        content = from_json(body)
    except ValueError as error:
        wrong = {"type": "json_invalid", "loc": ("body",), "input": body, "ctx": {"error": str(error)}}
        raise RequestValidationError([wrong]) from error
    values_of = content.get("inputs") if isinstance(content, dict) else None
    if not isinstance(values_of, list):
        values_of = []
    elif values_of:
        _check_number(most, len(values_of))
        content["inputs"] = [Input.model_construct()]  # what is around them is checked first
    errors: list[dict[str, Any]] = []
    _checked(Inputs, content, (), errors)
    inputs = []
    for position, value in enumerate(values_of):
        if len(errors) < MOST_ERRORS:
            inputs.append(_checked(Input, value, ("inputs", position), errors))
    if errors:
        raise RequestValidationError(errors[:MOST_ERRORS])
    return [_parse(input, position) for position, input in enumerate(inputs) if input]


def _checked(model: type[M], value: object, where: tuple[str | int, ...], errors: list[dict[str, Any]]) -> M | None:
    """The value as the model has it; or None, and what is wrong with it is added to `errors`."""
    if isinstance(value, dict) and len(value) > 2 * MOST_ERRORS:  # each field too many is an error
        known = {name: value[name] for name in model.model_fields if name in value}
        value = dict(islice(value.items(), 2 * MOST_ERRORS)) | known
    with suppress(ValidationError):
        return model.model_validate(value)
    try:  # as JSON, whose numbers may be too large for Python's, and whose errors have their own words
        return model.model_validate_json(to_json(value))
    except ValidationError as error:
        for item in error.errors(include_url=False):
            errors.append({**item, "loc": ("body", *where, *item["loc"]), "input": _shown(item["input"])})
        return None


def _shown(value: object) -> object:
    """What an error shows of a wrong value, which may be long."""
    return value[: _LONGEST_SHOWN + 1] if isinstance(value, str) else _short.repr(value)


def _parse(input: Input, position: int) -> ParsedInput:
    name = input.name or (f"input {position}" if input.id is None else str(input.id))
    fields = [field for field in ("image", "id", "vector") if getattr(input, field) is not None]
    if len(fields) != 1:
        got = " and ".join(fields) or "none of them"
        return ParsedInput(name, error=BadValue(f"inputs.{position}", got, "one of image, id and vector"))
    if input.image is None:
        return ParsedInput(name, item=input.id, vector=input.vector)
    try:
        return ParsedInput(name, _decoded(input.image))
    except (binascii.Error, ValueError):
        return ParsedInput(name, error=BadValue(f"inputs.{position}.image", _beginning(input.image), "base64"))


def _beginning(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."


def _decoded(image: str) -> bytes:
    """Base64's bytes, piece by piece, as the whole would keep other threads waiting. Raises ValueError and binascii.Error."""
    pieces = (image[start : start + _PIECE] for start in range(0, len(image), _PIECE))
    return b"".join(base64.b64decode(piece, validate=True) for piece in pieces)


def _check_number(most: int, number: int) -> None:
    if number > most:
        raise BadValue("image", f"{number} files", f"at most {most} files a request")
