"""Classification of photographs; the work is the engine's."""

import time
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from service import schemas
from service.engine import Best
from service.routes import inputs
from service.routes.common import DescribedRoute, as_json, engine_of, metrics_of, problems
from service.routes.inputs import ParsedInput
from service.stages import Stages
from training.checkpoint import Model
from training.errors import BadValue
from training.images.preprocess import TEN_VIEWS

router = APIRouter(route_class=DescribedRoute)


@router.post(
    "/classify",
    response_model=schemas.ClassifyAnswer,
    responses=problems(413, 415, 422, 503),
    openapi_extra=inputs.body_description(photographs_only=True),
    tags=["search"],
)
async def classify(
    request: Request,
    views: Annotated[Literal["1", "10"], Query(description="1: the centre; 10: corners, centre and mirrors, averaged")] = "1",
    top: Annotated[schemas.Whole, Query(ge=1, le=1000, description="classes to name, most probable first")] = 5,
    per_view: Annotated[bool, Query(description="with views=10: the classes of each view too")] = False,
    timings: Annotated[bool, Query(description="say how long each stage took")] = False,
) -> Response:
    """Classifies photographs. One that cannot be decoded is an error of its own beside the answers for the others."""
    engine, stages, number = engine_of(request), Stages(metrics_of(request)), int(views)
    model = engine.model
    if per_view and number == 1:
        raise BadValue("per_view", per_view, "given with views=10, and with it alone")

    async def of_one(input: ParsedInput) -> schemas.ClassifiedImage:
        if input.data is None:
            raise BadValue("image", input.name, "a photograph; ids, vectors and several examples are for /neighbors")
        upload = await engine.decode(input.data, stages)
        mean, *of_views = await engine.classify(model, upload.photograph, number, top, stages)
        each_view = [
            schemas.ViewClasses(corner=corner, mirrored=mirrored, classes=_classes(model, best))
            for (corner, mirrored), best in zip(TEN_VIEWS, of_views if per_view else [], strict=False)
        ]
        return schemas.ClassifiedImage(name=input.name, classes=_classes(model, mean), views=each_view or None)

    parsed = await inputs.read(request)
    if not parsed:
        raise inputs.no_image()
    engine.check_room(len(parsed))  # before there is a task for each
    answers = await inputs.each(request, parsed, of_one)
    began = time.perf_counter()
    results = inputs.results(request, schemas.ClassifiedImage, parsed, answers)
    timings_ms = schemas.Timings.model_validate(stages.ms()) if timings else None
    answer = schemas.ClassifyAnswer(
        model=model.fingerprint, views=10 if number == 10 else 1, results=results, timings_ms=timings_ms
    )
    response = as_json(answer)
    stages.record("answer", time.perf_counter() - began)
    return response


def _classes(model: Model, best: Best) -> list[schemas.ClassProbability]:
    return [schemas.ClassProbability(label=model.classes[number], probability=chance) for number, chance in best]
