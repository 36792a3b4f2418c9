"""Has `dvc exp run` refuse to overwrite edits made by hand in `params.yaml`.

DVC loads this through `hydra.plugins_path` each time it is about to compose `params.yaml` anew, and has not
written anything yet. Not for `--temp` and `--queue`, which compose for a checkout of their own.
"""

import subprocess
import sys
from pathlib import Path

from dvc.cli.parser import get_main_parser
from dvc.exceptions import DvcException
from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

ROOT = Path(__file__).resolve().parents[3]


class KeepHandEdits(SearchPathPlugin):
    """A plug-in for what it is called before, not for any search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Raises DvcException, which DVC shows as one line, where edits would be lost."""
        if "smoke=true" in sys.argv:  # hydra takes `true` for no name of a file, and says so in its words
            raise DvcException("smoke=true: `-S smoke=yes` selects toy size (docs/changes.md)")
        if {"--temp", "--queue"} & set(sys.argv):
            return
        # A process of its own: it composes too, and hydra has one state a process.
        composing = get_main_parser().parse_args(sys.argv[1:]).set_param or []
        command = [sys.executable, "-m", "tasks.commands.profiles", "--composing", *composing]
        check = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if check.returncode != 0:
            raise DvcException(check.stderr.strip().removeprefix("error: "))
