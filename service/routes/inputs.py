"""The inputs of a request, one after the other: photographs, ids and vectors, as multipart/form-data or as JSON."""

import asyncio
import base64
import binascii
import re
from codecs import BOM_UTF8
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

from indexer.store import LARGEST_ID
from service.errors import problem, reason
from service.routes import forms
from service.routes.common import MOST_ERRORS, engine_of, metrics_of, settings_of
from service.routes.forms import Form
from training.errors import BadValue, FC7Error, NotAnImage, NotReady, TryAgain

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
_JSON: Final = "application/json"
_KINDS: Final = ("image", "id", "vector", "like")  # of an input
_LONGEST_KIND: Final = 100  # characters of a media type
_MOST_VALUES: Final = 5000  # of an input: a vector's, and its fields
_LARGE_BYTES: Final = 2**16  # of a body that the event loop does not read itself
_PIECE: Final = 2**20  # characters of base64, a multiple of 4
_LONGEST_VALUE: Final = 20  # characters of what should be a photograph
_LONGEST_SHOWN: Final = 200  # characters of any other wrong value
_ID: Final = re.compile(rb"0|[1-9][0-9]{0,18}")
_short: Final = Repr()
_short.maxstring = _short.maxother = _short.maxlong = _LONGEST_SHOWN
_short.maxlist = _short.maxdict = 20


class Example(BaseModel):
    """What there are neighbours of: `image`, `id` or `vector`, and no other of them."""

    model_config = ConfigDict(extra="forbid", strict=True)

    image: str | None = Field(None, description="the file's bytes, in base64")
    id: int | None = Field(None, ge=0, le=LARGEST_ID, description="an indexed photograph")
    vector: list[float] | None = Field(
        None, fail_fast=True, description="an FC7 feature, as many numbers as the index has components"
    )


class Input(Example):
    """One input: `image`, `id`, `vector` or `like`, and no other of them."""

    name: str | None = Field(None, max_length=1000, description="what the answer calls it; left out, its id or its position")
    like: list[Example] | None = Field(None, min_length=1, description="several examples, which neighbours are like together")
    unlike: list[Example] | None = Field(None, description="beside `like`: examples that neighbours are unlike")


class Inputs(BaseModel):
    """The body of a request about several inputs; results come in the same order."""

    model_config = ConfigDict(extra="forbid", strict=True)

    inputs: list[Input] = Field(min_length=1)


@dataclass(frozen=True)
class ParsedInput:
    """An input that was read; exactly one of `data`, `item`, `vector`, `like` and `error` is there."""

    name: str
    data: bytes | None = None
    item: int | None = None
    vector: list[float] | None = None
    like: tuple["ParsedInput", ...] = ()
    unlike: tuple["ParsedInput", ...] = ()  # beside `like`
    error: FC7Error | None = None

    @property
    def photographs(self) -> int:
        """The photographs among it and its examples."""
        return (self.data is not None) + sum(example.photographs for example in (*self.like, *self.unlike))

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
    form = form_description()
    if not photographs_only:
        schema = form[forms.MEDIA_TYPE]["schema"]
        files = schema["properties"]["image"]
        for name, text in ((forms.LIKE, "photographs that are one query together"), (forms.UNLIKE, "what that is unlike")):
            schema["properties"][name] = {**files, "description": text}
            items = {"type": "integer", "minimum": 0, "maximum": LARGEST_ID}
            schema["properties"][f"{name}_id"] = {"type": "array", "items": items, "description": f"items beside `{name}`"}
        del schema["required"]
    content = {**form, _JSON: {"schema": {"$ref": "#/components/schemas/Inputs"}}}
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
        parsed = [ParsedInput(name, data) for name, data in form.images]
        ids = _ids(form)
        like, unlike = (
            (
                *(ParsedInput(f"{field}.{i}", data) for i, (_, data) in enumerate(files)),
                *(ParsedInput(f"{field}_id.{i}", item=item) for i, item in enumerate(ids[field])),
            )
            for field, files in ((forms.LIKE, form.like), (forms.UNLIKE, form.unlike))
        )
        if unlike and not like:
            given = forms.UNLIKE if form.unlike else f"{forms.UNLIKE}_id"
            raise BadValue(given, f"{len(unlike)} examples", "given beside like or like_id")
        count = sum(map(len, ids.values()))
        what = f"{len(parsed) + len(form.like) + len(form.unlike)} files and {count} ids"
        field = next((f"{kind}_id" for kind in ids if ids[kind]), forms.PHOTOGRAPHS)
        _check_number(settings_of(request).max_images, len(parsed) + len(like) + len(unlike), field, what)
        if like:
            parsed.append(ParsedInput(forms.LIKE, like=like, unlike=unlike))
    elif kind == _JSON:
        body, most = await request.body(), settings_of(request).max_images
        parsed = await _worked(request, partial(_from_json, body, most), len(body))
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
    parts = await forms.read(request.headers["content-type"], request.stream(), settings_of(request).max_images)
    return await _worked(request, parts.form, parts.size)


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


