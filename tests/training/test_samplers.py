"""The exact order of each sampler, which is the same in every run of a seed, and the description of batches."""

from itertools import count
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset

from modeling_gemoclap.training.samplers import (
    BatchMix,
    ClassBalancedSampler,
    Deck,
    EpochSampler,
    FilledSampler,
    LengthSampler,
    ShardSampler,
    StepSampler,
    batch_mix,
    describe_mix,
    lengths_of,
)


def order_of(sampler, epoch=0):
    sampler.set_epoch(epoch)
    return list(sampler)


def permutation(*seed, clips):
    return np.random.default_rng(seed).permutation(clips).tolist()


def test_an_epoch_is_a_permutation_of_seed_and_epoch():
    assert list(EpochSampler(9)) == permutation(0, 0, clips=9), "the first epoch of seed 0"
    assert list(EpochSampler(9, 4)) == permutation(4, 0, clips=9)
    assert order_of(EpochSampler(9, seed=4), 2) == permutation(4, 2, clips=9)
    assert len(EpochSampler(9)) == 9


@pytest.mark.parametrize(("clips", "filled"), [(9, 12), (12, 12), (1, 4)])
def test_padding_fills_the_last_step(clips, filled):
    sampler = FilledSampler(EpochSampler(clips, 4), 4)
    assert order_of(sampler, 2) == permutation(4, 2, clips=clips) + [-1] * (filled - clips)
    assert len(sampler) == filled


