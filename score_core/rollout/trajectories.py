"""Trajectories: whole dialogues `[x, y1, p1, y2, ...]` as one sequence of token ids each.

Shape suffixes used throughout: N trajectories, T attempts, L padded length, M most new tokens of an
attempt, P sampled tokens of a batch put end to end, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# The pieces of one dialogue in order, each (ids, attempt): 0 for the prompt and the instructions, t for
# attempt t.
Segments = tuple[tuple[list[int], int], ...]
# Of one dialogue, for each attempt, the log-probability of each of its tokens, in nats.
TokenLogp = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Trajectories:
    """N dialogues of T attempts.

    Attributes:
        input_ids_NL: ids, padded on the left.
        attention_mask_NL: 1 where there is a token, 0 on padding.
        attempt_NL: t where the token was sampled in attempt t (1, 2, ...), up to and including the first
            end token; 0 on padding, prompt and instructions.
        logp_NL: log-probability in nats of each sampled token, as the engine saw it; 0 elsewhere.
        truncated_NT: the attempt hit its length limit.
        segments: the pieces that the sequences were put together from.
    """

    input_ids_NL: Tensor
    attention_mask_NL: Tensor
    attempt_NL: Tensor
    logp_NL: Tensor
    truncated_NT: Tensor
    segments: tuple[Segments, ...]

    def __len__(self) -> int:
        return len(self.segments)

    @property
    def position_ids_NL(self) -> Tensor:
        """0 at the first token of the prompt, wherever padding ends."""
        return (self.attention_mask_NL.cumsum(-1) - 1).clamp(min=0)

    @property
    def attempts(self) -> list[list[list[int]]]:
        """The sampled ids, attempts[n][t - 1]."""
        return [[ids for ids, attempt in pieces if attempt] for pieces in self.segments]

    @property
    def lengths_NT(self) -> Tensor:
        """Sampled tokens of each attempt."""
        return self._attempt_sums(torch.ones_like(self.attempt_NL))

    @property
    def logp_P(self) -> Tensor:
        """Log-probability of each of the P sampled tokens, in the order of `sampled`."""
        return self.logp_NL[self.attempt_NL > 0]

    @property
    def logp_NT(self) -> Tensor:
        """Log-probability of each attempt, in nats."""
        return self._attempt_sums(self.logp_NL)

    def _attempt_sums(self, values_NL: Tensor) -> Tensor:
        attempts = range(1, self.truncated_NT.shape[1] + 1)
        return torch.stack([(values_NL * (self.attempt_NL == at)).sum(-1) for at in attempts], dim=1)

    @property
    def sampled(self) -> tuple[Tensor, Tensor]:
        """Row and column of each of the P sampled tokens in a tensor (N, T), row after row."""
        row_P, position_P = torch.nonzero(self.attempt_NL, as_tuple=True)
        return row_P, self.attempt_NL[row_P, position_P] - 1

    def select(self, rows: Sequence[int]) -> "Trajectories":
        """Some of the trajectories, with padding that none of them needs cut away."""
        index = torch.as_tensor(rows, device=self.input_ids_NL.device)
        mask_NL = self.attention_mask_NL[index]
        start = int(mask_NL.any(0).int().argmax())
        return Trajectories(
            self.input_ids_NL[index, start:],
            mask_NL[:, start:],
            self.attempt_NL[index, start:],
            self.logp_NL[index, start:],
            self.truncated_NT[index],
            tuple(self.segments[row] for row in rows),
        )

    def upto(self, attempt: int) -> "Trajectories":
        """The same dialogues, ending with `attempt`."""
        ends = [[number for _, number in pieces].index(attempt) + 1 for pieces in self.segments]
        part = assemble(
            [pieces[:end] for pieces, end in zip(self.segments, ends, strict=True)],
            self.truncated_NT[:, :attempt],
            pad_id=int(self.input_ids_NL[0, 0]),
            device=self.input_ids_NL.device,
        )
        kept = (self.attempt_NL > 0) & (self.attempt_NL <= attempt)
        part.logp_NL[part.attempt_NL > 0] = self.logp_NL[kept]
        return part


def assemble(
    segments: Sequence[Segments],
    truncated: Tensor | Sequence[Sequence[bool]],
    pad_id: int,
    device: torch.device | str = "cpu",
    logp: Sequence[TokenLogp] | None = None,
) -> Trajectories:
    """Puts dialogues together.

    Args:
        segments: the pieces of each dialogue.
        truncated: (N, T), whether an attempt hit its length limit.
        pad_id: any id; padded positions are masked.
        logp: of the attempts' tokens, for each dialogue; without it they are 0.
    """
    rows = [[token for ids, _ in pieces for token in ids] for pieces in segments]
    attempts = [[attempt for ids, attempt in pieces for _ in ids] for pieces in segments]
    width = max(map(len, rows))

    def padded(values: list[list[int]], fill: int) -> Tensor:
        return torch.tensor([[fill] * (width - len(row)) + row for row in values], device=device)

    attempt_NL = padded(attempts, 0)
    logp_NL = torch.zeros(attempt_NL.shape, device=device)
    if logp is not None:
        values = [value for row in logp for attempt in row for value in attempt]
        logp_NL[attempt_NL > 0] = torch.tensor(values, device=device)
    return Trajectories(
        input_ids_NL=padded(rows, pad_id),
        attention_mask_NL=padded([[1] * len(row) for row in rows], 0),
        attempt_NL=attempt_NL,
        logp_NL=logp_NL,
        truncated_NT=torch.as_tensor(truncated, dtype=torch.bool, device=device),
        segments=tuple(segments),
    )
