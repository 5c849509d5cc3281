"""What the OpenAPI description promises is kept for requests that were made up from it, right and wrong."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

from service.app import create_app
from service.settings import ServiceSettings
from tests.conftest import SEED
from training.analysis import kernels

KEY = "a key"
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
RIGHT, WRONG = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
OPERATIONS = [
    (path, method, mode)
    for path, methods in create_app(ServiceSettings()).openapi()["paths"].items()
    for method, operation in methods.items()
    for mode in (RIGHT, WRONG)
    if mode is RIGHT or operation.keys() & {"parameters", "requestBody"}  # where there is something to be wrong
]


@pytest.fixture(scope="module")
def description(model: Path, atlas_index: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    kernels.noise(3, 11, 11)  # which takes a second, and the rest of an answer on the first layer little
    growing = Path(shutil.copytree(atlas_index, tmp_path_factory.mktemp("described") / "index", symlinks=True))
    app = create_app(ServiceSettings(model=model, index=growing, api_key=KEY, max_images=4))
    with TestClient(app):
        yield schemathesis.openapi.from_asgi("/openapi.json", app)


@pytest.mark.parametrize(("path", "method", "mode"), OPERATIONS)
def test_every_answer_is_one_that_is_described(description: Any, path: str, method: str, mode: Any) -> None:
    @seed(SEED)
    @settings(
        max_examples=5,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(description[path][method].as_strategy(generation_mode=mode))
    def check(case: schemathesis.Case[Any]) -> None:
        case.call_and_validate(headers={"X-API-Key": KEY}, checks=CHECKS)

    check()
