"""What a model says of every token of the vocabulary at the sampled positions."""

from torch import Tensor, nn

from score_core.rl.logprobs import Distributions, TokenScores, score
from score_core.rollout.trajectories import Trajectories


def score_as_reference(
    model: nn.Module, trajectories: Trajectories, temperature: float
) -> tuple[TokenScores, Distributions]:
    """Its scores, and what the exact KL to it is computed from."""
    scores = score(model, trajectories, temperature, keep_hidden=True)
    return scores, Distributions(scores.hidden_PH, lambda hidden_PH: model(project=hidden_PH))


def logp_PV(model: nn.Module, trajectories: Trajectories, temperature: float) -> Tensor:
    """The whole distributions."""
    hidden_PH = score(model, trajectories, temperature, keep_hidden=True).hidden_PH
    return (model(project=hidden_PH).float() / temperature).log_softmax(-1)
