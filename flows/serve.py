"""All of Prefect on one machine, until Ctrl-C: server, worker and deployments.

    python -m flows.serve [--host 127.0.0.1] [--port 4200]

For a machine of your own: the server has no password. For one that others use see docs/prefect.md.
"""

import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx

from flows.child import run
from flows.dag import ROOT, find_output, read_stages
from tasks.runner.exits import parser_of
from tasks.runner.processes import Child

POOL = "score"
REPORTS_URL = "SCORE_REPORTS_URL"  # where a browser finds the folder of the report
ADDRESS = Path(".prefect/serving")  # a file with the server's address, while it is up
START_SECONDS = 120


def running_server(root: Path = ROOT) -> str | None:
    """The address of this checkout's server, if it is up."""
    try:
        address = (root / ADDRESS).read_text()
        return address if httpx.get(f"{address}/health", timeout=10).is_success else None
    except (OSError, httpx.HTTPError):
        return None


class EndedError(Exception):
    """One of the processes ended by itself, and the others need it."""


def serve(host: str, port: int, root: Path = ROOT, prefect_file: str = "prefect.yaml") -> None:
    """Runs everything, and returns after SIGINT or SIGTERM.

    Raises:
        EndedError: a process ended by itself, and the others were stopped.
    """
    page = f"http://{host}:{port}"
    environment = {
        **os.environ,
        "PREFECT_HOME": str(root / ".prefect"),
        "PREFECT_API_URL": f"{page}/api",
        "PREFECT_UI_URL": page,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "SCORE_CHECKOUT": str(root),
    }
    report = find_output(read_stages(root), "*.html")
    children: dict[str, Child] = {}
    # Left in reverse order: the worker first, whose flow reports its end to the server.
    with ExitStack() as stack:

        def start(name: str, *arguments: str) -> None:
            child = Child([sys.executable, "-m", "prefect", *arguments], environment, root)
            children[name] = stack.enter_context(child)

        if report:
            environment[REPORTS_URL] = stack.enter_context(_file_server(host, root / report[0].parent))
        try:
            start("server", "server", "start", "--host", host, "--port", str(port))
            _wait_until_up(children, f"{page}/api/health")
            _mark_crashed(f"{page}/api")
            _prefect(environment, root, "work-pool", "create", POOL, "--type", "process", may_fail=True)
            _prefect(environment, root, "--no-prompt", "deploy", "--all", "--prefect-file", prefect_file)
            start("worker", "worker", "start", "--pool", POOL, "--type", "process", "--limit", "1")
            (root / ADDRESS).write_text(f"{page}/api")
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


def _wait_until_up(children: dict[str, Child], address: str) -> None:
    print("Starting Prefect's server; the first time takes half a minute", flush=True)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        _check(children)
        with suppress(httpx.HTTPError):
            if httpx.get(address, timeout=10).is_success:
                return
        time.sleep(0.5)
    raise EndedError(f"the server did not answer at {address} for {START_SECONDS} s")


def _mark_crashed(api: str) -> None:
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
    with httpx.Client(base_url=api, timeout=60) as client:
        for run in client.post("flow_runs/filter", json=wanted).raise_for_status().json():
            client.post(f"flow_runs/{run['id']}/set_state", json=crashed).raise_for_status()


def _prefect(environment: dict[str, str], root: Path, *arguments: str, may_fail: bool = False) -> None:
    ended = run([sys.executable, "-m", "prefect", *arguments], lambda line: None, environment, root)
    if ended.code != 0 and not may_fail:
        raise EndedError("\n".join([f"`prefect {' '.join(arguments)}` failed:", *ended.tail]))


def _check(children: dict[str, Child]) -> None:
    for name, child in children.items():
        if (code := child.process.poll()) is not None:
            raise EndedError(f"the {name} ended with code {code}; see its output above")


@contextmanager
def _file_server(host: str, folder: Path) -> Iterator[str]:
    """Serves a folder to browsers, which open no local files from a page; yields the address."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer((host, 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{host}:{server.server_port}"
        server.shutdown()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


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
    except EndedError as ended:
        print(f"error: {ended}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
