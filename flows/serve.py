"""All of Prefect on one machine: server, worker, deployments; until Ctrl-C, which ends all of it.

    python -m flows.serve [--host 127.0.0.1] [--port 4200]

For a machine of one's own. A server that others use has no password by default: docs/prefect.md.
"""

import argparse
import functools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx

from flows.dag import ROOT
from flows.leash import leashed

POOL = "score"
REPORTS_URL = "SCORE_REPORTS_URL"  # where reports/ can be reached by a browser
STANDING = Path(".prefect/serving")  # holds the server's address while it is up
START_SECONDS = 120
GRACE = 40.0  # a worker gives its flow 30 s to end


def standing_server(root: Path = ROOT) -> str | None:
    """The address of this checkout's server, if it is up."""
    try:
        address = (root / STANDING).read_text()
        return address if httpx.get(f"{address}/health", timeout=10).is_success else None
    except (OSError, httpx.HTTPError):
        return None


class EndedError(Exception):
    """One of the processes ended by itself; the others cannot do without it."""


def serve(host: str, port: int, root: Path = ROOT, prefect_file: str = "prefect.yaml") -> None:
    """Runs everything, and returns after SIGINT or SIGTERM.

    Raises:
        EndedError: a process died; the others have been ended too.
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
    children: dict[str, subprocess.Popen] = {}

    def start(name: str, *arguments: str) -> None:
        children[name] = subprocess.Popen(
            leashed(sys.executable, "-m", "prefect", *arguments),
            cwd=root, env=environment, process_group=0, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    with _reports(host, root) as reports, _ending(children):
        environment[REPORTS_URL] = reports
        start("server", "server", "start", "--host", host, "--port", str(port))
        _wait_until_up(children, f"{page}/api/health")
        _bury(f"{page}/api")
        _prefect(environment, root, "work-pool", "create", POOL, "--type", "process", may_fail=True)
        _prefect(environment, root, "--no-prompt", "deploy", "--all", "--prefect-file", prefect_file)
        start("worker", "worker", "start", "--pool", POOL, "--type", "process", "--limit", "1")
        (root / STANDING).write_text(f"{page}/api")
        print(f"\nPrefect's page: {page}\nThe report:     {reports}/index.html\nCtrl-C ends it all.\n")
        sys.stdout.flush()
        try:
            while True:
                _check(children)
                time.sleep(0.5)
        finally:
            (root / STANDING).unlink(missing_ok=True)


def _wait_until_up(children: dict[str, subprocess.Popen], address: str) -> None:
    print("Starting Prefect's server; the first time takes half a minute", flush=True)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        _check(children)
        with suppress(httpx.HTTPError):
            if httpx.get(address, timeout=10).is_success:
                return
        time.sleep(0.5)
    raise EndedError(f"the server did not answer at {address} for {START_SECONDS} s")


def _bury(api: str) -> None:
    """Marks as crashed what the page takes for running, and nothing runs yet: its worker was killed.

    Such a run would keep its deployment's only slot, and no other would start.
    """
    wanted = {
        "flow_runs": {
            "state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}},
            "deployment_id": {"is_null_": False},
        }
    }
    crashed = {"state": {"type": "CRASHED", "message": "Its worker was killed; run it again to resume."}}
    with httpx.Client(base_url=api, timeout=60) as client:
        for run in client.post("flow_runs/filter", json=wanted).raise_for_status().json():
            client.post(f"flow_runs/{run['id']}/set_state", json=crashed).raise_for_status()


def _prefect(environment: dict[str, str], root: Path, *arguments: str, may_fail: bool = False) -> None:
    done = subprocess.run(
        leashed(sys.executable, "-m", "prefect", *arguments),
        cwd=root, env=environment, process_group=0, capture_output=True, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode != 0 and not may_fail:
        raise EndedError(f"`prefect {' '.join(arguments)}` failed:\n{done.stdout}{done.stderr}")


def _check(children: dict[str, subprocess.Popen]) -> None:
    for name, child in children.items():
        if child.poll() is not None:
            raise EndedError(f"the {name} ended with code {child.returncode}; its last lines are above")


@contextmanager
def _reports(host: str, root: Path) -> Iterator[str]:
    """Serves reports/ for browsers, which open no local files from a page; yields the address."""
    handler = functools.partial(_Quiet, directory=str(root / "reports"))
    with ThreadingHTTPServer((host, 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{host}:{server.server_port}"
        server.shutdown()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def _ending(children: dict[str, subprocess.Popen]) -> Iterator[None]:
    """Ends the children when the block ends: the worker first, which has its flow report to the server."""
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for child in reversed(list(children.values())):
            if child.poll() is None:
                child.terminate()
            with suppress(subprocess.TimeoutExpired):
                child.wait(GRACE)
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)


def _stop(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.serve",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="whom to serve (default: this machine alone)")
    parser.add_argument("--port", type=int, default=4200, help="of Prefect's page (default: 4200)")
    parser.add_argument("--prefect-file", default="prefect.yaml", help="the deployments")
    given = parser.parse_args()
    # Both: a shell's background jobs start with Ctrl-C ignored.
    signal.signal(signal.SIGINT, _stop)
    signal.signal(signal.SIGTERM, _stop)
    try:
        serve(given.host, given.port, prefect_file=given.prefect_file)
    except KeyboardInterrupt:
        print("\nEnded.")
        return 0
    except EndedError as ended:
        print(f"error: {ended}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
