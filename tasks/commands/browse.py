"""Ask the base and the trained model the same problem in a browser: `python -m tasks.commands.browse`.

Type a problem, with its right answer if you know it, or draw one of the test split. Both models' attempts
appear side by side, token by token, with what the second changed marked and, where the right answer is known,
the verifier's verdict. The page is for this machine's user alone: it listens on loopback, and answers no page
but its own.
"""

import argparse
import asyncio
import json
import random
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.templating import Jinja2Templates
from starlette.types import ASGIApp
from tokenizers.decoders import DecodeStream

from score_core.answers.verifier import Verifier
from score_core.config.section import Section
from score_core.errors import UserError
from score_core.problems import Problem, read_problems
from score_core.report.samples import sample_of
from score_core.report.style import palette
from score_core.report.templates import FOLDER as REPORT
from score_core.report.visible import visible
from tasks.commands.both_models import MODELS, add_models, both, typed
from tasks.runner.exits import exit_code, parser_of
from tasks.runner.own_page import LOOPBACK, OwnPageOnly

if TYPE_CHECKING:
    from score_core.evaluation.evaluate import Evaluator

PAGE = Path(__file__).parent / "browse_page"
PORT = 7860
# The page needs its own files and nothing else, whatever a model writes into it.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}
Event = dict[str, Any]
Say = Callable[[Event], None]


class Asked(Section):
    """What the page sends."""

    id: str | None  # of a test problem, which is then asked as evaluation asks it
    problem: str
    answer: str  # the right one, or empty


class GoneError(Exception):
    """Nobody waits for the answer any more."""


class Answers:
    """Both models, which answer one problem at a time.

    Args:
        models: one for each of `MODELS`.
        problems: the test split, or nothing where it is not there.
    """

    def __init__(self, models: "Sequence[Evaluator]", problems: Sequence[Problem]) -> None:
        self.models, self.problems = models, problems
        self._by_id = {problem.id: problem for problem in problems}
        self._verifier = Verifier(models[0].config.reward)
        self._one = threading.Lock()

    def problem(self, asked: Asked) -> Problem:
        """The problem that is meant.

        Raises:
            UserError: it is empty or no text, or its answer is none that an attempt can be compared with.
        """
        if asked.id in self._by_id:
            return self._by_id[asked.id]
        problem = typed(asked.problem.strip())
        if not problem.problem:
            raise UserError("No problem; type one, or draw one of the test split.")
        if not (answer := asked.answer.strip()):
            return problem
        (gold,) = self._verifier.golds([(typed(answer).problem,)])
        if not gold.references:
            raise UserError(f"The right answer: {gold.reasons[0].says}; write it otherwise, or leave it out.")
        return typed(problem.problem, gold.references)

    def answer(self, problem: Problem, say: Say) -> None:
        """Has one model after the other answer.

        Args:
            say: called with each piece of an attempt as it is sampled, and at a model's end with all of its
                attempts; what it raises ends this.

        Raises:
            UserError: the problem is too long, or a model is damaged.
        """
        with self._one:
            for at, model in enumerate(self.models):
                _answer(model, problem, lambda event, at=at: say({"model": at, **event}))  # type: ignore[misc]


def _answer(model: "Evaluator", problem: Problem, say: Say) -> None:
    tokenizer: Any = model.conversation.tokenizer
    streams: dict[int, DecodeStream] = {}

    def on_token(attempt: int, tokens: dict[int, int]) -> None:
        stream = streams.setdefault(attempt, DecodeStream(skip_special_tokens=True))
        # Some characters are several tokens: they come with the last of them.
        piece = stream.step(tokenizer.backend_tokenizer, tokens[0])
        say({"attempt": attempt, "piece": visible(piece or "")})

    model.engine.on_token = on_token
    (row,) = model.evaluate([problem], show_progress=False).to_dict("records")
    attempts = [
        {
            "pieces": attempt.pieces,
            "read": attempt.extracted,
            "right": attempt.correct if problem.references else None,
            "cut": row[f"tokens_t{attempt.number}"] if row[f"truncated_t{attempt.number}"] else None,
        }
        for attempt in sample_of(row, model.config.evaluation.attempts).attempts
    ]
    say({"attempts": attempts})


