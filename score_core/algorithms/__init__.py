"""Methods of training by name: one method's story a file."""

from score_core.algorithms.score import StageOneSettings, StageTwoSettings
from score_core.config.training import Training

SETTINGS: dict[str, type[Training]] = {
    "score_stage1": StageOneSettings,
    "score_stage2": StageTwoSettings,
}
