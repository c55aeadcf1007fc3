"""Who may call: dependencies of the routes, for a server with API keys."""

import math
import time
from typing import Annotated

from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from gram.server import logs
from gram.server.api.problems import ProblemError
from gram.server.api.service import Service

_bearer = HTTPBearer(auto_error=False, description="a key that `gram key` made, with its hash in the server's --keys-file")


async def authenticate(request: Request, bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]) -> None:
    """Let in who has a key and has not used it too often."""
    service: Service = request.app.state.service
    keys = service.keys
    assert keys, "only a server with keys asks for them"
    known = keys.identify(bearer.credentials) if bearer else None
    if known is None:
        detail = "the key is not known here, or no longer" if bearer else "send a key: Authorization: Bearer KEY"
        raise ProblemError(401, detail, headers={"www-authenticate": 'Bearer error="invalid_token"' if bearer else "Bearer"})
    label, key = known
    service.metrics.key_requests.labels(label).inc()
    logs.current().key = label
    if key.requests_per_second and (delay := keys.delay(label, key.requests_per_second, time.monotonic())):
        retry = str(math.ceil(delay))
        detail = f"the key {label} has made its requests for now; try again in {retry} s"
        raise ProblemError(429, detail, cause="rate_limited", headers={"retry-after": retry})
    request.state.key = key


async def require_admin(request: Request) -> None:
    """Let in who has an admin's key. A server without keys has no admin."""
    service: Service = request.app.state.service
    if service.keys is None or not request.state.key.admin:
        raise ProblemError(403, "needs a key with admin = true in the server's --keys-file")
