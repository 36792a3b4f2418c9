"""What dvc.yaml says of the pipeline, for commands that need it without DVC: its paths and its code.

    python -m tasks.runner.pipeline FOLDER

writes a JSON file for each command of the pipeline, with the SHA-256 of all the code behind it and of what
params.yaml says is watched, for the pipelines in experiments/ to depend on.
"""

import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from score_core.errors import UserError
from score_core.files import digest, read_yaml, tree_digests, write_json

ROOT = Path(__file__).resolve().parents[2]
CODE = ("score_core", "tasks")


@cache
def read_pipeline() -> dict[str, dict[str, Any]]:
    """The stages of dvc.yaml by name, in its order."""
    stages: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "dvc.yaml").read_text("utf-8"))["stages"]
    return stages


def command_of(stage: str) -> str:
    """The command that a stage runs, e.g. "train" of `python -m tasks.train ...`."""
    return str(read_pipeline()[stage]["cmd"].split()[2].removeprefix("tasks."))


def stages_of(command: str) -> list[str]:
    """Names of the stages that run a command, in dvc.yaml's order."""
    return [stage for stage in read_pipeline() if command_of(stage) == command]


def code_of(command: str) -> list[Path]:
    """The files and folders of code on which the stages of this command depend."""
    stages = (read_pipeline()[name] for name in stages_of(command))
    paths = {path for stage in stages for path in stage["deps"] if path.split("/")[0] in CODE}
    return [ROOT / path for path in sorted(paths)]


def watched_by(command: str) -> list[Path]:
    """The data or model of the user's own on which the stages of this command depend."""
    watched: dict[str, str] = read_yaml(ROOT / "params.yaml", "`git checkout` restores it")["watched"]
    needed = {path for name in stages_of(command) for path in read_pipeline()[name].get("deps", ())}
    return [ROOT / path for key, path in watched.items() if f"${{watched.{key}}}" in needed]


def outputs_of(stage: str, kind: str = "outs") -> list[Path]:
    """The paths that a stage writes, relative, as dvc.yaml gives them; `kind` is outs, metrics or plots."""
    entries = read_pipeline()[stage].get(kind, [])
    return [Path(entry if isinstance(entry, str) else next(iter(entry))) for entry in entries]


def all_outputs() -> dict[Path, str]:
    """Every path that the pipeline writes, relative, and the stage that makes it."""
    kinds = ("outs", "metrics", "plots")
    return {path: stage for stage in read_pipeline() for kind in kinds for path in outputs_of(stage, kind)}


def check_model_made(folder: Path, stage: str) -> None:
    """Raises UserError, with the stage that makes one, if `folder` holds no model, whole or adapter."""
    if not any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
        raise UserError(f"{folder}: no model here; run `dvc repro {stage}`, which makes it.")


def main() -> None:
    """Writes the digests of what each command reads beside its arguments and settings."""
    folder = Path(sys.argv[1])
    commands = {command_of(stage) for stage in read_pipeline()}
    reads = {command: code_of(command) + watched_by(command) for command in commands}
    found = {
        path: tree_digests(path) if path.is_dir() else digest(path)
        for path in {path for paths in reads.values() for path in paths}
    }
    for command, paths in reads.items():
        write_json(folder / command, {os.path.relpath(path, ROOT): found[path] for path in paths})


if __name__ == "__main__":
    main()
