"""The paper's claims, measured again: what `python -m training.claims` left, or the results that are shipped."""

from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request
from pydantic import Field, ValidationError

from service.routes.common import DescribedRoute, problems, settings_of
from training.claims.record import REPORT, SHIPPED, Report
from training.errors import Mismatch

LARGEST: Final = 4 * 2**20  # bytes of a report that is read; a hundred seeds of every claim take less
router = APIRouter(route_class=DescribedRoute)


class ClaimsAnswer(Report):
    """A report, and whose it is."""

    shipped: bool = Field(description="measured elsewhere, on the machine and at the commit that it names, and shipped")


@router.get("/reports/claims", responses=problems(422, 503), tags=["about"])
def claims(request: Request) -> ClaimsAnswer:
    """Every claim with its arms, its differences over seeds, and figure 1's curves; of networks of its own, not the index's."""
    own = settings_of(request).claims
    found = None if own is None else _read(own)
    if found is not None:
        return ClaimsAnswer(**dict(found), shipped=False)
    found = _read(SHIPPED)
    if found is None:
        raise Mismatch(f"{SHIPPED / REPORT} is not there; install the package again")
    return ClaimsAnswer(**dict(found), shipped=True)


def _read(folder: Path) -> Report | None:
    """A folder's report; None where it has none."""
    path = folder / REPORT
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Mismatch(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > LARGEST:
        raise Mismatch(f"{path} has more than {LARGEST} bytes")
    try:
        return Report.model_validate_json(data)
    except ValidationError as error:
        raise Mismatch(f"{path} is not a report of claims of this version; measure them again") from error
