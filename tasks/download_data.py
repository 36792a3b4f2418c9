"""Fetches or generates the problems that `data` in the parameters names, audits and splits them.

    python -m tasks.download_data data/prepared

Writes `train.parquet`, `validation.parquet`, `test.parquet` and `manifest.json`, which says where the
problems come from and what became of every row left out.
"""

import argparse
from dataclasses import asdict
from pathlib import Path

from score_core.config.runtime import Runtime
from score_core.config.schema import Config
from score_core.files import replacing, tree_digests, write_json

LEFT_OUT = ("quarantined", "duplicates", "conflicting", "dropped_answers")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to write."""
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="the prepared splits: a folder to write")


def run(given: argparse.Namespace, config: Config, runtime: Runtime) -> None:
    """Prepares the data that `config.data` names."""
    from score_core.data.splits import prepare
    from score_core.problems import SPLITS, write_problems

    with replacing(given.output) as folder:
        prepared = prepare(config)
        folder.mkdir()
        splits = [*SPLITS, *(name for name in prepared.splits if name not in SPLITS)]
        for split in splits:
            write_problems(folder, split, prepared.splits[split])
        manifest = {
            "source": config.used_data.model_dump(),
            "path": getattr(config.used_data, "path", None),
            "revision": prepared.revision,
            "seed": config.seed,
            "reward": config.reward.model_dump(include={"extractor", "matcher", "mode", "marker"}),
            "counts": {split: len(prepared.splits[split]) for split in splits},
            "sha256": tree_digests(folder),
            "quarantine_reasons": prepared.reasons,
            **{kind: [asdict(row) for row in getattr(prepared, kind)] for kind in LEFT_OUT},
        }
        write_json(folder / "manifest.json", manifest)


if __name__ == "__main__":
    from tasks.runner.command_line import run_stage

    run_stage("download_data", add_arguments, outputs=lambda given: [given.output], run=run)
