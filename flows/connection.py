"""Which server a run reports to: the one PREFECT_API_URL names, that of `make serve`, or one of its own."""

import atexit
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_KEY,
    PREFECT_API_URL,
    PREFECT_HOME,
    PREFECT_SERVER_API_AUTH_STRING,
    PREFECT_UI_URL,
    temporary_settings,
)

from flows.output import masker
from flows.server import LOOPBACK, check_address
from score_core.errors import UserError
from score_core.files import check_writable
from tasks.runner.processes import GRACE, Child

ADDRESS = Path(".prefect/serving")  # in a checkout: the address of its server, while it is up
START_SECONDS = 120
ANSWER_SECONDS = 10
LOCAL = {"0.0.0.0": LOOPBACK, "::": "::1"}  # how this machine's own programs reach "every address"
ERROR = re.compile(r"[\w.]*(Error|Exception)\b.*:")


def connect(root: Path) -> None:
    """Has Prefect report to a server that answers until this process ends; starts one where there is none.

    Raises:
        UserError: it does not answer, refuses the password, or cannot be started.
    """
    until_exit = ExitStack()
    atexit.register(until_exit.close)  # runs after Prefect's own, which still send logs
    if named := PREFECT_API_URL.value():
        _check_usable(named)
    elif standing := running_server(root):
        _check_usable(standing)
        until_exit.enter_context(temporary_settings({PREFECT_API_URL: standing}))
    else:
        port = check_address(LOOPBACK, 0)
        environment = {**os.environ, "PREFECT_HOME": str(PREFECT_HOME.value().absolute())}
        environment |= {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1"}
        until_exit.enter_context(start_server(environment, root, LOOPBACK, port, grace=5.0))
        own = {PREFECT_API_URL: f"{address_of(LOOPBACK, port)}/api", PREFECT_UI_URL: ""}  # it has no page
        if password := PREFECT_SERVER_API_AUTH_STRING.value():
            own[PREFECT_API_AUTH_STRING] = password
        until_exit.enter_context(temporary_settings(own))


def running_server(root: Path) -> str | None:
    """The address of this checkout's server, if it is up; a killed one leaves its note behind."""
    try:
        api = (root / ADDRESS).read_text()
    except (OSError, ValueError):
        return None
    return api if _answers(api) else None


def address_of(host: str, port: int) -> str:
    """How a browser, or a program, writes it."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def credentials(password: str | None) -> tuple[str, str] | None:
    """Prefect's NAME:PASSWORD as httpx takes it."""
    if not password:
        return None
    name, _, word = password.partition(":")
    return name, word


@contextmanager
def start_server(
    environment: Mapping[str, str], root: Path, host: str, port: int, *more: str, grace: float = GRACE
) -> Iterator[Child]:
    """Runs flows/server.py until the `with` block ends, which begins when the server answers.

    Args:
        environment: its PREFECT_HOME is where the database is, and `server.log`, with all that it says.
        more: further arguments of the server.
        grace: seconds to end in.

    Raises:
        UserError: it has ended, or does not answer in time.
    """
    home = Path(environment["PREFECT_HOME"])
    if home.exists() and not home.is_dir():
        raise UserError(f"PREFECT_HOME: {home} is a file; name a folder, or unset it for the checkout's own.")
    log = home / "server.log"
    check_writable(log)
    print("Starting Prefect's server; the first time takes half a minute", flush=True)
    command = [sys.executable, "-m", "flows.server", "--host", host, "--port", str(port), *more]
    with log.open("w") as said:
        child = Child(command, environment, root, grace=grace, stdout=said.fileno())
    with child:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(f"{address_of(LOCAL.get(host, host), port)}/api"):
            if child.process.poll() is not None or time.monotonic() > deadline:
                raise UserError(_why_not_started(log, masker(environment)))
            time.sleep(0.2)
        yield child


def _answers(api: str) -> bool:
    try:
        return httpx.get(f"{api}/health", timeout=ANSWER_SECONDS).json() is True
    except (ValueError, httpx.HTTPError, httpx.InvalidURL):
        return False


def _why_not_started(log: Path, mask: Callable[[str], str]) -> str:
    said = log.read_text(errors="replace").splitlines()
    errors = [line for line in said if ERROR.match(line)] or said or ["it said nothing"]
    return (
        f"Prefect's server did not start: {mask(errors[-1])} ({log} has all that it said). If its database "
        f"is damaged, move {log.with_name('prefect.db')} away; it makes a new one, without past runs."
    )


def _check_usable(api: str) -> None:
    """Raises UserError if the server does not answer, or does not let this user in."""
    headers = {"Authorization": f"Bearer {key}"} if (key := PREFECT_API_KEY.value()) else {}
    own = credentials(PREFECT_API_AUTH_STRING.value())
    try:
        with httpx.Client(headers=headers, auth=own, timeout=ANSWER_SECONDS) as client:
            if (answer := client.get(f"{api}/health")).is_error:
                raise httpx.HTTPError(f"status {answer.status_code}")
            refused = client.get(f"{api}/admin/version").status_code in (401, 403)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise UserError(
            f"PREFECT_API_URL: no Prefect server answers at {masker(os.environ)(api)} ({error}); start it, "
            "mend the address, or unset the variable for a server of the run's own."
        ) from None
    if refused:
        raise UserError(
            f"{masker(os.environ)(api)}: the server wants a password; set PREFECT_API_AUTH_STRING to the "
            "NAME:PASSWORD that it was started with (PREFECT_SERVER_API_AUTH_STRING)."
        )
