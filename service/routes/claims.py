"""The paper's claims, measured again: what `python -m training.claims` left."""

from typing import Final

from fastapi import APIRouter, Request
from pydantic import ValidationError

from service.routes.common import DescribedRoute, problems, settings_of
from training.claims.record import REPORT, Report
from training.errors import Mismatch, NotFound

LARGEST: Final = 4 * 2**20  # bytes of a report that is read; a hundred seeds of every claim take less
router = APIRouter(route_class=DescribedRoute)


@router.get("/reports/claims", responses=problems(404, 422, 503), tags=["about"])
def claims(request: Request) -> Report:
    """Every claim with its arms, its differences over seeds, and figure 1's curves; of networks of its own, not the index's."""
    folder = settings_of(request).claims
    try:
        with (folder / REPORT).open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise NotFound(
            f"no claims have been measured in claims={str(folder)!r}; `python -m training.claims --quick --out {folder}` does"
        ) from error
    if len(data) > LARGEST:
        raise Mismatch(f"{folder / REPORT} has more than {LARGEST} bytes")
    try:
        return Report.model_validate_json(data)
    except ValidationError as error:
        raise Mismatch(f"{folder / REPORT} is not a report of claims of this version; measure them again") from error
