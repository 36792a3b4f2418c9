"""Reading `params.yaml` and `runtime.yaml`: parsed once, at the edge, into immutable values.

Unknown keys are errors that name the nearest known key. A few keys that people try are refused with
the reason instead, and keys of an older form with the one that took their place. DVC itself never sees
a key outside a stage's own section, so every stage validates the whole file.
"""

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from score_core.config.runtime import Runtime
from score_core.config.schema import Config
from score_core.config.training import Training
from score_core.config.validation import MISSING, Mistake, refusal, unknown_key, validate
from score_core.errors import UserError

# What files written for an older version have, and what took its place; docs/changes.md has the table.
MOVED = {
    "reward.shape": "rewards are terms now, `reward.terms: [{name: match, weight: 1.0}]`",
    **{
        stage: f"a stage names its algorithm, `{stage}.algorithm: score_{stage}`, and what stages share "
        "stands in `training`"
        for stage in ("stage1", "stage2")
    },
}

LAUNCH_PREFIX = "SCORE_LAUNCH_"


def load_config(path: Path, settings: Mapping[str, type[Training]], changes: Sequence[str] = ()) -> Config:
    """Reads and validates a parameter file.

    Args:
        settings: of each algorithm that a stage may name, `score_core.algorithms.SETTINGS`.
        changes: `KEY=VALUE` in place of what the file says, e.g. `stage2.alpha=3`; values are YAML.

    Raises:
        UserError: the file is missing, is not YAML, or a value in it is wrong; one line that names
            file and key, what was expected and what to do.
    """
    content = _read_yaml(path)
    for change in changes:
        _change(content, change)
    source = f"{path} with --set {' '.join(changes)}" if changes else str(path)
    return parse_config(content, settings, source)


def load_runtime(path: Path, environment: Mapping[str, str] = os.environ) -> Runtime:
    """Reads and validates a runtime file; the errors are those of `load_config`.

    Args:
        environment: its variables `SCORE_LAUNCH_<KEY>` replace what the file says of `launch`.
    """
    content, source = _read_yaml(path), str(path)
    found = {name: environment[name] for name in environment if name.startswith(LAUNCH_PREFIX)}
    if found:
        keys = {
            name.removeprefix(LAUNCH_PREFIX).lower(): yaml.safe_load(text) for name, text in found.items()
        }
        content["launch"] = {**(content.get("launch") or {}), **keys}
        source += f" with {', '.join(found)} of the environment"
    return parse_runtime(content, source)


def parse_runtime(content: dict[str, Any], source: str) -> Runtime:
    """Validates parsed settings; `source` names them in errors, which are those of `load_config`."""
    missing = "copy it from the committed runtime.yaml, which `git show HEAD:runtime.yaml` prints"
    runtime, mistakes = validate(Runtime, content, missing)
    if runtime is None:
        raise refusal(source, mistakes)
    return runtime


def parse_config(content: dict[str, Any], settings: Mapping[str, type[Training]], source: str) -> Config:
    """Validates parsed parameters; `source` names them in errors, which are those of `load_config`."""
    for old, instead in MOVED.items():
        if _is_old(content, old):
            raise UserError(
                f"{source}: {old} is written for an older version: {instead}; see docs/changes.md."
            )
    own = [key for key in Config.model_fields if key != "stages"]
    names = [
        key
        for key, section in content.items()
        if key not in (*own, "training") and isinstance(section, dict) and "algorithm" in section
    ]
    if not isinstance(content.get("training"), dict):
        raise UserError(f"{source}: training: the section is missing; {MISSING}.")
    known = [*own, "training", *names]
    mistakes = [unknown_key((key,), known) for key in map(str, content) if key not in known]
    shared = _shared(content["training"], settings, mistakes)
    stages = {name: _stage(name, content[name], shared, settings, mistakes) for name in names}
    found = {key: content[key] for key in own if key in content}
    config, wrong = validate(Config, found | {"stages": {k: v for k, v in stages.items() if v is not None}})
    if config is None or mistakes:
        raise refusal(source, mistakes + wrong)
    return config


def _is_old(content: dict[str, Any], key: str) -> bool:
    """Whether `key` is there; or, where a stage stands under it now, whether it names no algorithm."""
    section, _, name = key.rpartition(".")
    if section:
        return isinstance(content.get(section), dict) and name in content[section]
    return isinstance(content.get(key), dict) and "algorithm" not in content[key]


def _shared(
    training: dict[str, Any], settings: Mapping[str, type[Training]], mistakes: list[Mistake]
) -> dict[str, Any]:
    """The keys of `training` that any stage may take; adds to `mistakes` what is wrong with others."""
    known = [key for key in Training.model_fields if key != "algorithm"]
    for key in map(str, training):
        owners = [name for name, model in settings.items() if key in model.model_fields]
        if key not in known and owners and key != "algorithm":
            says = f"not shared by all stages; move it to one with algorithm: {' or '.join(owners)}"
            mistakes.append(Mistake(("training", key), says, unknown=True))
        elif key not in known:
            mistakes.append(unknown_key(("training", key), known))
    return {key: value for key, value in training.items() if key in known}


def _stage(
    name: str,
    section: dict[str, Any],
    shared: dict[str, Any],
    settings: Mapping[str, type[Training]],
    mistakes: list[Mistake],
) -> Training | None:
    """A stage's settings; adds to `mistakes` what is wrong with them, where the user wrote it."""
    algorithm = str(section["algorithm"])
    if algorithm not in settings:
        nearest = difflib.get_close_matches(algorithm, settings, n=1)
        hint = f"did you mean {nearest[0]}? " if nearest else ""
        says = f"no algorithm is called {algorithm}; {hint}Known are {', '.join(settings)}"
        mistakes.append(Mistake((name, "algorithm"), says))
        return None
    stage, wrong = validate(settings[algorithm], {**shared, **section})
    # A combination that is wrong in `training` already is not the stage's doing.
    _, alone = validate(Training, {**shared, "algorithm": algorithm}) if wrong else (None, [])
    for mistake in wrong:
        if mistake.path:
            key = mistake.path[0]
            inherited = key not in section and key in Training.model_fields
        else:
            inherited = mistake in alone
        mistakes.append(replace(mistake, path=("training" if inherited else name, *mistake.path)))
    return stage


def _change(content: dict[str, Any], change: str) -> None:
    """Applies one `KEY=VALUE`; whether there is such a key is found when the whole is parsed."""
    key, equals, text = change.partition("=")
    *sections, name = key.split(".")
    if not equals or not all((*sections, name)):
        raise UserError(f"--set {change}: expected KEY=VALUE, e.g. --set stage2.alpha=3.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise UserError(
            f"--set {change}: {text} is not valid YAML; quote a text that is to be one."
        ) from None
    section = content
    for part in sections:
        inner = section.setdefault(part, {})
        if not isinstance(inner, dict):
            raise UserError(f"--set {change}: {part} is {inner!r} and has no keys; set {part} as a whole.")
        section = inner
    section[name] = value


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: not found; run from the checkout, or give --params.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}: not valid YAML{where}; mend it or `git checkout {path}`.") from None
    if not isinstance(content, dict):
        raise UserError(
            f"{path}: expected `key: value` lines, found none; `git checkout {path}` restores it."
        )
    return content