def application(answers: Answers) -> ASGIApp:
    """The page and what it asks for."""
    templates, config = Jinja2Templates(PAGE), answers.models[0].config

    def page(request: Request) -> Response:
        shown = {
            "config": config,
            "models": [*zip(MODELS, (model.folder for model in answers.models), strict=True)],
            "problems": len(answers.problems),
            "example": answers.problems[0].problem if answers.problems else "",
            "palette": palette(len(answers.models)),
        }
        if request.url.path == "/page.css":
            return templates.TemplateResponse(request, "page.css.j2", shown, media_type="text/css")
        return templates.TemplateResponse(request, "index.html.j2", shown, headers=HEADERS)

    def problem(request: Request) -> Response:
        """One of the test split, drawn anew each time: no result depends on it."""
        drawn = random.choice(answers.problems)
        return JSONResponse({"id": drawn.id, "problem": drawn.problem, "answer": drawn.answer})

    async def ask(request: Request) -> Response:
        """A line of JSON an event, while both models answer."""
        try:
            problem = answers.problem(Asked.model_validate_json(await request.body()))
        except (UserError, ValidationError) as error:
            return JSONResponse({"error": str(error)}, 400)
        return StreamingResponse(_lines(answers, problem), media_type="application/x-ndjson")

    routes = [
        Route("/", page),
        Route("/page.css", page),
        Route("/report.css", lambda request: FileResponse(REPORT / "page.css")),
        Route("/page.js", lambda request: FileResponse(PAGE / "page.js")),
        Route("/ask", ask, methods=["POST"]),
    ]
    if answers.problems:
        routes.append(Route("/problem", problem))
    return OwnPageOnly(Starlette(routes=routes), {"localhost", LOOPBACK})


async def _lines(answers: Answers, problem: Problem) -> AsyncIterator[str]:
    loop, said, gone = asyncio.get_running_loop(), asyncio.Queue[Event | None](), threading.Event()

    def say(event: Event) -> None:
        if gone.is_set():
            raise GoneError
        loop.call_soon_threadsafe(said.put_nowait, event)

    def work() -> None:
        try:
            answers.answer(problem, say)
        except UserError as error:
            say({"error": str(error)})
        except GoneError:
            pass
        finally:
            if not gone.is_set():
                loop.call_soon_threadsafe(said.put_nowait, None)

    working = asyncio.create_task(asyncio.to_thread(work))
    try:
        while (event := await said.get()) is not None:
            yield json.dumps(event) + "\n"
        await working  # a bug of ours leaves its traceback in the terminal, and the page says so
    finally:
        gone.set()


def run(given: argparse.Namespace) -> None:
    """Serves the page until Ctrl-C."""
    models = both(given)
    problems = read_problems(given.data, "test") if (given.data / "test.parquet").is_file() else []
    try:
        listening = socket.create_server((LOOPBACK, given.port))
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(
            f"--port {given.port}: cannot listen there ({why}); expected a free port; for another: "
            "`make browse args='--port 7861'`, or 0 for any."
        ) from None
    with listening:
        print("Loading both models", flush=True)
        answers = Answers(models(), problems)
        for model in answers.models:
            assert model.engine  # loads the weights, so that what is wrong with them is said now
        print(
            f"Open http://{LOOPBACK}:{listening.getsockname()[1]} in a browser; Ctrl-C ends it.", flush=True
        )
        settings = uvicorn.Config(
            application(answers), log_level="warning", lifespan="off", timeout_graceful_shutdown=1
        )
        uvicorn.Server(settings).run(sockets=[listening])


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = parser_of("tasks.commands.browse", __doc__)
    parser.add_argument(
        "--port", type=int, default=PORT, help=f"of this machine, 0 for any free one ({PORT})"
    )
    add_models(parser)
    given = parser.parse_args(arguments)
    return exit_code("browse", lambda: run(given))


if __name__ == "__main__":
    sys.exit(main())
