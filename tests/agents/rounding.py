"""How far apart two computations of one thing in float32 may be, whatever processor does them.

Every step of float32 rounds by up to 6e-8 of its value, and in which order a sum is taken is the kernel's
affair: it follows from the width of the processor's vectors, the library, the number of threads and the
shapes, so a row in a batch need not equal the row alone. Through the tiny models' layers some tens of such
steps add up, relative to what was summed: log-probabilities near 10 differ by 3e-6 (seen with kernels for
SSE, AVX2 and AVX-512). What is wrong, be it a frame, a mask or a position, moves them by 1e-3 and more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

ROUNDING = {"rtol": 1e-5, "atol": 1e-5}
"""Of results, for `torch.testing.assert_close`: 80 roundings of a value, and 1e-5 where it is near 0."""
GRADIENT = 1e-4
"""Of a weight's gradient, relative to its greatest entry: sums over all tokens, of parts that cancel."""


def rounded(expected: Any, of: float = 1.0) -> Any:
    """`pytest.approx` with the bounds of `assert_close`."""
    return pytest.approx(expected, rel=ROUNDING["rtol"], abs=_near_0(of))


def assert_close(found: Tensor, expected: Tensor, of: float = 1.0) -> None:
    """Equal but for rounding.

    Args:
        found: what was computed.
        expected: what is due, of the same dtype.
        of: how great the numbers were that went in, where they cancel: what is left is as exact as they
            were. A mean of ``a * exp(x)`` has parts as inexact as ``a * x``, for the exponent's error is
            relative to the exponent.
    """
    torch.testing.assert_close(found, expected, rtol=ROUNDING["rtol"], atol=_near_0(of))


def _near_0(of: float) -> float:
    return ROUNDING["atol"] * max(1.0, of)


def assert_equal_gradients(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Equal but for rounding, and of some weights not zero.

    A weight whose gradient is a tenth of the others' and less is measured against those: what is left of it
    after parts have cancelled is as exact as they were.
    """
    assert found.keys() == expected.keys()
    greatest = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in expected.items():
        close = GRADIENT * max(0.1 * greatest, float(gradient.abs().max()))
        torch.testing.assert_close(
            found[name], gradient, atol=close, rtol=0.0, msg=lambda m, n=name: f"{n}: {m}"
        )
    assert sum(bool(gradient.any()) for gradient in expected.values()) > len(expected) // 2