def slow_balanced(labels, seed, epoch):
    """One clip of each class in a round, in random order; a class begins again when all its clips were sampled."""
    generator, classes = np.random.default_rng([seed, epoch]), sorted(set(labels) - {-1})
    total = sum(label != -1 for label in labels)
    rounds, sampled = -(-total // len(classes)), []
    for label in classes:
        clips, drawn = [i for i, other in enumerate(labels) if other == label], []
        while len(drawn) < rounds:
            drawn += generator.permutation(clips).tolist()
        sampled.append(drawn[:rounds])
    order = [clip for one_each in zip(*sampled, strict=True) for clip in generator.permutation(one_each).tolist()]
    order = order[:total]
    return [clip + len(labels) * order[:place].count(clip) for place, clip in enumerate(order)]


@pytest.mark.parametrize("labels", [[0, 1, 0, -1, 2, 1, 0, 0, 2], [3, 0, 0, 0, 3, 3, 0], [0, 5, 5, 5, 5, 5]])
def test_classes_in_turn(labels):
    assert list(ClassBalancedSampler(labels)) == slow_balanced(labels, 0, 0)
    for seed, epoch in ((3, 0), (3, 1)):
        assert order_of(ClassBalancedSampler(labels, seed), epoch) == slow_balanced(labels, seed, epoch)
    assert len(ClassBalancedSampler(labels)) == sum(label != -1 for label in labels)
    with pytest.raises(ValueError, match="^class-balanced sampling needs clips of two classes or more$"):
        ClassBalancedSampler([1, 1, -1])


def slow_by_length(order, lengths, step, seed, epoch):
    """Groups of 16 steps or more are sorted; then the steps are shuffled. The incomplete step comes last."""
    full = len(order) // step
    groups = np.array_split(np.arange(full), max(1, full // 16))
    steps = []
    for group in groups:
        clips = order[group[0] * step : (group[-1] + 1) * step] if len(group) else []
        clips = sorted(clips, key=lambda clip: lengths[clip % len(lengths)])  # sorted is stable
        steps += [clips[start : start + step] for start in range(0, len(clips), step)]
    shuffled = np.random.default_rng([seed, epoch, 1]).permutation(full).tolist()
    return [clip for number in shuffled for clip in steps[number]] + order[full * step :]


@pytest.mark.parametrize(("clips", "step"), [(70, 4), (131, 4), (14, 4), (16 * 6, 2)])
@pytest.mark.parametrize("balanced", [False, True])
def test_steps_of_similar_length(clips, step, balanced):
    lengths = np.random.default_rng(0).integers(1, 9, clips)  # with ties

    def other(seed=0):
        return ClassBalancedSampler([0] * (clips - 3) + [1] * 3, seed) if balanced else EpochSampler(clips, seed)

    assert list(LengthSampler(other(), lengths, step)) == slow_by_length(list(other()), lengths, step, 0, 0)
    sampler = LengthSampler(other(7), lengths.tolist(), step, 7)
    assert order_of(sampler, 2) == slow_by_length(order_of(other(7), 2), lengths, step, 7, 2)
    assert len(sampler) == clips


def test_the_mix_of_batches_by_hand():
    lengths, labels = np.array([1, 2, 3, 4, 10, 7]), ["a", "b", "b", "b", "a", "c"]
    # Batches: clips 0, 1, 2 (padded to 3) and 9 = 3, 4, 5 (padded to 10); the last one is incomplete.
    order = [0, 1, 2, 9, 4, -1, 5, 0, 1]
    assert batch_mix(order, 3, lengths.tolist(), labels) == BatchMix(
        padding=pytest.approx(1 - 27 / 39), classes=2.5, largest_share=pytest.approx((2 / 3 + 1 / 3) / 2)
    )
    assert batch_mix([0, 1], 2, lengths, labels).padding == pytest.approx(1 / 4), "clip 0 is a clip, and 1 is complete"


def clips_of(parts):
    """Eight clips whose order by length separates two emotions and two corpora."""
    names = [f"{corpus}/{number}/a.wav" for number, corpus in enumerate("xyxyxyxy")]
    table = Dataset(pa.table({"file_name": names}))
    corpus = SimpleNamespace(parts=parts, column=table.data.column)
    return type("Clips", (), {"__len__": lambda self: 8, "emotion_labels": [0, 1, 2, 1] * 2, "corpus": corpus})()


def test_the_description_of_batches():
    lengths = np.array([1, 9, 2, 8, 1, 9, 2, 8])
    by_length, random = [0, 2, 4, 6, 1, 3, 5, 7], list(range(8))
    mixture, single = clips_of(["x", "y"]), clips_of([])
    # Sorted: (1 + 2 + 1 + 2) / 8 and (9 + 8 + 9 + 8) / 36 are clips. At random: 20 of 36, twice.
    text = (
        "batches by length (in brackets: random batches): 9% padding (44%), 1.5 emotions in a batch (3.0), "
        "75% of a batch has its most frequent emotion (50%)"
    )
    assert describe_mix(single, lengths, 4, by_length, random) == text
    assert (
        describe_mix(mixture, lengths, 4, by_length, random) == text + ", 100% is from its most frequent corpus (50%)"
    )
    assert describe_mix(single, lengths, 8, by_length, random).startswith("batches by length (in brackets")
    assert describe_mix(single, lengths, 9, by_length, random) == (
        "batches by length: 8 clips do not fill a batch of 9, so there is nothing to sort"
    )


def test_lengths_that_are_of_no_use(make_model):
    config, fixed = make_model().config, make_model("whisper").config
    lengths = np.array([3, 5, 4])
    assert lengths_of(SimpleNamespace(lengths=lengths, frames=None), config) is lengths
    assert lengths_of(SimpleNamespace(lengths=lengths, frames=["stored"]), fixed) is lengths
    for unknown in (SimpleNamespace(lengths=None), SimpleNamespace()):
        with pytest.raises(ValueError) as error:
            lengths_of(unknown, config)
        assert str(error.value) == (
            "--batch_by_length true: the lengths of the clips are unknown before training; leave it out"
        )
    with pytest.raises(ValueError) as error:
        lengths_of(SimpleNamespace(lengths=lengths, frames=None), fixed)
    assert str(error.value) == (
        "--batch_by_length true: a 'whisper' model pads every clip to its window, so batches would be as large as "
        "before; leave it out"
    )
    with pytest.raises(ValueError) as error:
        lengths_of(SimpleNamespace(lengths=np.array([4, 4]), frames=["stored"]), config)
    assert str(error.value) == (
        "--batch_by_length true: all clips have the same length, as pooled frames (--cache_frozen_frames) and clips "
        "that are cut to the same --max_seconds have, so batches have no padding; leave it out"
    )


def slow_shards(groups, size, parts, per_step, window, seed, epoch, drop_last):
    """Row groups in random order, divided into parts, shuffled within windows, and read in turn."""
    generator = np.random.default_rng([seed, epoch])
    places = generator.permutation(max(groups) + 1)
    order = sorted(range(len(groups)), key=lambda clip: places[groups[clip]])
    divided = [part.tolist() for part in np.array_split(order, parts)]
    for part in divided:
        for start in range(0, len(part), window):
            part[start : start + window] = generator.permutation(part[start : start + window]).tolist()
    full = len(groups) // parts // size * size
    drawn = [clip for start in range(0, full, size) for part in divided for clip in part[start : start + size]]
    drawn += [clip for part in divided for clip in part[full:]]
    if drop_last:
        return drawn[: len(drawn) // per_step * per_step]
    return drawn + [-1] * (-len(drawn) % per_step)


@pytest.mark.parametrize(("processes", "workers"), [(1, 1), (2, 1), (1, 2), (2, 3)])
@pytest.mark.parametrize("drop_last", [False, True])
def test_shards_are_read_in_turn(processes, workers, drop_last, monkeypatch):
    monkeypatch.setattr(ShardSampler, "groups_at_a_time", 2)
    groups = np.repeat([3, 0, 1, 4, 2], [2, 3, 4, 9, 13])
    window = 2 * 31 // 5  # clips of two row groups on average
    options = {"window": window, "drop_last": drop_last, "parts": processes * workers, "per_step": 3 * processes}
    sampler = ShardSampler(groups.tolist(), 3, processes, workers, seed=6, drop_last=drop_last)
    for epoch in (0, 1):
        drawn = order_of(sampler, epoch)
        assert drawn == slow_shards(groups.tolist(), 3, **options, seed=6, epoch=epoch) and len(drawn) == len(sampler)


def test_the_defaults_of_shards(monkeypatch):
    """One process that reads itself, seed 0, the first epoch, and padding."""
    assert ShardSampler.groups_at_a_time == 8
    groups = [group for group in range(13) for _ in range(4)]
    options = {"parts": 1, "per_step": 5, "window": 8 * 52 // 13, "seed": 0, "epoch": 0, "drop_last": False}
    assert list(ShardSampler(np.array(groups), 5)) == slow_shards(groups, 5, **options)


def test_a_deck_is_shuffled_again_only_when_it_is_empty():
    deck, generator = Deck(np.array([5, 6, 7]), np.random.default_rng(0)), np.random.default_rng(0)
    top = [generator.permutation([5, 6, 7]).tolist()[::-1] for _ in range(3)]
    taken = {top[0][0]}
    assert deck.draw(1, taken) == [top[0][1]] and taken == set(top[0][:2])
    assert deck.draw(1, set()) == [top[0][0]], "the clip that was in the step stays on top"
    assert deck.draw(3, set()) == [top[0][2], *[clip for clip in top[1] if clip != top[0][2]]]
    assert deck.draw(1, set()) == [top[0][2]], "it was skipped, since the step had it"
    assert deck.draw(1, set()) == [top[2][0]]


def test_skipped_clips_stay_in_their_order():
    deck = Deck(np.arange(6), np.random.default_rng(1))
    order = np.random.default_rng(1).permutation(6).tolist()[::-1]
    assert deck.draw(1, set(order[:3])) == [order[3]]
    assert deck.draw(5, set()) == [*order[:3], *order[4:]]


def test_a_deck_with_too_few_clips():
    deck = Deck(np.array([5, 6, 7]), np.random.default_rng(0))
    assert sorted(deck.draw(2, {6, 9})) == [5, 7], "9 is no clip of the deck"
    with pytest.raises(ValueError) as error:
        deck.draw(3, {6})
    assert str(error.value) == (
        "3 clips are to be drawn from 3, of which a step has some already: give a smaller batch"
    )


class Counted(StepSampler):
    """Steps of two clips: 0 0, 1 1, 2 2, 0 0, ... of three clips."""

    started = 0

    def all_steps(self):
        self.started += 1
        return ([number % 3] * 2 for number in count())


def test_steps_go_on_from_epoch_to_epoch():
    sampler = Counted(3, 2, 2, seed=0)
    assert len(sampler) == 4 and (sampler.epoch, sampler.seed) == (0, 0)
    first, second, third = [0, 3, 1, 4], [2, 5, 0, 3], [1, 4, 2, 5]  # index 3 is the repetition of clip 0
    assert list(sampler) == first
    assert order_of(sampler, 1) == second and order_of(sampler, 2) == third
    assert sampler.started == 1, "earlier epochs are not drawn again"
    assert order_of(sampler, 1) == second and sampler.started == 2, "an epoch again"
    assert order_of(Counted(3, 2, 2, seed=0), 2) == third, "a resumed run"
    again = Counted(3, 2, 4, seed=0)
    assert list(again) == [0, 3, 1, 4, 2, 5, 6, 9], "the third draw of clip 0"
    with pytest.raises(NotImplementedError):
        list(StepSampler(3, 2, 2, 0))
