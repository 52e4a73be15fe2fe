"""Sizes as text: parsing, in messages and in tables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kowa import sizes

KIB, MIB, GIB, TIB = (1 << 10 * power for power in range(1, 5))
SIZES = st.integers(0, 2**63 - 1)


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((0,), "0 bytes"),
        ((1023, 1024), "1023 bytes, 1 KiB"),
        ((GIB,), "1 GiB"),
        ((3 * GIB // 2, 16 * GIB), "1.5 GiB, 16 GiB"),
        ((15569256448, 17179869184, 966367641600), "14.5 GiB, 16 GiB, 900 GiB"),
        ((16316412 * KIB,), "15.6 GiB"),
        ((GIB - 1,), "1 GiB"),
        # Different sizes have different texts.
        ((GIB, GIB + 5 * MIB), "1 GiB, 1.005 GiB"),
        ((GIB, GIB + 1), "1073741824 bytes, 1073741825 bytes"),
        ((GIB, GIB), "1 GiB, 1 GiB"),
        ((10**17,), "88.8 PiB"),
    ],
)
def test_a_size_in_a_message_has_the_largest_fitting_unit(numbers: tuple[int, ...], text: str) -> None:
    assert ", ".join(sizes.in_words(*numbers)) == text


@given(SIZES, SIZES)
def test_different_sizes_have_different_texts(one: int, other: int) -> None:
    texts = sizes.in_words(one, other)
    assert (texts[0] == texts[1]) == (one == other)


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("512", 512), ("-1", -1), ("512M", 512 * MIB), ("1.5G", 3 * GIB // 2), ("2TiB", 2 * TIB), ("0.5K", 512)],
)
def test_a_size_with_a_unit_is_parsed(text: str, size: int) -> None:
    assert sizes.parse(text) == size


@pytest.mark.parametrize("text", ["", "G", "1g", "1GB", "1 G", "1.", ".5G", "1e3", "\u0661G", "1.5", "0.3K", "9" * 31])
def test_invalid_sizes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no size|no whole number of bytes"):
        sizes.parse(text)


@given(SIZES)
def test_a_plain_number_is_a_number_of_bytes(size: int) -> None:
    assert sizes.parse(str(size)) == size


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0"), (1023, "1023"), (512 * MIB, "512M"), (3 * GIB // 2, "1.5G"), (GIB - 1, "1G"), (10**17, "88.8P")],
)
def test_a_size_in_a_table_is_short(size: int, text: str) -> None:
    assert sizes.short(size) == text


@given(st.integers(0, 1023), st.integers(0, 5))
def test_a_size_from_a_table_can_be_parsed(number: int, power: int) -> None:
    size = number << 10 * power
    assert sizes.parse(sizes.short(size)) == size
