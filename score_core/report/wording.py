"""How numbers and settings read on the page and on the card."""

import json
from collections.abc import Callable, Iterator
from typing import Any

from score_core.config.parsing import Config
from score_core.config.schema import (
    AdditionData,
    AdditionModel,
    HubData,
    HubModel,
    LocalData,
    LocalModel,
    TinyModel,
)
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
    low, high = inputs.final.interval("delta")
    verdict = (
        "gains by its second attempt"
        if low > 0
        else "loses by its second attempt"
        if high < 0
        else "shows no clear gain or loss at its second attempt"
    )
    return (
        f"On {inputs.problems:,} held-out problems the trained model {verdict}: "
        f"{percent(final['accuracy_t1'])} % right at attempt 1, "
        f"{percent(final['accuracy_t2'])} % at attempt 2, "
        f"{points(final['delta'])} points (95 % interval {points(low)} to {points(high)}). "
        f"The base model went from {percent(base['accuracy_t1'])} % to {percent(base['accuracy_t2'])} %, "
        f"{points(base['delta'])} points."
    )


def model_name(config: Config) -> str:
    """The base model, named for a reader."""
    match config.model:
        case AdditionModel() as model:
            return f"embedded Qwen2, {model.layers} layers of {model.hidden_size}, taught on sums"
        case HubModel() as model:
            return f"{model.path} ({model.revision})"
        case LocalModel() as model:
            return f"local model {model.path}"
        case TinyModel() as model:
            return f"tiny {model.family} with random weights"


def data_name(config: Config) -> str:
    """The problems, named for a reader."""
    match config.data:
        case AdditionData() as data:
            return f"addition of two {data.digits}-digit numbers"
        case HubData() as data:
            return f"{data.path}{f' / {data.name}' if data.name else ''} ({data.revision})"
        case LocalData() as data:
            return f"local data {data.path}"


def decoding(config: Config) -> str:
    """How the evaluation chose tokens."""
    evaluation = config.evaluation
    if evaluation.temperature == 0:
        return "greedy decoding"
    nucleus = f", top-p {evaluation.top_p:g}" if evaluation.top_p < 1 else ""
    return f"sampling at temperature {evaluation.temperature:g}{nucleus}"


def flat_parameters(config: Config) -> list[tuple[str, list[tuple[str, str]]]]:
    """Every parameter as (section, [(key, value)]); the ones of no section come first, under `run`."""
    loose: list[tuple[str, str]] = []
    sections = []
    for key, value in config.model_dump(mode="json").items():
        if isinstance(value, dict):
            sections.append((key, list(_leaves(value))))
        else:
            loose.append((key, _text(value)))
    return [("run", loose), *sections]


def _leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _text(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
