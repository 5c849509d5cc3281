"""The one photograph that a request is about: one that was sent, or an item's own."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import Query, Request
from torch import Tensor

from indexer.opening import OpenStore
from indexer.storage.originals import missing
from indexer.store import LARGEST_ID, Item
from service import schemas
from service.engine import Engine
from service.pair import Pair
from service.routes import inputs
from service.routes.common import engine_of
from service.routes.inputs import ParsedInput
from service.stages import Stages
from training.checkpoint import Model
from training.errors import BadValue

SubjectId = Annotated[
    schemas.Whole | None, Query(alias="id", ge=0, le=LARGEST_ID, description="an indexed photograph, in place of a body")
]
BODY: Final[dict[str, Any]] = {
    "requestBody": {**inputs.body_description(photographs_only=True)["requestBody"], "required": False}
}


@dataclass(frozen=True)
class Subject:
    """A photograph, and the model that is asked about it."""

    name: str
    pixels_CHW: Tensor  # uint8 (3, 256, 256)
    model: Model
    item: int | None = None
    index_version: int | None = None  # of the index that the item is of


async def read(request: Request, item: int | None, stages: Stages) -> Subject:
    """The photograph in the body, or else the item's.

    Raises BadValue unless it is one, NotFound and Gone where the item or its file is not there, and what decoding raises.
    """
    engine = engine_of(request)
    engine.check_room()
    parsed = await one_input(request, item)
    if parsed.item is not None:
        return await of(engine, await engine.current.followed(), parsed, stages)
    return await of_input(engine, engine.model, parsed, stages)


async def one_input(request: Request, item: int | None) -> ParsedInput:
    """The photograph in the body, or else the item that is named. Raises BadValue unless it is one."""
    parsed = await inputs.read(request)
    if bool(parsed) == (item is not None):
        given = "both an image and an id" if parsed else "neither an image nor an id"
        raise BadValue("image", given, "uploaded or, instead, an id given")
    if item is not None:
        return ParsedInput(str(item), item=item)
    if len(parsed) > 1:
        raise BadValue("image", f"{len(parsed)} inputs", "one photograph")
    parsed[0].check()
    if parsed[0].data is None and parsed[0].item is None:
        raise BadValue("image", parsed[0].name, "a photograph or an id; vectors and several examples are for /neighbors")
    return parsed[0]


async def of(engine: Engine, pair: Pair, input: ParsedInput, stages: Stages) -> Subject:
    """A photograph that was sent, or an item's."""
    if input.item is None:
        return await of_input(engine, pair.model, input, stages)
    return await of_item(engine, pair.model, pair.store, input.item, stages)


async def of_input(engine: Engine, model: Model, input: ParsedInput, stages: Stages) -> Subject:
    """A photograph that was sent."""
    upload = await engine.decode(input.data or b"", stages)
    return Subject(input.name, upload.photograph.pixels_CHW, model)


async def of_item(engine: Engine, model: Model, store: OpenStore, item: int, stages: Stages) -> Subject:
    """An item's photograph, read again from its own file."""
    upload = await engine.decode_original(lambda: _original(store, item), stages)
    return Subject(str(item), upload.photograph.pixels_CHW, model, item, store.version_number)


def _original(store: OpenStore, item: int) -> bytes:
    [entry] = store.items([item])
    original = store.original(entry)
    return original if isinstance(original, bytes) else _bytes_of(original, entry)


def _bytes_of(file: Path, item: Item) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise missing(item) from error
