"""The rows of the two tables of metrics, as a reader sees them."""

from collections.abc import Callable

from score_core.config.schema import Config
from score_core.report import wording
from score_core.report.inputs import Inputs
from score_core.report.labels import TRANSITIONS

Show = Callable[[float], str]


def result_rows(inputs: Inputs) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """The main table: (name, what it is, [(value, interval) of each model]), in percent and points."""
    rows: list[tuple[str, str, Show, str]] = [
        (f"Accuracy, attempt {t}", f"accuracy_t{t}", wording.percent, "share of problems right")
        for t in range(1, inputs.attempts + 1)
    ]
    for t in range(2, inputs.attempts + 1):
        suffix, later = ("", "") if t == 2 else (f"_t{t}", f", attempt {t}")
        rows += [
            (f"Δ{later}", f"delta{suffix}", wording.points, f"attempt {t} minus attempt {t - 1}"),
        ]
        for key, became in (("delta_i_to_c", "corrected"), ("delta_c_to_i", "spoiled")):
            name = f"{TRANSITIONS[key].capitalize()}{later}"
            rows.append((name, f"{key}{suffix}", wording.percent, f"share of all problems {became}"))
    return [
        (
            name,
            meaning,
            [
                (show(model.metrics[key]), wording.interval(model.interval(key), show))
                for model in inputs.models
            ],
        )
        for name, key, show, meaning in rows
    ]


def monitor_rows(inputs: Inputs) -> list[tuple[str, list[str]]]:
    """The monitors of collapse: (name, [value of each model])."""
    attempts = range(1, inputs.attempts + 1)
    rows: list[tuple[str, str, Show]] = [
        (f"Answers changed at attempt {t}, %", f"changed_t{t}", wording.percent) for t in attempts[1:]
    ]
    rows += [
        (
            f"Edit distance from attempt {t - 1} to {t}, share of both lengths",
            f"edit_distance_ratio_t{t}",
            _decimals,
        )
        for t in attempts[1:]
    ]
    for name, key, show in (
        ("No answer found at attempt {}, %", "unparsable", wording.percent),
        ("Truncated at the length limit at attempt {}, %", "truncated", wording.percent),
        ("Mean length of attempt {}, tokens", "length", _one_decimal),
        ("Mean training reward of attempt {}", "reward", _decimals),
    ):
        rows += [(name.format(t), f"{key}_t{t}", show) for t in attempts]
    return [(name, [show(model.metrics[key]) for model in inputs.models]) for name, key, show in rows]


def training_rows(inputs: Inputs, config: Config) -> list[tuple[str, list[str]]]:
    """The parameters of training: (key, [value of each stage]), a dash where a stage has no such key."""
    stages = [dict(wording.leaves(config.stage(trained.name))) for trained in inputs.training]
    keys = dict.fromkeys(key for settings in stages for key in settings)
    return [(key, [settings.get(key, wording.NONE) for settings in stages]) for key in keys]


def _one_decimal(value: float) -> str:
    return f"{value:.1f}"


def _decimals(value: float) -> str:
    return f"{value:.3f}".replace("-", wording.MINUS)
