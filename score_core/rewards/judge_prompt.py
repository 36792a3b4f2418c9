"""The prompt of a model that judges: a file with places for what it is shown."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from score_core.errors import UserError
from score_core.files import read_text


class JudgePrompt:
    """The text of a prompt file.

    Args:
        parts: what it has a place for, once each: `problem` goes where it says {problem}.
        key: of the parameters, which names the file.

    Raises:
        UserError: there is no such file, or a place is missing or there twice.
    """

    def __init__(self, path: str, parts: Sequence[str], key: str) -> None:
        self._text = read_text(Path(path), f"write this prompt file, or name another in {key}").strip()
        places = [f"{{{part}}}" for part in parts]
        if missing := [place for place in places if self._text.count(place) != 1]:
            raise UserError(
                f"{path}: expected {', '.join(places)} once each, where they go; write {missing[0]} once."
            )
        self._place = re.compile(f"{{({'|'.join(parts)})}}")

    def filled(self, values: Mapping[str, str], tokenizer: Any) -> str:
        """The prompt with a value for each part.

        Special tokens in the values are broken up, by which an answer could end the prompt and reply itself.
        """

        def harmless(text: str) -> str:
            for token in tokenizer.get_added_vocab():
                text = text.replace(token, f"{token[0]} {token[1:]}")
            return text

        # One pass over the prompt: what an answer holds is no place for anything else.
        return self._place.sub(lambda place: harmless(values[place[1]]), self._text)
