"""What a profile's stages compute, as arithmetic: tokens, memory, and hours on so many GPUs.

    decoding   every token of a batch takes the longest of: reading the weights and the cache once, computing,
               and starting the kernels; a batch goes on until its longest answer ends
    training   tokens * weights * 8 FLOP: 2 forward, 4 backward, 2 for the reference; under adapters 6, as
               frozen weights have no gradient

The rates are assumptions, of the size that was seen of such models; `Gpu` states them.
"""

from dataclasses import dataclass

from score_core.config.runtime import Launch
from score_core.config.schema import Config
from score_core.errors import UserError
from score_core.models.memory import MOST_ROWS, BatchSizes, Shape, fit_batches, weight_bytes
from score_core.rl.logprobs import CHUNK

INSTRUCTION = 80  # tokens between two attempts, about
PROMPT = 0.15  # of max_prompt_tokens that an ordinary prompt has


@dataclass(frozen=True)
class Gpu:
    """A GPU, and how much of it such a program gets."""

    name: str
    flop: float  # a second, in bf16
    bandwidth: float  # bytes a second
    memory: float  # bytes
    trains_at: float = 0.15  # of flop, in forward and backward
    computes_at: float = 0.4  # of flop, while many rows are sampled
    reads_at: float = 0.5  # of bandwidth
    layer_seconds: float = 0.001  # to start a layer's kernels for one token, from Python


GPUS = {
    "h100": Gpu("H100 80 GB", 989e12, 3.35e12, 80e9),
    "a100": Gpu("A100 80 GB", 312e12, 2.0e12, 80e9),
    "l40s": Gpu("L40S 48 GB", 362e12, 0.86e12, 48e9),
}


@dataclass(frozen=True)
class Work:
    """What a stage does.

    Attributes:
        stage: its name in dvc.yaml.
        attempts: of a dialogue, verdicts on them included.
        rounds: (how often, dialogues) of a step, of a validation, of an evaluation.
        trains: whether it trains on the first of these.
        most: tokens of an attempt.
        games: of a step, in which the policy judges its own answers.
        at_once: dialogues that are sampled side by side at most, where a setting says so.
    """

    stage: str
    attempts: int
    most: int
    rounds: tuple[tuple[int, int], ...]
    trains: bool
    games: int = 0
    at_once: int = MOST_ROWS

    @property
    def dialogues(self) -> int:
        """All that are sampled."""
        return sum(times * dialogues for times, dialogues in self.rounds)


@dataclass(frozen=True)
class Fit:
    """How a model lies on so many GPUs."""

    gpus: int
    strategy: str
    held: int  # bytes a GPU, all the time
    batches: BatchSizes


@dataclass(frozen=True)
class Plan:
    """A profile's costs.

    Attributes:
        answer: mean tokens of an answer, assumed.
    """

    config: Config
    shape: Shape
    work: tuple[Work, ...]
    gpu: Gpu
    answer: float

    @property
    def longest(self) -> int:
        """The most tokens of a dialogue."""
        said, attempts = self.config.conversation, max(one.attempts for one in self.work)
        return said.max_prompt_tokens + attempts * (said.max_new_tokens + INSTRUCTION)

    def sampled(self, work: Work) -> float:
        """Tokens that a stage samples."""
        return work.dialogues * work.attempts * self.answer

    def trained(self, work: Work) -> float:
        """Tokens of the dialogues that a stage trains on."""
        prompt = PROMPT * self.config.conversation.max_prompt_tokens
        dialogue = prompt + work.attempts * (self.answer + INSTRUCTION)
        steps, dialogues = work.rounds[0]
        return work.trains * steps * dialogues * dialogue

    def fit(self, gpus: int) -> Fit:
        """The simplest strategy under which the model fits.

        Raises:
            UserError: it fits under none, or the GPUs do not share a step's prompts; with the reason.
        """
        trained = {work.stage for work in self.work if work.trains}
        for name, stage in self.config.stages.items():
            if f"train_{name}" in trained and stage.prompts_per_step % gpus:
                raise UserError(f"{stage.prompts_per_step} prompts a step of {name} are not shared by {gpus}")
        why = UserError("no strategy")
        for strategy in ("single",) if gpus == 1 else ("ddp", "zero2", "zero3"):
            weights = weight_bytes(
                self.shape, self.config.lora, self.config.quantize is not None, _launch(strategy, gpus)
            )
            try:
                batches = fit_batches(self.shape, weights, self.longest, round(self.gpu.memory), CHUNK)
                return Fit(gpus, strategy, weights[0], batches)
            except UserError as error:
                why = error
        raise why

    def sampling_seconds(self, work: Work, fit: Fit) -> float:
        """Seconds that a stage samples, validations included."""
        tokens = work.attempts * work.most
        seconds = sum(times * self._round(dialogues, tokens, work, fit) for times, dialogues in work.rounds)
        if work.games and (judge := self.config.reward.self_judge) is not None:
            seconds += work.rounds[0][0] * self._round(work.games, judge.max_new_tokens, work, fit)
        return seconds

    def training_seconds(self, work: Work, fit: Fit) -> float:
        """Seconds that a stage computes gradients."""
        flop = (6 if self.config.lora else 8) * self.shape.parameters * self.trained(work)
        return flop / (self.gpu.flop * self.gpu.trains_at * fit.gpus)

    def _round(self, dialogues: int, tokens: int, work: Work, fit: Fit) -> float:
        batch = min(work.at_once, fit.batches.rows)
        whole, rest = divmod(-(-dialogues // fit.gpus), batch)
        return tokens * (whole * self._token(batch) + (self._token(rest) if rest else 0))

    def _token(self, rows: int) -> float:
        """Seconds for the next token of so many dialogues."""
        held = self.shape.parameters * (0.6 if self.config.quantize else self.shape.dtype)
        read = held + rows * self.shape.token_cached * self.longest / 2
        return max(
            self.shape.layers * self.gpu.layer_seconds,
            read / (self.gpu.bandwidth * self.gpu.reads_at),
            2 * rows * self.shape.parameters / (self.gpu.flop * self.gpu.computes_at),
        )


def _launch(strategy: str, gpus: int) -> Launch:
    return Launch.model_validate(
        {
            "strategy": strategy,
            "processes": gpus,
            "machines": 1,
            "machine_rank": 0,
            "main_address": "127.0.0.1",
            "main_port": 0,
            "through": None,
            "sampler": None,
            "sampler_beside": False,
            "offload": False,
            "gradient_checkpointing": False,
        }
    )
