"""Has `dvc exp run` refuse to overwrite edits made by hand in `params.yaml`, and to leave a profile unasked.

DVC loads this through `hydra.plugins_path` each time it is about to compose `params.yaml` anew, and has not
written anything yet. `--temp` and `--queue` compose for a checkout of their own, and overwrite nothing.
"""

import subprocess
import sys
from pathlib import Path

from dvc.cli.parser import get_main_parser
from dvc.exceptions import DvcException
from dvc.utils.cli_parse import to_path_overrides
from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

ROOT = Path(__file__).resolve().parents[3]


class KeepHandEdits(SearchPathPlugin):
    """A plug-in for what it is called before, not for any search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Raises DvcException, which DVC shows as one line, where edits would be lost."""
        if "smoke=true" in sys.argv:  # hydra takes `true` for no name of a file, and says so in its words
            raise DvcException("smoke=true: `-S smoke=yes` selects toy size (docs/changes.md)")
        given = get_main_parser().parse_args(sys.argv[1:]).set_param or []
        composing = to_path_overrides(given).get("params.yaml", [])
        aside = ["--aside"] if {"--temp", "--queue"} & set(sys.argv) else []
        # A process of its own: it composes too, and hydra has one state a process.
        command = [sys.executable, "-m", "tasks.commands.profiles", *aside, "--composing", *composing]
        check = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if check.returncode != 0:
            raise DvcException(check.stderr.strip().removeprefix("error: "))
