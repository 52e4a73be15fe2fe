"""Text of others, as it may go to a terminal."""

_ACTED_ON = frozenset({"Cc", "Cf", "Zl", "Zp"})  # categories of signs that move, colour, hide or turn round


def harmless(text: str) -> str:
    r"""The text with each sign that a terminal would act on written out: `\x1b`, `\u202e`, `\n`."""
    if text.isprintable():
        return text
    from unicodedata import category

    return "".join(sign.encode("unicode_escape").decode() if category(sign) in _ACTED_ON else sign for sign in text)
