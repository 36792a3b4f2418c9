"""Inputs that nobody meant, of each kind that the pipeline takes: all are accepted, or refused in one line.

Settings are drawn from the schema's own types; everything else is a good file in which a value or some bytes
are changed. The stages run in this process at toy size. `tests/test_fuzz.py` tries some, `make fuzz` many.
"""

import json
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import yaml
from hypothesis import strategies as st

from score_core.algorithms import SETTINGS
from score_core.config.parsing import load_config, load_runtime
from score_core.config.runtime import Runtime
from score_core.config.schema import Config
from score_core.config.section import Section
from score_core.files import tree_digests
from score_core.problems import Problem
from tasks.commands import try_it
from tasks.commands.merge import merge
from tasks.runner.launch import check_launch, resolve
from tests.fuzz_trial import Draw, Work
from tests.fuzz_workplace import fetch, judge, learn, made_up, parameters, prepare, tell, what_to_do

Key = tuple[Any, ...]
Values = Callable[[Key], st.SearchStrategy[Any]]

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
# As large as a toy's sizes, and otherwise beyond every limit: nothing between that only takes long.
NUMBERS = st.integers(-2, 8) | st.sampled_from([2**31, 2**63, 10**30, -(10**12)])
WORDS = st.sampled_from(["011", "1:20", "yes", "~nobody/x", "/", "..", "a\0b", "x" * 5000, "2020-13-45"])
JUNK = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.floats() | TEXT | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=4,
)


# ---------------------------------------------------------------------------------------- what is changed


def spoil_value(draw: Draw, content: Any, value: Values) -> Any:
    """Nested content with a value or a key of it taken out, replaced or added; and the path of that."""
    path: Key = ()
    inner = content
    while isinstance(inner, dict | list) and inner and (not path or draw(st.booleans())):
        parent, at = (
            inner,
            draw(st.sampled_from(list(inner) if isinstance(inner, dict) else range(len(inner)))),
        )
        inner, path = parent[at], (*path, at)
    match draw(st.sampled_from(["replace", "replace", "replace", "remove", "add"])):
        case "replace":
            parent[at] = draw(value(path))
        case "remove":
            del parent[at]
        case "add" if isinstance(parent, dict):
            parent[draw(TEXT)] = draw(JUNK)
    return path


def spoil_bytes(draw: Draw, file: Path) -> None:
    """Cuts a file, changes bytes in it, adds some, encodes it otherwise or removes it."""
    content = file.read_bytes()
    start = draw(st.integers(0, len(content)))
    end = draw(st.integers(start, min(len(content), start + 20)))
    match draw(st.sampled_from(["replace", "replace", "cut", "utf-16", "empty", "remove", "folder"])):
        case "replace":
            file.write_bytes(content[:start] + draw(st.binary(max_size=20)) + content[end:])
        case "cut":
            file.write_bytes(content[:start])
        case "utf-16":
            file.write_bytes(content.decode("latin-1").encode("utf-16"))
        case "empty":
            file.write_bytes(b"")
        case kind:
            file.unlink()
            if kind == "folder":
                file.mkdir()


def spoil_json(draw: Draw, file: Path) -> None:
    """A value of a JSON file, or its bytes."""
    if draw(st.integers(0, 3)) == 0:
        spoil_bytes(draw, file)
        return
    content = json.loads(file.read_text())
    spoil_value(draw, content, lambda path: JUNK)
    file.write_text(json.dumps(draw(st.sampled_from([content, content, content, [content]]))))


