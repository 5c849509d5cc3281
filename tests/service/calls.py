"""Calls of the service, and what is asked of every answer that is a problem."""

from typing import Any

from fastapi.testclient import TestClient
from httpx import Response

from tests.conftest import COLOURS, encoded, photograph

PHOTO = encoded(photograph(77, COLOURS["red"]))


def send(client: TestClient, path: str, *images: bytes) -> Response:
    """POSTs the images as 0.jpg, 1.jpg, ..."""
    response: Response = client.post(path, files=[("image", (f"{i}.jpg", data)) for i, data in enumerate(images)])
    return response


def assert_problem(response: Response, status: int, *words: str) -> dict[str, Any]:
    """The body of a problem with this status, whose detail holds the words."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["status"] == status
    for word in words:
        assert word in body["detail"]
    assert "Traceback" not in response.text
    return body
