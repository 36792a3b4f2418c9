"""Verdicts kept, in a bounded amount of memory."""

from collections.abc import Iterable

MAX_CHARACTERS = 1 << 22  # a few tens of megabytes, however long the answers are


class Remembered:
    """Verdicts by (gold, answer); all are forgotten when their texts together are too long."""

    def __init__(self, max_characters: int = MAX_CHARACTERS) -> None:
        self._verdicts: dict[tuple[str, str], bool] = {}
        self._characters, self._max_characters = 0, max_characters

    def get(self, pair: tuple[str, str]) -> bool | None:
        """The verdict on a pair; None if there is none."""
        return self._verdicts.get(pair)

    def keep(self, verdicts: Iterable[tuple[tuple[str, str], bool]]) -> None:
        """Keeps new verdicts."""
        for pair, verdict in verdicts:
            length = len(pair[0]) + len(pair[1]) + 100  # what any entry costs
            if self._characters + length > self._max_characters:
                self._verdicts.clear()
                self._characters = 0
            if pair not in self._verdicts:
                self._characters += length
            self._verdicts[pair] = verdict

    def __len__(self) -> int:
        return len(self._verdicts)
