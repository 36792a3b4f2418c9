"""Reading `params.yaml` and `runtime.yaml`: parsed once, at the edge, into immutable values.

DVC never sees a key outside a stage's own section, so every stage validates the whole file.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from score_core.config.runtime import Runtime
from score_core.config.schema import Config
from score_core.config.section import MISSING, Mistake, refusal, unknown_key, validate
from score_core.config.training import Training
from score_core.errors import UserError, nearest, refusing
from score_core.files import parse_yaml, read_yaml

REMEDY = "run from the checkout, whose file `git checkout` restores"
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
    content = read_yaml(path, REMEDY)
    for change in changes:
        _change(content, change, f"--set {change}")
    source = f"{path} with --set {' '.join(changes)}" if changes else str(path)
    return parse_config(content, settings, source)


def load_runtime(path: Path, environment: Mapping[str, str] = os.environ) -> Runtime:
    """Reads and validates a runtime file; the errors are those of `load_config`.

    Args:
        environment: its variables `SCORE_LAUNCH_<KEY>` replace what the file says of `launch`.
    """
    content, source = read_yaml(path, REMEDY), str(path)
    found = {name: text for name, text in environment.items() if name.startswith(LAUNCH_PREFIX)}
    for name, text in found.items():
        _change(content, f"launch.{name.removeprefix(LAUNCH_PREFIX).lower()}={text}", f"{name}={text}")
    if found:
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
    _refuse_older_forms(content, source)
    training = content.get("training")
    if not isinstance(training, dict):
        raise UserError(f"{source}: training: the section is missing; {MISSING}.")
    own = [key for key in Config.model_fields if key != "stages"]
    sections = {
        key: section
        for key, section in content.items()
        if key not in (*own, "training") and isinstance(section, dict) and "algorithm" in section
    }
    known = [*own, "training", *sections]
    mistakes = [Mistake((key,), unknown_key(key, known)) for key in map(str, content) if key not in known]
    stages = _stages(training, sections, settings, mistakes)
    found = {key: content[key] for key in own if key in content}
    config, wrong = validate(Config, {**found, "stages": stages})
    if config is None or mistakes:
        raise refusal(source, mistakes + wrong)
    return config


def _refuse_older_forms(content: dict[str, Any], source: str) -> None:
    """Refuses what files written for an older version have; docs/changes.md has the whole table."""
    for key, section in content.items():
        if key == "reward" and isinstance(section, dict) and "shape" in section:
            old, new = "reward.shape", "rewards are terms now, `reward.terms: [{name: match, weight: 1.0}]`"
        elif key in ("stage1", "stage2") and isinstance(section, dict) and "algorithm" not in section:
            old, new = key, f"a stage names its algorithm, `{key}.algorithm: score_{key}`, and what stages "
            new += "share stands in `training`"
        else:
            continue
        raise UserError(f"{source}: {old} is written for an older version: {new}; see docs/changes.md.")


def _stages(
    training: dict[str, Any],
    sections: dict[str, dict[str, Any]],
    settings: Mapping[str, type[Training]],
    mistakes: list[Mistake],
) -> dict[str, Training]:
    """The stages' settings; adds to `mistakes` what is wrong with them, where the user wrote it."""
    shared = [key for key in Training.model_fields if key != "algorithm"]
    for key in [key for key in map(str, training) if key not in shared]:
        owners = [
            name for name, model in settings.items() if key in model.model_fields.keys() - {"algorithm"}
        ]
        says = f"not shared by all stages; move it to one with algorithm: {' or '.join(owners)}"
        mistakes.append(Mistake(("training", key), says if owners else unknown_key(key, shared)))
    training = {key: training[key] for key in shared if key in training}
    stages = {}
    for name, section in sections.items():
        algorithm = str(section["algorithm"])
        if algorithm not in settings:
            says = f"no algorithm is called {algorithm}; {nearest(algorithm, settings)}Known are "
            mistakes.append(Mistake((name, "algorithm"), says + ", ".join(settings)))
            continue
        stage, wrong = validate(settings[algorithm], {**training, **section})
        # What is wrong in `training` already is not the stage's doing.
        _, alone = validate(Training, {**training, "algorithm": algorithm})
        for mistake in wrong:
            inherited = mistake in alone and section.keys().isdisjoint(mistake.path[:1])
            mistakes.append(Mistake(("training" if inherited else name, *mistake.path), mistake.says))
        if stage is not None:
            stages[name] = stage
    return stages


def _change(content: dict[str, Any], change: str, given: str) -> None:
    """Applies one `KEY=VALUE`; whether there is such a key is found when the whole is parsed."""
    key, equals, text = change.partition("=")
    *sections, name = key.split(".")
    if not equals or not all((*sections, name)):
        raise UserError(f"{given}: expected KEY=VALUE, e.g. --set stage2.alpha=3.")
    with refusing(f"{given}: {text} is not valid YAML", "quote a text that is to be one"):
        value = parse_yaml(text)
    for part in sections:
        inner = content.setdefault(part, {})
        if not isinstance(inner, dict):
            raise UserError(f"{given}: {part} is {inner!r} and has no keys; set {part} as a whole.")
        content = inner
    content[name] = value
