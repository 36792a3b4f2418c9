"""From an endless stream of exercises to disjoint splits of distinct problems."""

from collections.abc import Iterator

from score_core.config.splitting import Sizes
from score_core.errors import UserError
from score_core.problems import Problem, content_hash

PATIENCE = 50_000  # draws without a new problem after which there is taken to be none


def split_of(problem: str) -> str:
    """The split a problem belongs to, by a mixing hash of its text.

    A hash that does not mix (say, of the digits' sum) would give the splits different distributions.
    """
    # By its last hexadecimal digit: a sixteenth each is for validation and for the test.
    return {"e": "validation", "f": "test"}.get(content_hash(problem)[-1], "train")


def fill_splits(wanted: Sizes, exercises: Iterator[tuple[str, str]], kind: str) -> dict[str, list[Problem]]:
    """Distinct problems for each split, as many as `wanted`, in the order in which they come.

    Args:
        exercises: without end, each a problem's text and its answer.
        kind: what they are, and what to do where there are too few of them; ends the message.

    Raises:
        UserError: nothing new came for long.
    """
    sizes = wanted.model_dump()
    splits: dict[str, list[Problem]] = {name: [] for name in sizes}
    seen = set()
    in_vain = 0
    for text, answer in exercises:
        split = split_of(text)
        if text in seen or len(splits[split]) == sizes[split]:
            in_vain += 1
            if in_vain == PATIENCE:
                short = next(name for name in sizes if len(splits[name]) < sizes[name])
                raise UserError(
                    f"data.sizes.{short}: expected {sizes[short]} different problems and found only "
                    f"{len(splits[short])} {kind}."
                )
            continue
        in_vain = 0
        seen.add(text)
        splits[split].append(Problem(content_hash(text), text, (answer,)))
        if all(len(problems) == sizes[name] for name, problems in splits.items()):
            break
    return splits
