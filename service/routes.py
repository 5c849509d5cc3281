"""Classification, the first layer, and what the service says about itself; the work is the engine's."""

import io
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from service import __version__, schemas
from service.common import REVALIDATE, Images, decode, engine_of, name_of, pictures, problems, settings_of
from service.engine import Engine, Upload
from service.errors import problem
from training import filters
from training.errors import FC7Error, NotReady

router = APIRouter()


@router.post("/classify", responses=problems(413, 415, 422, 503), tags=["search"])
async def classify(
    request: Request,
    image: Images,
    views: Annotated[Literal["1", "10"], Query(description="1: the centre; 10: corners, centre and mirrors, averaged")] = "1",
    top: Annotated[int, Query(ge=1, le=1000, description="classes to name, most probable first")] = 5,
) -> schemas.ClassifyAnswer:
    """Classifies photographs. One that cannot be decoded is an error of its own beside the answers for the others."""
    engine = engine_of(request)
    model = engine.model
    decoded = await decode(request, image)
    good = [item.photograph for item in decoded if isinstance(item, Upload)]
    answers = iter(await engine.classify(good, int(views), top) if good else [])
    results = []
    for upload, item in zip(image, decoded, strict=True):
        if isinstance(item, FC7Error):
            results.append(schemas.ClassifiedImage(name=name_of(upload), error=problem(item)))
        else:
            classes = [schemas.ClassProbability(label=label, probability=p) for label, p in next(answers)]
            results.append(schemas.ClassifiedImage(name=name_of(upload), classes=classes))
    return schemas.ClassifyAnswer(model=model.fingerprint, views=10 if views == "10" else 1, results=results)


@router.get("/filters", responses=problems(503), tags=["first layer"])
def filters_in_figures(request: Request) -> schemas.FiltersAnswer:
    """The first layer's kernels in figures: how much of each is colour."""
    model = engine_of(request).model
    weight, count = model.net.conv1.weight, model.net.config.columns
    kernels = filters.kernels(weight, count)
    columns = [[kernel.colour for kernel in kernels if kernel.column == column] for column in range(count)]
    return schemas.FiltersAnswer(
        model=model.fingerprint,
        shape=list(weight.shape),
        mean_colour_by_column=[sum(colours) / len(colours) for colours in columns],
        kernels=[schemas.KernelAnswer(index=k.index, column=k.column, colour=k.colour, norm=k.norm) for k in kernels],
    )


@router.get("/filters.png", response_class=Response, responses=problems(503) | pictures("image/png"), tags=["first layer"])
def filters_as_picture(request: Request) -> Response:
    """Figure 3 of the paper for this model: 96 kernels, those of the first GPU above, those of the second below."""
    buffer = io.BytesIO()
    net = engine_of(request).model.net
    filters.picture(net.conv1.weight, net.config.columns).save(buffer, "PNG")
    return Response(buffer.getvalue(), media_type="image/png", headers=REVALIDATE)


@router.get("/healthz", tags=["service"])
async def healthz() -> schemas.Health:
    """Whether the process answers at all."""
    return schemas.Health(status="ok")


@router.get("/readyz", responses=problems(503), tags=["service"])
async def readyz(request: Request) -> schemas.Health:
    """Whether a model and an index that belong together are loaded; else 503 with what is missing."""
    engine = engine_of(request)
    _ = engine.model, engine.mode(engine.store)
    return schemas.Health(status="ready")


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
        store = engine.store
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
