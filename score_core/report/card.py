"""The model card: what a person who meets the trained model on a hub should know."""

from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from score_core.config.parsing import Config
from score_core.config.schema import HubData, HubModel, Stage1, Stage2
from score_core.errors import UserError
from score_core.report import wording
from score_core.report.inputs import Inputs
from score_core.report.tables import result_rows

# The parameters of the training table, in its order; the rest is in the report.
TRAINING_KEYS = (
    "steps",
    "attempts",
    "prompts_per_step",
    "samples_per_prompt",
    "temperature",
    "learning_rate",
    "beta1",
    "beta2",
    "alpha",
    "gamma",
    "kl_estimator",
    "baseline",
    "baseline_later",
    "length_aggregation",
    "select",
)


def render_card(inputs: Inputs, config: Config, root: Path) -> str:
    """The card as Markdown with YAML front matter; prompts are read below `root`.

    Raises:
        UserError: a prompt file is missing.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # it is Markdown, and no model text goes into it
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    conversation = config.conversation
    return environment.get_template("card.md.j2").render(
        front_matter=yaml.safe_dump(front_matter(inputs, config), sort_keys=False, allow_unicode=True),
        config=config,
        inputs=inputs,
        headline=wording.headline(inputs),
        model_name=wording.model_name(config),
        data_name=wording.data_name(config),
        decoding=wording.decoding(config),
        results=result_rows(inputs),
        training=[(key, *_settings(config, key)) for key in TRAINING_KEYS],
        prompts={
            name: _read_prompt(root, path, name)
            for name, path in (
                ("system", conversation.system),
                ("first", conversation.first),
                ("retry", conversation.retry),
            )
            if path is not None
        },
    )


def front_matter(inputs: Inputs, config: Config) -> dict[str, Any]:
    """The card's metadata in the hub's vocabulary; base model and data set only where a hub has them."""
    metrics = inputs.final.metrics
    keys = [
        *(f"accuracy_t{t}" for t in range(1, inputs.attempts + 1)),
        "delta",
        "delta_i_to_c",
        "delta_c_to_i",
    ]
    matter: dict[str, Any] = {
        "library_name": "peft" if config.lora else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["self-correction", "reinforcement-learning", "score", "arxiv:2409.12917"],
    }
    if isinstance(config.model, HubModel):
        matter["base_model"] = config.model.path
    if isinstance(config.data, HubData):
        matter["datasets"] = [config.data.path]
    matter["model-index"] = [
        {
            "name": config.report.title,
            "results": [
                {
                    "task": {"type": "text-generation"},
                    "dataset": {
                        "name": wording.data_name(config),
                        "type": config.data.source,
                        "split": "test",
                    },
                    "metrics": [{"type": key, "name": key, "value": metrics[key]} for key in keys],
                }
            ],
        }
    ]
    return matter


def _settings(config: Config, key: str) -> tuple[str, str]:
    """A parameter in Stage I and in Stage II; a dash where a stage has no such parameter."""
    stages: tuple[Stage1, Stage2] = (config.stage1, config.stage2)
    first, second = (str(getattr(stage, key, wording.NONE)) for stage in stages)
    return first, second


def _read_prompt(root: Path, path: str, name: str) -> str:
    try:
        return (root / path).read_text().strip()
    except OSError:
        raise UserError(
            f"{root / path}: not found; conversation.{name} names it: write the file, or name another one."
        ) from None
