"""A real server, worker and deployments on loopback, at toy size: the schedule, and what an operator sees.

The tests are steps of one story, in order.
"""

import json
import re
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest

from tasks.commands.profiles import PARAMS, compose
from tests.flows.server import Server, wait_for
from tests.test_pipeline import STAGES, Checkout

pytestmark = pytest.mark.slow
RUN = 1200  # seconds, ten times what it takes
SCHEDULE = re.compile(r" +- cron: .*\n +timezone: .*\n")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    clone = Checkout(tmp_path_factory.mktemp("serving"))
    (clone.root / PARAMS).write_text(compose(["smoke=yes"], clone.root / "conf"))
    clone.environment["HF_TOKEN"] = "hf_not_to_be_seen"
    clone.environment["PREFECT_SERVER_API_AUTH_STRING"] = "operator:secret-word"
    clone.environment["PREFECT_API_AUTH_STRING"] = "operator:secret-word"
    return clone


@pytest.fixture(scope="module")
def server(checkout):
    file = checkout.root / "prefect.yaml"
    text, count = SCHEDULE.subn("      - interval: 10\n", file.read_text())
    assert count == 1, "the nightly deployment has a cron with a time zone"
    file.write_text(text)
    running = Server(checkout)
    yield running
    if running.process.poll() is None:
        running.stop()


def flow(checkout, *arguments, **options):
    return checkout.run("python", "-m", "flows.reproduce", *arguments, **options)


def test_scheduled_runs_happen_and_the_second_finds_everything_cached(server):
    wait_for(lambda: len(server.runs("Completed")) >= 2, RUN, server)
    first, second = server.runs("Completed")[:2]
    assert first["auto_scheduled"] and second["auto_scheduled"]
    assert server.tasks(first) == dict.fromkeys(STAGES, "Completed")
    assert list(server.tasks(first))[-1] == "report", "named after the stages, in their order"
    assert server.tasks(second) == dict.fromkeys(STAGES, "Cached")
    assert not server.runs("Failed", "Crashed")
    # From here on nothing runs by itself.
    for deployment in server.ask("deployments"):
        server.tell(f"deployments/{deployment['id']}/pause_deployment")
    wait_for(lambda: not server.runs("Running", "Pending", "Late"), RUN, server)


def test_the_operator_sees_log_numbers_stages_and_report(server, checkout):
    first = server.runs("Completed")[0]
    text = server.logs(first)
    # As in every fresh clone of this repository: dvc.lock is there, and nothing else.
    why = r"train_stage1 is stale: changed: .*parameters .* → .*; missing: models/stage1"
    assert re.search(why, text), text
    assert "> python -m tasks.train " in text and "Stage I has not taken off" in text

    found = server.ask("artifacts", artifacts={"flow_run_id": {"any_": [first["id"]]}})
    artifacts = {artifact["key"]: artifact for artifact in found}
    assert set(artifacts) == {
        f"{what}-default-smoke" for what in ("stages", "metrics", "report", "model-card")
    }
    stages = json.loads(artifacts["stages-default-smoke"]["data"])
    assert [row["stage"] for row in stages] == list(server.tasks(first))
    assert all(row["stage"] == "check" or "missing: " in row["reason"] for row in stages)  # it makes nothing
    assert all(float(row["seconds"]) > 0 for row in stages)
    metrics = json.loads(artifacts["metrics-default-smoke"]["data"])
    measured = json.loads((checkout.root / "metrics" / "final.json").read_text())
    assert metrics[1]["this run"] == f"{100 * measured['accuracy_t2']:.2f} %"
    link = re.search(r"http[^)]*", artifacts["report-default-smoke"]["data"])[0]
    assert httpx.get(link, auth=server.auth).text == (checkout.root / "reports" / "index.html").read_text()


def test_the_command_line_finds_the_running_server(server, checkout):
    before = len(server.runs("Completed"))
    said = flow(checkout)
    assert "default-smoke: 0 stages ran, 9 cached" in said
    assert len(server.runs("Completed")) == before + 1


def test_a_failing_stage_fails_the_run_with_all_that_is_needed(server, checkout):
    checkout.set("stage2", alpha=5.0, stepz=3)
    said = flow(checkout, "--retries", "2", fails=True)
    assert "Retry" not in said, "a mistake is not tried again"
    assert "failed: `python -m tasks." in said and "stepz" in said and "hf_not_to_be_seen" not in said
    run = server.runs("Refused")[-1]
    assert "Fix the error above" in run["state"]["message"]
    (checkout.root / PARAMS).write_text(compose(["smoke=yes"], checkout.root / "conf"))


