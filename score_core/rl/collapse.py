"""Signs that training collapses, told while it runs: what has happened, in plain words, and since which step.

A sign is a level, made of what training logs in the mean over the last `WINDOW` steps. It is told when the
level has stayed below a bound, and is over when it has risen above another, higher one. The bounds were
chosen on other runs than those that benchmarks/collapse.py judges them by.
"""

from __future__ import annotations

import logging
import statistics
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from transformers import TrainerCallback, TrainerState

log = logging.getLogger(__name__)

WINDOW = 10  # steps that figures are averaged over
EARLY = 3  # steps after which a mean may be the best so far: a first attempt is spoiled in less than a window
PATIENCE = 5  # steps for which a level has to stay below

COPIED, CHANGING = 0.1, 0.2  # shares of the wrong answers that the next attempt changes
SLOW_START = 30  # the patience with copying from the start, from where many a sound run takes off
FEW_WRONG = 0.05  # a share of wrong answers below which nothing is lost by copying

SPOILED, RECOVERED = 0.5, 0.7  # of the best accuracy so far, what is left
LOST = 0.05  # the least accuracy that it takes to lose, and to win at the attempt that gains by it

ENTROPY_GONE, ENTROPY_BACK = 0.1, 0.2  # of the highest entropy so far, what is left
HAD = 0.01  # nats a token that an attempt must once have had to lose them
SOLVED = 0.9  # accuracy from which an attempt may well be sure of itself

Figures = Mapping[str, float]


class Sign(ABC):
    """One sign, at one attempt.

    Attributes:
        low, high: the bounds of its level.
        best: each figure's highest mean so far; kept by the monitor.
        since: the first step of the first window that was below; None where the last was not.
        told: whether it has been told and is not over.
    """

    low: ClassVar[float]
    high: ClassVar[float]
    remedy: ClassVar[str]

    def __init__(self, attempt: int, best: Figures) -> None:
        self.attempt, self.best = attempt, best
        self.since: int | None = None
        self.told = False

    @property
    @abstractmethod
    def name(self) -> str:
        """What it is called in a word or two."""

    @abstractmethod
    def level(self, means: Figures) -> float | None:
        """Of a window; None where there is nothing to fear."""

    @abstractmethod
    def words(self, means: Figures) -> str:
        """What has happened."""

    @property
    def patience(self) -> int:
        """For how many steps its level has to stay below."""
        return PATIENCE

    def take(self, first: int, last: int, means: Figures) -> bool:
        """Takes the means of a whole window; returns whether it began or ended to be told."""
        level, before = self.level(means), self.told
        if level is None or level > self.high:
            self.told = False
        if level is None or level > self.low:
            self.since = self.since if self.told else None
        else:
            self.since = first if self.since is None else self.since
            self.told = self.told or last - self.since + 1 >= WINDOW + self.patience
        return self.told != before


class Copying(Sign):
    """An attempt repeats the one before it, also where that is wrong."""

    low, high = COPIED, CHANGING
    remedy = (
        "What is never changed is never rewarded for it: try a base model that now and then corrects itself, "
        "a longer Stage I, or a larger alpha."
    )

    def __init__(self, attempt: int, best: Figures) -> None:
        super().__init__(attempt, best)
        self.changed = False  # whether it ever did change answers

    @property
    def name(self) -> str:
        return "stopped changing" if self.changed else "copying"

    @property
    def patience(self) -> int:
        return PATIENCE if self.changed else SLOW_START

    def level(self, means: Figures) -> float | None:
        """The share of wrong answers that are changed: at most, since some that are changed were right."""
        wrong = 1 - means[f"accuracy_t{self.attempt - 1}"]
        if wrong < FEW_WRONG:
            return None
        level = means[f"changed_t{self.attempt}"] / wrong
        self.changed = self.changed or level > self.high
        return level

    def words(self, means: Figures) -> str:
        what = "has stopped changing answers" if self.changed else "only copies"
        level = means[f"changed_t{self.attempt}"] / (1 - means[f"accuracy_t{self.attempt - 1}"])
        return f"attempt {self.attempt} {what}: of wrong ones it changes {level:.0%} at most"


class Spoiling(Sign):
    """The first attempt gets worse while the last one stays or becomes better: there is more to correct."""

    name, low, high = "spoiling", SPOILED, RECOVERED
    remedy = "Lower gamma, or alpha: where alpha * gamma is above 1, it is paid to fail first."

    def __init__(self, last: int, best: Figures) -> None:
        super().__init__(1, best)
        self.last = f"accuracy_t{last}"

    def level(self, means: Figures) -> float | None:
        """The share of its best accuracy that is left to the first attempt."""
        first, best = means["accuracy_t1"], self.best["accuracy_t1"]
        gains = means[self.last] - first
        return None if min(best - first, gains) < LOST else first / best

    def words(self, means: Figures) -> str:
        return (
            f"attempt 1 is being spoiled, as if on purpose: it was right in {self.best['accuracy_t1']:.0%} "
            f"of the cases and is in {means['accuracy_t1']:.0%}, the last attempt in {means[self.last]:.0%}"
        )


