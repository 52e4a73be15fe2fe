"""Numbers of bytes as text: 512M, 1.5 GiB."""

import re
from fractions import Fraction

from kowa.formats import quoted

UNITS = "KMGTPE"
_WRITTEN = re.compile(rf"(-?[0-9]{{1,30}}(?:\.[0-9]{{1,30}})?)(?:([{UNITS}])(?:iB)?)?")
_MAX_DECIMALS = 3


def parse(text: str) -> int:
    """Parses a size with a binary unit, or a plain number of bytes. Raises ValueError with the problem."""
    found = _WRITTEN.fullmatch(text)
    if found is None:
        raise ValueError(f"{quoted(text)} is no size, such as 512M, 1.5G or 1073741824")
    number, unit = found.groups()
    size = Fraction(number) * (1 << 10 * (UNITS.index(unit) + 1 if unit else 0))
    if size.denominator != 1:
        raise ValueError(f"{quoted(text)} is no whole number of bytes")
    return int(size)


def in_words(*sizes: int) -> tuple[str, ...]:
    """Formats sizes in the largest units that fit, with enough decimals that different sizes look different."""
    for decimals in range(1, _MAX_DECIMALS + 1):
        texts = tuple(_rounded(size, decimals) for size in sizes)
        if len(set(texts)) == len(set(sizes)):
            return texts
    return tuple(f"{size} bytes" for size in sizes)


def short(size: int) -> str:
    """Formats a size for a table: 512M, 1.5G; rounded to one decimal."""
    number, unit = _rounded(size, 1).split()
    return number if unit == "bytes" else f"{number}{unit[0]}"


def _rounded(size: int, decimals: int) -> str:
    value, unit = Fraction(size), "bytes"
    for larger in UNITS:
        if round(value, decimals) < 1024:
            break
        value, unit = value / 1024, f"{larger}iB"
    number = f"{float(round(value, decimals)):.{decimals}f}".rstrip("0").rstrip(".")
    return f"{number} {unit}"
