"""What an operator sees on a run's page beside its log: the numbers, the stages, the report."""

import os
from collections.abc import Sequence
from pathlib import Path

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from flows.dag import ROOT
from flows.results import Metrics, table
from flows.serve import REPORTS_URL
from flows.stages import Outcome

REPORT = Path("reports/index.html")
CARD = Path("reports/model_card.md")


def show_stages(name: str, outcomes: Sequence[Outcome]) -> None:
    """A row a stage: how it ended, why it ran, how long it took."""
    rows = [
        {
            "stage": outcome.stage,
            "state": outcome.state,
            "seconds": f"{outcome.seconds:.1f}",
            "reason": outcome.why,
        }
        for outcome in outcomes
    ]
    create_table_artifact(rows, key=_key("stages", name), description=f"Stages, profile {name}")


def show_metrics(
    name: str, final: Metrics, base: Metrics, last: Metrics | None, accepted: Metrics | None
) -> None:
    """The trained model's metrics beside the base model's, the last run's and the accepted ones."""
    create_table_artifact(
        table(final, base, last, accepted),
        key=_key("metrics", name),
        description=f"{final['n']} test problems, profile {name}; in brackets the difference in points",
    )


def show_report(name: str, root: Path = ROOT) -> None:
    """The report as a link, and the model card as text."""
    base = os.environ.get(REPORTS_URL)
    link = f"{base}/{REPORT.name}" if base else (root / REPORT).as_uri()
    create_link_artifact(
        link,
        link_text="The report, as the latest run left it",
        key=_key("report", name),
        description=str(root / REPORT),
    )
    create_markdown_artifact((root / CARD).read_text(), key=_key("model-card", name), description=str(CARD))


def _key(what: str, name: str) -> str:
    return f"{what}-{name}".lower().replace("_", "-")
