"""The matcher of programs: right is what passes all of its problem's tests, in a sandbox.

Here the gold answer of a problem is its tests, as JSON, together with a program that passes them: a gold
answer that does not match itself is one whose program fails its own tests. `score_core/answers/sandbox/` runs
both.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from score_core.answers.sandbox.pool import Job, Pool
from score_core.config.reward import Reward

MAX_CHARACTERS = 1 << 16  # of a program; what a model writes in one attempt is shorter
REMEMBERED = 1 << 16  # programs whose verdicts are kept, 32 bytes and a number each

# The share of tests passed, by `_key`. A cache of what `CodeTests` found, so that a reward term needs no run
# of its own; it holds the last batch whole.
_shares: dict[bytes, float] = {}


@dataclass(frozen=True)
class Suite:
    """The tests of one problem.

    Attributes:
        names: the functions and classes of the program that the tests use.
        tests: Python; each passes if it runs to its end.
        solution: a program that passes them all.
        preamble: Python that runs before the program, such as the head of the function to write.
        setup: Python that runs before the tests.
        wrong: a program that fails, where the problem is to repair one.
    """

    names: tuple[str, ...]
    tests: tuple[str, ...]
    solution: str
    preamble: str = ""
    setup: str = ""
    wrong: str = ""

    def as_text(self) -> str:
        """As a gold answer; the same for equal tests."""
        return json.dumps(asdict(self), ensure_ascii=False, sort_keys=True)

    @classmethod
    def of_text(cls, text: str) -> "Suite | None":
        """What `as_text` has written; None of anything else."""
        try:
            content: dict[str, Any] = json.loads(text)
            content |= {name: tuple(content[name]) for name in ("names", "tests")}
            return cls(**content) if content["names"] and content["tests"] else None
        except (ValueError, TypeError, KeyError, AttributeError):
            return None

    @property
    def wrong_answer(self) -> str:
        """An answer that holds the wrong program."""
        return in_block(self.wrong)

    def job(self, program: str) -> Job:
        """What a sandbox is to run."""
        return Job(program, self.preamble, self.names, self.setup, self.tests)


def in_block(program: str) -> str:
    """A program as an answer that holds it."""
    return f"```python\n{program.strip()}\n```"


class CodeTests:
    """Runs programs against tests; one that outlasts `reward.seconds` of CPU time fails what is left of them.

    Raises:
        UserError: this machine has no sandbox, and `reward.sandbox` does not do without.
    """

    whole_golds = True
    complaint = "holds tests that their own solution fails, run"

    def __init__(self, settings: Reward) -> None:
        self._pool = Pool(settings.seconds, sandboxed=settings.sandbox == "required")

    def normalise(self, answer: str) -> str | None:
        """The program, without white space around it; None if there is none, or it is too long."""
        text = answer.strip()
        text = text if len(text) <= MAX_CHARACTERS or Suite.of_text(text) else ""
        return text.encode(errors="replace").decode() or None

    def equal_all(self, golds: Sequence[str], answers: Sequence[str]) -> list[bool]:
        """Whether each program passes all tests of its problem."""
        if len(_shares) + len(golds) > REMEMBERED:
            _shares.clear()
        tests = {gold: Suite.of_text(gold) for gold in dict.fromkeys(golds)}
        keys = [_key(gold, answer) for gold, answer in zip(golds, answers, strict=True)]
        fresh = {
            key: found.job(answer)
            for key, gold, answer in zip(keys, golds, answers, strict=True)
            if key not in _shares and (found := tests[gold]) is not None
        }
        judged = zip(fresh, self._pool.judge_all(list(fresh.values())), strict=True)
        # A verdict that was lost is not kept: it says nothing of the program.
        _shares.update((key, sum(passed) / len(passed)) for key, passed in judged if passed is not None)
        return [_shares.get(key) == 1.0 for key in keys]

    def readable_all(self, golds: Sequence[str]) -> list[bool]:
        """Whether each gold answer's own solution passes its tests."""
        tests = [Suite.of_text(gold) for gold in golds]
        return self.equal_all(golds, ["" if one is None else one.solution for one in tests])


def share_passed(golds: Sequence[str], program: str | None) -> float:
    """The share of tests that a program of the batch judged last passes, in [0, 1]; the best over `golds`."""
    return max((_shares.get(_key(gold, program), 0.0) for gold in golds if program is not None), default=0.0)


def _key(gold: str, program: str) -> bytes:
    return hashlib.sha256(f"{len(gold)} {gold}{program}".encode(errors="replace")).digest()
