"""Who may change the index: those who send the key."""

import hmac
from http import HTTPStatus
from typing import Annotated

from fastapi import Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException

from service.common import settings_of

_KEY = "the value of FC7_API_KEY"
_Bearer = Annotated[HTTPAuthorizationCredentials | None, Security(HTTPBearer(auto_error=False, description=_KEY))]
_Header = Annotated[str | None, Security(APIKeyHeader(name="X-API-Key", auto_error=False, description=_KEY))]


def with_key(request: Request, bearer: _Bearer, header: _Header) -> None:
    """Passes a request that sent the key. Answers 403 where the service has none, 401 where it was not sent or is another."""
    key = settings_of(request).api_key
    if key is None:
        detail = "the index cannot be changed over HTTP: start the service with FC7_API_KEY set, and send that key"
        raise HTTPException(HTTPStatus.FORBIDDEN, detail)
    sent = bearer.credentials if bearer else header
    # header values arrive as latin-1, so this gives the very bytes that were sent
    if sent is None or not hmac.compare_digest(sent.encode("latin-1"), key.get_secret_value().encode()):
        what = "no key was sent" if sent is None else "the key that was sent is not the one that was set"
        detail = f"{what}; send FC7_API_KEY's value as `Authorization: Bearer ...` or `X-API-Key: ...`"
        raise HTTPException(HTTPStatus.UNAUTHORIZED, detail, {"WWW-Authenticate": "Bearer"})
