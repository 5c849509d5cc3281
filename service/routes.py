"""The endpoints: HTTP in, HTTP out; the work is the engine's."""

import asyncio
import io
from typing import Annotated, Any, Literal

from fastapi import APIRouter, File, Path, Query, Request, Response, UploadFile
from fastapi.responses import FileResponse

from indexer.catalog import Item
from service import __version__, schemas
from service.engine import Engine, Neighbours
from service.errors import problem
from service.settings import ServiceSettings
from training import filters
from training.errors import BadValue, FC7Error, NotFound, NotReady
from training.preprocess import Photograph

LARGEST_ID = 2**63 - 1
MEDIA_TYPES = {name: f"image/{name.lower()}" for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")}
REVALIDATE = {"Cache-Control": "no-cache"}


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": schemas.Problem} for status in statuses}


def _pictures(*types: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {name: {"schema": {"type": "string", "format": "binary"}} for name in types}}}


router = APIRouter()
ItemId = Annotated[int, Path(alias="id", ge=0, le=LARGEST_ID, description="an indexed photograph", examples=[17])]
Images = Annotated[list[UploadFile], File(description="one photograph or several: JPEG, PNG, WebP, GIF, BMP or TIFF")]


@router.post("/classify", responses=_problems(413, 415, 422, 503), tags=["search"])
async def classify(
    request: Request,
    image: Images,
    views: Annotated[Literal["1", "10"], Query(description="1: the centre; 10: corners, centre and mirrors, averaged")] = "1",
    top: Annotated[int, Query(ge=1, le=1000, description="classes to name, most probable first")] = 5,
) -> schemas.ClassifyAnswer:
    """Classifies photographs. One that cannot be decoded is an error of its own beside the answers for the others."""
    engine = _engine(request)
    model = engine.model
    decoded = await _decode(request, image)
    good = [item for item in decoded if isinstance(item, Photograph)]
    answers = iter(await engine.classify(good, int(views), top) if good else [])
    results = []
    for upload, item in zip(image, decoded, strict=True):
        if isinstance(item, FC7Error):
            results.append(schemas.ClassifiedImage(name=_name(upload), error=problem(item)))
        else:
            classes = [schemas.ClassProbability(label=label, probability=p) for label, p in next(answers)]
            results.append(schemas.ClassifiedImage(name=_name(upload), classes=classes))
    return schemas.ClassifyAnswer(model=model.fingerprint, views=10 if views == "10" else 1, results=results)


@router.post("/neighbors", responses=_problems(404, 413, 415, 422, 503), tags=["search"])
async def neighbors(
    request: Request,
    image: Annotated[list[UploadFile] | None, File(description="one photograph or several; or give an id")] = None,
    id: Annotated[int | None, Query(ge=0, le=LARGEST_ID, description="an indexed photograph to start from")] = None,
    k: Annotated[int, Query(ge=1, description="neighbours to return", examples=[5])] = 10,
) -> schemas.NeighborsAnswer:
    """Finds the indexed photographs nearest to uploaded ones, or to an indexed one, by Euclidean distance of FC7 features."""
    engine = _engine(request)
    index, model = engine.index, engine.model
    most = _settings(request).max_neighbors
    if k > most:
        raise BadValue("k", k, f"at most {most}")
    if (image is None) == (id is None):
        got = "neither an image nor an id" if image is None else "both an image and an id"
        raise BadValue("image", got, "uploaded or, instead, an id given")
    if id is not None:
        found = await engine.neighbours_of_item(index.catalog.item(id), k)
        results = [schemas.NeighborsOfOne(name=str(id), neighbors=_neighbors(found))]
    else:
        results = await _neighbors_of_uploads(request, image or [], k)
    return schemas.NeighborsAnswer(model=model.fingerprint, index_version=index.version, results=results)


@router.get("/items/{id}", responses=_problems(404, 422, 503), tags=["items"])
def item(request: Request, item_id: ItemId) -> schemas.ItemAnswer:
    """One indexed photograph: what the catalogue knows of it."""
    found = _engine(request).index.catalog.item(item_id)
    return schemas.ItemAnswer(
        id=found.id,
        path=found.path,
        label=found.label,
        width=found.width,
        height=found.height,
        size=found.size,
        format=found.format,
        sha256=found.sha256,
        **_links(found),
    )


@router.get(
    "/items/{id}/image",
    response_class=FileResponse,
    responses=_problems(404, 422, 503) | _pictures(*MEDIA_TYPES.values()),
    tags=["items"],
)
def item_image(request: Request, item_id: ItemId) -> Response:
    """The photograph's own file."""
    index = _engine(request).index
    found = index.catalog.item(item_id)
    original = index.original(found)
    if original is None:
        raise NotFound(
            f"{found.path}, the file of item {item_id}, is gone or leads out of the collection; its thumbnail is still there"
        )
    media_type = MEDIA_TYPES[found.format]
    if isinstance(original, bytes):
        return Response(original, media_type=media_type, headers=REVALIDATE)
    return FileResponse(original, media_type=media_type, headers=REVALIDATE)


