"""Is it safe to select a profile? Composing `params.yaml` anew overwrites what was edited in it by hand.

    python -m tasks.commands.profiles NAME            the profile exists, and no edit would be lost
    python -m tasks.commands.profiles --composing     the latter, and the profile stays; for `dvc exp run`
    python -m tasks.commands.profiles --known NAME    only the former, for `make smoke`

With --known the exit code is 77, and a line says why, where the profile is there and this machine cannot run
it: it has no sandbox for the programs that a model writes.

An edit is safe where its `params.yaml` can be had again: it is committed, it is what conf/ composes for the
profile that it names or what was composed last, or a DVC experiment holds it. The answer is the exit code,
and a line with the remedy when it is 2.
"""

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from score_core.errors import UserError, unknown_name
from score_core.files import parse_yaml, read_text, replacing
from tasks.runner.exits import exit_code, parser_of

CONF = Path("conf")
PARAMS = Path("params.yaml")
SKIPPED = 77  # what test harnesses take for "skipped"
COMPOSED = Path(".runs/composed_params.yaml")  # as it was composed last, for whichever profile and values


def profiles(conf: Path = CONF) -> list[str]:
    """The names that can be selected."""
    return sorted(path.stem for path in (conf / "profile").glob("*.yaml"))


def check_known(name: str, conf: Path = CONF) -> None:
    """Refuses a name that is no profile, and a profile that has another name than its file.

    Raises:
        UserError: with the nearest name and the list, or the line to write.
    """
    if name not in profiles(conf):
        raise unknown_name(f"{conf}/profile", name, profiles(conf))
    found: object = name
    with suppress(Exception):  # whoever composes it next says what is wrong
        found = parse_yaml(compose([f"profile={name}"], conf))["profile"]
    if found != name:
        raise UserError(
            f"{conf}/profile/{name}.yaml: profile: {found}; expected {name}, as results go by that line; "
            "correct it."
        )


def check_profile_named(overrides: list[str], root: Path = Path()) -> None:
    """Refuses to go back to the default of conf/config.yaml where no override names a profile.

    Raises:
        UserError: `params.yaml` names another profile, with what to type; or as `check_known`.
    """
    named = [one.removeprefix("profile=").split(",") for one in overrides if one.startswith("profile=")]
    if named:
        for name in sorted({*named[-1]} & {*profiles(root / CONF)}):  # DVC says itself of others
            check_known(name, root / CONF)
        return
    default = parse_yaml(compose([], root / CONF))["profile"]
    now = default
    with suppress(Exception):  # no file, or none that names a profile: nothing is gone back from
        now = parse_yaml((root / PARAMS).read_text())["profile"]
    if now != default:
        raise UserError(
            f"{PARAMS}: profile: {now}, and what names no profile is composed of {default}; add "
            f"`-S profile={now}`, or `-S profile={default}` to go there."
        )


def check_carried(name: str, root: Path = Path()) -> None:
    """Refuses what the temporary checkout of `make smoke` would not have: it gets what git does not ignore.

    Raises:
        UserError: a watched folder is one that git ignores, named by its place in this checkout.
    """
    watched: dict[str, str] = parse_yaml(compose([f"profile={name}"], root / CONF))["watched"]
    for key, path in watched.items():
        if not Path(path).is_absolute() and _git(root, "check-ignore", path):
            raise UserError(
                f"watched.{key}: {path}: git ignores it, and the checkout of a smoke run lacks it; name it "
                f"by its absolute path, here and in {key}.path."
            )


def missing_here(name: str, conf: Path = CONF) -> str | None:
    """What this machine lacks to run a profile, as one line; None if nothing."""
    reward = parse_yaml(compose([f"profile={name}"], conf))["reward"]
    if (reward["matcher"], reward["sandbox"]) != ("code_tests", "required"):
        return None
    from score_core.answers.sandbox.pool import mechanism

    try:
        mechanism()
    except UserError as error:
        return str(error)
    return None


