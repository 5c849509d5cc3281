"""What the first layer has learned, in figures and as a picture."""

import io

from fastapi import APIRouter, Request, Response

from service import schemas
from service.routes import files
from service.routes.common import DescribedRoute, engine_of, problems
from service.routes.common import pictures as picture_answers
from training.analysis import kernels, pictures

router = APIRouter(route_class=DescribedRoute)


@router.get("/filters", responses=problems(422, 503), tags=["first layer"])
def filters_in_figures(request: Request) -> schemas.FiltersAnswer:
    """The first layer's kernels in figures: how much of each is colour."""
    model = engine_of(request).model
    weight, count = model.net.conv1.weight, model.net.config.columns
    figures = kernels.figures(weight, count)
    columns = [[kernel.chroma for kernel in figures if kernel.column == column] for column in range(count)]
    return schemas.FiltersAnswer(
        model=model.fingerprint,
        shape=list(weight.shape),
        mean_chroma_by_column=[sum(chromas) / len(chromas) for chromas in columns],
        kernels=[schemas.KernelAnswer(index=k.index, column=k.column, chroma=k.chroma, norm=k.norm) for k in figures],
    )


@router.get(
    "/filters.png", response_class=Response, responses=problems(422, 503) | picture_answers("image/png"), tags=["first layer"]
)
def filters_as_picture(request: Request) -> Response:
    """Figure 3 of the paper for this model: 96 kernels, those of the first GPU above, those of the second below."""
    buffer = io.BytesIO()
    net = engine_of(request).model.net
    pictures.figure3(net.conv1.weight, net.config.columns).save(buffer, "PNG")
    return files.answer(request, buffer.getvalue(), "image/png")
