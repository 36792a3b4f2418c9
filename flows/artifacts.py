"""What an operator sees on a run's page beside its log: stages, warnings, metrics, report and model card."""

import os
from collections.abc import Sequence
from pathlib import Path

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from flows.dag import ROOT, Stage, find_output
from flows.results import Metrics, read_last, table
from flows.serve import REPORTS_URL
from flows.stages import Outcome


def show_stages(name: str, outcomes: Sequence[Outcome]) -> None:
    """One row per stage: how it ended, why it ran, how long it took."""
    rows = [
        {"stage": one.stage, "state": one.state, "seconds": f"{one.seconds:.1f}", "reason": one.why}
        for one in outcomes
    ]
    create_table_artifact(rows, key=_key("stages", name), description=f"Stages, profile {name}")


def show_metrics(name: str, final: Metrics, base: Metrics | None, accepted: Metrics | None) -> None:
    """The metrics compared with the base model's, the previous run's and the accepted ones."""
    create_table_artifact(
        table(final, base, read_last(name), accepted),
        key=_key("metrics", name),
        description=f"{final['n']} test problems, profile {name}; in brackets the difference in points",
    )


def show_warnings(name: str, warnings: dict[str, list[str]]) -> None:
    """What training said of collapse, by the stage that said it."""
    lines = [f"* **{stage}** {said}" for stage, told in warnings.items() for said in told]
    if lines:
        create_markdown_artifact(
            "\n".join(lines),
            key=_key("warnings", name),
            description=f"Signs of collapse while training, profile {name}",
        )


def show_report(name: str, stages: list[Stage], root: Path = ROOT) -> None:
    """The report as a link and the model card as text, where `stages` make them."""
    if report := find_output(stages, "*.html"):
        page = root / report[0]
        base = os.environ.get(REPORTS_URL)
        create_link_artifact(
            f"{base}/{page.name}" if base else page.as_uri(),
            link_text="The report of the latest run",
            key=_key("report", name),
            description=str(page),
        )
    if card := find_output(stages, "*.md"):
        text = (root / card[0]).read_text()
        create_markdown_artifact(text, key=_key("model-card", name), description=str(card[0]))


def _key(what: str, name: str) -> str:
    return f"{what}-{name}".lower().replace("_", "-")
