"""Published figures of self-correction, in percent, as the papers print them.

Other models on other tasks: they show what the effect looks like, not what a run here should reach.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """Accuracy at two attempts; the flows between them where they were published."""

    method: str
    t1: float
    t2: float
    i_to_c: float | None = None
    c_to_i: float | None = None
    note: str = ""
    score: bool = False  # the paper's own method

    @property
    def delta(self) -> float:
        return round(self.t2 - self.t1, 1)


@dataclass(frozen=True)
class Group:
    """Rows of one model on one benchmark."""

    title: str
    source: str
    rows: tuple[Row, ...]


SCORE = "Kumar et al., arXiv 2409.12917"
PAG = "PAG, arXiv 2506.10406"

GROUPS = (
    Group(
        "MATH500, Gemini 1.5 Flash",
        SCORE,
        (
            Row("Base model", 52.6, 41.4, 4.6, 15.8),
            Row("Self-Refine", 52.8, 51.8, 3.2, 4.2),
            Row("STaR", 55.4, 41.2, 5.4, 19.6),
            Row("STaR with right → right pairs", 53.6, 54.0, 2.6, 2.2),
            Row("Pair-SFT", 52.4, 54.2, 5.4, 3.6),
            Row("Pair-SFT with right → right pairs", 55.0, 55.0, 0.0, 0.0),
            Row("SCoRe", 60.0, 64.4, 5.8, 1.4, score=True),
        ),
    ),
    Group(
        "HumanEval, Gemini 1.0 Pro",
        f"{SCORE}; MBPP-R is the repair of another model's programs",
        (
            Row("Base model", 53.7, 56.7, 7.9, 4.9, note="MBPP-R 47.3"),
            Row("Self-Refine", 53.7, 52.5, 9.8, 11.0, note="MBPP-R 30.7"),
            Row("Pair-SFT", 56.1, 54.3, 4.3, 6.1, note="MBPP-R 59.8"),
            Row("SCoRe", 52.4, 64.6, 15.2, 3.0, note="MBPP-R 60.6", score=True),
        ),
    ),
    Group(
        "Ablations on MATH, Gemini 1.5 Flash",
        SCORE,
        (
            Row("Without multi-turn training", 61.8, 59.4),
            Row("Without Stage I", 59.2, 61.4),
            Row("Without the bonus for progress", 60.0, 62.6),
            Row("STaR in place of RL in Stage II", 56.2, 58.4),
            Row("Without on-policy first attempts", 60.4, 60.6),
        ),
    ),
    Group(
        "MATH, Gemma-2-2B",
        "the SCoRe authors' own",
        (
            Row("Base model", 16.8, 16.8),
            Row("Stage I", 17.6, 20.0),
            Row("Stage II", 23.0, 24.0, score=True),
        ),
    ),
    Group(
        "MATH500, Qwen2.5-1.5B-Instruct, mean of 32 samples",
        PAG,
        (
            Row("Base model", 53.2, 52.4),
            Row("Single-turn RL", 61.6, 62.4),
            Row("Plain multi-turn RL", 62.1, 64.0),
            Row("SCoRe", 61.9, 63.9, score=True),
        ),
    ),
)
