"""Text from a model, made safe to look at."""

# Control characters would be invisible, or act on a terminal; they are shown as their pictures.
CONTROL_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {127: 0x2421}


def visible(text: str) -> str:
    """`text` with control characters, tab and newline apart, replaced by their visible pictures."""
    return text.translate(CONTROL_PICTURES)
