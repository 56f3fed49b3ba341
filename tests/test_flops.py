"""The machine's peak: measured on products that are large here, and not larger than it can do in a moment."""

import pytest
import torch

from minigpt4.train import flops


@pytest.mark.parametrize(
    ("speed", "largest"),
    [
        (1e9, 256),  # a precision that is imitated: one small product tells enough
        (1e11, 1024),
        (1e13, 2048),
    ],
)
def test_the_peak_is_that_of_a_product_that_takes_a_moment(monkeypatch, speed, largest):
    sizes = []

    def seconds(size, device, dtype, times):
        sizes.append((size, times))
        return 2 * size**3 / speed

    monkeypatch.setattr(flops, "_product_seconds", seconds)
    flops.matmul_peak.cache_clear()
    try:
        assert flops.matmul_peak(torch.device("cpu"), torch.bfloat16) == pytest.approx(speed)
        assert sizes[-1] == (largest, 6)
        assert max(size for size, _ in sizes) == largest
        assert flops.matmul_peak(torch.device("cpu"), torch.bfloat16) == pytest.approx(speed)
        assert sizes.count((largest, 6)) == 1  # measured once
    finally:
        flops.matmul_peak.cache_clear()  # what was measured here is not true


def test_a_product_takes_time():
    assert 0 < flops._product_seconds(32, torch.device("cpu"), torch.float32, times=3) < 60
