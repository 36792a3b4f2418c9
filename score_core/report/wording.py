"""How numbers and settings read on the page and on the card."""

import json
from collections.abc import Callable, Iterator
from typing import Any

from score_core.config.data import AdditionData, HubData, LocalData
from score_core.config.model import AdditionModel, HubModel, LocalModel, TinyModel
from score_core.config.schema import Config
from score_core.config.section import Section
from score_core.report.inputs import Inputs

MINUS = "\u2212"
NONE = "\u2013"  # a dash, where there is no value


def percent(share: float) -> str:
    """0.9985 -> `99.9`; the unit stands in the heading."""
    return _signless_zero(f"{100 * share:.1f}").replace("-", MINUS)


def points(difference: float) -> str:
    """A difference of shares in percentage points, always with its sign: `+14.9`, `−0.4`, `0.0`."""
    text = _signless_zero(f"{100 * difference:+.1f}")
    return text.replace("-", MINUS)


def interval(bounds: tuple[float, float], show: Callable[[float], str] = percent) -> str:
    """`[84.1, 86.9]`, each bound shown by `show`."""
    return f"[{show(bounds[0])}, {show(bounds[1])}]"


def p_value(p: float) -> str:
    """`p = 0.012`, or `p < 0.001`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _signless_zero(text: str) -> str:
    return text.lstrip("+-") if float(text) == 0 else text


def headline(inputs: Inputs) -> str:
    """The result in one sentence, with its numbers."""
    final, base = inputs.final.metrics, inputs.base.metrics
    model = "trained" if inputs.training else inputs.final.name
    low, high = inputs.final.interval("delta")
    verdict = (
        "gains by its second attempt"
        if low > 0
        else "loses by its second attempt"
        if high < 0
        else "shows no clear gain or loss at its second attempt"
    )
    sentence = (
        f"On {inputs.problems:,} held-out problems the {model} model {verdict}: "
        f"{percent(final['accuracy_t1'])} % right at attempt 1, "
        f"{percent(final['accuracy_t2'])} % at attempt 2, "
        f"{points(final['delta'])} points (95 % interval {points(low)} to {points(high)})."
    )
    if not inputs.compared:
        return sentence
    return (
        f"{sentence} The {inputs.base.name} model went "
        f"from {percent(base['accuracy_t1'])} % to {percent(base['accuracy_t2'])} %, "
        f"{points(base['delta'])} points."
    )


def is_score(inputs: Inputs, config: Config) -> bool:
    """Whether what is SCoRe's own was part of the training: Stage I, or a bonus for progress."""
    stages = [config.stage(trained.name).model_dump() for trained in inputs.training]
    return any(stage["algorithm"] == "score_stage1" or stage.get("alpha") for stage in stages)


def methods(inputs: Inputs, config: Config) -> str:
    """A sentence on each stage of training."""
    return " ".join(
        f"{trained.label} {_method(config.stage(trained.name).model_dump())}." for trained in inputs.training
    )


def _method(settings: dict[str, Any]) -> str:
    match settings["algorithm"]:
        case "score_stage1":
            return (
                "rewards the last attempt only and holds those before it close to where they were, "
                "so that they come apart"
            )
        case "score_stage2":
            progress = ", and each once more for the progress it makes over the one before"
            return f"rewards every attempt{progress if settings['alpha'] else ''}"
        case other:
            return f"is trained by {other}"


def model_name(config: Config) -> str:
    """The model that training starts from, named for a reader."""
    match config.used_model:
        case AdditionModel() as model:
            return f"embedded Qwen2, {model.layers} layers of {model.hidden_size}, taught on sums"
        case HubModel() as model:
            return f"{model.path} ({model.revision})"
        case LocalModel() as model:
            return f"local model {model.path}"
        case TinyModel() as model:
            instead = f", in place of {config.model.path}" if isinstance(config.model, HubModel) else ""
            return f"tiny {model.family} with random weights{instead}"


def data_name(config: Config) -> str:
    """The problems, named for a reader."""
    match config.used_data:
        case AdditionData() as data:
            return f"addition of two {data.digits}-digit numbers"
        case HubData() as data:
            return f"{data.path}{f' / {data.name}' if data.name else ''} ({data.revision})"
        case LocalData() as data:
            instead = f", in place of {config.data.path}" if isinstance(config.data, HubData) else ""
            return f"local data {data.path}{instead}"


def decoding(config: Config) -> str:
    """How the evaluation chose tokens."""
    evaluation = config.evaluation
    if evaluation.temperature == 0:
        return "greedy decoding"
    nucleus = f", top-p {evaluation.top_p:g}" if evaluation.top_p < 1 else ""
    return f"sampling at temperature {evaluation.temperature:g}{nucleus}"


def flat_parameters(config: Config) -> list[tuple[str, list[tuple[str, str]]]]:
    """Every parameter as (section, [(key, value)]); the ones of no section come first, under `run`."""
    sections: dict[str, list[tuple[str, str]]] = {"run": []}
    for key, value in config:
        if isinstance(value, Section):
            sections[key] = list(leaves(value))
        elif key == "stages":
            sections |= {name: list(leaves(settings)) for name, settings in value.items()}
        else:
            sections["run"].append((key, _text(value)))
    return list(sections.items())


def leaves(section: Section) -> Iterator[tuple[str, str]]:
    """Every parameter of a section, by its dotted key."""
    return _leaves(section.model_dump(mode="json"))


def _leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _text(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