async def _worked(request: Request, work: Callable[[], T], size: int) -> T:
    """The result of work on a body of so many bytes."""
    return await engine_of(request).read(work) if size > _LARGE_BYTES else work()


def _kind(request: Request) -> str | None:
    """The media type of the body; None where there is none. Raises NotAnImage for one that is compressed as a whole."""
    headers = request.headers
    if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
        return None
    coding = headers.get("content-encoding", "identity")
    if coding.lower() != "identity":
        raise NotAnImage(f"the body has the Content-Encoding {coding[:_LONGEST_KIND]}; send it without one")
    return headers.get("content-type", "of no stated type").split(";")[0].strip().lower()[:_LONGEST_KIND]


def _from_json(body: bytes, most: int) -> list[ParsedInput]:
    """The inputs, checked one by one once it is known that they are not too many, until ten errors are found."""
    values = sum(body.count(mark) for mark in (b",", b"[", b"{"))
    if values > most * _MOST_VALUES:  # a parser would take a hundred times the body's size
        raise BadValue("body", f"{values} values", f"JSON of at most {most * _MOST_VALUES}")
    try:
        content = from_json(body.removeprefix(BOM_UTF8))  # which may be ignored (RFC 8259, section 8.1)
    except ValueError as error:
        wrong = {"type": "json_invalid", "loc": ("body",), "input": body, "ctx": {"error": str(error)}}
        raise RequestValidationError([wrong]) from error
    values_of = content.get("inputs") if isinstance(content, dict) else None
    if not isinstance(values_of, list):
        values_of = []
    elif values_of:
        number = sum(map(_examples_in, values_of))
        _check_number(most, number, "inputs", f"{number}, with their examples")
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


def _ids(form: Form) -> dict[str, list[int]]:
    """The items among the examples of a form. Raises BadValue for a field of another name, and for what is no id."""
    ids: dict[str, list[int]] = {forms.LIKE: [], forms.UNLIKE: []}
    for field, data in form.others:
        kind = field.removesuffix("_id")
        if kind == field or kind not in ids:
            wanted = (
                "in the query string; a form holds photographs named image, like and unlike, and ids named like_id and unlike_id"
            )
            raise BadValue(field, f"{len(data)} bytes", wanted)
        if not _ID.fullmatch(data) or int(data) > LARGEST_ID:
            raise BadValue(field, data[:_LONGEST_VALUE].decode("latin-1"), "the id of an item, in digits")
        ids[kind].append(int(data))
    return ids


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


def _examples_in(value: object) -> int:
    """How many photographs, ids and vectors a value that should be an input holds."""
    lists = [value[name] for name in ("like", "unlike") if name in value] if isinstance(value, dict) else []
    return sum(len(examples) for examples in lists if isinstance(examples, list)) or 1


def _parse(input: Input, position: int) -> ParsedInput:
    name = input.name or (f"input {position}" if input.id is None else str(input.id))
    where, given = f"inputs.{position}", [field for field in _KINDS if getattr(input, field) is not None]
    if len(given) != 1:
        got = " and ".join(given) or "none of them"
        return ParsedInput(name, error=BadValue(where, got, f"one of {', '.join(_KINDS[:-1])} and {_KINDS[-1]}"))
    if input.unlike is not None and input.like is None:
        return ParsedInput(name, error=BadValue(f"{where}.unlike", f"{len(input.unlike)} examples", "given beside like"))
    if input.like is None:
        return _parse_example(input, name, where)
    like, unlike = (
        tuple(_parse_example(example, f"{where}.{field}.{i}", f"{where}.{field}.{i}") for i, example in enumerate(examples))
        for field, examples in (("like", input.like), ("unlike", input.unlike or ()))
    )
    error = next((example.error for example in (*like, *unlike) if example.error), None)
    return ParsedInput(name, error=error) if error else ParsedInput(name, like=like, unlike=unlike)


def _parse_example(example: Example, name: str, where: str) -> ParsedInput:
    given = [field for field in _KINDS[:-1] if getattr(example, field) is not None]
    if len(given) != 1:
        return ParsedInput(name, error=BadValue(where, " and ".join(given) or "none of them", "one of image, id and vector"))
    if example.image is None:
        return ParsedInput(name, item=example.id, vector=example.vector)
    try:
        return ParsedInput(name, _decoded(example.image))
    except (binascii.Error, ValueError):
        return ParsedInput(name, error=BadValue(f"{where}.image", _beginning(example.image), "base64"))


def _beginning(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."


def _decoded(image: str) -> bytes:
    """Base64's bytes, piece by piece, as the whole would keep other threads waiting. Raises ValueError and binascii.Error."""
    pieces = (image[start : start + _PIECE] for start in range(0, len(image), _PIECE))
    return b"".join(base64.b64decode(piece, validate=True) for piece in pieces)


def _check_number(most: int, number: int, field: str, what: str) -> None:
    if number > most:
        raise BadValue(field, what, f"at most {most} a request")
