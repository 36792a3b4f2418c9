"""Keys that every source of data has: how many problems each split holds."""

from score_core.config.section import Count, Section


class Sizes(Section):
    """How many problems each split holds; null takes all there are."""

    train: Count | None
    validation: Count | None
    test: Count | None
