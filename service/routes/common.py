"""What the endpoints share: the engine, the settings and the metrics of a request; problems, pictures and answers described."""

from typing import Annotated, Any

from fastapi import Path, Request, Response
from pydantic import BaseModel

from indexer.store import Item
from service import schemas
from service.engine import Engine
from service.metrics import Metrics
from service.settings import ServiceSettings

LARGEST_ID = 2**63 - 1
REVALIDATE = {"Cache-Control": "no-cache"}
ItemId = Annotated[int, Path(alias="id", ge=0, le=LARGEST_ID, description="an indexed photograph", examples=[17])]


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


def metrics_of(request: Request) -> Metrics:
    """The metrics of the service."""
    metrics: Metrics = request.app.state.metrics
    return metrics


def settings_of(request: Request) -> ServiceSettings:
    """The settings that the service was started with."""
    settings: ServiceSettings = request.app.state.settings
    return settings


def as_json(answer: BaseModel) -> Response:
    """An answer that is known to be as it is described, and so is not checked again."""
    return Response(answer.model_dump_json(by_alias=True), media_type="application/json")


def links(item: Item) -> dict[str, str]:
    """Where an item's pictures are served."""
    return {"image": f"/items/{item.id}/image", "thumbnail": f"/items/{item.id}/thumbnail"}
