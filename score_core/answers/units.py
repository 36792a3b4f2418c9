"""Simple units, each under one name, so that `5 cm` is `5 centimeters` and no `5 m`; nothing is converted."""

import re
from functools import lru_cache

PERCENT = "%"

_NAMES = {
    "mm": "millimeter millimeters millimetre millimetres",
    "cm": "centimeter centimeters centimetre centimetres",
    "m": "meter meters metre metres",
    "km": "kilometer kilometers kilometre kilometres",
    "nm": "nanometer nanometers",
    "in": "inch inches",
    "ft": "foot feet",
    "yd": "yard yards",
    "mi": "mile miles",
    "g": "gram grams gm",
    "mg": "milligram milligrams",
    "kg": "kilogram kilograms kgs",
    "lb": "lbs pound pounds",
    "oz": "ounce ounces",
    "ton": "tons tonne tonnes",
    "s": "sec secs second seconds",
    "ms": "millisecond milliseconds",
    "min": "mins minute minutes",
    "h": "hr hrs hour hours",
    "day": "days",
    "week": "weeks",
    "month": "months",
    "year": "years yr yrs",
    "L": "l liter liters litre litres",
    "mL": "ml milliliter milliliters millilitre millilitres",
    "gal": "gallon gallons",
    "dollar": "dollars USD \\$",
    "cent": "cents",
    "euro": "euros EUR €",
    "sterling": "GBP £",
    "yen": "JPY ¥",
    "rupee": "rupees Rs ₹",
    PERCENT: "percent percents pct",
    "deg": "degree degrees ^\\circ",
    "rad": "radian radians",
    "unit": "units",
    "mph": "",
    "N": "newton newtons",
    "J": "joule joules",
    "kJ": "kilojoule kilojoules",
    "W": "watt watts",
    "Pa": "pascal pascals",
    "Hz": "hertz",
    "V": "volt volts",
    "A": "ampere amperes amp amps",
    "K": "kelvin kelvins",
    "C": "celsius Celsius",
    "F": "fahrenheit Fahrenheit",
    "mol": "mole moles mols",
    "eV": "",
    "ohm": "ohms Ω \\Omega",
}
UNITS = {word: unit for unit, words in _NAMES.items() for word in (unit, *words.split())}
_TOKEN = re.compile(r"[A-Za-z]+|\^\\circ|\\\$|\^\{?(-?[1-9])\}?|[/%€£¥₹Ω]|\\(?:cdot|Omega)(?![A-Za-z])|[*.]")
_POWERS = {"square": "^2", "sq": "^2", "squared": "^2", "cubic": "^3", "cubed": "^3"}


@lru_cache(maxsize=4096)
def read_unit(text: str) -> str | None:
    """The unit that `text` is, under its one name; None if any of it is none. Empty for no text.

    `square meters`, `m^2` and `meters squared` are one; so are `m/s` and `meters per second`.
    """
    found: list[str] = []
    pending, end = "", 0
    text = text.replace("per cent", "percent").strip()
    for token in _TOKEN.finditer(text):
        if text[end : token.start()].strip():
            return None
        word, end = token.group(), token.end()
        if word in ("square", "sq", "cubic"):
            pending = _POWERS[word]
        elif word in UNITS:
            found.append(UNITS[word] + pending)
            pending = ""
        elif word in _POWERS or token.group(1):
            if not found:
                return None
            found.append(_POWERS.get(word, f"^{token.group(1)}"))
        elif word in ("per", "/"):
            found.append("/")
        elif not (found or pending) or word not in (".", "*", "\\cdot"):
            return None
    if text[end:].strip() or pending:
        return None
    return " ".join(found).replace(" ^", "^")