class NoEntropy(Sign):
    """An attempt is always the same, and not because it is right: nothing is left to learn from."""

    name, low, high = "no entropy", ENTROPY_GONE, ENTROPY_BACK
    remedy = "Raise beta1, or lower the learning rate."

    def level(self, means: Figures) -> float | None:
        """The share of its highest entropy that is left."""
        entropy, best = (of[f"entropy_t{self.attempt}"] for of in (means, self.best))
        return None if means[f"accuracy_t{self.attempt}"] > SOLVED or best < HAD else entropy / best

    def words(self, means: Figures) -> str:
        t = self.attempt
        entropy, best = (of[f"entropy_t{t}"] for of in (means, self.best))
        return (
            f"the entropy of attempt {t} is gone, {entropy:.2g} nats a token after {best:.2g}, and "
            f"{1 - means[f'accuracy_t{t}']:.0%} of them are wrong"
        )


class CollapseMonitor(TrainerCallback):
    """Watches a run of training, and tells each sign when it begins and when it is over.

    What a continued run had logged before is in the Trainer's state, and is taken from there.

    Args:
        name: of the stage.
        samples_start: whether steps sample the model that training starts from: then validations are
            watched, which ask the policy.

    Attributes:
        warnings: those that were told so far, in order: `sign`, `attempt`, `since` which step, `until` which
            (None: it holds), and `said`, all of it in words.
    """

    def __init__(self, name: str, samples_start: bool) -> None:
        self.name, self.kind = name, "eval_delta" if samples_start else "loss"
        self.warnings: list[dict[str, Any]] = []
        self._holding: dict[Sign, dict[str, Any]] = {}
        self._signs: list[Sign] = []
        self._window: list[dict[str, float]] = []
        self._started = 0
        self._best: dict[str, float] = {}

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Takes up what was logged before, without telling it again."""
        for entry in state.log_history:
            self.take(entry)

    def on_log(self, args: Any, state: TrainerState, control: Any, logs: Any = None, **_: Any) -> None:
        """Takes what the Trainer has logged, which is the latest entry of its history."""
        for warning in self.take(state.log_history[-1]):
            if warning["until"] is None:
                log.warning("%s: %s", self.name, warning["said"])
            else:
                log.info("%s: no longer %s, since step %d", self.name, warning["sign"], warning["until"])

    def take(self, entry: Mapping[str, float]) -> list[dict[str, Any]]:
        """Takes an entry of the Trainer's history; returns the warnings that begin or end with it."""
        if self.kind not in entry:
            return []
        figures = {name.removeprefix("eval_"): value for name, value in entry.items()}
        step = int(figures["step"])
        if not self._signs:
            self._signs, self._started = signs_in(figures, self._best), step
        self._window = [one for one in self._window if one["step"] > step - WINDOW] + [figures]
        first, taken = int(self._window[0]["step"]), step - self._started + 1
        means = {
            name: statistics.fmean(one[name] for one in self._window)
            for name in figures
            if name.startswith(("accuracy_t", "changed_t", "entropy_t"))
        }
        if taken >= EARLY:
            self._best |= {name: max(mean, self._best.get(name, mean)) for name, mean in means.items()}
        if taken < WINDOW:
            return []
        return [self._note(sign, step, means) for sign in self._signs if sign.take(first, step, means)]

    @property
    def shown(self) -> str:
        """What holds now, in a few words."""
        return ", ".join(f"{one['sign']} since step {one['since']}" for one in self._holding.values())

    def _note(self, sign: Sign, step: int, means: Figures) -> dict[str, Any]:
        if sign.told:
            said = f"{sign.words(means)}. {sign.remedy}"
            about = {"sign": sign.name, "attempt": sign.attempt, "since": sign.since, "until": None}
            self._holding[sign] = {**about, "said": f"Since step {sign.since}: {said}"}
            self.warnings.append(self._holding[sign])
            return self._holding[sign]
        ended = self._holding.pop(sign)
        said = ended["said"].partition(": ")[2]
        ended |= {"until": step, "said": f"From step {ended['since']} to {step}: {said}"}
        return ended


def signs_in(figures: Iterable[str], best: Figures) -> list[Sign]:
    """What can be watched where these figures are logged."""
    attempts = sorted(
        int(name.removeprefix("accuracy_t")) for name in figures if name.startswith("accuracy_t")
    )
    found: list[Sign] = [Copying(t, best) for t in attempts[1:] if f"changed_t{t}" in figures]
    found += [Spoiling(t, best) for t in attempts[1:][-1:]]
    return found + [NoEntropy(t, best) for t in attempts if f"entropy_t{t}" in figures]
