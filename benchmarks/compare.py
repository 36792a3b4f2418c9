"""The page of experiments/compare: every method beside SCoRe, over seeds.

    python -m benchmarks.compare

reads metrics/, curves/ and settings/ there, and writes table.csv, a row a seed and method, page.md and its
figures. A cell without metrics has failed or has not run, and is shown as such.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.arms import REMEDY, trained_methods
from benchmarks.compare_figures import KINDS, draw_all, label_of, votes
from benchmarks.paired import paired, with_interval
from benchmarks.tables import markdown
from score_core.files import parse_yaml, read_json, read_yaml, replacing
from score_core.report.wording import MINUS, NONE
from tasks.runner.exits import exit_code, parser_of

HERE = Path("experiments/compare")
PUBLISHED = Path("score_core/report/published.yaml")
CONTROL = "stage2"  # SCoRe: what all others are compared with
RESAMPLED = "_resampled"  # of a method that is evaluated with another sample in place of a correction
RESAMPLED_AT = 0.7  # the temperature that experiments/compare/dvc.yaml gives it
FIGURES = ["accuracy_t1", "accuracy_t2", "delta", "delta_i_to_c", "delta_c_to_i"]
CAPTIONS = {
    "differences.svg": "Points above SCoRe: seeds as dots, their mean and its interval",
    "curves.svg": "Validation accuracy over training: seeds thin, their mean thick",
    "votes.svg": "Accuracy of the most frequent answer by the number of answers",
}
HEADS = ["t1", "t2", "Δ", "i→c", "c→i"]


def read_table(here: Path, methods: dict[str, Any]) -> pd.DataFrame:
    """A row a seed and method, in the order of the lists; figures are missing where a cell has none."""
    rows = []
    for method in names(methods):
        for seed in methods["seeds"]:
            row: dict[str, Any] = {"method": method, "seed": seed}
            path = here / "metrics" / f"{seed}-{method}.json"
            if path.exists():
                metrics = read_json(path, made_by=f"evaluate@{seed}-{method}")
                row |= {key: metrics[key] for key in FIGURES} | spent(here, methods, seed, method)
                row["signs"] = signs(here, seed, method)
            rows.append(row)
    columns = ["method", "seed", *FIGURES, "trajectories", "tokens", "signs"]
    return pd.DataFrame(rows).reindex(columns=columns)


def names(methods: dict[str, Any]) -> list[str]:
    """The rows of the page: what is evaluated, SCoRe last."""
    found = ["base", "fix", *["base_verifying"] * bool(methods["from_verifying"])]
    for name in trained_methods(methods):
        found += [name] if name != CONTROL else []
        found += [f"{name}{RESAMPLED}"] if name in methods["resampled"] else []
    return [*found, CONTROL]


def signs(here: Path, seed: int, method: str) -> str:
    """The signs of collapse that held when its training ended, if it was trained."""
    trained = method.removesuffix(RESAMPLED)
    path = here / "curves" / f"{seed}-{trained}.json"
    told = read_json(path, made_by=f"train@{seed}-{trained}").get("warnings", []) if path.exists() else []
    return ", ".join(sorted({one["sign"] for one in told if one["until"] is None}))


def spent(here: Path, methods: dict[str, Any], seed: int, method: str) -> dict[str, float]:
    """Trajectories and tokens sampled in training, those of Stage I included where it comes before."""
    method, found = method.removesuffix(RESAMPLED), {"trajectories": 0.0, "tokens": 0.0}
    if method not in trained_methods(methods):
        return found
    if method in methods["from_stage1"]:
        found = spent(here, methods, seed, "stage1")
    stage = read_json(here / "settings" / f"{method}.json", made_by="settings")["stage"]
    curve = pd.read_csv(here / "curves" / f"{seed}-{method}_curve.csv")
    trajectories = stage["prompts_per_step"] * stage["samples_per_prompt"]
    trajectories *= stage["steps"] * stage.get("iterations", 1)
    lengths = curve.filter(regex=r"^length_[tv]\d+$").mean().sum()  # of iterations, the last one's
    return {
        "trajectories": found["trajectories"] + trajectories,
        "tokens": found["tokens"] + trajectories * lengths,
    }


def decoding(evaluation: dict[str, Any]) -> str:
    """How answers were chosen, by the section `evaluation`; other samples have their own temperature."""
    if evaluation["temperature"] == 0:
        return "greedy but for resampling"
    top_p = f", top-p {evaluation['top_p']:g}" if evaluation["top_p"] < 1 else ""
    mean = f", mean of {evaluation['samples']} samples a problem" if evaluation["samples"] > 1 else ""
    return (
        f"sampled at temperature {evaluation['temperature']:g}{top_p}{mean}, resampling at {RESAMPLED_AT:g}"
    )


def page(
    table: pd.DataFrame,
    methods: dict[str, Any],
    evaluation: dict[str, Any],
    voted: str = "",
    drawn: Sequence[str] = (),
) -> str:
    """The whole page as markdown, with the figures that were drawn."""
    rows = []
    for method, cells in table.groupby("method", sort=False):
        done = cells.dropna(subset=FIGURES)
        label = label_of(methods, str(method))
        missing = ", ".join(str(seed) for seed in cells["seed"] if seed not in set(done["seed"]))
        shown = label + (f" (**failed or not run**: {missing})" if missing else "")
        told = "; ".join(
            f"{seed} {signs}" for seed, signs in zip(done["seed"], done["signs"], strict=True) if signs
        )
        shown += f" (signs of collapse: {told})" if told else ""
        if done.empty:
            rows.append([shown, *[NONE] * (len(HEADS) + 4)])
            continue
        means = [f"{100 * done[figure].mean():.1f}" for figure in FIGURES]
        gaps = [
            with_interval(paired(table, str(method), CONTROL, figure)) if method != CONTROL else ""
            for figure in ("accuracy_t1", "accuracy_t2")
        ]
        budget = [f"{done[key].mean():,.0f}" for key in ("trajectories", "tokens")]
        rows.append([shown, *means, *gaps, *budget])
    header = ["method", *HEADS, f"t1 {MINUS} SCoRe", f"t2 {MINUS} SCoRe", "trajectories", "tokens"]
    seeds = ", ".join(map(str, methods["seeds"]))
    figures = [f"{text}\n\n![{text}]({name})" for name, text in CAPTIONS.items() if name in drawn]
    return "\n\n".join(
        [
            "# Methods beside SCoRe",
            f"Percent on the test split, {decoding(evaluation)}; means over seeds {seeds}. Differences "
            "are paired by seed, in points, with Student's 95 % interval over seeds. Trajectories and tokens "
            "are those sampled in training, verdicts included; budgets differ where these do. PAG starts "
            "from a base model of its own, taught verdicts too, and its t2 is the final answer: the first "
            "one, unless it called that wrong.",
            markdown(header, rows),
            *figures,
            *([voted] if voted else []),
            "# Published, of other models on other tasks",
            *(published(block) for block in parse_yaml(PUBLISHED.read_text())),
        ]
    )


def votes_table(here: Path, methods: dict[str, Any]) -> str:
    """What several answers to a problem are worth; nothing where no method has been asked for several."""
    rows = []
    for name in methods["voted"]:
        seeds = votes(here, methods, name)
        for budget in next(iter(seeds.values())).index if seeds else ():
            found = pd.DataFrame({seed: one.loc[budget] for seed, one in seeds.items()})
            means = [f"{found.loc[kind].mean():.1f}" for kind in KINDS]
            gap = with_interval(found.loc["gain"].to_numpy())
            rows.append([label_of(methods, name), budget, *means, gap])
    if not rows:
        return ""
    header = ["method", "answers", *KINDS.values(), "difference"]
    text = (
        "Accuracy of the most frequent of so many answers, in percent, at temperature 0.7; means over seeds."
    )
    return f"# Many answers at test time\n\n{text}\n\n{markdown(header, rows)}"


def published(block: dict[str, Any]) -> str:
    """One table of published figures."""
    rows = [
        [row["method"], row["t1"], row["t2"], f"{row['t2'] - row['t1']:+.1f}"]
        + [row.get(key, "") for key in ("i_to_c", "c_to_i")]
        for row in block["rows"]
    ]
    return f"{block['title']} ({block['source']})\n\n{markdown(['method', *HEADS], rows)}"


def main() -> None:
    """Writes all of it, and prints the tables."""
    parser_of("benchmarks.compare", __doc__).parse_args()

    def work() -> None:
        methods = read_yaml(HERE / "methods.yaml", REMEDY)
        table = read_table(HERE, methods)
        drawn = draw_all(HERE, methods, table, CONTROL)
        evaluation = read_json(HERE / "settings" / "fix.json", made_by="settings")["evaluation"]
        text = page(table, methods, evaluation, votes_table(HERE, methods), drawn)
        print(text.split("# Published")[0])
        for name, content in (("table.csv", table.to_csv(index=False)), ("page.md", f"{text}\n")):
            with replacing(HERE / name) as temporary:
                temporary.write_text(content)

    raise SystemExit(exit_code("compare", work))


if __name__ == "__main__":
    main()
