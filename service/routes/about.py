"""What the service says about itself, and its going over to another pair."""

from collections import Counter
from typing import Any, Final

from fastapi import APIRouter, Depends, Request, Response

from indexer.search import ways
from indexer.storage import calibration, layout
from service import __version__, schemas
from service.engine import Engine
from service.metrics import CONTENT_TYPE
from service.middleware.access import needs_key
from service.routes.common import DescribedRoute, engine_of, metrics_of, problems, settings_of
from training.errors import NotReady

# what anybody may know: what a client can run into, and how the model was made
PUBLIC_SETTINGS: Final = {
    "max_request_bytes",
    "max_images",
    "max_image_bytes",
    "max_image_pixels",
    "max_neighbors",
    "deadline_ms",
    "search",
    "api_key_for_reads",
}
PUBLIC_RECORD: Final = ("preset", "epochs", "photographs", "sha256", "note")
router = APIRouter(route_class=DescribedRoute)


@router.get("/healthz", responses=problems(422), tags=["service"])
async def healthz() -> schemas.Health:
    """Whether the process answers at all."""
    return schemas.Health(status="ok")


@router.get("/readyz", responses=problems(422, 503), tags=["service"])
async def readyz(request: Request) -> schemas.Health:
    """Whether a model and an index that belong together are loaded, and the service is not stopping; else 503 with the reason."""
    request.app.state.gate.check()
    engine = engine_of(request)
    engine.mode(engine.pair.store)
    return schemas.Health(status="ready")


@router.get(
    "/metrics",
    response_class=Response,
    responses=problems(422) | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    tags=["service"],
)
def metrics(request: Request) -> Response:
    """Counts and times by stage, in Prometheus's text format."""
    return Response(metrics_of(request).text(), media_type=CONTENT_TYPE)


@router.post("/reload", dependencies=[Depends(needs_key)], responses=problems(401, 403, 409, 422, 503), tags=["service"])
async def reload(request: Request) -> schemas.ReloadAnswer:
    """Goes over to the model and the index that are on disk now, once they are verified. Only with the key.

    A pair that does not verify or does not belong together is refused with 409, and the one before it goes on answering.
    """
    pair, changed = await engine_of(request).current.reload()
    return schemas.ReloadAnswer(model=pair.model.fingerprint, index_version=pair.store.version_number, changed=changed)


@router.get("/info", responses=problems(422), tags=["service"])
def info(request: Request) -> schemas.InfoAnswer:
    """What is loaded, and what the service allows."""
    engine = engine_of(request)
    return schemas.InfoAnswer(
        version=__version__,
        model=_model_info(engine),
        index=_index_info(engine),
        settings=settings_of(request).model_dump(mode="json", include=PUBLIC_SETTINGS),
    )


def _model_info(engine: Engine) -> schemas.ModelInfo | None:
    try:
        model = engine.model
    except NotReady:
        return None
    return schemas.ModelInfo(
        fingerprint=model.fingerprint,
        profile=model.net.config.profile,
        classes=model.classes,
        parameters=sum(parameter.numel() for parameter in model.net.parameters()),
        training=_public(model.training.model_dump(mode="json")) if model.training else {},
        metrics=model.metrics.model_dump(mode="json", exclude_none=True),
    )


def _public(record: dict[str, Any]) -> dict[str, Any]:
    """Of what a model's description says of how it was made, what names no folder and no machine."""
    record |= record.get("settings", {})
    return {name: record[name] for name in PUBLIC_RECORD if name in record}


def _index_info(engine: Engine) -> schemas.IndexInfo | None:
    try:
        pair = engine.pair
        mode, reason = engine.mode(pair.store)
    except NotReady:
        return None
    store, manifest = pair.store, pair.store.manifest
    whole = ways.lacking("column-0", store, store.version, pair.model.net.config.columns)
    parts: Counter[str] = Counter()
    for path, record in manifest.files.items():
        parts[path.rpartition("/")[2]] += record.bytes
    return schemas.IndexInfo(
        version=store.version_number,
        created=manifest.created,
        items=len(store),
        rejected=manifest.rejected,
        layer=manifest.layer,
        metric=store.metric,
        width=store.width,
        bits=store.bits,
        bytes=sum(record.bytes for record in manifest.files.values()),
        parts=dict(parts),
        mode=mode,
        reason=reason,
        recall=manifest.recall,
        calibrated=calibration.is_there(store),
        mapped=layout.has_layout(store),
        columns=["both"] if whole else ["0", "1", "both"],
    )