def compose(overrides: list[str], conf: Path = CONF) -> str:
    """The text of `params.yaml` that DVC composes with these overrides, e.g. `["profile=gsm8k"]`."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(conf.resolve()), version_base=None):
        config = hydra_compose(config_name="config", overrides=overrides)
    OmegaConf.resolve(config)
    return OmegaConf.to_yaml(config)


def check_nothing_lost(root: Path = Path()) -> None:
    """Refuses if `params.yaml` holds something that is nowhere else.

    Raises:
        UserError: with the keys that differ from the profile that it names, and the remedies.
    """
    params = root / PARAMS
    if not params.exists() or _in_git(root):
        return
    text = read_text(params, f"`git checkout {PARAMS}`")
    if (root / COMPOSED).exists() and (root / COMPOSED).read_text(errors="replace") == text:
        return
    composed = _composed(text, root / CONF)
    if text == composed:
        return
    raise UserError(
        f"{PARAMS}: holds edits made by hand{_edits(composed, text)}, and selecting a profile would "
        "overwrite them. To run them as they stand: `dvc repro`; to keep them: `git commit`, `dvc exp "
        f"save`, or the same lines in conf/profile/; to drop them: `git checkout {PARAMS}`."
    )


def note_composed(text: str, root: Path = Path()) -> None:
    """Remembers a `params.yaml` that is about to be written: no hand edit, whatever becomes of conf/."""
    with replacing(root / COMPOSED) as temporary:
        temporary.write_text(text)


def _in_git(root: Path) -> bool:
    """Whether this very `params.yaml` is in HEAD or in any of DVC's experiments."""
    revisions = ["HEAD", *_git(root, "for-each-ref", "--format=%(objectname)", "refs/exps").split()]
    content = _git(root, "hash-object", str(PARAMS))
    return bool(content) and any(_git(root, "rev-parse", f"{one}:./{PARAMS}") == content for one in revisions)


def _git(root: Path, *arguments: str) -> str:
    """What git says; nothing where there is no git or no repository."""
    try:
        answer = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
    except OSError:
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


def _composed(text: str, conf: Path) -> str | None:
    """What conf/ composes for the profile and the size that this `params.yaml` names; None if none."""
    try:
        now = parse_yaml(text)
        return compose([f"profile={now['profile']}", *(["smoke=yes"] if now.get("smoke") else [])], conf)
    except Exception:  # the edit may have left anything here, and is one whatever it left
        return None


def _edits(composed: str | None, text: str) -> str:
    """What differs from the profile that the file names, e.g. ` (stage2.alpha: 3.0 is now 5.0)`."""
    if composed is None:
        return ""
    import pandas as pd

    was, now = (pd.json_normalize(parse_yaml(one)).to_dict("records")[0] for one in (composed, text))
    changed = sorted(key for key in {**was, **now} if was.get(key) != now.get(key))
    shown = [f"{key}: {was.get(key)} is now {now.get(key)}" for key in changed[:3]]
    return f" ({', '.join(shown)}{', ...' if len(changed) > 3 else ''})" if shown else ""


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = parser_of("tasks.commands.profiles", __doc__)
    parser.add_argument("name", nargs="?", help="the profile to select")
    parser.add_argument("--known", action="store_true", help="only check that a smoke run can be made of it")
    parser.add_argument("--composing", nargs="*", metavar="KEY=VALUE", help="what is about to be composed")
    parser.add_argument("--aside", action="store_true", help="for another checkout: nothing here is lost")
    given = parser.parse_args(arguments)

    def work() -> None:
        if given.name is not None:
            check_known(given.name)
        if given.known and given.name is not None:
            check_carried(given.name)
        if given.known and not str(Path.cwd()).isascii():
            raise UserError(
                f"{Path.cwd()}: DVC makes no temporary checkout of one whose path has letters beyond ASCII; "
                "move it for `make smoke`; `make repro` runs here, too."
            )
        if given.composing is not None:
            check_profile_named(given.composing)
        if not given.known and not given.aside:
            check_nothing_lost()
        if given.composing is not None and not given.aside:
            with suppress(Exception):  # DVC composes next, and says itself what is wrong
                note_composed(compose(given.composing))

    code = exit_code("profiles", work)
    if code == 0 and given.known and given.name is not None and (missing := missing_here(given.name)):
        print(f"skipped: {given.name}: {missing}")
        return SKIPPED
    return code


if __name__ == "__main__":
    sys.exit(main())
