"""Methods of training by name: one method's story a file."""

from score_core.algorithms.pag import Pag
from score_core.algorithms.pair_sft import PairSFT
from score_core.algorithms.plain_rl import PlainRL
from score_core.algorithms.score import StageOne, StageTwo
from score_core.algorithms.sr_r1 import SrR1
from score_core.algorithms.star import Star
from score_core.algorithms.stasc import Stasc
from score_core.config.training import Training
from score_core.rl.algorithm import Algorithm

ALGORITHMS: dict[str, type[Algorithm]] = {
    "score_stage1": StageOne,
    "score_stage2": StageTwo,
    "plain_rl": PlainRL,
    "star": Star,
    "pair_sft": PairSFT,
    "stasc": Stasc,
    "pag": Pag,
    "sr_r1": SrR1,
}
SETTINGS: dict[str, type[Training]] = {name: method.Settings for name, method in ALGORITHMS.items()}


def make_algorithm(settings: Training) -> Algorithm:
    """The method that the settings name, with them."""
    return ALGORITHMS[settings.algorithm](settings)