def test_a_crashed_stage_is_run_again(server, checkout):
    """Once out of memory, as it were: the spy kills the stage's first process."""
    spy = checkout.root.parent / "spy" / "sitecustomize.py"
    once = checkout.root.parent / "once"
    text = spy.read_text()
    spy.write_text(f"""{text}
if "tasks.train" in sys.orig_argv and "stage2" in sys.orig_argv and not os.path.exists({str(once)!r}):
    open({str(once)!r}, "w").close()
    os.kill(os.getpid(), 9)
""")
    checkout.set("stage2", alpha=5.0, weight_decay=0.5)
    flow(checkout, "--retries", "0", fails=True)
    once.unlink()
    said = flow(checkout, "--retries", "1")
    assert re.search("train_stage2 failed: `python -m tasks.train .*--name stage2.*` exited with ", said)
    assert "default-smoke: 3 stages ran, 6 cached" in said
    (checkout.root / PARAMS).write_text(compose(["smoke=yes"], checkout.root / "conf"))
    spy.write_text(text)


def test_a_result_restored_by_dvc_counts_as_cached_and_force_runs_it(server, checkout):
    said = flow(checkout)
    assert "restored from the run cache; changed: parameters stage2.alpha 5.0 → 3.0, " in said
    assert "default-smoke: 1 stages ran, 8 cached" in said
    said = flow(checkout, "--stages", "evaluate_base", "--force")
    assert "evaluate_base is stale: forced" in said and "1 stages ran, 3 cached" in said


def test_a_worse_result_than_the_accepted_one_fails_the_run(server, checkout):
    assert "Accepted: accepted/default-smoke.json" in checkout.run("python", "-m", "flows.results", "accept")
    path = checkout.root / "accepted" / "default-smoke.json"
    better = json.loads(path.read_text())
    assert "not worse than the accepted run" in flow(checkout)
    path.write_text(json.dumps({**better, "accuracy_t2": better["accuracy_t2"] + 0.05}))
    said = flow(checkout, fails=True)
    assert "Worse than the accepted run: accuracy_t2 is" in said and "a drop of 5.00 points" in said
    assert "not worse" in flow(checkout, "--max-drop", "0.06")
    assert "max_drop: expected a share" in flow(checkout, "--max-drop", "nan", fails=True)
    assert "Worse than the accepted run" in server.runs("Failed")[-1]["state"]["message"]


def test_a_webhook_is_told_how_a_run_ended(server, checkout):
    received = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200 if len(received) == 1 else 500)
            self.end_headers()

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Receiver) as receiver:
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{receiver.server_port}/services/not-to-be-seen"
        said = flow(checkout, "--stages", "download_data", SCORE_WEBHOOK_URL=address)
        failed = flow(checkout, "--stages", "nonsense", fails=True, SCORE_WEBHOOK_URL=address)
        receiver.shutdown()
    assert [message["state"] for message in received] == ["Completed", "Refused"]
    assert received[0]["message"] == "default-smoke: 0 stages ran, 2 cached"
    assert received[0]["url"].startswith(server.page) and received[0]["flow_run"] in received[0]["text"]
    assert "there is no 'nonsense'" in received[1]["text"]
    assert "500" in failed and "not-to-be-seen" not in said + failed


def test_a_profile_is_selected_as_make_repro_does_and_edits_are_not_lost(server, checkout):
    checkout.set("stage2", alpha=4.0)
    edited = (checkout.root / PARAMS).read_text()
    said = flow(checkout, "--profile", "gsm8k", "--stages", "report", fails=True)
    assert "stage2.alpha: 3.0 is now 4.0" in said and (checkout.root / PARAMS).read_text() == edited
    assert "did you mean gsm8k?" in flow(checkout, "--profile", "gsm8", fails=True)


def test_the_end_ends_everything(server, checkout):
    assert server.stop() == 0
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert not [line for line in listed.splitlines() if server.page.rpartition(":")[2] in line]
    assert not (checkout.root / ".prefect" / "serving").exists()
    changed = checkout.git("status", "--porcelain").splitlines()
    known = r".. (metrics/|accepted/|dvc\.lock|params\.yaml|prefect\.yaml)"
    assert all(re.match(known, line) for line in changed), changed