@router.get(
    "/items/{id}/thumbnail",
    response_class=Response,
    responses=_problems(404, 422, 503) | _pictures("image/jpeg"),
    tags=["items"],
)
def item_thumbnail(request: Request, item_id: ItemId) -> Response:
    """The square of the photograph that the network sees, as a JPEG of 160 x 160 pixels."""
    index = _engine(request).index
    found = index.catalog.item(item_id)
    headers = {**REVALIDATE, "ETag": f'"{found.sha256}"'}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(index.thumbnail(found), media_type="image/jpeg", headers=headers)


@router.get("/filters", responses=_problems(503), tags=["first layer"])
def filters_in_figures(request: Request) -> schemas.FiltersAnswer:
    """The first layer's kernels in figures: how much of each is colour."""
    model = _engine(request).model
    weight, count = model.net.conv1.weight, model.net.config.columns
    kernels = filters.kernels(weight, count)
    columns = [[kernel.colour for kernel in kernels if kernel.column == column] for column in range(count)]
    return schemas.FiltersAnswer(
        model=model.fingerprint,
        shape=list(weight.shape),
        mean_colour_by_column=[sum(colours) / len(colours) for colours in columns],
        kernels=[schemas.KernelAnswer(index=k.index, column=k.column, colour=k.colour, norm=k.norm) for k in kernels],
    )


@router.get("/filters.png", response_class=Response, responses=_problems(503) | _pictures("image/png"), tags=["first layer"])
def filters_as_picture(request: Request) -> Response:
    """Figure 3 of the paper for this model: 96 kernels, those of the first GPU above, those of the second below."""
    buffer = io.BytesIO()
    net = _engine(request).model.net
    filters.picture(net.conv1.weight, net.config.columns).save(buffer, "PNG")
    return Response(buffer.getvalue(), media_type="image/png", headers=REVALIDATE)


@router.get("/healthz", tags=["service"])
async def healthz() -> schemas.Health:
    """Whether the process answers at all."""
    return schemas.Health(status="ok")


@router.get("/readyz", responses=_problems(503), tags=["service"])
async def readyz(request: Request) -> schemas.Health:
    """Whether a model and an index that belong together are loaded; else 503 with what is missing."""
    engine = _engine(request)
    _ = engine.model, engine.index
    return schemas.Health(status="ready")


@router.get("/info", tags=["service"])
def info(request: Request) -> schemas.InfoAnswer:
    """What is loaded, and with which settings."""
    engine = _engine(request)
    return schemas.InfoAnswer(
        version=__version__,
        model=_model_info(engine),
        index=_index_info(engine),
        settings=_settings(request).model_dump(mode="json"),
    )


async def _neighbors_of_uploads(request: Request, uploads: list[UploadFile], k: int) -> list[schemas.NeighborsOfOne]:
    decoded = await _decode(request, uploads)
    good = [item for item in decoded if isinstance(item, Photograph)]
    answers = iter(await _engine(request).neighbours(good, k) if good else [])
    return [
        schemas.NeighborsOfOne(name=_name(upload), error=problem(item))
        if isinstance(item, FC7Error)
        else schemas.NeighborsOfOne(name=_name(upload), neighbors=_neighbors(next(answers)))
        for upload, item in zip(uploads, decoded, strict=True)
    ]


async def _decode(request: Request, uploads: list[UploadFile]) -> list[Photograph | FC7Error]:
    """Every upload decoded, or the error that it gave; the error of a single upload is the request's own."""
    settings, engine = _settings(request), _engine(request)
    if len(uploads) > settings.max_images:
        raise BadValue("image", f"{len(uploads)} files", f"at most {settings.max_images} files a request")

    async def decoded(upload: UploadFile) -> Photograph | FC7Error:
        try:
            settings.limits().check_bytes(upload.size or 0)
            return await engine.decode(await upload.read())
        except FC7Error as error:
            if len(uploads) == 1:
                raise
            return error

    return await asyncio.gather(*map(decoded, uploads))


def _neighbors(found: Neighbours) -> list[schemas.Neighbor]:
    return [
        schemas.Neighbor(id=item.id, distance=distance, label=item.label, path=item.path, **_links(item))
        for item, distance in found
    ]


def _links(item: Item) -> dict[str, str]:
    return {"image": f"/items/{item.id}/image", "thumbnail": f"/items/{item.id}/thumbnail"}


def _name(upload: UploadFile) -> str:
    return upload.filename or "image"


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
        index = engine.index
    except NotReady:
        return None
    manifest = index.manifest
    return schemas.IndexInfo(
        version=index.version,
        created=manifest.created,
        items=manifest.kept,
        rejected=manifest.rejected,
        width=manifest.width,
        bytes=sum(record.bytes for record in manifest.files.values()),
    )


def _engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


def _settings(request: Request) -> ServiceSettings:
    settings: ServiceSettings = request.app.state.settings
    return settings
