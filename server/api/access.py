"""Authentication: dependencies of the routes, for a server with API keys."""

import math
import time
from typing import Annotated

from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from gram.server import logs
from gram.server.api.problems import ProblemError
from gram.server.api.service import service_of

_bearer = HTTPBearer(auto_error=False, description="a key made by `gram key`, whose hash is in the server's --keys-file")


async def authenticate(request: Request, bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]) -> None:
    """Admit a request with a known key that is within its rate limit. Raises ProblemError."""
    service = service_of(request)
    keys = service.keys
    assert keys, "only a server with keys asks for them"
    known = keys.identify(bearer.credentials) if bearer else None
    if known is None:
        detail = (
            "this server does not know the key; it may have been revoked" if bearer else "send a key: Authorization: Bearer KEY"
        )
        raise ProblemError(401, detail, headers={"www-authenticate": 'Bearer error="invalid_token"' if bearer else "Bearer"})
    label, key = known
    service.metrics.key_requests.labels(label).inc()
    logs.current().key = label
    if key.requests_per_second and (delay := keys.delay(label, key.requests_per_second, time.monotonic())):
        retry = str(math.ceil(delay))
        detail = f"rate limit of key {label} exceeded; try again in {retry} s"
        raise ProblemError(429, detail, cause="rate_limited", headers={"retry-after": retry})
    request.state.key = key


async def require_admin(request: Request) -> None:
    """Admit a request with an admin's key. A server without keys has no admins. Raises ProblemError."""
    service = service_of(request)
    if service.keys is None or not request.state.key.admin:
        raise ProblemError(403, "this needs a key with admin = true in the server's --keys-file")
