"""The stages, their order, their outputs and what is stale, all of it as DVC says."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx
from dvc.lock import LockError
from dvc.repo import Repo
from dvc.stage import PipelineStage
from dvc.utils.diff import diff

from score_core.errors import unknown_name

ROOT = Path(__file__).resolve().parent.parent
NEVER = "has never run"
BUSY = (
    "is busy, it is being blocked by"  # what DVC, which does not wait, says of files that another DVC holds
)
BUSY_SECONDS = 2.0
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """A stage of dvc.yaml.

    Attributes:
        name: as dvc.yaml gives it.
        command: what DVC runs.
        needs: names of the stages whose outputs it reads, directly.
        outputs: paths below the checkout, with metrics and plots.
    """

    name: str
    command: str
    needs: frozenset[str]
    outputs: tuple[Path, ...]


@dataclass(frozen=True)
class Step:
    """A line of the plan: `verdict` is "stale", "may run" or "cached", `why` DVC's reason."""

    stage: str
    verdict: str
    why: str


def read_stages(root: Path = ROOT) -> list[Stage]:
    """All stages in an order in which they can run; of two that could, the one that dvc.yaml has first.

    Args:
        root: the folder of dvc.yaml: the checkout, or one of experiments/.
    """
    repo = _repo(root)
    place = {stage: at for at, stage in enumerate(_of_pipeline(repo, root))}
    # Edges of DVC's graph point at what is needed.
    graph = repo.index.graph.subgraph(place)
    order = networkx.lexicographical_topological_sort(graph.reverse(copy=False), key=place.__getitem__)
    return [
        Stage(
            stage.name,
            " && ".join([stage.cmd] if isinstance(stage.cmd, str) else stage.cmd),
            frozenset(needed.name for needed in graph.successors(stage)),
            tuple(Path(output.fs_path).relative_to(repo.root_dir) for output in stage.outs),
        )
        for stage in order
    ]


def select(stages: list[Stage], names: list[str] | None) -> list[Stage]:
    """The named ones of `read_stages` and what they need, as for `dvc repro NAMES`; all without names.

    Raises:
        UserError: no such stage, with the nearest name.
    """
    if not names:
        return stages
    known = [stage.name for stage in stages]
    for name in names:
        if name not in known:
            raise unknown_name("stages", name, known)
    wanted = set(names)
    for stage in reversed(stages):
        wanted |= stage.needs if stage.name in wanted else set()
    return [stage for stage in stages if stage.name in wanted]


def find_output(stages: list[Stage], pattern: str) -> tuple[Path, Stage] | None:
    """The first output whose path ends like `pattern`, e.g. `*.html`, and the stage that makes it."""
    found = ((path, stage) for stage in stages for path in stage.outputs if path.match(pattern))
    return next(found, None)


def reason(name: str, root: Path = ROOT) -> str | None:
    """Why a stage is stale; None if it is up to date.

    Stale is not the same as "will run": a result of the run cache is restored without running.
    """
    return _reasons(root, frozenset([name])).get(name)


def plan(stages: list[Stage], force: frozenset[str] = frozenset(), root: Path = ROOT) -> list[Step]:
    """What a run would do, without doing anything.

    DVC's status compares with files as they lie there, so it misses what follows from a stale stage:
    whatever reads its outputs may run too, or not, if they come out the same.

    Args:
        force: stages that run although nothing changed.
    """
    reasons = _reasons(root, frozenset(stage.name for stage in stages))
    steps: dict[str, Step] = {}
    for stage in stages:
        changed = sorted(name for name in stage.needs if name in steps and steps[name].verdict != "cached")
        if stage.name in force:
            step = Step(stage.name, "stale", "forced")
        elif stage.name in reasons:
            step = Step(stage.name, "stale", reasons[stage.name])
        elif changed:
            step = Step(stage.name, "may run", f"if outputs of {', '.join(changed)} change")
        else:
            step = Step(stage.name, "cached", "up to date")
        steps[stage.name] = step
    return list(steps.values())


def _repo(root: Path) -> Repo:
    # As `dvc --wait-for-lock` opens it; opened anew each time, for it remembers what it has read.
    return Repo(str(root), _wait_for_lock=True)


def _of_pipeline(repo: Repo, root: Path) -> list[PipelineStage]:
    """The stages of the dvc.yaml in `root`, which `dvc repro` runs there; there may be other pipelines."""
    file = root.resolve() / "dvc.yaml"
    stages = [stage for stage in repo.index.stages if Path(stage.path) == file]
    return [stage for stage in stages if isinstance(stage, PipelineStage)]


def _reasons(root: Path, names: frozenset[str]) -> dict[str, str]:
    """Of each stale one what `dvc status` reports; waits while another DVC holds their files."""
    told = False
    while True:
        repo = _repo(root)
        try:
            with repo.lock:
                # Asking the others too would wait for whichever of them is running.
                asked = [stage for stage in _of_pipeline(repo, root) if stage.name in names]
                found = {stage: list(stage.status().values()) for stage in asked}
            break
        except LockError as error:
            if not told:
                log.warning(
                    "waiting for another run of DVC: %s", " ".join(str(error).split("\n\n")[0].split())
                )
            told = True
            time.sleep(BUSY_SECONDS)
    return {stage.name: _describe(stage, status[0]) for stage, status in found.items() if status}


def _describe(stage: PipelineStage, status: list[Any]) -> str:
    """DVC's status of a stage in a line, e.g. `changed: parameters stage2.alpha; code score_core/rl`."""
    if not any(file.hash_info for file in (*stage.outs, *stage.deps)):
        return NEVER
    code = {str(dep) for dep in stage.deps if _is_code(Path(dep.fs_path))}
    found: dict[str, list[str]] = {}
    missing = []
    for entry in status:
        if isinstance(entry, str):  # `always changed`, `changed command`
            found.setdefault(entry.removeprefix("changed "), [])
            continue
        for path, change in entry.get("changed deps", {}).items():
            if isinstance(change, dict):
                found.setdefault("parameters", []).extend(_parameters(stage) or change)
            elif change == "deleted":
                missing.append(path)
            else:
                found.setdefault("code" if path in code else "inputs", []).append(path)
        for path, change in entry.get("changed outs", {}).items():
            if change == "modified":
                found.setdefault("outputs edited outside DVC:", []).append(path)
            else:  # deleted or, as in a fresh clone, not in cache
                missing.append(path)
    changed = [f"{kind} {some(names)}".strip() for kind, names in found.items()]
    parts = [f"changed: {'; '.join(changed)}"] if changed else []
    return "; ".join(parts + ([f"missing: {some(missing)}"] if missing else []))


def _is_code(path: Path) -> bool:
    return path.suffix == ".py" or any(path.glob("*.py"))


def _parameters(stage: PipelineStage) -> list[str]:
    """The parameters that changed, e.g. `stage2.alpha 3.0 → 5.0`; DVC's status stops at the section."""
    before = {dep.def_path: {"data": dep.hash_info.value or {}} for dep in stage.params}
    now = {dep.def_path: {"data": dep.read_params()} for dep in stage.params}
    return [
        f"{name} {change.get('old')} → {change.get('new')}"
        for changes in diff(before, now).values()
        for name, change in sorted(changes.items())  # DVC gives them in any order
    ]


def some(names: list[str], shown: int = 3) -> str:
    """The first of them, and how many more there are."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
