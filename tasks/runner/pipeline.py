"""What dvc.yaml says of the pipeline, for commands that need it without DVC: its paths and its code."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CODE = ("score_core", "tasks")


@cache
def read_pipeline(root: Path = ROOT) -> dict[str, dict[str, Any]]:
    """The stages of dvc.yaml by name, in its order."""
    stages: dict[str, dict[str, Any]] = yaml.safe_load((root / "dvc.yaml").read_text())["stages"]
    return stages


def stages_of(command: str) -> list[str]:
    """Names of the stages that run `python -m tasks.<command>`, in dvc.yaml's order."""
    return [
        name for name, stage in read_pipeline().items() if stage["cmd"].split()[2:3] == [f"tasks.{command}"]
    ]


def code_of(command: str) -> list[Path]:
    """The files and folders of code on which the stages of this command depend."""
    stages = (read_pipeline()[name] for name in stages_of(command))
    paths = {path for stage in stages for path in stage["deps"] if path.split("/")[0] in CODE}
    return [ROOT / path for path in sorted(paths)]


def outputs_of(stage: str, kind: str = "outs") -> list[Path]:
    """The paths that a stage writes, relative, as dvc.yaml gives them; `kind` is outs, metrics or plots."""
    entries = read_pipeline()[stage].get(kind, [])
    return [Path(entry if isinstance(entry, str) else next(iter(entry))) for entry in entries]
