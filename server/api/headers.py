"""Security headers: a browser must treat an answer as plain data, and not store, frame or sniff it."""

from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Both pages consist of files of this server and load nothing from elsewhere. FastAPI's starts Swagger UI by an inline script.
DOCS = "; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'"
PAGE = "; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'"


def _headers(policy: str) -> list[tuple[bytes, bytes]]:
    return [
        (b"x-content-type-options", b"nosniff"),
        (b"cache-control", b"no-store"),
        (b"content-security-policy", f"default-src 'none'; frame-ancestors 'none'{policy}".encode()),
    ]


SECURITY = _headers("")


class SecurityHeaders:
    """Adds the headers to every answer of an app. `policies`: path -> what the page there may do in addition."""

    def __init__(self, app: ASGIApp, policies: Mapping[str, str]) -> None:
        self.app = app
        self._headers = {path: _headers(policy) for path, policy in policies.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                security = self._headers.get(scope["path"], SECURITY)
                message = {**message, "headers": [*message.get("headers", []), *security]}
            await send(message)

        await self.app(scope, receive, secured)


class HeadAsGet:
    """Answers HEAD as GET; uvicorn sends no body."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return
        asked = {**scope, "method": "GET"}
        await self.app(asked, receive, send)
        scope["route"] = asked.get("route")  # for the log and the metrics
