"""The model card: what a person who meets the trained model on a hub should know."""

from pathlib import Path
from typing import Any

import yaml

from score_core.config.data import HubData
from score_core.config.model import HubModel
from score_core.config.schema import Config
from score_core.errors import UserError
from score_core.report import wording
from score_core.report.inputs import CHANGES, Inputs
from score_core.report.tables import training_rows
from score_core.report.templates import render


def render_card(inputs: Inputs, config: Config, root: Path) -> str:
    """The card as Markdown with YAML front matter; prompts are read below `root`.

    Raises:
        UserError: a prompt file is missing.
    """
    files = {name: getattr(config.conversation, name) for name in ("system", "first", "retry")}
    return render(
        "card.md.j2",
        inputs,
        config,
        front_matter=yaml.safe_dump(front_matter(inputs, config), sort_keys=False, allow_unicode=True),
        training=training_rows(inputs, config),
        prompts={name: _read_prompt(root, path, name) for name, path in files.items() if path is not None},
    )


def front_matter(inputs: Inputs, config: Config) -> dict[str, Any]:
    """The card's metadata in the hub's vocabulary; base model and data set only where a hub has them."""
    metrics = inputs.final.metrics
    keys = [*(f"accuracy_t{t}" for t in range(1, inputs.attempts + 1)), *CHANGES]
    score = ["reinforcement-learning", "score", "arxiv:2409.12917"]
    matter: dict[str, Any] = {
        "library_name": "peft" if config.lora else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["self-correction", *(score if wording.is_score(inputs, config) else ())],
    }
    if isinstance(config.used_model, HubModel):
        matter["base_model"] = config.used_model.path
    if isinstance(config.used_data, HubData):
        matter["datasets"] = [config.used_data.path]
    matter["model-index"] = [
        {
            "name": config.report.title,
            "results": [
                {
                    "task": {"type": "text-generation"},
                    "dataset": {
                        "name": wording.data_name(config),
                        "type": config.used_data.source,
                        "split": "test",
                    },
                    "metrics": [{"type": key, "name": key, "value": metrics[key]} for key in keys],
                }
            ],
        }
    ]
    return matter


def _read_prompt(root: Path, path: str, name: str) -> str:
    try:
        return (root / path).read_text().strip()
    except OSError:
        raise UserError(
            f"{root / path}: not found; conversation.{name} names it: write the file, or name another one."
        ) from None
