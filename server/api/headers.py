"""Headers by which a browser trusts an answer with nothing: it is data, and not to be kept, framed or guessed at."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SWAGGER = "https://cdn.jsdelivr.net"


def _headers(policy: str) -> list[tuple[bytes, bytes]]:
    return [
        (b"x-content-type-options", b"nosniff"),
        (b"cache-control", b"no-store"),
        (b"content-security-policy", f"default-src 'none'; frame-ancestors 'none'{policy}".encode()),
    ]


SECURITY = _headers("")
# FastAPI's page loads Swagger UI, and starts it by a script within the page.
_DOCS = _headers(
    f"; script-src 'unsafe-inline' {_SWAGGER}; style-src 'unsafe-inline' {_SWAGGER}"
    "; img-src data: https://fastapi.tiangolo.com; connect-src 'self'"
)


class SecurityHeaders:
    """Adds them to every answer of an app; the page at `docs` may run its scripts."""

    def __init__(self, app: ASGIApp, docs: str) -> None:
        self.app = app
        self.docs = docs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                security = _DOCS if scope["path"] == self.docs else SECURITY
                message = {**message, "headers": [*message.get("headers", []), *security]}
            await send(message)

        await self.app(scope, receive, secured)
