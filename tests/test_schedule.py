"""Learning rates: the right ones by their definition, the published ones by recorded values."""

import itertools
from types import SimpleNamespace

import pytest

from minigpt4.train.schedule import SCHEDULES

OFFICIAL = {  # name, settings, steps, recorded {step: lr}
    "stage 1": (
        "linear_warmup_cosine_lr",
        {"lr": 1e-4, "min_lr": 8e-5, "warmup_lr": 1e-6, "warmup_steps": 5000, "steps_per_epoch": 5000},
        20000,
        {0: 1e-6, 2: 1.0396e-6, 950: 1.9810000000000002e-05, 5000: 9.707106781186548e-05},
    ),
    "stage 2": (
        "linear_warmup_cosine_lr",
        {"lr": 3e-5, "min_lr": 1e-5, "warmup_lr": 1e-6, "warmup_steps": 200, "steps_per_epoch": 200},
        1000,
        {0: 1e-6, 1: 1.145e-06, 13: 2.885e-06, 200: 2.8090169943749477e-05},
    ),
    "warm-up begins again in every epoch that it spans": (
        "linear_warmup_cosine_lr",
        {"lr": 2e-4, "min_lr": 1e-5, "warmup_lr": 1e-6, "warmup_steps": 25, "steps_per_epoch": 10},
        40,
        {0: 1e-6, 3: 2.4880000000000006e-05, 10: 1e-6, 13: 2.4880000000000006e-05},
    ),
    "no warm-up": (
        "linear_warmup_cosine_lr",
        {"lr": 5e-4, "min_lr": 0.0, "warmup_lr": -1.0, "warmup_steps": 0, "steps_per_epoch": 7},
        21,
        {0: 5e-4, 1: 0.0004972077065562821, 3: 0.00047524221697560476},
    ),
    "steps": (
        "linear_warmup_step_lr",
        {"lr": 1e-3, "min_lr": 1e-5, "warmup_lr": 1e-6, "warmup_steps": 5, "steps_per_epoch": 8, "decay_rate": 0.1},
        32,
        {0: 1e-6, 1: 0.00020080000000000003, 7: 1e-3, 8: 1e-4, 16: 1e-5, 24: 1e-5},
    ),
}


@pytest.mark.parametrize("case", OFFICIAL)
def test_official_schedules_give_the_recorded_values(case):
    name, settings, steps, recorded = OFFICIAL[case]
    given = SimpleNamespace(**{"decay_rate": 0.1} | settings)
    for step, lr in recorded.items():
        assert SCHEDULES[name](given, step, steps) == pytest.approx(lr, rel=1e-9)


def test_cosine_warms_up_once_and_ends_at_its_minimum():
    given = SimpleNamespace(lr=1.0, min_lr=0.1, warmup_lr=0.0, warmup_steps=10)
    rates = [SCHEDULES["cosine"](given, step, 110) for step in range(111)]
    assert rates[:11] == pytest.approx([i / 10 for i in range(11)])
    assert rates[60] == pytest.approx(0.55)
    assert rates[-1] == pytest.approx(0.1)
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    assert SCHEDULES["constant"](given, 100, 110) == 1.0
