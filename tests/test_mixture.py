"""The plan of draws: ratios, passes, division among processes, continuation."""

import random
from collections import Counter
from itertools import islice

import pytest

from minigpt4.data.mixture import SHUFFLE_BLOCK, Mixture, Part
from minigpt4.data.source import Record
from minigpt4.errors import UserError


class Numbers:
    """A map-style dataset of which only the length matters."""

    def __init__(self, name, length):
        self.name, self.length = name, length

    def __len__(self):
        return self.length

    def sample(self, index, rng): ...
    def images(self, index): ...
    def where(self, index): ...
    def problems(self): ...


class Shards:
    """A streamed dataset: `sizes` records in each shard."""

    def __init__(self, name, sizes):
        self.name, self.sizes = name, dict(sizes)
        self.shards = list(self.sizes)

    def records(self, shard, skip=0):
        for i in range(skip, self.sizes[shard]):
            yield Record(shard=shard, key=str(i), parts={})

    def sample(self, record, rng): ...
    def problems(self): ...


def mixture(sources, mixing="example", batch=4, rank=0, world=1, ratios=None, batches=None):
    ratios, batches = ratios or [1] * len(sources), batches or [batch] * len(sources)
    parts = [Part(s, r, b) for s, r, b in zip(sources, ratios, batches, strict=True)]
    return Mixture(parts, batch, mixing, seed=5, rank=rank, world=world)


def take(plan, steps):
    return list(islice(plan, steps))


def test_every_item_once_a_pass_in_an_order_of_its_own():
    draws = [d.key for step in take(mixture([Numbers("a", 12)]), 6) for d in step]
    assert sorted(draws[:12]) == sorted(draws[12:]) == list(range(12))
    assert draws[:12] != draws[12:]


def test_small_datasets_fill_a_batch_with_their_next_pass():
    (step,) = take(mixture([Numbers("a", 3)], batch=8), 1)
    assert sorted(Counter(d.key for d in step).values()) == [2, 3, 3]


@pytest.mark.parametrize("mixing", ["step", "example"])
def test_ratios(mixing):
    sources = [Numbers("a", 1000), Numbers("b", 10)]
    steps = take(mixture(sources, mixing, ratios=[3, 1]), 2000)
    share = sum(d.dataset == 0 for step in steps for d in step) / sum(map(len, steps))
    assert abs(share - 0.75) < 0.03
    if mixing == "step":
        assert all(len({d.dataset for d in step}) == 1 for step in steps)


def test_in_step_mixing_each_dataset_has_its_own_batch():
    steps = take(mixture([Numbers("a", 50), Numbers("b", 50)], "step", batches=[2, 6]), 40)
    assert {(step[0].dataset, len(step)) for step in steps} == {(0, 2), (1, 6)}


@pytest.mark.parametrize("mixing", ["step", "example"])
def test_two_processes_see_what_one_sees_with_the_doubled_batch(mixing):
    sources = [Numbers("a", 40), Numbers("b", 7)]
    one = take(mixture(sources, mixing, batch=8), 30)
    two = [take(mixture(sources, mixing, batch=4, rank=r, world=2), 30) for r in (0, 1)]
    for whole, first, second in zip(one, *two, strict=True):
        assert whole[0::2] == first
        assert whole[1::2] == second


@pytest.mark.parametrize("stop", [1, 3, 17, 40])
def test_continues_from_its_state(stop):
    sources = [Numbers("a", 40), Shards("s", {"x": 30, "y": 1200, "z": 5}), Numbers("b", 7)]
    plan = mixture(sources, batch=16)
    take(plan, stop)
    state = plan.state_dict()
    expected = take(plan, 60)
    again = mixture(sources, batch=16)
    again.load_state_dict(state)
    assert take(again, 60) == expected


def test_state_of_another_world_is_refused():
    state = mixture([Numbers("a", 4)], world=2).state_dict()
    with pytest.raises(ValueError, match="number of processes"):
        mixture([Numbers("a", 4)]).load_state_dict(state)


def test_streams_give_every_record_once_a_pass():
    sizes = {"x": 3, "y": SHUFFLE_BLOCK + 7, "z": 1}
    total = sum(sizes.values())
    draws = [d.key.where for step in take(mixture([Shards("s", sizes)], batch=total), 2) for d in step]
    assert len(set(draws[:total])) == len(set(draws[total:])) == total
    assert draws[:total] != draws[total:]


@pytest.mark.parametrize("shards", [5, 1])
def test_streams_are_divided_among_processes(shards):
    source = Shards("s", {f"s{i}": 20 for i in range(shards)})
    per_rank = 20 * shards // 2 if shards == 1 else 20  # a whole pass, or what every process has for certain
    seen = [{d.key.where for s in take(mixture([source], batch=1, rank=r, world=2), per_rank) for d in s} for r in (0, 1)]
    assert not seen[0] & seen[1]
    if shards == 1:
        assert len(seen[0] | seen[1]) == 20


def test_empty_datasets_are_refused():
    with pytest.raises(ValueError, match="empty"):
        mixture([Numbers("a", 0)])
    with pytest.raises(UserError, match="no usable record in any of its 2 shards"):
        take(mixture([Shards("s", {"x": 0, "y": 0})]), 1)


def test_seeds_word_samples_anew_in_each_pass():
    seeds = [d.seed for step in take(mixture([Numbers("a", 2)]), 50) for d in step]
    assert len(set(seeds)) == len(seeds)
    assert random.Random(seeds[0]).random() != random.Random(seeds[1]).random()
