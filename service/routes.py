"""Classification, the first layer, and what the service says about itself; the work is the engine's."""

import io
import time
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, Query, Request, Response

from service import __version__, inputs, schemas
from service.access import needs_key
from service.common import REVALIDATE, as_json, engine_of, metrics_of, pictures, problems, settings_of
from service.engine import Best, Engine
from service.inputs import Sent
from service.metrics import CONTENT_TYPE
from service.stages import Stages
from training.analysis import kernels
from training.checkpoint import Model
from training.errors import BadValue, NotReady

_CORNERS: Final = ("top left", "top right", "bottom left", "bottom right", "centre")  # in the order of preprocess.ten_views
router = APIRouter()


@router.post(
    "/classify",
    response_model=schemas.ClassifyAnswer,
    responses=problems(413, 415, 422, 503),
    openapi_extra=inputs.described(photographs_only=True),
    tags=["search"],
)
async def classify(
    request: Request,
    views: Annotated[Literal["1", "10"], Query(description="1: the centre; 10: corners, centre and mirrors, averaged")] = "1",
    top: Annotated[int, Query(ge=1, le=1000, description="classes to name, most probable first")] = 5,
    per_view: Annotated[bool, Query(description="with views=10: the classes of each view too")] = False,
    timings: Annotated[bool, Query(description="say how long each stage took")] = False,
) -> Response:
    """Classifies photographs. One that cannot be decoded is an error of its own beside the answers for the others."""
    engine, stages, number = engine_of(request), Stages(metrics_of(request)), int(views)
    model = engine.model
    if per_view and number == 1:
        raise BadValue("per_view", per_view, "given with views=10, and with it alone")

    async def of_one(sent: Sent) -> schemas.ClassifiedImage:
        if sent.data is None:
            raise BadValue("image", sent.name, "a photograph; ids and vectors are for /neighbors")
        upload = await engine.decode(sent.data, stages)
        mean, *of_views = await engine.classify(model, upload.photograph, number, top, stages)
        each_view = [
            schemas.ViewClasses(corner=_CORNERS[v // 2], mirrored=v % 2 == 1, classes=_named(model, best))
            for v, best in enumerate(of_views if per_view else [])
        ]
        return schemas.ClassifiedImage(name=sent.name, classes=_named(model, mean), views=each_view or None)

    sent = await inputs.read(request)
    if not sent:
        raise inputs.no_image()
    answers = await inputs.each(request, sent, of_one)
    began = time.perf_counter()
    results = inputs.results(schemas.ClassifiedImage, sent, answers)
    shown = schemas.Timings.model_validate(stages.ms()) if timings else None
    answer = schemas.ClassifyAnswer(model=model.fingerprint, views=10 if number == 10 else 1, results=results, timings_ms=shown)
    response = as_json(answer)
    stages.record("answer", time.perf_counter() - began)
    return response


def _named(model: Model, best: Best) -> list[schemas.ClassProbability]:
    return [schemas.ClassProbability(label=model.classes[number], probability=chance) for number, chance in best]


@router.get("/filters", responses=problems(503), tags=["first layer"])
def filters_in_figures(request: Request) -> schemas.FiltersAnswer:
    """The first layer's kernels in figures: how much of each is colour."""
    model = engine_of(request).model
    weight, count = model.net.conv1.weight, model.net.config.columns
    found = kernels.figures(weight, count)
    columns = [[kernel.colour for kernel in found if kernel.column == column] for column in range(count)]
    return schemas.FiltersAnswer(
        model=model.fingerprint,
        shape=list(weight.shape),
        mean_colour_by_column=[sum(colours) / len(colours) for colours in columns],
        kernels=[schemas.KernelAnswer(index=k.index, column=k.column, colour=k.colour, norm=k.norm) for k in found],
    )


@router.get("/filters.png", response_class=Response, responses=problems(503) | pictures("image/png"), tags=["first layer"])
def filters_as_picture(request: Request) -> Response:
    """Figure 3 of the paper for this model: 96 kernels, those of the first GPU above, those of the second below."""
    buffer = io.BytesIO()
    net = engine_of(request).model.net
    kernels.picture(net.conv1.weight, net.config.columns).save(buffer, "PNG")
    return Response(buffer.getvalue(), media_type="image/png", headers=REVALIDATE)


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
    pair, changed = await engine_of(request).collection.reload()
    return schemas.ReloadAnswer(model=pair.model.fingerprint, index_version=pair.store.version, changed=changed)


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
        training=model.training,
        metrics=model.metrics,
    )


def _index_info(engine: Engine) -> schemas.IndexInfo | None:
    try:
        store = engine.pair.store
        mode, reason = engine.mode(store)
    except NotReady:
        return None
    manifest = store.manifest
    return schemas.IndexInfo(
        version=store.version,
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
