"""Edits made by hand in params.yaml are never overwritten unseen; what can be had again may be."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from score_core.errors import UserError
from tasks.commands.profiles import PARAMS, check_known, check_nothing_lost, compose, main

ROOT = Path(__file__).resolve().parents[3]


def git(root: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with the project's conf/ and the default's params.yaml, committed."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    (tmp_path / PARAMS).write_text(compose([], tmp_path / "conf"))
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "start")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def edit(text: str = "") -> None:
    """Changes alpha by hand, or writes `text`."""
    PARAMS.write_text(text or PARAMS.read_text().replace("alpha: 3.0", "alpha: 5.0"))


def test_what_is_committed_or_composed_may_be_overwritten(checkout):
    check_nothing_lost()
    for overrides in (["profile=gsm8k"], ["profile=gsm8k", "smoke=yes"], ["profile=default", "smoke=yes"]):
        edit(compose(overrides))
        check_nothing_lost()
    PARAMS.unlink()
    check_nothing_lost()


def test_an_edit_is_refused_with_what_it_is_and_the_remedies(checkout):
    edit()
    with pytest.raises(UserError) as refusal:
        check_nothing_lost()
    message = str(refusal.value)
    assert "stage2.alpha: 3.0 is now 5.0" in message
    assert all(remedy in message for remedy in ("dvc repro", "dvc exp save", "git checkout params.yaml"))
    assert "\n" not in message


def test_an_edit_is_compared_with_the_profile_and_size_that_the_file_names(checkout, monkeypatch):
    composed = []
    monkeypatch.setattr(
        "tasks.commands.profiles.compose", lambda *given: composed.append(given[0]) or compose(*given)
    )
    edit(compose(["profile=gsm8k", "smoke=yes"]).replace("rank: 16", "rank: 8"))
    with pytest.raises(UserError, match=r"by hand \(lora.rank: 16 is now 8\), and"):
        check_nothing_lost()
    assert composed == [["profile=gsm8k", "smoke=yes"]]
    edit(compose(["profile=gsm8k"]).replace("profile: gsm8k", "profile: default"))
    with pytest.raises(UserError, match=r"by hand \(.*, \.\.\.\), and"):
        check_nothing_lost()


@pytest.mark.parametrize("text", ["profile: [", "just words", "profile: nowhere\nseed: 1\n", "- 1\n"])
def test_an_edit_that_is_not_even_yaml_is_refused_too(checkout, text):
    edit(text)
    with pytest.raises(UserError, match="holds edits made by hand"):
        check_nothing_lost()


def test_an_edit_that_an_experiment_holds_is_safe(checkout):
    edit()
    git(checkout, "add", "-A")
    git(checkout, "commit", "-qm", "the experiment")
    git(checkout, "update-ref", "refs/exps/ab/cdef/brave-name", "HEAD")
    git(checkout, "reset", "-q", "--soft", "HEAD~")
    check_nothing_lost()
    edit(PARAMS.read_text().replace("alpha: 5.0", "alpha: 6.0"))
    with pytest.raises(UserError, match="alpha"):
        check_nothing_lost()


def test_what_was_composed_last_is_no_hand_edit_whatever_became_of_the_profile(checkout):
    profile = Path("conf/profile/mine.yaml")
    profile.write_text("# @package _global_\nprofile: mine\nseed: abc\n")
    assert main(["--composing", "profile=mine"]) == 0
    edit(compose(["profile=mine"]))
    profile.write_text(profile.read_text().replace("abc", "12"))
    assert main(["mine"]) == 0, "the author mended it"
    assert main(["--composing", "profile=default", "seed=abc"]) == 0
    edit(compose(["profile=default", "seed=abc"]))
    assert main(["--composing", "profile=default", "seed=12"]) == 0, "put right"
    edit(PARAMS.read_text().replace("alpha: 3.0", "alpha: 5.0"))
    assert main(["--composing", "profile=default"]) == 2
    assert main(["mine"]) == 2


def test_a_smoke_run_is_refused_what_git_would_not_carry(checkout, capsys):
    Path(".gitignore").write_text("/models/\n")
    profile = Path("conf/profile/mine.yaml")
    for folder, code in (("models/mine", 2), (str(checkout / "models/mine"), 0), ("mine", 0)):
        profile.write_text(f"# @package _global_\nprofile: mine\nwatched: {{model: {folder}}}\n")
        profile.write_text(profile.read_text() + "reward: {extractor: boxed, matcher: integer}\n")
        assert main(["--known", "mine"]) == code
    assert "error: watched.model: models/mine: git ignores it" in capsys.readouterr().err
    assert main(["mine"]) == 0


def test_a_copied_profile_names_itself(checkout, capsys):
    copied = Path("conf/profile/copied.yaml")
    copied.write_text(Path("conf/profile/default.yaml").read_text())
    asked = (["copied"], ["--known", "copied"], ["--composing", "seed=1", "profile=gsm8k,copied"])
    for arguments in (*asked, ["--aside", "--composing", "profile=copied"]):
        assert main(arguments) == 2
        assert capsys.readouterr().err == (
            "error: conf/profile/copied.yaml: profile: default; expected copied, as results go by that "
            "line; correct it.\n"
        )
    copied.write_text(copied.read_text().replace("profile: default", "profile: copied"))
    assert [main(arguments) for arguments in asked] == [0, 0, 0]


@pytest.mark.parametrize("aside", [[], ["--aside"]])
def test_no_profile_is_left_unasked(checkout, capsys, aside):
    composing = [*aside, "--composing", "stage2.alpha=5,6"]
    assert main(composing) == 0
    edit(compose(["profile=gsm8k"]))
    assert main([*composing, "profile=gsm8k"]) == 0 == main([*composing, "profile=default"])
    assert main(composing) == 2 == main([*aside, "--composing"])
    said = set(capsys.readouterr().err.splitlines())
    assert said == {
        "error: params.yaml: profile: gsm8k, and what names no profile is composed of default; add "
        "`-S profile=gsm8k`, or `-S profile=default` to go there."
    }
    PARAMS.unlink()
    assert main(composing) == 0


def test_what_is_composed_for_another_checkout_loses_no_edit_here(checkout):
    edit()
    assert main(["--aside", "--composing", "seed=12"]) == 0
    assert main(["--composing", "seed=12"]) == 2
    edit(compose(["seed=12"]))
    assert main(["--composing"]) == 2, "it was not composed here"


def test_what_cannot_be_composed_is_left_for_dvc_to_say(checkout):
    assert main(["--composing", "profile=nowhere"]) == 0
    assert main(["--composing", "file:x=1"]) == 0


def test_a_smoke_run_is_refused_where_dvc_cannot_make_one(checkout, monkeypatch, capsys):
    Path("é x").mkdir()
    shutil.copytree("conf", "é x/conf")
    monkeypatch.chdir("é x")
    assert main(["--known", "gsm8k"]) == 2
    assert "path has letters beyond ASCII; move it" in capsys.readouterr().err


def test_a_smoke_run_is_skipped_where_programs_have_no_sandbox(checkout, monkeypatch, capsys):
    def refuse():
        raise UserError("no sandbox here.")

    monkeypatch.setattr("score_core.answers.sandbox.pool.mechanism", refuse)
    assert [main(["--known", name]) for name in ("paper_code", "gsm8k", "papercode")] == [77, 0, 2]
    assert capsys.readouterr().out == "skipped: paper_code: no sandbox here.\n"
    assert main(["paper_code"]) == 0  # it may be selected; the stages say themselves what is missing


def test_it_works_where_there_is_no_git(checkout):
    shutil.rmtree(".git")
    check_nothing_lost()
    edit()
    with pytest.raises(UserError, match="edits made by hand"):
        check_nothing_lost()


def test_an_unknown_profile_is_refused_with_the_nearest_name(checkout):
    check_known("gsm8k")
    with pytest.raises(
        UserError,
        match=r"conf.profile: .*'gsm8'; did you mean gsm8k\? Known: arithmetic_hard, default, gsm8k",
    ):
        check_known("gsm8")


def test_the_command_line_ends_with_2_and_one_line(checkout, capsys):
    assert main(["default"]) == 0
    assert main(["defualt"]) == 2
    edit()
    assert main([]) == 2
    assert main(["gsm8k"]) == 2
    assert main(["--known", "gsm8k"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and all(line.startswith("error: ") for line in lines)
