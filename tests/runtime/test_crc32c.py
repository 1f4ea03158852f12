"""The checksum of an event file's records is TensorBoard's, however long they are."""

import numpy as np
import pytest
from tensorboard.compat.tensorflow_stub import pywrap_tensorflow

from vae.runtime.crc32c import crc32c


def test_the_check_value_of_the_standard() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # Koopman 2002; RFC 3720, appendix B.4, has more
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43


@pytest.mark.parametrize("length", [4, 5, 7, 8, 9, 63, 64, 65, 1500, 4097, 20_000])
def test_it_is_tensorboard_s(length: int) -> None:
    content = np.random.default_rng(length).bytes(length)
    assert crc32c(content) == pywrap_tensorflow.crc32c(content)
