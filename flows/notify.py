"""A message to a webhook when a run ends. Off unless SCORE_WEBHOOK_URL is set.

The message is JSON: `text`, which chat programs show, and its parts `flow_run`, `state`, `message`, `url`.
"""

import os
from collections.abc import Callable
from typing import Any

import httpx
from prefect.client.schemas.objects import FlowRun
from prefect.logging import get_logger
from prefect.states import State
from prefect.utilities.urls import url_for

from flows.output import masker

WEBHOOK = "SCORE_WEBHOOK_URL"
SECONDS = 10.0


def hooks() -> list[Callable[..., None]]:
    """What the flow calls in any final state."""
    return [notify] if os.environ.get(WEBHOOK) else []


def notify(flow: object, flow_run: FlowRun, state: State[Any]) -> None:
    """Sends the message; a webhook that does not answer fails no run."""
    address = os.environ[WEBHOOK]
    logger = get_logger("notify")
    try:
        httpx.post(address, json=_message(flow_run, state), timeout=SECONDS).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        # The address is a secret, and httpx puts it into its messages.
        logger.warning("%s did not take the message: %s", WEBHOOK, masker(os.environ)(str(error)))


def _message(flow_run: FlowRun, state: State[Any]) -> dict[str, str | None]:
    parameters = ", ".join(f"{name}={value}" for name, value in flow_run.parameters.items() if value)
    message = masker(os.environ)(state.message or "")
    url = url_for(flow_run)
    text = f"reproduce, run {flow_run.name}: {state.name}\n{message}\n({parameters})\n{url or ''}".rstrip()
    return {"text": text, "flow_run": flow_run.name, "state": state.name, "message": message, "url": url}
