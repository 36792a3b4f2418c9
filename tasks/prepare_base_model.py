"""Stage `prepare_base_model`: put the model to start from at `models/base/`.

It is fetched from the hub, pinned, or copied from a local folder, or built: the embedded model of
sums, or a tiny one for smoke runs.
"""

from pathlib import Path

from score_core.config.parsing import Config
from score_core.config.runtime import Runtime
from score_core.config.schema import AdditionData, AdditionModel, HubModel, LocalModel
from score_core.files import replacing

BASE = Path("models/base")
OUTPUTS = (BASE,)


def run(config: Config, runtime: Runtime) -> None:
    """Makes the base model that `config.model` names and checks that it loads."""
    with replacing(BASE) as folder:
        _make(config, folder)
        _check(config, folder)


def _make(config: Config, folder: Path) -> None:
    model = config.model
    if isinstance(model, AdditionModel):
        from score_core.embedded import addition_model

        assert isinstance(config.data, AdditionData)  # `Config` refuses anything else
        addition_model.build(model, config.data, config.seed, folder)
    elif isinstance(model, HubModel):
        from score_core.models.folders import fetch_hub_model

        fetch_hub_model(model.path, model.revision, folder)
    elif isinstance(model, LocalModel):
        from score_core.models.folders import copy_local_model

        copy_local_model(Path(model.path), folder)
    else:
        from score_core.embedded import tiny_model
        from score_core.seeding import derive_seed

        tiny_model.build(model.family, derive_seed(config.seed, "tiny_model"), folder)


def _check(config: Config, folder: Path) -> None:
    """Loads what can be loaded without the weights, so that no later stage fails on it."""
    from transformers import AutoConfig

    from score_core.errors import UserError
    from score_core.models.folders import load_tokenizer

    source = getattr(config.model, "path", BASE)
    try:
        load_tokenizer(folder)
        AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except UserError as error:
        # The message names a temporary folder; what the user can mend is where it came from.
        raise UserError(str(error).replace(str(folder), f"model.path {source}")) from None
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200].replace(str(folder), str(source))
        raise UserError(
            f"model.path {source}: transformers cannot read its configuration ({reason}); use a model "
            "it supports without code of its own."
        ) from error


if __name__ == "__main__":
    from tasks.runner.command_line import run_stage

    run_stage("prepare_base_model", run, OUTPUTS)
