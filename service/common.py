"""What the endpoints share: the engine and the settings of a request, its uploads decoded, problems and pictures described."""

import asyncio
from typing import Annotated, Any

from fastapi import File, Path, Request, UploadFile

from indexer.catalog import Item
from service import schemas
from service.engine import Engine, Upload
from service.settings import ServiceSettings
from training.errors import BadValue, FC7Error

LARGEST_ID = 2**63 - 1
REVALIDATE = {"Cache-Control": "no-cache"}
ItemId = Annotated[int, Path(alias="id", ge=0, le=LARGEST_ID, description="an indexed photograph", examples=[17])]
Images = Annotated[list[UploadFile], File(description="one photograph or several: JPEG, PNG, WebP, GIF, BMP or TIFF")]


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The description of answers with these statuses."""
    return {status: {"model": schemas.Problem} for status in statuses}


def pictures(*types: str) -> dict[int | str, dict[str, Any]]:
    """The description of an answer that is a picture of one of these media types."""
    return {200: {"content": {name: {"schema": {"type": "string", "format": "binary"}} for name in types}}}


def engine_of(request: Request) -> Engine:
    """The engine that answers."""
    engine: Engine = request.app.state.engine
    return engine


def settings_of(request: Request) -> ServiceSettings:
    """The settings that the service was started with."""
    settings: ServiceSettings = request.app.state.settings
    return settings


async def decode(request: Request, uploads: list[UploadFile]) -> list[Upload | FC7Error]:
    """Every upload decoded, or the error that it gave; the error of a single upload is the request's own."""
    settings, engine = settings_of(request), engine_of(request)
    if len(uploads) > settings.max_images:
        raise BadValue("image", f"{len(uploads)} files", f"at most {settings.max_images} files a request")

    async def decoded(upload: UploadFile) -> Upload | FC7Error:
        try:
            settings.limits().check_bytes(upload.size or 0)
            return await engine.decode(await upload.read())
        except FC7Error as error:
            if len(uploads) == 1:
                raise
            return error

    return await asyncio.gather(*map(decoded, uploads))


def links(item: Item) -> dict[str, str]:
    """Where an item's pictures are served."""
    return {"image": f"/items/{item.id}/image", "thumbnail": f"/items/{item.id}/thumbnail"}


def name_of(upload: UploadFile) -> str:
    """The file name that was sent."""
    return upload.filename or "image"
