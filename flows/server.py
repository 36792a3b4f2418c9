"""Prefect's server, which lets no web page but its own talk to it; `make serve` and `make flow` start it.

    python -m flows.server --port 4200 [--host 127.0.0.1] [--reports FOLDER]

Whoever may use the server may run commands on this machine, and Prefect's own answers whatever any page that
is open in the operator's browser asks. On every address but loopback it wants a password, for the report too.
"""

import base64
import hmac
import ipaddress
import socket
from pathlib import Path

from prefect.settings import (
    PREFECT_SERVER_API_AUTH_STRING,
    PREFECT_SERVER_API_KEEPALIVE_TIMEOUT,
    PREFECT_SERVER_LOGGING_LEVEL,
)
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from score_core.errors import UserError
from tasks.runner.exits import parser_of
from tasks.runner.own_page import LOOPBACK, OwnPageOnly

REPORTS = "/reports"


def with_password(app: ASGIApp, password: str) -> ASGIApp:
    """`app` for those alone who send `password`, NAME:PASSWORD; a browser asks its user for it."""
    expected = b"Basic " + base64.b64encode(password.encode())

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        given = Headers(scope=scope).get("authorization", "").encode()
        refusal = PlainTextResponse("A password is needed.\n", 401, {"WWW-Authenticate": "Basic"})
        await (app if hmac.compare_digest(given, expected) else refusal)(scope, receive, send)

    return checked


def check_address(host: str, port: int) -> int:
    """Whether a server may be started there; returns the port, which is a free one for 0.

    Raises:
        UserError: no such host or port, a port in use, or others reach it and there is no password.
    """
    try:
        with socket.create_server(
            (host, port), family=socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        ) as free:
            address, port = free.getsockname()[:2]
    except socket.gaierror as error:
        raise UserError(
            f"--host {host}: {error.strerror}; expected a name or address of this machine."
        ) from None
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(
            f"--host {host} --port {port}: cannot listen there ({why}); is `make serve` running already? "
            "For another port: `make serve args='--port 4300'`."
        ) from None
    password = PREFECT_SERVER_API_AUTH_STRING.value()
    if password is None and ipaddress.ip_address(address).is_loopback:
        return int(port)
    if not all((password or "").partition(":")):
        raise UserError(
            f"--host {host}: whoever uses the server may run commands here; where others reach it, set "
            "PREFECT_SERVER_API_AUTH_STRING=NAME:PASSWORD in the environment, or leave out --host."
        )
    return int(port)


def main() -> None:
    """The command line."""
    import uvicorn
    from prefect.server.api.server import create_app
    from starlette.routing import Mount
    from starlette.staticfiles import StaticFiles

    parser = parser_of("flows.server", __doc__)
    parser.add_argument("--host", default=LOOPBACK)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--reports", type=Path, help=f"a folder to serve as {REPORTS}")
    given = parser.parse_args()
    app, password = create_app(final=True), PREFECT_SERVER_API_AUTH_STRING.value()
    if given.reports:
        files: ASGIApp = StaticFiles(
            directory=given.reports, follow_symlink=True
        )  # DVC may link to its cache
        files = with_password(files, password) if password else files
        app.router.routes.insert(0, Mount(REPORTS, files))
    uvicorn.run(
        OwnPageOnly(app, {given.host, "localhost", LOOPBACK, "::1", socket.gethostname()}),
        host=given.host,
        port=given.port,
        timeout_keep_alive=PREFECT_SERVER_API_KEEPALIVE_TIMEOUT.value(),
        log_level=PREFECT_SERVER_LOGGING_LEVEL.value().lower(),
    )


if __name__ == "__main__":
    main()
