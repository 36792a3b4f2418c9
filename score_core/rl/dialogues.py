"""The dialogues that a step trains on: those that were sampled, or others that nobody had.

Attempts of a prompt's trajectories may be put together in another way: a wrong first attempt and somebody
else's right one make a pair to learn a correction from; a first attempt and the second one of another
trajectory make one more sample of what follows it.
"""

import torch
from torch import Tensor

from score_core.rl.algorithm import Credit
from score_core.rl.batches import MicroBatch
from score_core.rl.sampler import Stage
from score_core.rollout.conversation import Conversation
from score_core.rollout.trajectories import Trajectories, assemble


def trained(trajectories: Trajectories, credit: Credit, stage: Stage, process: int) -> MicroBatch:
    """The dialogues that a process trains on.

    Args:
        trajectories: the process's.
        credit: of the whole step, process after process.
    """
    count, attempts = trajectories.truncated_NT.shape
    size = count * stage.algorithm.dialogues
    rows = slice(process * size, (process + 1) * size)
    weight_MS = credit.weight_MS[rows]
    own_MS = (weight_MS > 0) & (not stage.algorithm.samples_start)
    if credit.source_MS is not None:
        source_MS = credit.source_MS[rows] - process * count * attempts
        trajectories = rearrange(trajectories, source_MS, stage.conversation)
        own_MS = own_MS & in_place(source_MS, attempts)
    return MicroBatch(trajectories, credit.advantage_MS[rows], weight_MS, own_MS)


def rearrange(trajectories: Trajectories, source_MS: Tensor, conversation: Conversation) -> Trajectories:
    """M dialogues of S attempts each, with the instruction between them.

    Log-probabilities stay those of where an attempt was sampled.

    Args:
        source_MS: which of the N * T attempts, row after row, stands there.
    """
    attempts, (count, turns) = trajectories.attempts, trajectories.truncated_NT.shape
    answers = [ids for row in attempts for ids in row]
    sizes = [len(ids) for ids in answers]
    logp = [values.tolist() for values in trajectories.logp_P.split(sizes)]
    segments = []
    for row in source_MS.tolist():
        pieces = [(trajectories.segments[row[0] // turns][0][0], 0)]
        for attempt, source in enumerate(row, start=1):
            if attempt > 1:
                pieces.append((conversation.continuation(pieces[-1][0], attempt - 1), 0))
            pieces.append((answers[source], attempt))
        segments.append(tuple(pieces))
    return assemble(
        segments,
        trajectories.truncated_NT.reshape(count * turns)[source_MS],
        pad_id=conversation.end_ids[0],
        device=trajectories.input_ids_NL.device,
        logp=[[logp[source] for source in row] for row in source_MS.tolist()],
    )


def in_place(source_MS: Tensor, attempts: int) -> Tensor:
    """Whether an attempt, and all before it, stand where they were sampled, (M, S).

    Args:
        attempts: T, of a trajectory as sampled.
    """
    column_S = torch.arange(source_MS.shape[1], device=source_MS.device)
    first_M1 = source_MS[:, :1] // attempts * attempts
    return ((source_MS == first_M1 + column_S) & (column_S < attempts)).cumprod(1).bool()
