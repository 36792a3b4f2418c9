"""The page for trying the models, asked over HTTP as a browser asks it, with models that answer for real."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest
import uvicorn

from score_core.embedded.addition_model import build
from score_core.evaluation.evaluate import Evaluator
from score_core.problems import Problem
from tasks.commands.browse import Answers, GoneError, application, main
from tests.small_run import RUNTIME, evaluate, small_config

ROOT = Path(__file__).resolve().parents[3]
CONFIG = small_config()
PROBLEMS = [Problem("1", "12+34=", ("046", "46")), Problem("2", "99+98=", ("197",))]


@pytest.fixture(scope="module")
def folders(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The trained model of sums, and one that was hardly trained."""
    poor = tmp_path_factory.mktemp("poor") / "model"
    few = small_config(model={"steps": 2})
    build(few.model, few.data, 1, poor)
    return [small_run / "base", poor]


@pytest.fixture(scope="module")
def answers(folders: list[Path]) -> Answers:
    return Answers([Evaluator(folder, CONFIG, RUNTIME) for folder in folders], PROBLEMS)


@pytest.fixture(scope="module")
def page(answers: Answers) -> Iterator[httpx.Client]:
    """A client of the real application, on a real socket."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        settings = uvicorn.Config(application(answers), log_level="warning", lifespan="off")
        server = uvicorn.Server(settings)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with httpx.Client(base_url=address, timeout=60) as client:
            yield client
        server.should_exit = True
        thread.join()


def ask(page: httpx.Client, problem: str, answer: str = "", identity: str | None = None) -> list[dict]:
    """The events of an answer, in order."""
    asked = {"id": identity, "problem": problem, "answer": answer}
    with page.stream("POST", "/ask", json=asked) as response:
        assert response.status_code == 200
        return [json.loads(line) for line in response.iter_lines()]


def test_what_is_streamed_is_what_evaluation_finds(page, folders):
    events = ask(page, "", identity="1")
    for at, folder in enumerate(folders):
        (row,) = evaluate(folder, PROBLEMS[:1], CONFIG).to_dict("records")
        mine = [event for event in events if event["model"] == at]
        *pieces, last = mine
        for number, attempt in enumerate(last["attempts"], start=1):
            text = row[f"text_t{number}"]
            assert "".join(piece for piece, _ in attempt["pieces"]) == text
            assert "".join(event["piece"] for event in pieces if event["attempt"] == number) == text
            assert attempt["right"] == row[f"correct_t{number}"]
            assert attempt["read"] == row[f"extracted_t{number}"]
            # A token a digit, and the end token: one event each, and not all in one.
            assert sum(event["attempt"] == number for event in pieces) == row[f"tokens_t{number}"]
            assert (attempt["cut"] is not None) == row[f"truncated_t{number}"]
    assert [event["model"] for event in events] == sorted(event["model"] for event in events)


def test_a_typed_problem_has_a_verdict_only_with_an_answer(page, folders):
    (row,) = evaluate(folders[0], PROBLEMS[1:], CONFIG).to_dict("records")
    said = row["extracted_t1"]

    def verdict(answer: str) -> bool | None:
        first = next(event for event in ask(page, "99+98=", answer) if "attempts" in event)
        return first["attempts"][0]["right"]

    assert verdict("") is None
    assert verdict(said) is True
    assert verdict(f"{int(said) + 1}") is False
    assert verdict(f"it is {said}") is True, "a right answer is read as those of data are"


def test_what_cannot_be_asked_is_said(page):
    def refusal(**asked: str | None) -> str:
        response = page.post("/ask", json={"id": None, "problem": "1+1=", "answer": ""} | asked)
        assert response.status_code == 400
        return response.json()["error"]

    assert refusal(problem=" ").startswith("No problem; type one")
    assert "is no answer to the matcher integer" in refusal(answer="no number here")
    for body in (b"nonsense", b"[]", b'{"id": null, "problem": "\\ud800", "answer": ""}'):
        assert page.post("/ask", content=body).status_code == 400
    (event,) = ask(page, "1+" * 40)
    assert "conversation.max_prompt_tokens = 16" in event["error"]
    assert ask(page, "1+1=")[-1]["attempts"], "and the next problem is answered"


def test_test_problems_are_drawn(page):
    drawn = [page.get("/problem").json() for _ in range(30)]
    assert {problem["id"] for problem in drawn} == {"1", "2"}
    assert {problem["answer"] for problem in drawn} == {"046 or 46", "197"}


def test_the_page_loads_only_what_is_its_own(page):
    class Links(HTMLParser):
        found: list[str] = []  # noqa: RUF012

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.found += [value or "" for name, value in attrs if name in ("href", "src")]

    response = page.get("/")
    assert "default-src 'none'; script-src 'self'" in response.headers["content-security-policy"]
    assert "<script>" not in response.text
    links = Links()
    links.feed(response.text)
    files = [link for link in links.found if link != "data:,"]
    assert len(files) == 3 and not [file for file in files if "/" in file]
    for file in files:
        found = page.get(f"/{file}")
        assert found.status_code == 200 and "://" not in found.text
    assert "--attempt2: #" in page.get("/page.css").text


@pytest.mark.parametrize("header", [{"Origin": "http://evil.example"}, {"Host": "evil.example"}])
def test_no_other_page_may_ask(page, header):
    asked = {"id": None, "problem": "1+1=", "answer": ""}
    assert page.post("/ask", json=asked, headers=header).status_code == 403
    assert page.get("/problem", headers=header).status_code == 403


def test_who_goes_away_is_not_answered_any_further(answers):
    said = []

    def say(event: dict) -> None:
        said.append(event)
        if len(said) == 2:
            raise GoneError

    with pytest.raises(GoneError):
        answers.answer(PROBLEMS[0], say)
    assert len(said) == 2
    answers.answer(PROBLEMS[0], said.append)
    assert said[-1]["attempts"], "and the next one is"


def test_the_command_says_where_the_page_is_and_ends_with_ctrl_c(folders, tmp_path, monkeypatch, capfd):
    (tmp_path / "models").mkdir()
    for name, folder in zip(("base", "stage2"), folders, strict=True):
        (tmp_path / "models" / name).symlink_to(folder)
    for name in ("params.yaml", "runtime.yaml", "prompts"):
        (tmp_path / name).symlink_to(ROOT / name)
    command = [sys.executable, "-m", "tasks.commands.browse", "--port", "0"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as serving:
        assert serving.stdout is not None
        lines = iter(serving.stdout.readline, "")
        address = next(line for line in lines if "http://" in line).split()[1]
        assert address.startswith("http://127.0.0.1:")
        assert 'placeholder=""' in httpx.get(address).text
        assert httpx.get(f"{address}/problem").status_code == 404, "there is no test split here"
        serving.send_signal(2)
        assert serving.wait(30) == 130
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.chdir(tmp_path)
        assert main(["--port", str(taken.getsockname()[1])]) == 2
    assert "cannot listen there (" in capfd.readouterr().err