def of_type(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a type of the schema: those that its limits allow."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        limits = [one for part in parts[1:] for one in getattr(part, "metadata", [part])]
        if parts[0] not in (int, float):
            return of_type(parts[0])
        return st.integers(1, 8).map(parts[0]) | st.from_type(Annotated[(parts[0], *limits)])
    if origin in (typing.Union, types.UnionType):
        return st.one_of(map(of_type, parts))
    if isinstance(hint, type) and issubclass(hint, Section):
        fields = {name: of_type(field.rebuild_annotation()) for name, field in hint.model_fields.items()}
        return st.fixed_dictionaries(fields)
    if origin is tuple:
        return st.lists(of_type(parts[0]), max_size=3)
    return TEXT if hint is str else st.from_type(hint)


def hint_at(hint: Any, path: Key) -> Any:
    """The schema's type of what stands at a path; Any where it knows none."""
    if not path:
        return hint
    if isinstance(hint, type) and issubclass(hint, Section):
        field = hint.model_fields.get(path[0])
        if hint is Config and path[0] in ("training", "stage1", "stage2"):
            return hint_at(SETTINGS["score_stage2" if path[0] == "stage2" else "score_stage1"], path[1:])
        return hint_at(field.rebuild_annotation(), path[1:]) if field else Any
    found = [hint_at(part, path) for part in typing.get_args(hint)]
    return next((one for one in found if one is not Any), Any)


def value_of(schema: type[Section]) -> Values:
    """Values for a path of a file: small, or as the schema has them, or anything."""

    def value(path: Key) -> st.SearchStrategy[Any]:
        hint = hint_at(schema, path)
        kinds = [JUNK, *([] if hint is Any else [of_type(hint)] * 3)]
        return st.sampled_from(kinds).flatmap(lambda kind: kind)

    return value


# ---------------------------------------------------------------------------------------- kinds of inputs


def parameters_of_the_schema(draw: Draw) -> Work:
    """One or two values of params.yaml, and the stage that reads them."""
    content = draw(st.sampled_from([parameters, made_up]))()
    sections = {spoil_value(draw, content, value_of(Config))[0] for _ in range(draw(st.integers(1, 2)))}
    Path("params.yaml").write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    changed = [content.get(section) for section in sections]
    if sections & {"data"}:
        stage: Work = fetch
    elif sections & {"model", "seed"}:
        stage = prepare
    elif sections & {"lora", "training", "stage1"}:
        stage = learn
    else:
        stage = judge

    def work() -> None:
        config, _ = what_to_do()
        if _largest(changed) <= 1024 and config.used_model.source != "hub":
            stage()

    return work


def _largest(content: Any) -> float:
    if isinstance(content, dict | list):
        return max(map(_largest, content.values() if isinstance(content, dict) else content), default=0)
    return content if isinstance(content, int | float) else 0


def runtime_of_the_schema(draw: Draw) -> Work:
    """One or two values of runtime.yaml, and what the environment says instead of it."""
    content = yaml.safe_load(Path("runtime.yaml").read_text())
    for _ in range(draw(st.integers(0, 2))):
        spoil_value(draw, content, value_of(Runtime))
    Path("runtime.yaml").write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    names = st.sampled_from(["SCORE_LAUNCH_PROCESSES", "SCORE_LAUNCH_THROUGH", "SCORE_LAUNCH_"])
    environment = draw(st.dictionaries(names, TEXT | WORDS | st.just("\udcff"), max_size=1))

    def work() -> None:
        config, _ = load_config(Path("params.yaml"), SETTINGS), None
        check_launch(config, resolve(load_runtime(Path("runtime.yaml"), environment).launch), "stage1")

    return work


def bytes_of_settings(draw: Draw) -> Work:
    """Bytes of the two files of settings, or a --set."""
    spoil_bytes(draw, Path(draw(st.sampled_from(["params.yaml", "runtime.yaml"]))))
    changes = draw(st.lists(TEXT | TEXT.map("seed={}".format), max_size=1))
    return lambda: what_to_do(*changes)


def rows_of_data(draw: Draw) -> Work:
    """Values, columns and bytes of a source of data, in each of its formats."""
    folder = Path("rows")
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    match draw(st.sampled_from(["values", "bytes", "csv", "parquet", "saved"])):
        case "values":
            for _ in range(draw(st.integers(1, 3))):
                spoil_value(draw, rows, lambda path: JUNK)
            (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        case "bytes":
            spoil_bytes(draw, folder / "train.jsonl")
        case "csv":
            (folder / "train.jsonl").unlink()
            (folder / "more.csv").rename(folder / "train.csv")
            spoil_bytes(draw, folder / "train.csv")
        case "parquet":
            pd.DataFrame(rows).to_parquet(folder / "train.parquet")
            (folder / "train.jsonl").unlink()
            spoil_bytes(draw, folder / "train.parquet")
        case "saved":
            name = draw(st.sampled_from(["dataset_dict.json", "state.json", "dataset_info.json"]))
            (folder / name).write_text(json.dumps(draw(JUNK)))
    return fetch


def prepared_data(draw: Draw) -> Work:
    """The splits that download_data has written."""
    split = Path("data/test.parquet")
    if draw(st.booleans()):
        spoil_bytes(draw, split)
        return judge
    rows = pd.read_parquet(split).astype({"references": object})
    rows[draw(st.sampled_from([*rows.columns, "other"]))] = [draw(TEXT | st.lists(TEXT, max_size=2))] * len(
        rows
    )
    rows.drop(columns=draw(st.lists(st.sampled_from(list(rows.columns)), max_size=1))).to_parquet(split)
    return judge


def model_folder(draw: Draw) -> Work:
    """A value or bytes in a model's folder, when it is taken in and when it is used."""
    name = draw(
        st.sampled_from([path.name for path in sorted(Path("base").iterdir()) if path.suffix != ".jinja"])
    )
    (spoil_json if name.endswith(".json") else spoil_bytes)(draw, Path("base") / name)
    if draw(st.integers(0, 5)) == 0:
        index = Path("base/model.safetensors.index.json")
        index.write_text(json.dumps(draw(JUNK | st.fixed_dictionaries({"weight_map": JUNK}))))
    return draw(st.sampled_from([prepare, judge, judge]))


def adapter_folder(draw: Draw) -> Work:
    """The same of an adapter, evaluated or merged."""
    name = draw(st.sampled_from(["adapter_config.json", "adapter_config.json", "adapter_model.safetensors"]))
    (spoil_json if name.endswith(".json") else spoil_bytes)(draw, Path("adapter") / name)
    if draw(st.booleans()):
        return lambda: judge("adapter")
    return lambda: merge(Path("adapter"), Path("base"), Path("out/merged"), "auto")


def checkpoint(draw: Draw) -> Work:
    """A checkpoint from which training goes on, intact by its hashes or not."""
    (folder,) = Path(".runs").glob("*/*/checkpoint-*")
    name = draw(st.sampled_from([str(path.relative_to(folder)) for path in sorted(folder.iterdir())]))
    (spoil_json if name.endswith(".json") else spoil_bytes)(draw, folder / name)
    if name == "trainer_state.json" and draw(st.booleans()):  # as another version would have written it
        hashes = tree_digests(folder)
        del hashes["hashes.json"]
        (folder / "hashes.json").write_text(json.dumps(hashes))
    (folder.parent / "checkpoint-abc").mkdir()
    return learn


def prompts(draw: Draw) -> Work:
    """The words of a dialogue."""
    file = Path("prompts") / draw(st.sampled_from(["first.txt", "retry.txt", "few.jsonl"]))
    if draw(st.booleans()):
        spoil_bytes(draw, file)
    else:
        around = draw(TEXT), draw(TEXT)
        file.write_text(
            draw(st.sampled_from(["{problem}", "", file.read_text()])).join(around), encoding="utf-8"
        )
    return judge


def results(draw: Draw) -> Work:
    """What the report and the summary read."""
    files = [
        path for folder in ("metrics", "generations", "accepted") for path in sorted(Path(folder).iterdir())
    ]
    file = draw(st.sampled_from(files))
    (spoil_json if file.suffix == ".json" else spoil_bytes)(draw, file)
    return tell


def typed(draw: Draw) -> Work:
    """A problem that a person types."""
    text = draw(TEXT | st.binary(max_size=12).map(lambda some: some.decode(errors="surrogateescape")))
    config, runtime = what_to_do()

    def ask(problems: list[Problem]) -> list[pd.DataFrame]:
        from score_core.evaluation.evaluate import Evaluator

        table = Evaluator(Path("base"), config, runtime).evaluate(problems, show_progress=False)
        return [table, table]

    return lambda: try_it.show([try_it.typed(text)], ask)


# Each with its share of a hundred inputs: those that train take a second.
KINDS: dict[Callable[[Draw], Work], int] = {
    parameters_of_the_schema: 34,
    runtime_of_the_schema: 12,
    bytes_of_settings: 10,
    rows_of_data: 12,
    prepared_data: 4,
    model_folder: 8,
    adapter_folder: 4,
    checkpoint: 3,
    prompts: 6,
    results: 4,
    typed: 3,
}
