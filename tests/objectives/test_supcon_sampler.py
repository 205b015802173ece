"""What the sampler of positives and negatives promises."""

import json
from collections import Counter
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_gemoclap.objectives.two_stage.sampler import SupConSampler


@st.composite
def setups(draw):
    """Corpora that each know some emotions, at least one of them shared, and a batch that can be shared."""
    corpora, processes = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2]))
    unit = int(np.lcm(4 * processes, 2 * corpora))
    batch = unit * draw(st.integers(1, 2))
    emotions = draw(st.integers(2, 4))
    known = {(c, e): draw(st.booleans()) or e < 2 for c in range(corpora) for e in range(emotions)}
    clips = []
    for (corpus, emotion), there in known.items():
        count = draw(st.integers(batch // 2, batch + 7)) if there else 0
        clips += [(corpus, emotion)] * count
    clips += [(0, -1)] * draw(st.integers(0, 3))
    order = np.random.default_rng(draw(st.integers(0, 99))).permutation(len(clips))
    places, labels = zip(*(clips[i] for i in order), strict=True)
    negatives = draw(st.sampled_from(["emotion", "emotion_or_corpus"]))
    return list(labels), list(places), batch, processes, draw(st.integers(0, 5)), negatives


def steps_of(sampler, epoch=0):
    sampler.set_epoch(epoch)
    drawn = list(sampler)
    assert len(drawn) == len(sampler) == sampler.steps * sampler.batch_size
    clips = [index % sampler.clips for index in drawn]
    return [clips[i : i + sampler.batch_size] for i in range(0, len(clips), sampler.batch_size)]


@settings(max_examples=60, deadline=None)
@given(setups())
def test_every_step(setup):
    labels, places, batch, processes, _, negatives = setup
    sampler = SupConSampler(*setup)
    steps = steps_of(sampler) + steps_of(sampler, 1)
    assert len(steps) == 2 * -(-sum(label != -1 for label in labels) // batch)
    for step in steps:
        assert len(set(step)) == batch, "no clip stands in a step twice"
        own = batch // processes
        blocks = [step[i : i + own] for i in range(0, batch, own)]
        positive = [clip for block in blocks for clip in block[: own // 2]]
        negative = [clip for block in blocks for clip in block[own // 2 :]]
        [emotion] = {labels[clip] for clip in positive}
        shares = Counter(places[clip] for clip in positive)
        knowing = {places[clip] for clip in range(len(labels)) if labels[clip] == emotion}
        if negatives == "emotion":
            assert set(shares) == knowing or batch // 2 < len(knowing)
            assert max(shares.values()) - min(shares.values()) <= 1
            assert all(labels[clip] not in (emotion, -1) for clip in negative)
        else:
            [corpus] = shares
            assert all((places[clip], labels[clip]) != (corpus, emotion) and labels[clip] != -1 for clip in negative)
        corpora = set(places)
        assert Counter(places[clip] for clip in negative) == dict.fromkeys(corpora, batch // (2 * len(corpora)))


@settings(max_examples=30, deadline=None)
@given(setups())
def test_decks_are_used_up_before_they_are_shuffled_again(setup):
    """Whatever the epoch: of a corpus and emotion no clip is drawn an n-th time before each was n - 1 times."""
    labels, places, *_ = setup
    sampler = SupConSampler(*setup)
    drawn = Counter()
    pools = {pair: pool.tolist() for pair, pool in sampler.pools.items()}
    for step in (step for epoch in range(3) for step in steps_of(sampler, epoch)):
        drawn.update(step)
        for pool in pools.values():
            counts = [drawn[clip] for clip in pool]
            assert max(counts) - min(counts) <= 1


@settings(max_examples=30, deadline=None)
@given(setups(), st.integers(0, 4))
def test_an_epoch_is_a_function_of_seed_and_number(setup, epoch):
    """A run that goes on in the middle of an epoch, or begins anew there, draws what it would have drawn."""
    straight, jumped = SupConSampler(*setup), SupConSampler(*setup)
    for number in range(epoch):
        straight.set_epoch(number)
        assert list(straight)
    straight.set_epoch(epoch)
    expected = list(straight)
    jumped.set_epoch(epoch)
    assert list(jumped) == expected
    jumped.set_epoch(epoch)
    assert list(islice(jumped, 5)) == expected[:5]
    assert list(jumped) == expected
    other = SupConSampler(*setup[:4], setup[4] + 1, setup[5])
    other.set_epoch(epoch)
    assert list(other) != expected


def test_the_draws_of_a_clip_within_an_epoch_differ():
    sampler = SupConSampler([0] * 8 + [1] * 40, [0] * 48, 16)
    drawn = list(sampler)
    assert len(set(drawn)) == len(drawn) and any(index >= sampler.clips for index in drawn)


def test_processes_share_a_step():
    """The same seed on two processes gives the same global batches as on one, dealt out."""
    labels, places = [0, 1, 2] * 30, [0, 1] * 45
    one, two = (steps_of(SupConSampler(labels, places, 16, processes)) for processes in (1, 2))
    for whole, dealt in zip(one, two, strict=True):
        assert whole[:8] == dealt[:4] + dealt[8:12] and whole[8:] == dealt[4:8] + dealt[12:]


@pytest.mark.parametrize(
    ("labels", "places", "batch", "message"),
    [
        ([0, 1] * 50, [0, 0, 1, 1] * 25, 30, "a batch of 30 cannot be shared.*multiple of 4; give 32"),
        ([0, 1] * 90, [0, 0, 1, 1, 2, 2] * 30, 32, "of 3 corpora need a multiple of 12; give 36"),
        ([0, 1, 2, 3] * 20, [0, 0, 1, 1] * 20, 8, "share no emotion: emodb has angry, happy; ravdess has sad, calm"),
        ([0, 1] * 50 + [2], [0, 0, 1, 1] * 25 + [0], 8, "emodb has 1 clips of sad, and a step of 8 needs 4"),
        ([0] * 50, [0, 1] * 25, 8, "two emotions or more"),
        ([0] * 20 + [1] * 20 + [0] * 20, [0] * 40 + [1] * 20, 8, "ravdess has too few clips that are not angry"),
    ],
)
def test_bad_input(labels, places, batch, message):
    names = ["emodb", "ravdess", "casia"], ["angry", "happy", "sad", "calm"]
    with pytest.raises(ValueError, match=message):
        SupConSampler(labels, places, batch, names=names)


def test_a_corpus_of_one_emotion_has_no_negatives_of_its_own():
    """Positives may come from any corpus that knows the emotion, which then lacks negatives: told, not met later."""
    labels, places = [0] * 40 + [0] * 40 + [1] * 40, [0] * 40 + [1] * 80
    names = ["emodb", "ravdess"], ["angry", "happy"]
    with pytest.raises(ValueError, match="emodb has too few clips that are not angry"):
        SupConSampler(labels, places, 32, negatives="emotion_or_corpus", names=names)


def test_a_batch_of_several_processes():
    with pytest.raises(ValueError, match=r"multiple of 8; give 16 \(8 for each of 2 processes\)"):
        SupConSampler([0, 1] * 50, [0] * 100, 12, processes=2)


def test_names_in_errors_are_json_for_the_map():
    with pytest.raises(ValueError) as error:
        SupConSampler([0, 1, 2, 3] * 20, [0, 0, 1, 1] * 20, 8)
    assert json.loads(str(error.value).rpartition("--emotion_map '")[2].rstrip("'"))
