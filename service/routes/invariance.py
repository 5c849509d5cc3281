"""What FC7, its code and its neighbours ignore: of one photograph, and of the collection as it was last measured."""

import base64
import io
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import torch
from fastapi import APIRouter, Query, Request
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, Field
from torch import Tensor

from indexer import store as search
from indexer.opening import OpenStore
from indexer.search.others import other_items
from indexer.storage import artifact
from indexer.storage.version import load_autoencoder
from service import schemas
from service.pair import Pair
from service.routes import subjects
from service.routes.common import DescribedRoute, engine_of, metrics_of, problems
from service.routes.subjects import BODY, Subject, SubjectId
from service.stages import Stages
from training.analysis import invariance_report
from training.analysis.invariance import Features, Floats, K, Measure, Space
from training.analysis.invariance_report import InvarianceRecord
from training.analysis.perturbations import PERTURBATIONS, Variant, colour_step, variants
from training.checkpoint import Model
from training.errors import BadValue, NotFound
from training.images.statistics import Statistics

_BATCH: Final = 13  # views, between which other requests' go through the network
_SIDE: Final = 96  # pixels of a picture
router = APIRouter(route_class=DescribedRoute)


class ReportAnswer(BaseModel):
    """The answer of GET /reports/invariance."""

    model: str = Field(description="fingerprint of the model", examples=["5a0c0f..."])
    layer: schemas.IndexedLayer
    index_version: int = Field(description="that answers now; `report.index_version` is the one that was measured", examples=[1])
    report: InvarianceRecord = Field(description="what `python -m training.invariance --index` found")


@router.get("/reports/invariance", responses=problems(404, 422, 503), tags=["photograph"])
def report(request: Request) -> ReportAnswer:
    """How far features, codes and neighbours of the collection's photographs move when they are perturbed."""
    store = engine_of(request).current.newest().store
    return ReportAnswer(
        model=store.fingerprint, layer=store.manifest.layer, index_version=store.version_number, report=_record_of(store)
    )


@router.post("/invariance", responses=problems(404, 410, 413, 415, 422, 503), openapi_extra=BODY, tags=["photograph"])
async def measure(
    request: Request,
    item_id: SubjectId = None,
    pictures: Annotated[bool, Query(description="show each perturbed photograph, as a data: address")] = False,
) -> schemas.InvarianceAnswer:
    """How far FC7, its code and its ten neighbours move when one photograph is perturbed.

    Colour is shifted by one deviation along each principal direction of the photographs that the report of the collection is
    about; where there is none, of this photograph.
    """
    engine, stages = engine_of(request), Stages(metrics_of(request))
    engine.check_room()
    pair = await engine.current.followed()
    with engine.long():
        subject = await subjects.of(engine, pair, await subjects.one_input(request, item_id), stages)
        covariance_33, of_collection = await engine.read(lambda: _covariance(pair.store, subject.pixels_CHW))
        made = await engine.slowly("look", lambda: list(variants(subject.pixels_CHW, colour_step(covariance_33, np.ones(3)))))
        features_PD, _ = await engine.each_view(pair.model, _views(pair.model, subject.pixels_CHW, made), stages)
    if not features_PD[0].any():
        raise BadValue("image", "a feature of zeros", "a photograph whose feature is not zero in every component")
    mode = engine.mode(pair.store)[0]
    moves = await engine.slowly("look", lambda: _moves(pair, subject, features_PD, mode))
    shown = await engine.form(lambda: [_picture(one.pixels_CHW) for one in made]) if pictures else None
    return schemas.InvarianceAnswer(
        model=pair.model.fingerprint,
        layer=pair.model.layer,
        index_version=pair.store.version_number,
        name=subject.name,
        id=subject.item,
        colour_of="collection" if of_collection else "photograph",
        bits=pair.store.bits or None,
        neighbors=K if "overlap" in moves else None,
        curves=_curves(made, moves, shown),
    )


def _views(model: Model, pixels_CHW: Tensor, made: list[Variant]) -> Iterator[Tensor]:
    """The centre views of the photograph and of what was made of it, some at a time."""
    rows = [pixels_CHW, *(variant.pixels_CHW for variant in made)]
    for start in range(0, len(rows), _BATCH):
        yield torch.stack([model.view(row_CHW) for row_CHW in rows[start : start + _BATCH]])


def _moves(pair: Pair, subject: Subject, features_PD: Features, mode: search.Mode) -> dict[Measure, Floats]:
    """How far each is from the first, by every measure that the index has."""
    store = pair.store
    autoencoder = load_autoencoder(store.folder, store.manifest)
    query = search.Query(K, mode)

    def neighbors(queries_QD: Features, _number: int) -> NDArray[np.int64]:
        return other_items(store, queries_QD, query, subject.item)

    enough = len(store) > K + 1
    return Space(autoencoder.encode if autoencoder else None, neighbors if enough else None).moves(features_PD, 0)


def _curves(made: list[Variant], moves: dict[Measure, Floats], shown: list[str] | None) -> list[schemas.PerturbationCurve]:
    points: dict[str, list[schemas.PerturbedPoint]] = {}
    for i, variant in enumerate(made):
        points.setdefault(variant.kind, []).append(
            schemas.PerturbedPoint(
                level=variant.level,
                clipped=variant.clipped,
                picture=shown[i] if shown else None,
                l2=float(moves["l2"][i]),
                angle=float(moves["angle"][i]),
                bits=int(moves["bits"][i]) if "bits" in moves else None,
                overlap=float(moves["overlap"][i]) if "overlap" in moves else None,
            )
        )
    return [
        schemas.PerturbationCurve(kind=kind, unit=about.unit, identity=about.identity, points=points[kind])
        for kind, about in PERTURBATIONS.items()
    ]


def _picture(pixels_CHW: Tensor) -> str:
    with io.BytesIO() as file:
        square = Image.fromarray(pixels_CHW.permute(1, 2, 0).contiguous().numpy())
        square.resize((_SIDE, _SIDE), Image.Resampling.BOX).save(file, "JPEG", quality=80)
        return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _covariance(store: OpenStore, pixels_CHW: Tensor) -> tuple[NDArray[np.float64], bool]:
    """Of red, green and blue, over the photographs of the collection's report, or else over this one; whether the first."""
    try:
        return np.array(_record_of(store).covariance), True
    except NotFound:
        statistics = Statistics()
        statistics.add(pixels_CHW)
        return statistics.covariance_33, False


def _record_of(store: OpenStore) -> InvarianceRecord:
    """The report in a store's index folder. Raises NotFound where there is none, or it is of another model."""
    path = store.folder.parents[1] / artifact.INVARIANCE
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return invariance_report.read(path)  # which says why not
    record = _parsed(path, status.st_ino, status.st_mtime_ns, status.st_size)
    if record.fingerprint != store.fingerprint:
        raise NotFound(f"another model was measured; {invariance_report.REMEDY} measures this one")
    return record


@lru_cache(maxsize=2)
def _parsed(path: Path, *_state: int) -> InvarianceRecord:
    return invariance_report.read(path)
