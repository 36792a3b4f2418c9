"""A DVC repository of three quick stages: a → b → c, and a parameter that b reads."""

import subprocess
import sys
from pathlib import Path

DVC_YAML = """
stages:
  c:
    cmd: cp b.txt c.txt
    deps: [b.txt]
    outs: [c.txt]
  b:
    cmd: python b.py
    deps: [a.txt, b.py, rooms]
    params: [b.word]
    outs: [b.txt]
  a:
    cmd: echo a > a.txt
    outs: [a.txt]
"""
B_PY = "import re; open('b.txt', 'w').write(re.search('word: (.*)', open('params.yaml').read())[1])\n"


def make_pipeline(root: Path) -> Path:
    """Writes the repository; nothing has run in it."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "dvc.yaml").write_text(DVC_YAML)
    (root / "b.py").write_text(B_PY)
    (root / "rooms").mkdir()
    (root / "rooms" / "one.py").touch()
    set_word(root, "one")
    dvc(root, "init", "--no-scm", "-q")
    dvc(root, "config", "core.analytics", "false")
    return root


def set_word(root: Path, word: str) -> None:
    """Changes the parameter."""
    (root / "params.yaml").write_text(f"b:\n  word: {word}\n")


def dvc(root: Path, *arguments: str) -> str:
    """Runs DVC's command line, with this Python in front; returns what it prints."""
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=root, env={"PATH": path, "HOME": str(root)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout
