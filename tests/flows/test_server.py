"""Who may talk to the server, asked of a real one; and what a person reads when there is none to talk to."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import prefect.settings
import pytest
from prefect.settings import temporary_settings
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from flows.connection import ADDRESS, running_server, start_server
from flows.connection import connect as connect_to_server
from flows.server import LOOPBACK, check_address
from score_core.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "operator:not-to-be-seen"
AUTH = httpx.BasicAuth(*PASSWORD.split(":"))
REPORT = "<title>a report</title>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def port(folder):
    """The port of a server with a password, without its page, which takes long to lay out."""
    (folder / "reports").mkdir()
    (folder / "reports" / "index.html").write_text(REPORT)
    environment = {
        **os.environ,
        "PREFECT_HOME": str(folder / "home"),
        "PREFECT_SERVER_API_AUTH_STRING": PASSWORD,
        "PREFECT_UI_ENABLED": "0",
        "PREFECT__SERVER_EPHEMERAL": "1",
    }
    port = check_address(LOOPBACK, 0)
    with start_server(environment, ROOT, LOOPBACK, port, "--reports", str(folder / "reports"), grace=5.0):
        yield port


def ask(port: int, host: str = "", path: str = "api/flow_runs/filter", **headers: str) -> int:
    """The status of what a browser would send from a page."""
    method = "GET" if path != "api/flow_runs/filter" else "POST"
    headers |= {"Host": host} if host else {}
    address = f"http://{LOOPBACK}:{port}/{path}"
    return httpx.request(method, address, headers=headers, auth=AUTH, timeout=60).status_code


def test_programs_and_the_servers_own_page_may_ask(port):
    assert ask(port) == 200
    for own in (f"{LOOPBACK}:{port}", f"localhost:{port}", "localhost:9999"):  # the last through a tunnel
        assert ask(port, own, Origin=f"http://{own}") == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:1", f"http://{LOOPBACK}", "http://[", ""]
)
def test_no_other_page_may(port, origin):
    assert ask(port, Origin=origin) == 403
    assert ask(port, path="api/health", Origin=origin) == 403
    preflight = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    answer = httpx.options(f"http://{LOOPBACK}:{port}/api/flow_runs/filter", headers=preflight)
    assert answer.status_code == 403 and "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("name", ["evil.example", "127.0.0.1.evil.example", "192.0.2.1", "["])
def test_no_page_may_whose_name_points_here(port, name):
    host = f"{name}:{port}"
    assert ask(port, host) == 403
    assert ask(port, host, Origin=f"http://{host}") == 403
    assert ask(port, host, path="reports/index.html") == 403


def test_a_websocket_is_no_way_around(port):
    address = f"ws://{LOOPBACK}:{port}/api/events/out"
    for origin in ("http://evil.example", "null"):
        with pytest.raises(InvalidStatus) as refusal:
            connect(address, origin=origin, subprotocols=["prefect"], open_timeout=60)
        assert refusal.value.response.status_code == 403
    connect(address, origin=f"http://{LOOPBACK}:{port}", subprotocols=["prefect"], open_timeout=60).close()


def test_without_the_password_nothing_is_shown(port, folder):
    page = f"http://{LOOPBACK}:{port}"
    assert httpx.post(f"{page}/api/flow_runs/filter").status_code == 401
    refused = httpx.get(f"{page}/reports/index.html")
    assert refused.status_code == 401 and refused.headers["www-authenticate"] == "Basic"
    assert httpx.get(f"{page}/reports/index.html", auth=("operator", "wrong")).status_code == 401
    assert httpx.get(f"{page}/reports/index.html", auth=AUTH).text == REPORT
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert str(port) in listed and "not-to-be-seen" not in listed
    assert "not-to-be-seen" not in (folder / "home" / "server.log").read_text()


def why_not(**settings: str) -> str:
    """Why a run cannot report to the server that these settings name."""
    with (
        temporary_settings({getattr(prefect.settings, name): value for name, value in settings.items()}),
        pytest.raises(UserError) as refusal,
    ):
        connect_to_server(ROOT)
    return str(refusal.value)


def test_a_server_that_does_not_answer_or_let_one_in_is_told_in_a_line(port):
    line = why_not(PREFECT_API_URL="http://127.0.0.1:9/api")
    assert "no Prefect server answers at http://127.0.0.1:9/api (" in line and "unset the variable" in line
    api = f"http://{LOOPBACK}:{port}"
    assert "(status 404); start it" in why_not(PREFECT_API_URL=api)
    line = why_not(PREFECT_API_URL=f"{api}/api", PREFECT_API_AUTH_STRING="operator:wrong")
    assert "set PREFECT_API_AUTH_STRING to the NAME:PASSWORD" in line and "wrong" not in line


def test_a_damaged_database_is_told_in_a_line(tmp_path):
    (tmp_path / "prefect.db").write_bytes(b"no database" * 1000)
    done = subprocess.run(
        [sys.executable, "-m", "flows.reproduce", "--stages", "check"],
        cwd=ROOT, env={**os.environ, "PREFECT_HOME": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and line.startswith("error: Prefect's server did not start")
    assert "file is not a database" in line and f"move {tmp_path / 'prefect.db'} away" in line


def test_a_home_that_is_a_file_is_told_in_a_line(tmp_path):
    (tmp_path / "home").touch()
    environment = {**os.environ, "PREFECT_HOME": str(tmp_path / "home")}
    with pytest.raises(UserError, match=r"PREFECT_HOME: .*home is a file; name a folder"):
        start_server(environment, ROOT, LOOPBACK, 1).__enter__()


def test_a_note_that_a_killed_server_left_is_no_server(tmp_path):
    (tmp_path / ADDRESS).parent.mkdir()
    with socket.create_server((LOOPBACK, 0)) as silent:
        for note in (b"http://127.0.0.1:9/api", b"http://[", b"", b"\xff", b"nonsense"):
            (tmp_path / ADDRESS).write_bytes(note)
            assert running_server(tmp_path) is None
        with pytest.raises(UserError, match=r"cannot listen there \(.*--port 4300"):
            check_address(LOOPBACK, silent.getsockname()[1])


def test_a_server_is_refused_where_it_cannot_listen_or_others_would_get_in():
    with pytest.raises(UserError, match=r"--host nowhere\.invalid: .*expected a name or address"):
        check_address("nowhere.invalid", 0)
    with pytest.raises(UserError, match="--port 70000: cannot listen"):
        check_address(LOOPBACK, 70000)
    for password in (None, "", "no-name", "operator:"):
        with (
            temporary_settings({prefect.settings.PREFECT_SERVER_API_AUTH_STRING: password}),
            pytest.raises(UserError, match="set PREFECT_SERVER_API_AUTH_STRING=NAME:PASSWORD"),
        ):
            check_address("0.0.0.0", 0)
    with temporary_settings({prefect.settings.PREFECT_SERVER_API_AUTH_STRING: PASSWORD}):
        assert check_address("0.0.0.0", 0) > 0
