"""The model card: what a person who meets the trained model on a hub should know."""

from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData

from score_core.config.data import HubData
from score_core.config.model import HubModel
from score_core.config.schema import Config
from score_core.files import read_text
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
        front_matter=front_matter(inputs, config).to_yaml(),
        training=training_rows(inputs, config),
        prompts={name: _read_prompt(root, path, name) for name, path in files.items() if path is not None},
    )


def front_matter(inputs: Inputs, config: Config) -> ModelCardData:
    """The card's metadata in the hub's vocabulary; base model and data set only where a hub has them."""
    model, data = config.used_model, config.used_data
    score = ["reinforcement-learning", "score", "arxiv:2409.12917"]
    return ModelCardData(
        library_name="peft" if config.lora else "transformers",
        pipeline_tag="text-generation",
        tags=["self-correction", *(score if wording.is_score(inputs, config) else ())],
        base_model=model.path if isinstance(model, HubModel) else None,
        datasets=[data.path] if isinstance(data, HubData) else None,
        model_name=config.report.title,
        eval_results=[
            EvalResult(
                task_type="text-generation",
                dataset_type=data.source,
                dataset_name=wording.data_name(config),
                dataset_split="test",
                metric_type=key,
                metric_name=key,
                metric_value=inputs.final.metrics[key],
            )
            for key in (*(f"accuracy_t{t}" for t in range(1, inputs.attempts + 1)), *CHANGES)
        ],
    )


def _read_prompt(root: Path, path: str, name: str) -> str:
    remedy = f"conversation.{name} names it: write the file, or name another one"
    return read_text(root / path, remedy).strip()
