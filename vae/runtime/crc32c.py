"""CRC-32C (Castagnoli), the checksum of an event file's records, of many bytes at once: TensorBoard's own takes them
one by one in Python, which for a picture takes as long as drawing it.

A CRC is the remainder of a polynomial over GF(2), so it is linear: that of two halves is that of the first half, moved
on by as many zero bytes as the second has, XOR that of the second. All words of a message are halved into each other
so, a table of 4 x 256 numbers for each distance."""

import functools
from typing import Any

import numpy as np

POLYNOMIAL = 0x82F63B78  # its bits reversed: the lowest stands for the highest power

Words = np.ndarray[Any, np.dtype[np.uint32]]


def crc32c(content: bytes) -> int:
    """Of at least 4 bytes."""
    levels = max(0, (len(content) - 1) // 4).bit_length()
    padded = np.zeros(4 << levels, np.uint8)  # zeros in front change nothing
    message = padded[len(padded) - len(content) :]
    message[:] = np.frombuffer(content, np.uint8)
    message[:4] ^= 0xFF  # the register begins with ones
    words = padded.view("<u4").astype(np.uint32)
    for level in reversed(range(levels)):
        first, second = np.split(words, 2)
        words = _moved(first, _table(level)) ^ second
    return int(_moved(words, _table(0))[0]) ^ 0xFFFFFFFF


def _moved(words: Words, table: Words) -> Words:
    """Remainders followed by as many zeros as the table is for."""
    return table[0][words & 0xFF] ^ table[1][words >> 8 & 0xFF] ^ table[2][words >> 16 & 0xFF] ^ table[3][words >> 24]


@functools.cache
def _table(level: int) -> Words:
    """(4, 256) For 2^level words of zeros: what each byte of a remainder becomes."""
    if level:
        half = _table(level - 1)
        return _moved(half, half)
    found = np.arange(256, dtype=np.uint32) << np.arange(0, 32, 8, dtype=np.uint32)[:, None]
    for _ in range(32):
        found = np.where(found & 1, found >> 1 ^ np.uint32(POLYNOMIAL), found >> 1)
    return found
