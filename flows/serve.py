"""All of Prefect on one machine, until Ctrl-C: server, worker and deployments.

    python -m flows.serve [--host 127.0.0.1] [--port 4200]

For a machine of your own. On an address that others reach it wants a password, docs/prefect.md tells which.
"""

import os
import signal
import socket
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
from prefect.settings import PREFECT_SERVER_API_AUTH_STRING

from flows.child import run
from flows.connection import ADDRESS, LOCAL, address_of, credentials, start_server
from flows.dag import ROOT, find_output, read_stages
from flows.server import REPORTS, check_address
from score_core.errors import UserError
from tasks.runner.exits import parser_of
from tasks.runner.processes import Child

POOL = "score"
REPORTS_URL = "SCORE_REPORTS_URL"  # where a browser finds the folder of the report


class EndedError(Exception):
    """One of the processes ended by itself, and the others need it."""


def serve(host: str, port: int, root: Path = ROOT, prefect_file: str = "prefect.yaml") -> None:
    """Runs everything, and returns after SIGINT or SIGTERM.

    Raises:
        EndedError: a process ended by itself, and the others were stopped.
        UserError: nothing can listen there, or the server does not start.
    """
    port = check_address(host, port)
    page = address_of(socket.gethostname() if host in LOCAL else host, port)
    api = f"{address_of(LOCAL.get(host, host), port)}/api"
    environment = {
        **os.environ,
        "PREFECT_HOME": str(root / ".prefect"),
        "PREFECT_API_URL": api,
        "PREFECT_UI_API_URL": "/api",  # of the page's own origin, under whichever name it was opened
        "PREFECT_UI_URL": page,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "SCORE_CHECKOUT": str(root),
    }
    if password := PREFECT_SERVER_API_AUTH_STRING.value():
        environment["PREFECT_API_AUTH_STRING"] = password
    report = find_output(read_stages(root), "*.html")
    children: dict[str, Child] = {}
    # Left in reverse order: the worker first, whose flow reports its end to the server.
    with ExitStack() as stack:
        try:
            more = []
            if report:
                folder = root / report[0].parent
                folder.mkdir(parents=True, exist_ok=True)
                environment[REPORTS_URL] = f"{page}{REPORTS}"
                more = ["--reports", str(folder)]
            children["server"] = stack.enter_context(start_server(environment, root, host, port, *more))
            _mark_crashed(api, password)
            _prefect(environment, root, "work-pool", "create", POOL, "--type", "process", may_fail=True)
            _prefect(environment, root, "--no-prompt", "deploy", "--all", "--prefect-file", prefect_file)
            worker = ["worker", "start", "--pool", POOL, "--type", "process", "--limit", "1"]
            command = [sys.executable, "-m", "prefect", *worker]
            children["worker"] = stack.enter_context(Child(command, environment, root))
            (root / ADDRESS).write_text(api)
            pages = [f"\nPrefect's page: {page}"]
            pages += [f"The report:     {environment[REPORTS_URL]}/{report[0].name}"] if report else []
            print(*pages, "Ctrl-C stops all of it.\n", sep="\n", flush=True)
            while True:
                _check(children)
                time.sleep(0.5)
        finally:
            # One Ctrl-C is enough: a second would cut the worker's time to end.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            (root / ADDRESS).unlink(missing_ok=True)


def _mark_crashed(api: str, password: str | None) -> None:
    """Marks runs as crashed that the server takes for running, before there is a worker: theirs was killed.

    Such a run would keep its deployment's only slot, and no other would start.
    """
    wanted = {
        "flow_runs": {
            "state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}},
            "deployment_id": {"is_null_": False},
        }
    }
    crashed = {"state": {"type": "CRASHED", "message": "Its worker was killed. Run it again to resume."}}
    with httpx.Client(base_url=api, auth=credentials(password), timeout=60) as client:
        for run in client.post("flow_runs/filter", json=wanted).raise_for_status().json():
            client.post(f"flow_runs/{run['id']}/set_state", json=crashed).raise_for_status()


def _prefect(environment: dict[str, str], root: Path, *arguments: str, may_fail: bool = False) -> None:
    ended = run([sys.executable, "-m", "prefect", *arguments], lambda line: None, environment, root)
    if ended.code != 0 and not may_fail:
        raise EndedError("\n".join([f"`prefect {' '.join(arguments)}` failed:", *ended.tail]))


def _check(children: dict[str, Child]) -> None:
    for name, child in children.items():
        if (code := child.process.poll()) is not None:
            raise EndedError(
                f"the {name} ended with code {code}; see its output above or in .prefect/server.log"
            )


def _stop(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """The command line; returns the exit code."""
    parser = parser_of("flows.serve", __doc__)
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (default: this machine only)")
    parser.add_argument("--port", type=int, default=4200, help="port of Prefect's page (default: 4200)")
    parser.add_argument("--prefect-file", default="prefect.yaml", help="file with the deployments")
    given = parser.parse_args()
    # SIGINT too: a shell's background jobs start with it ignored.
    signal.signal(signal.SIGINT, _stop)
    signal.signal(signal.SIGTERM, _stop)
    try:
        serve(given.host, given.port, prefect_file=given.prefect_file)
    except KeyboardInterrupt:
        print("\nStopped.")
        return 0
    except (EndedError, UserError, httpx.HTTPError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
