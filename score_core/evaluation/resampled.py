"""Another first attempt in place of a correction: what a second try is worth by itself."""

import pandas as pd

from score_core.errors import UserError


def resampled(generations: pd.DataFrame) -> pd.DataFrame:
    """The table of `score_core.evaluation.evaluate` with each sample's second attempt replaced.

    It becomes the first attempt of the same problem's next sample, and the last sample's that of the first:
    drawn independently, with the first one's accuracy, and as often right after a wrong one as after a right
    one of that problem. Later attempts are left out.

    Raises:
        UserError: there is one sample a problem.
    """
    if "sample" not in generations:
        raise UserError(
            "evaluation.samples: expected at least 2, found 1: another sample has to stand in place of the "
            "correction; set it to 2, and evaluation.temperature above 0."
        )
    shared = [column for column in generations if not column.rpartition("_t")[2].isdigit()]
    firsts = [column for column in generations if column.endswith("_t1")]
    table = generations.sort_values(["id", "sample"])[[*shared, *firsts]]
    samples = table.groupby("id")["sample"].transform("size")
    (count,) = samples.unique()
    # Rows are in order, so the next sample's row is the next one, or the problem's first.
    after = [at + 1 if (at + 1) % count else at + 1 - count for at in range(len(table))]
    others = table[firsts].iloc[after].set_axis([f"{name[:-1]}2" for name in firsts], axis=1)
    return table.assign(**{name: others[name].to_numpy() for name in others}).loc[generations.index]
