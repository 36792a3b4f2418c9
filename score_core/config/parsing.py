"""Reading `params.yaml` and `runtime.yaml`: parsed once, at the edge, into immutable values.

Unknown keys are errors that name the nearest known key. A few keys that people try are refused with
the reason instead, and keys of an older form with the one that took their place. DVC itself never sees
a key outside a stage's own section, so every stage validates the whole file.
"""

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from score_core.config.runtime import Runtime
from score_core.config.schema import Config
from score_core.config.section import Section
from score_core.config.training import Training
from score_core.errors import UserError

# Keys people bring from other trainers, and why there is no such key here.
REFUSED = {
    "top_p": "training samples from the whole distribution, since the scored distribution must be the "
    "sampled one; remove the key (temperature is the one setting)",
    "top_k": "training samples from the whole distribution, since the scored distribution must be the "
    "sampled one; remove the key (temperature is the one setting)",
    "trust_remote_code": "code from a hub is never run; use a model that transformers itself supports",
}

# Values people try, and why they are not choices.
REFUSED_VALUES = {
    "k1": "log pi - log pi_ref as a loss has zero expected gradient; use k1_in_reward, or exact, "
    "k2_in_loss or k3_in_loss",
}
REFUSED_VALUES["k1_in_loss"] = REFUSED_VALUES["k1"]

# Keys of an older form, and what took their place; docs/changes.md is the table for people.
MOVED = {
    "reward.shape": "it is a term now, `reward.terms: [{name: match, weight: 1.0}]`",
    "stage1": "a stage names its algorithm, `stage1.algorithm: score_stage1`, and what stages share stands "
    "in `training`",
    "stage2": "a stage names its algorithm, `stage2.algorithm: score_stage2`, and what stages share stands "
    "in `training`",
}

MISSING = (
    "conf/base.yaml or a profile in conf/profile/ has it, with its value; copy it, or compose the file "
    "anew with `dvc exp run -S profile=NAME`"
)

LAUNCH_PREFIX = "SCORE_LAUNCH_"

SectionT = TypeVar("SectionT", bound=Section)


@dataclass(frozen=True)
class _Mistake:
    """Something wrong at a key; the empty path is that of the whole file."""

    path: tuple[str, ...]
    says: str
    unknown: bool = False


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
    runtime, mistakes = _validate(Runtime, content, missing)
    if runtime is None:
        raise _refusal(source, mistakes)
    return runtime


def parse_config(content: dict[str, Any], settings: Mapping[str, type[Training]], source: str) -> Config:
    """Validates parsed parameters; `source` names them in errors, which are those of `load_config`."""
    for old, instead in MOVED.items():
        if _is_old(content, old):
            raise UserError(f"{source}: {old} has an older form; {instead}, see docs/changes.md.")
    own = [key for key in Config.model_fields if key != "stages"]
    names = [
        key
        for key, section in content.items()
        if key not in (*own, "training") and isinstance(section, dict) and "algorithm" in section
    ]
    known = [*own, "training", *names]
    mistakes = [_unknown((key,), known) for key in map(str, content) if key not in known]
    shared = _shared(content, settings, mistakes)
    stages = {name: _stage(name, content[name], shared, settings, mistakes) for name in names}
    found = {key: content[key] for key in own if key in content}
    config, wrong = _validate(Config, found | {"stages": {k: v for k, v in stages.items() if v is not None}})
    if config is None or mistakes:
        raise _refusal(source, mistakes + wrong)
    return config


def _is_old(content: dict[str, Any], key: str) -> bool:
    """Whether `key` is there; or, where a stage stands under it now, whether it names no algorithm."""
    section, _, name = key.rpartition(".")
    if section:
        return isinstance(content.get(section), dict) and name in content[section]
    return isinstance(content.get(key), dict) and "algorithm" not in content[key]


def _shared(
    content: dict[str, Any], settings: Mapping[str, type[Training]], mistakes: list[_Mistake]
) -> dict[str, Any]:
    """The keys of `training` that any stage may take; adds to `mistakes` what is wrong with others."""
    training = content.get("training")
    if not isinstance(training, dict):
        says = f"expected a section, found {training!r}" if "training" in content else "missing"
        mistakes.append(_Mistake(("training",), f"{says}; {MISSING}"))
        return {}
    known = [key for key in Training.model_fields if key != "algorithm"]
    for key in map(str, training):
        owners = [name for name, model in settings.items() if key in model.model_fields]
        if key not in known and owners and key != "algorithm":
            says = f"not shared by all stages; move it to one with algorithm: {' or '.join(owners)}"
            mistakes.append(_Mistake(("training", key), says, unknown=True))
        elif key not in known:
            mistakes.append(_unknown(("training", key), known))
    return {key: value for key, value in training.items() if key in known}


