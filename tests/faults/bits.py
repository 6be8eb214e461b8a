"""Flips bits of what a file holds."""

import random


def flip_bits(
    content: bytes,
    draw: random.Random,
    *,
    number: int,
    start: int = 0,
    end: int | None = None,
) -> bytes:
    """The content with so many of its bits, drawn between two bytes, the other way."""
    changed, end = bytearray(content), len(content) if end is None else end
    for _ in range(number):
        if end > start:
            changed[draw.randrange(start, end)] ^= 1 << draw.randrange(8)
    return bytes(changed)
