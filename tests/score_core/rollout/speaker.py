"""An engine that says what the noise tells it to: each token is a tenth of a random number, as a digit."""

import numpy as np
import torch

from score_core.rollout.conversation import Conversation
from score_core.rollout.engines.engine import Request, Sampled
from score_core.rollout.trajectories import Segments

END = 1
DIGIT = 4  # the id of the digit 0 in the embedded tokenizer


def answer(noise_M: np.ndarray) -> list[int]:
    """Two digits and an end token, or a cut answer of three digits where the third number is small."""
    digits = [DIGIT + int(10 * u) for u in noise_M[:3]]
    return digits if noise_M[2] < 0.3 else [*digits[:2], END]


class Speaker:
    """Notes every request and answers from its noise; greedily it says the prompt's length."""

    schedules = False

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.loaded: list[object] = []
        self.device = torch.device("cpu")

    def load(self, model: object) -> None:
        self.loaded.append(model)

    def sample(self, conversation: Conversation, request: Request) -> Sampled:
        self.requests.append(request)
        segments: list[Segments] = []
        truncated, logp = [], []
        for row in range(request.count):
            prompt = request.prompts[row // request.samples]
            pieces, cut, chances = [(prompt, 0)], [], []
            for attempt in range(request.attempts):
                if attempt and not pieces[-1][0]:
                    ids, chance = [], []
                elif attempt == 0 and request.given is not None:
                    ids, chance = request.given[row], [0.0] * len(request.given[row])
                elif request.noise is None:
                    ids, chance = [DIGIT + len(prompt) % 10, END], [0.0, 0.0]
                else:
                    ids = answer(request.noise[row, attempt])
                    chance = (-request.noise[row, attempt, : len(ids)]).tolist()
                pieces.append((ids, attempt + 1))
                cut.append(ids[-1:] not in ([], [END]))
                chances.append(chance)
                if attempt + 1 < request.attempts:
                    pieces.append((conversation.continuation(ids, attempt + 1), 0))
            segments.append(tuple(pieces))
            truncated.append(cut)
            logp.append(chances)
        return Sampled(segments, truncated, logp)