def _stage(
    name: str,
    section: dict[str, Any],
    shared: dict[str, Any],
    settings: Mapping[str, type[Training]],
    mistakes: list[_Mistake],
) -> Training | None:
    """A stage's settings; adds to `mistakes` what is wrong with them, where the user wrote it."""
    algorithm = str(section["algorithm"])
    if algorithm not in settings:
        nearest = difflib.get_close_matches(algorithm, settings, n=1)
        hint = f"did you mean {nearest[0]}? " if nearest else ""
        says = f"no algorithm is called {algorithm}; {hint}Known are {', '.join(settings)}"
        mistakes.append(_Mistake((name, "algorithm"), says))
        return None
    stage, wrong = _validate(settings[algorithm], {**shared, **section})
    # A combination that is wrong in `training` already is not the stage's doing.
    _, alone = _validate(Training, {**shared, "algorithm": algorithm}) if wrong else (None, [])
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


def _refusal(source: str, mistakes: Sequence[_Mistake]) -> UserError:
    """The first mistake as one line for a person, with the number of others."""
    # An unknown key explains the missing one it was meant to be, so it comes first.
    first, *others = sorted(dict.fromkeys(mistakes), key=lambda mistake: not mistake.unknown)
    key = ".".join(first.path) or "the parameters"
    more = f" (and {len(others)} more)" if others else ""
    return UserError(f"{source}: {key}: {first.says}{more}{'' if first.says[-1] == '?' else '.'}")


def _validate(
    model: type[SectionT], content: dict[str, Any], missing: str = MISSING
) -> tuple[SectionT | None, list[_Mistake]]:
    """`content` as a `model`, or what is wrong with it; `missing` says where to find a missing key."""
    try:
        return model.model_validate(content), []
    except ValidationError as error:
        return None, [_mistake(model, problem, content, missing) for problem in error.errors()]


def _mistake(model: type[Section], problem: ErrorDetails, content: dict[str, Any], missing: str) -> _Mistake:
    tags = {"addition", "hub", "local", "tiny"}  # pydantic adds a union's tag to the path
    path = tuple(str(part) for at, part in enumerate(problem["loc"]) if not (part in tags and at == 1))
    if problem["type"] == "extra_forbidden":
        section = _section_model(model, path[:-1], content)
        return _unknown(path, list(section.model_fields) if section else [])
    if problem["type"] == "missing":
        return _Mistake(path, f"missing; {missing}")
    found = problem["input"]
    if isinstance(found, str) and found in REFUSED_VALUES:
        return _Mistake(path, f"{found} is refused: {REFUSED_VALUES[found]}")
    message = problem["msg"].removeprefix("Value error, ")
    # Where a validator of a whole section speaks, its message names the key itself.
    if isinstance(found, dict | Section):
        return _Mistake(path, message)
    return _Mistake(path, f"{message[0].lower()}{message[1:]}, found {found!r}")


def _unknown(path: tuple[str, ...], known: Sequence[str]) -> _Mistake:
    name = path[-1]
    if name in REFUSED:
        return _Mistake(path, f"refused: {REFUSED[name]}", unknown=True)
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]}?" if nearest else f"known here: {', '.join(known)}"
    return _Mistake(path, f"unknown key; {hint}", unknown=True)


def _section_model(root: type[Section], path: Sequence[str], content: Any) -> type[Section] | None:
    """The model that describes the section at `path`, by the annotations of its parents."""
    model = root
    value: Any = content
    for part in path:
        annotation = model.model_fields[part].annotation
        value = value.get(part, {})
        options = [o for o in getattr(annotation, "__args__", (annotation,)) if isinstance(o, type)]
        sections = [o for o in options if issubclass(o, Section)]
        if not sections:
            return None
        model = sections[0]
        for option in sections:
            source = option.model_fields.get("source")
            if source is not None and value.get("source") in getattr(source.annotation, "__args__", ()):
                model = option
    return model
