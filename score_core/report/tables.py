"""The rows of the page's and the card's tables."""

import json
from collections.abc import Iterator
from typing import Any

from score_core.config.schema import Config
from score_core.config.section import Section
from score_core.report.inputs import Inputs
from score_core.report.labels import TRANSITIONS
from score_core.report.wording import NONE, Show, number, percent, points

# (name, key in the metrics, how it is shown, the first attempt that has it)
MONITORS = (
    ("Answers changed at attempt {t}, %", "changed", percent, 2),
    ("Edit distance from attempt {before} to {t}, share of both lengths", "edit_distance_ratio", number, 2),
    ("No answer found at attempt {t}, %", "unparsable", percent, 1),
    ("Truncated at the length limit at attempt {t}, %", "truncated", percent, 1),
    ("Tests passed at attempt {t}, %", "tests_passed", percent, 1),  # of programs
    ("Token F1 of attempt {t}, %", "f1", percent, 1),  # of answers in words
    ("Mean length of attempt {t}, tokens", "length", "{:.1f}".format, 1),
    ("Mean training reward of attempt {t}", "reward", number, 1),
)


def result_rows(attempts: int, repaired: bool = False) -> list[tuple[str, str, str, Show]]:
    """The main table: (name, what it is, key in the metrics, how a value is shown)."""
    rows: list[tuple[str, str, str, Show]] = [
        (f"Accuracy, attempt {t}", "share of problems right", f"accuracy_t{t}", percent)
        for t in range(1, attempts + 1)
    ]
    for t in range(2, attempts + 1):
        suffix, later = ("", "") if t == 2 else (f"_t{t}", f", attempt {t}")
        rows.append((f"Δ{later}", f"attempt {t} minus attempt {t - 1}", f"delta{suffix}", points))
        for key, became in (("delta_i_to_c", "corrected"), ("delta_c_to_i", "spoiled")):
            name = f"{TRANSITIONS[key].capitalize()}{later}"
            rows.append((name, f"share of all problems {became}", f"{key}{suffix}", percent))
    if repaired:
        what = "share of given wrong programs right after one correction"
        rows.append(("Repaired programs (MBPP-R)", what, "repair_accuracy", percent))
    return rows


def monitor_rows(inputs: Inputs) -> list[tuple[str, str, Show]]:
    """The monitors that all models have: (name, key in the metrics, how a value is shown)."""
    rows = [
        (name.format(t=t, before=t - 1), f"{key}_t{t}", show)
        for name, key, show, first in MONITORS
        for t in range(first, inputs.attempts + 1)
    ]
    return [row for row in rows if all(row[1] in model.metrics for model in inputs.models)]


def label_tables(inputs: Inputs) -> dict[str, list[tuple[str, int, list[list[float]]]]]:
    """By each column of labels and value: (value, problems, for each model its accuracy at each attempt)."""
    by = inputs.base.metrics.get("by", {})
    keys = [f"accuracy_t{t}" for t in range(1, inputs.attempts + 1)]
    return {
        column: [
            (
                value,
                int(found["n"]),
                [[model.metrics["by"][column][value][key] for key in keys] for model in inputs.models],
            )
            for value, found in values.items()
        ]
        for column, values in by.items()
    }


def training_rows(inputs: Inputs, config: Config) -> list[tuple[str, list[str]]]:
    """The parameters of training: (key, [value of each stage]), a dash where a stage has no such key."""
    stages = [dict(_leaves(config.stage(trained.name))) for trained in inputs.training]
    keys = dict.fromkeys(key for settings in stages for key in settings)
    return [(key, [settings.get(key, NONE) for settings in stages]) for key in keys]


def parameter_rows(config: Config) -> dict[str, list[tuple[str, str]]]:
    """Every parameter, (key, value) by section; the ones of no section come first, under `run`."""
    sections: dict[str, Any] = {"run": {}}
    for key, value in config:
        if key == "stages":
            sections |= value
        else:
            (sections if isinstance(value, Section) else sections["run"])[key] = value
    return {name: list(_leaves(values)) for name, values in sections.items()}


def _leaves(values: Section | dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every value with its dotted key; what is no text is shown as JSON."""
    for key, value in (values.model_dump(mode="json") if isinstance(values, Section) else values).items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
