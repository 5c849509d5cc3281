"""The items of the index, one by one: shown to everyone, added and removed by those who have the key."""

import unicodedata

from fastapi import APIRouter, Depends, Request, Response

from indexer.storage.originals import missing
from indexer.store import normalised
from service import schemas
from service.engine import Upload
from service.errors import problem
from service.middleware.access import needs_key
from service.routes import files, inputs
from service.routes.common import DescribedRoute, ItemId, engine_of, item_answer, metrics_of, pictures, problems
from service.routes.forms import Form
from service.routes.inputs import ParsedInput
from service.stages import Stages
from training.errors import BadValue, FC7Error
from training.images.preprocess import FORMATS

MEDIA_TYPES = {name: f"image/{name.lower()}" for name in FORMATS} | {
    "MPO": "image/jpeg",
    "JPEG2000": "image/jp2",
    "ICO": "image/x-icon",
}
LONGEST_LABEL = 200
_LABEL = {
    "type": "string",
    "maxLength": LONGEST_LABEL,
    "description": "what all of them are labelled with, in Unicode's form NFC",
}
router = APIRouter(route_class=DescribedRoute)


@router.get("/items/{id}", responses=problems(404, 422, 503), tags=["items"])
def item(request: Request, item_id: ItemId) -> schemas.ItemAnswer:
    """One indexed photograph: what the catalogue knows of it."""
    [entry] = engine_of(request).current.newest().store.items([item_id])
    return item_answer(request, entry)


@router.get(
    "/items/{id}/image",
    response_class=Response,
    responses=problems(404, 410, 422, 503) | pictures(*MEDIA_TYPES.values()),
    tags=["items"],
)
def item_image(request: Request, item_id: ItemId) -> Response:
    """The photograph's own file."""
    store = engine_of(request).current.newest().store
    [entry] = store.items([item_id])
    original = store.original(entry)
    try:
        return files.answer(request, original, MEDIA_TYPES[entry.format])
    except OSError as error:
        raise missing(entry) from error


@router.get(
    "/items/{id}/thumbnail",
    response_class=Response,
    responses=problems(404, 422, 503) | pictures("image/jpeg"),
    tags=["items"],
)
def item_thumbnail(request: Request, item_id: ItemId) -> Response:
    """The square of the photograph that the network sees, as a JPEG of 160 x 160 pixels."""
    store = engine_of(request).current.newest().store
    [entry] = store.items([item_id])
    return files.answer(request, store.thumbnail(entry), "image/jpeg")


@router.post(
    "/items",
    dependencies=[Depends(needs_key)],
    responses=problems(401, 403, 413, 415, 422, 503),
    openapi_extra={"requestBody": {"required": True, "content": inputs.form_description(label=_LABEL)}},
    tags=["items"],
)
async def add_items(request: Request) -> schemas.AddAnswer:
    """Adds photographs to the index; searches find them when this has answered. Only with the key.

    A file that is there already keeps its id and label. One that cannot be decoded is an error of its own beside the others.
    """
    engine, stages = engine_of(request), Stages(metrics_of(request))
    _ = engine.pair.store.version_number  # there is one; but not held, as what comes slowly is added to the newest
    form = await inputs.read_form(request)
    label = _label(form)
    if form.like or form.unlike:
        raise BadValue("image", f"a form with {len(form.like) + len(form.unlike)} examples", "the name of every file's field")
    if not form.images:
        raise inputs.no_image()
    parsed = [ParsedInput(name, data) for name, data in form.images]
    uploads = await inputs.each(request, parsed, lambda input: engine.decode(input.data or b"", stages))
    version, additions = await engine.add([upload for upload in uploads if isinstance(upload, Upload)], label)
    ids = iter(additions)
    results = []
    for input, upload in zip(parsed, uploads, strict=True):
        if isinstance(upload, FC7Error):
            results.append(schemas.AddedImage(name=input.name, error=problem(upload, request.app.state.folders)))
            continue
        addition = next(ids)
        if isinstance(addition, FC7Error):
            if len(parsed) == 1:
                raise addition
            results.append(schemas.AddedImage(name=input.name, error=problem(addition, request.app.state.folders)))
        else:
            item_id, known = addition
            results.append(schemas.AddedImage(name=input.name, id=item_id, known=known))
    return schemas.AddAnswer(index_version=version, results=results)


def _label(form: Form) -> str:
    for number, (field, data) in enumerate(form.others):
        if field != "label":
            raise BadValue(field, f"{len(data)} bytes", "left out; a form of photographs has the fields image and label")
        if number:
            raise BadValue("label", f"{len(form.others)} of them", "given once")
    if not form.others:
        return ""
    try:
        label = normalised(form.others[0][1].decode())
    except UnicodeDecodeError as error:
        raise BadValue("label", "bytes that are none", "text in UTF-8") from error
    if len(label) > LONGEST_LABEL or any(unicodedata.category(character) == "Cc" for character in label):
        wanted = f"one line of printable text, without control characters, of at most {LONGEST_LABEL} characters"
        raise BadValue("label", label, wanted)
    return label


@router.delete(
    "/items/{id}",
    status_code=204,
    dependencies=[Depends(needs_key)],
    responses=problems(401, 403, 404, 422, 503),
    tags=["items"],
)
async def remove_item(request: Request, item_id: ItemId) -> None:
    """Removes an item from the index, for good: no search finds it when this has answered. Only with the key.

    Its file is deleted where it was uploaded here, and else left alone.
    """
    await engine_of(request).remove(item_id)
