"""What stops a training whose loss is of no use any more, and what does not."""

import json
import random

import pytest

from minigpt4.errors import UserError
from minigpt4.train.watch import Watch


def steps_until_stopped(watch, losses):
    for step, loss in enumerate(losses, 1):
        try:
            watch.check(step, loss, [])
        except UserError as error:
            return step, str(error)
    return None


def test_datasets_of_different_losses_taking_turns_stop_nothing(tmp_path):
    """Short answers cost 0.3, stories 2.2; the run began with a short answer, and has not learnt anything since."""
    rng = random.Random(0)
    losses = [0.3, *(rng.choice([0.3, 1.3, 2.2]) for _ in range(600))]
    assert steps_until_stopped(Watch(tmp_path), losses) is None


def test_rewards_below_nought_stop_nothing(tmp_path):
    rng = random.Random(1)
    assert steps_until_stopped(Watch(tmp_path), [rng.uniform(-0.9, 0.1) for _ in range(600)]) is None


@pytest.mark.parametrize(("low", "high"), [(1.0, 9.0), (0.1, 1.2), (-0.4, 2.0)])
def test_a_loss_that_stays_far_above_its_best_stops_the_run(tmp_path, low, high):
    step, why = steps_until_stopped(Watch(tmp_path), [low] * 100 + [high] * 100)
    assert 100 < step <= 150
    assert f"grown from {low:.3f} to" in why
    assert "lower schedule.lr" in why


def test_it_goes_on_from_its_state(tmp_path):
    losses = [1.0] * 80 + [7.0] * 80
    whole = steps_until_stopped(Watch(tmp_path), losses)
    first = Watch(tmp_path)
    assert steps_until_stopped(first, losses[:90]) is None
    second = Watch(tmp_path)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    step, why = steps_until_stopped(second, losses[90:])
    assert (step + 90, why.split(": ", 1)[1]) == (whole[0], whole[1].split(": ", 1)[1].replace(f"-{whole[0]}.", f"-{step}."))
