"""What the figures look like: colours for light and for dark pages, and matplotlib's settings."""

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

STYLE = {
    "font.family": "DejaVu Sans",  # the one that matplotlib brings along, so layouts agree everywhere
    "font.size": 8.5,
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "text.color": COLOUR["ink"],
    "axes.edgecolor": COLOUR["muted"],
    "axes.facecolor": "none",
    "axes.labelcolor": COLOUR["muted"],
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "grid.color": COLOUR["grid"],
    "grid.linewidth": 0.7,
    "xtick.color": COLOUR["muted"],
    "ytick.color": COLOUR["muted"],
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.handlelength": 1.7,
    "legend.columnspacing": 1.3,
    "legend.handletextpad": 0.5,
    "lines.linewidth": 1.7,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "none",
    "svg.fonttype": "none",  # text stays text: selectable, and in the page's own typeface
    "svg.hashsalt": "score",  # equal figures get equal ids
}


def palette(models: int) -> dict[str, tuple[str, str]]:
    """All colours of a page that shows so many models, which are `model1`, `model2`, ... in it."""
    between = [_mix(at / (models - 2)) for at in range(models - 2)]
    colours = [*([FIRST] if models > 1 else []), *between, LAST]
    return PALETTE | {f"model{at}": colour for at, colour in enumerate(colours, start=1)}


def _mix(share: float) -> tuple[str, str]:
    """The colours `share` of the way from BETWEEN to LAST, light and dark."""
    light, dark = (
        "#" + "".join(f"{round(a + share * (b - a)):02x}" for a, b in zip(*map(_channels, ends), strict=True))
        for ends in zip(BETWEEN, LAST, strict=True)
    )
    return light, dark


def _channels(colour: str) -> bytes:
    return bytes.fromhex(colour[1:])
