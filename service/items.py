"""The items of the index, one by one: shown to everyone, added and removed by those who have the key."""

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.responses import FileResponse

from service import schemas
from service.access import with_key
from service.common import REVALIDATE, Images, ItemId, decode, engine_of, links, name_of, pictures, problems
from service.engine import Upload
from service.errors import problem
from training.errors import BadValue, FC7Error, NotFound

MEDIA_TYPES = {name: f"image/{name.lower()}" for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")}
LONGEST_LABEL = 200
router = APIRouter()
Label = Annotated[str, Form(max_length=LONGEST_LABEL, description="what all of them are labelled with")]


@router.get("/items/{id}", responses=problems(404, 422, 503), tags=["items"])
def item(request: Request, item_id: ItemId) -> schemas.ItemAnswer:
    """One indexed photograph: what the catalogue knows of it."""
    [found] = engine_of(request).store.items([item_id])
    return schemas.ItemAnswer(
        id=found.id,
        path=found.path,
        label=found.label,
        width=found.width,
        height=found.height,
        size=found.size,
        format=found.format,
        sha256=found.sha256,
        **links(found),
    )


@router.get(
    "/items/{id}/image",
    response_class=FileResponse,
    responses=problems(404, 422, 503) | pictures(*MEDIA_TYPES.values()),
    tags=["items"],
)
def item_image(request: Request, item_id: ItemId) -> Response:
    """The photograph's own file."""
    store = engine_of(request).store
    [found] = store.items([item_id])
    original = store.original(found)
    if original is None:
        raise NotFound(
            f"{found.path}, the file of item {item_id}, is gone or leads out of its folder; its thumbnail is still there"
        )
    media_type = MEDIA_TYPES[found.format]
    if isinstance(original, bytes):
        return Response(original, media_type=media_type, headers=REVALIDATE)
    return FileResponse(original, media_type=media_type, headers=REVALIDATE)


@router.get(
    "/items/{id}/thumbnail",
    response_class=Response,
    responses=problems(404, 422, 503) | pictures("image/jpeg"),
    tags=["items"],
)
def item_thumbnail(request: Request, item_id: ItemId) -> Response:
    """The square of the photograph that the network sees, as a JPEG of 160 x 160 pixels."""
    store = engine_of(request).store
    [found] = store.items([item_id])
    headers = {**REVALIDATE, "ETag": f'"{found.sha256}"'}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(store.thumbnail(found), media_type="image/jpeg", headers=headers)


@router.post("/items", dependencies=[Depends(with_key)], responses=problems(401, 403, 413, 415, 422, 503), tags=["items"])
async def add_items(request: Request, image: Images, label: Label = "") -> schemas.AddAnswer:
    """Adds photographs to the index; searches find them when this has answered. Only with the key.

    A file that is there already keeps its id and label. One that cannot be decoded is an error of its own beside the others.
    """
    engine = engine_of(request)
    _ = engine.model, engine.store
    if not label.isprintable():
        raise BadValue("label", label, "one line of printable text")
    sent = await decode(request, image)
    good = [item for item in sent if isinstance(item, Upload)]
    version, added = await engine.add(good, label)
    found = iter(added)
    results = []
    for upload, item in zip(image, sent, strict=True):
        if isinstance(item, FC7Error):
            results.append(schemas.AddedImage(name=name_of(upload), error=problem(item)))
        else:
            item_id, known = next(found)
            results.append(schemas.AddedImage(name=name_of(upload), id=item_id, known=known))
    return schemas.AddAnswer(index_version=version, results=results)


@router.delete(
    "/items/{id}",
    status_code=204,
    dependencies=[Depends(with_key)],
    responses=problems(401, 403, 404, 422, 503),
    tags=["items"],
)
async def remove_item(request: Request, item_id: ItemId) -> None:
    """Removes an item from the index, for good: no search finds it when this has answered. Only with the key.

    Its file is deleted where it was uploaded here, and else left alone.
    """
    await engine_of(request).remove(item_id)
