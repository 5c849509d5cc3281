"""What the service says about itself, and its going over to another pair."""

from fastapi import APIRouter, Depends, Request, Response

from service import __version__, schemas
from service.engine import Engine
from service.metrics import CONTENT_TYPE
from service.middleware.access import needs_key
from service.routes.common import engine_of, metrics_of, problems, settings_of
from training.errors import NotReady

router = APIRouter()


@router.get("/healthz", tags=["service"])
async def healthz() -> schemas.Health:
    """Whether the process answers at all."""
    return schemas.Health(status="ok")


@router.get("/readyz", responses=problems(503), tags=["service"])
async def readyz(request: Request) -> schemas.Health:
    """Whether a model and an index that belong together are loaded, and the service is not stopping; else 503 with the reason."""
    request.app.state.gate.check()
    engine = engine_of(request)
    engine.mode(engine.pair.store)
    return schemas.Health(status="ready")


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    tags=["service"],
)
def metrics(request: Request) -> Response:
    """Counts and times by stage, in Prometheus's text format."""
    return Response(metrics_of(request).text(), media_type=CONTENT_TYPE)


@router.post("/reload", dependencies=[Depends(needs_key)], responses=problems(401, 403, 409, 503), tags=["service"])
async def reload(request: Request) -> schemas.ReloadAnswer:
    """Goes over to the model and the index that are on disk now, once they are verified. Only with the key.

    A pair that does not verify or does not belong together is refused with 409, and the one before it goes on answering.
    """
    pair, changed = await engine_of(request).current.reload()
    return schemas.ReloadAnswer(model=pair.model.fingerprint, index_version=pair.store.version_number, changed=changed)


@router.get("/info", tags=["service"])
def info(request: Request) -> schemas.InfoAnswer:
    """What is loaded, and with which settings."""
    engine = engine_of(request)
    return schemas.InfoAnswer(
        version=__version__,
        model=_model_info(engine),
        index=_index_info(engine),
        settings=settings_of(request).model_dump(mode="json", exclude={"api_key"}),
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
        training=model.training.model_dump(mode="json") if model.training else {},
        metrics=model.metrics.model_dump(mode="json", exclude_none=True),
    )


def _index_info(engine: Engine) -> schemas.IndexInfo | None:
    try:
        store = engine.pair.store
        mode, reason = engine.mode(store)
    except NotReady:
        return None
    manifest = store.manifest
    return schemas.IndexInfo(
        version=store.version_number,
        created=manifest.created,
        items=len(store),
        rejected=manifest.rejected,
        width=store.width,
        bits=store.bits,
        bytes=sum(record.bytes for record in manifest.files.values()),
        mode=mode,
        reason=reason,
        recall=manifest.recall,
    )
