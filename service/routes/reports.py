"""What was measured of the index: what its distances mean."""

import numpy as np
from fastapi import APIRouter, Request, Response

from indexer.storage import calibration
from service import schemas
from service.routes import files
from service.routes.common import DescribedRoute, engine_of, pictures, problems, settings_of

router = APIRouter(route_class=DescribedRoute)


@router.get("/reports/calibration", responses=problems(404, 422, 503), tags=["reports"])
def calibration_report(request: Request) -> schemas.CalibrationAnswer:
    """How probable the same class is at which distance, and how far these probabilities are from what was observed."""
    store = engine_of(request).current.newest().store
    record = calibration.read(store)
    ids = store.ids()
    distances = [
        schemas.DistanceAnswer(
            measure=one.measure,
            random=np.percentile(one.random, np.arange(101)).tolist(),
            steps=one.steps,
            chances=one.chances,
            measurements=[schemas.MeasurementAnswer.model_validate(found.model_dump()) for found in one.measurements],
        )
        for one in record.distances
    ]
    return schemas.CalibrationAnswer(
        model=store.fingerprint,
        index_version=store.version_number,
        measured_version=record.index_version,
        items=record.items,
        added=int((ids >= record.next_id).sum()),
        created=record.created,
        queries=list(record.queries),
        unknown=record.unknown,
        labels_seen=record.labels_seen,
        distances=distances,
        picture=f"{settings_of(request).root_path}/reports/calibration.png",
    )


@router.get(
    "/reports/calibration.png",
    response_class=Response,
    responses=problems(404, 422, 503) | pictures("image/png"),
    tags=["reports"],
)
def reliability_plot(request: Request) -> Response:
    """The share of the same class over the probability told, for the first 10, the first 50 and all items of each query."""
    return files.answer(request, calibration.picture(engine_of(request).current.newest().store), "image/png")
