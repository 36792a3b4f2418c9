"""`make serve` in a clone, for tests and for benchmarks/deaths.py."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import httpx

from tests.test_pipeline import Checkout

START, ANSWER = 120, 60  # seconds, on a machine with other work to do


class Server:
    """`python -m flows.serve` in a checkout, and what its API says."""

    def __init__(self, checkout: Checkout) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        name, _, word = checkout.environment.get("PREFECT_SERVER_API_AUTH_STRING", "").partition(":")
        self.auth = (name, word) if word else None
        self.page = f"http://127.0.0.1:{port}"
        self.log = checkout.root.parent / "serve.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "flows.serve", "--port", str(port)],
                cwd=checkout.root, env=checkout.environment, stdout=log, stderr=log,
            )  # fmt: skip
        wait_for(lambda: "Prefect's page:" in self.log.read_text(), START, self)

    def logs(self, run: dict) -> str:
        """What a run has logged."""
        found: list[dict] = []
        while page := self.ask("logs", logs={"flow_run_id": {"any_": [run["id"]]}}, offset=len(found)):
            found += page
        return "\n".join(line["message"] for line in found)

    def tell(self, path: str, **content: object) -> Any:
        """Posts to the API; returns its answer."""
        deadline = time.monotonic() + ANSWER
        while True:
            answer = httpx.post(f"{self.page}/api/{path}", json=content, auth=self.auth, timeout=ANSWER)
            # SQLite is busy: Prefect's own clients ask again, too.
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
                break
            time.sleep(1)
        answer.raise_for_status()
        return answer.json() if answer.content else {}

    def ask(self, path: str, **filters: object) -> list[dict]:
        """Objects that the filters let pass."""
        return self.tell(f"{path}/filter", **filters)

    def runs(self, *states: str) -> list[dict]:
        """Flow runs in these states, the earliest first."""
        chosen = {"state": {"name": {"any_": list(states)}}}
        return self.ask("flow_runs", flow_runs=chosen, sort="START_TIME_ASC")

    def tasks(self, run: dict) -> dict[str, str]:
        """The state of each of its tasks."""
        found = self.ask("task_runs", flow_runs={"id": {"any_": [run["id"]]}}, sort="EXPECTED_START_TIME_ASC")
        return {task["name"]: task["state"]["name"] for task in found}

    def stop(self) -> int:
        """Ends everything; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(90)


def wait_for(condition: Callable[[], Any], seconds: float, server: Server) -> Any:
    """What `condition` returns as soon as that is true; fails with the log when it takes too long."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline and server.process.poll() is None, server.log.read_text()[-5000:]
        time.sleep(0.5)
    return found
