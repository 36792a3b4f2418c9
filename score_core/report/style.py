"""What the figures look like: colours for light and for dark pages, and matplotlib's settings."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import to_hex, to_rgb

# Name: (on a light page, on a dark page). No two light colours are equal: they are the SVG's hooks.
PALETTE = {
    "ink": ("#1d2126", "#e4e7eb"),
    "muted": ("#5d6873", "#98a3af"),
    "grid": ("#dfe3e8", "#2f363f"),
    "attempt1": ("#c9621a", "#f2a35e"),
    "attempt2": ("#1c5fb0", "#74b0f7"),
    "attempt3": ("#2c8a57", "#68cf98"),
    "attempt4": ("#8b45b0", "#cb93ee"),
    "attempt5": ("#b12f66", "#f38bb6"),
    "attempt6": ("#786900", "#d8c850"),
    "attempt7": ("#007b88", "#5fd1dd"),
    "attempt8": ("#5a5ad8", "#a7a7ff"),
    "attempt9": ("#8a4a1c", "#d8a27c"),
    "attempt10": ("#46515c", "#bac4ce"),
    "gain": ("#23864c", "#5fcb8a"),
    "loss": ("#c0392f", "#f2857b"),
}
# Of models side by side: the first, those between from here to the last, and the last.
FIRST, BETWEEN, LAST = ("#a3adb7", "#6c7783"), ("#86b2e0", "#4a7db2"), ("#1b4f90", "#9accff")
COLOUR = {name: light for name, (light, _) in PALETTE.items()}

# On top of the defaults, whatever a matplotlibrc of this machine says.
STYLE: list[str | Path | dict[str, Any]] = [
    "default",
    Path(__file__).with_name("figures.mplstyle"),
    {"text.color": COLOUR["ink"], "grid.color": COLOUR["grid"]},
    dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), COLOUR["muted"]),
]


def palette(models: int) -> dict[str, tuple[str, str]]:
    """All colours of a page that shows so many models, which are `model1`, `model2`, ... in it."""
    between = [_mix(at / (models - 2)) for at in range(models - 2)]
    colours = [*([FIRST] if models > 1 else []), *between, LAST]
    return PALETTE | {f"model{at}": colour for at, colour in enumerate(colours, start=1)}


def _mix(share: float) -> tuple[str, str]:
    """The colours `share` of the way from BETWEEN to LAST, light and dark."""
    between, last = ([np.array(to_rgb(colour)) for colour in pair] for pair in (BETWEEN, LAST))
    light, dark = (to_hex(a + share * (b - a)) for a, b in zip(between, last, strict=True))
    return light, dark
