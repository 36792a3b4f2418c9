"""Who may talk to a server on this machine: its own page and programs, and no page of another origin.

Whatever page is open in the user's browser may send requests to this machine; what a server here does for
them, it would do for any web site.
"""

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK = "127.0.0.1"


class OwnPageOnly:
    """Refuses what a page of another origin asks, by HTTP or WebSocket; programs, which name none, may ask.

    A browser adds `Origin`. Only `Host` gives away a page that has its own name point here (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        """
        Args:
            names: of this server, beside the address that a request arrives at; without a port.
        """
        self.app, self.names = app, {name.lower() for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self._is_own(Headers(scope=scope), scope["server"][0]):
            await self.app(scope, receive, send)
        else:
            refusal = "Refused: for this server's own page and for programs, under its own name only.\n"
            await PlainTextResponse(refusal, 403)(scope, receive, send)

    def _is_own(self, headers: Headers, address: str) -> bool:
        try:
            (host,) = headers.getlist("host")
            name = urlsplit(f"//{host}").hostname
            origins = {urlsplit(origin).netloc for origin in headers.getlist("origin")}
        except ValueError:  # none, two, or no such thing as a host
            return False
        return name in {*self.names, address} and origins <= {host}
