"""Stage `download_data`: fetch or generate the problems, audit and split them.

Writes `data/prepared/` with `train.parquet`, `validation.parquet`, `test.parquet` and
`manifest.json`, which says where the problems come from and what became of every row left out.
"""

import hashlib
from dataclasses import asdict
from pathlib import Path

from score_core.config.parsing import Config
from score_core.config.runtime import Runtime
from score_core.files import replacing, write_json

PREPARED = Path("data/prepared")
OUTPUTS = (PREPARED,)


def run(config: Config, runtime: Runtime) -> None:
    """Prepares the data that `config.data` names."""
    from score_core.data.splits import prepare
    from score_core.problems import SPLITS, write_problems

    with replacing(PREPARED) as folder:
        prepared = prepare(config)
        folder.mkdir()
        for split in SPLITS:
            write_problems(folder, split, prepared.splits[split])
        manifest = {
            "source": config.used_data.model_dump(),
            "path": getattr(config.used_data, "path", None),
            "revision": prepared.revision,
            "seed": config.seed,
            "reward": config.reward.model_dump(include={"extractor", "matcher", "marker"}),
            "counts": {split: len(prepared.splits[split]) for split in SPLITS},
            "sha256": {
                path.name: hashlib.sha256(path.read_bytes()).hexdigest()
                for path in sorted(folder.glob("*.parquet"))
            },
            "quarantined": [asdict(row) for row in prepared.quarantined],
            "duplicates": [asdict(row) for row in prepared.duplicates],
            "dropped_answers": [asdict(row) for row in prepared.dropped_answers],
        }
        write_json(folder / "manifest.json", manifest)


if __name__ == "__main__":
    from tasks.runner.command_line import run_stage

    run_stage("download_data", run, OUTPUTS)
