"""The sampler of positives and negatives."""

import json
from collections import Counter
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_gemoclap.objectives.two_stage.sampler import CorpusSampling, SupConSampler, _split_evenly


@st.composite
def setups(draw):
    """Arguments of the sampler: corpora that share at least one emotion, and a batch size that can be divided."""
    corpora, processes = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2]))
    unit = int(np.lcm(4 * processes, 2 * corpora))
    batch = unit * draw(st.integers(1, 2))
    emotions = draw(st.integers(2, 4))
    present = {(c, e): draw(st.booleans()) or e < 2 for c in range(corpora) for e in range(emotions)}
    clips = []
    for (corpus, emotion), is_present in present.items():
        count = draw(st.integers(batch // 2, batch + 7)) if is_present else 0
        clips += [(corpus, emotion)] * count
    clips += [(0, -1)] * draw(st.integers(0, 3))
    order = np.random.default_rng(draw(st.integers(0, 99))).permutation(len(clips))
    corpora, labels = zip(*(clips[i] for i in order), strict=True)
    seed, negatives = draw(st.integers(0, 5)), draw(st.sampled_from(["emotion", "emotion_or_corpus"]))
    return list(labels), CorpusSampling(list(corpora), negatives), batch, processes, seed


def steps_of(sampler, epoch=0):
    sampler.set_epoch(epoch)
    drawn = list(sampler)
    assert len(drawn) == len(sampler) == sampler.steps * sampler.batch_size
    clips = [index % sampler.clips for index in drawn]
    return [clips[i : i + sampler.batch_size] for i in range(0, len(clips), sampler.batch_size)]


@settings(max_examples=60, deadline=None)
@given(setups())
def test_composition_of_every_step(setup):
    labels, sampling, batch, processes, _ = setup
    corpora = sampling.corpora
    sampler = SupConSampler(*setup)
    steps = steps_of(sampler) + steps_of(sampler, 1)
    assert len(steps) == 2 * -(-sum(label != -1 for label in labels) // batch)
    for step in steps:
        assert len(set(step)) == batch, "no clip occurs in a step twice"
        size = batch // processes
        blocks = [step[i : i + size] for i in range(0, batch, size)]
        positive = [clip for block in blocks for clip in block[: size // 2]]
        negative = [clip for block in blocks for clip in block[size // 2 :]]
        [emotion] = {labels[clip] for clip in positive}
        shares = Counter(corpora[clip] for clip in positive)
        with_emotion = {corpora[clip] for clip in range(len(labels)) if labels[clip] == emotion}
        if sampling.negatives == "emotion":
            assert set(shares) == with_emotion or batch // 2 < len(with_emotion)
            assert max(shares.values()) - min(shares.values()) <= 1
            assert all(labels[clip] not in (emotion, -1) for clip in negative)
        else:
            [corpus] = shares
            assert all((corpora[clip], labels[clip]) != (corpus, emotion) and labels[clip] != -1 for clip in negative)
        names = set(corpora)
        assert Counter(corpora[clip] for clip in negative) == dict.fromkeys(names, batch // (2 * len(names)))


@settings(max_examples=30, deadline=None)
@given(setups())
def test_all_clips_of_a_deck_are_drawn_before_it_is_shuffled_again(setup):
    """Across epochs: no clip of a corpus and emotion is drawn an n-th time before each was drawn n - 1 times."""
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
    """A run that is resumed in or between epochs draws the same clips as an uninterrupted run."""
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
    other = SupConSampler(*setup[:4], setup[4] + 1)
    other.set_epoch(epoch)
    assert list(other) != expected


def test_the_draws_of_a_clip_within_an_epoch_differ():
    sampler = SupConSampler([0] * 8 + [1] * 40, CorpusSampling([0] * 48), 16)
    drawn = list(sampler)
    assert len(set(drawn)) == len(drawn) and any(index >= sampler.clips for index in drawn)


def test_processes_share_a_step():
    """The same seed gives the same global batches on two processes as on one."""
    labels, sampling = [0, 1, 2] * 30, CorpusSampling([0, 1] * 45)
    single, divided = (steps_of(SupConSampler(labels, sampling, 16, processes)) for processes in (1, 2))
    for step, halves in zip(single, divided, strict=True):
        assert step[:8] == halves[:4] + halves[8:12] and step[8:] == halves[4:8] + halves[12:]


@pytest.mark.parametrize(
    ("labels", "corpora", "batch", "message"),
    [
        ([0, 1] * 50, [0, 0, 1, 1] * 25, 30, "a batch of 30 cannot be divided.*multiple of 4; give 32"),
        ([0, 1] * 90, [0, 0, 1, 1, 2, 2] * 30, 32, "of 3 corpora need a multiple of 12; give 36"),
        ([0, 1, 2, 3] * 20, [0, 0, 1, 1] * 20, 8, "share no emotion: emodb has angry, happy; ravdess has sad, calm"),
        ([0, 1] * 50 + [2], [0, 0, 1, 1] * 25 + [0], 8, "emodb has 1 clips of sad, and a step of 8 needs 4"),
        ([0] * 50, [0, 1] * 25, 8, "two or more emotions"),
        ([0] * 20 + [1] * 20 + [0] * 20, [0] * 40 + [1] * 20, 8, "ravdess has too few clips that are not angry"),
    ],
)
def test_bad_input(labels, corpora, batch, message):
    names = {"corpus_names": ["emodb", "ravdess", "casia"], "emotion_names": ["angry", "happy", "sad", "calm"]}
    with pytest.raises(ValueError, match=message):
        SupConSampler(labels, CorpusSampling(corpora, **names), batch)


def test_a_corpus_of_one_emotion_is_refused_since_it_has_no_negatives():
    """Positives may come from any corpus with the emotion, which may then lack negatives."""
    labels, corpora = [0] * 40 + [0] * 40 + [1] * 40, [0] * 40 + [1] * 80
    sampling = CorpusSampling(corpora, "emotion_or_corpus", ["emodb", "ravdess"], ["angry", "happy"])
    with pytest.raises(ValueError, match="emodb has too few clips that are not angry"):
        SupConSampler(labels, sampling, 32)


def test_a_batch_of_several_processes():
    with pytest.raises(ValueError, match=r"multiple of 8; give 16 \(8 for each of 2 processes\)"):
        SupConSampler([0, 1] * 50, CorpusSampling([0] * 100), 12, processes=2)


def test_the_map_in_the_error_message_is_valid_json():
    with pytest.raises(ValueError) as error:
        SupConSampler([0, 1, 2, 3] * 20, CorpusSampling([0, 0, 1, 1] * 20), 8)
    assert json.loads(str(error.value).rpartition("--emotion_map '")[2].rstrip("'"))


# Two corpora: 5, 6 and 4 clips of emotions 0 to 2, two of no emotion; and 6 and 5 clips of emotions 0 and 1.
LABELS, CORPORA = [0] * 5 + [1] * 6 + [2] * 4 + [-1] * 2 + [0] * 6 + [1] * 5, [0] * 17 + [1] * 11


@pytest.mark.parametrize(
    ("negatives", "processes", "seed", "epoch", "expected"),
    [
        ("emotion", 1, 0, 0, [8, 25, 27, 6, 14, 21, 20, 3, 4, 17, 19, 1, 13, 26, 11, 23]),
        ("emotion", 1, 0, 1, [10, 26, 9, 24, 20, 2, 4, 17, 0, 19, 3, 21, 37, 38, 25, 54]),
        ("emotion", 2, 5, 0, [11, 12, 8, 21, 14, 13, 3, 20, 39, 42, 1, 6, 41, 40, 27, 18]),
        ("emotion_or_corpus", 1, 0, 0, [27, 26, 25, 23, 21, 9, 5, 19, 54, 55, 51, 24, 8, 17, 22, 2]),
        ("emotion_or_corpus", 2, 5, 1, [12, 13, 4, 25, 11, 14, 21, 5, 41, 40, 53, 2, 42, 39, 7, 22]),
    ],
)
def test_the_first_steps_of_a_seed(negatives, processes, seed, epoch, expected):
    """Another order would change what a published seed trains on, and what a resumed run draws."""
    sampler = SupConSampler(LABELS, CorpusSampling(CORPORA, negatives), 8, processes, seed)
    sampler.set_epoch(epoch)
    assert list(islice(sampler, 16)) == expected
    assert len(sampler) == 32, "26 clips with an emotion fill four steps"


def test_defaults_are_one_process_seed_0_and_negatives_of_another_emotion():
    sampling = CorpusSampling(CORPORA)
    assert (sampling.negatives, sampling.corpus_names, sampling.emotion_names) == ("emotion", None, None)
    given = SupConSampler(LABELS, CorpusSampling(CORPORA, "emotion"), 8, processes=1, seed=0)
    assert list(SupConSampler(LABELS, sampling, 8)) == list(given)
    sampler = SupConSampler(LABELS, sampling, 8, 1, 0)
    assert sampler.corpus_names == ["corpus 0", "corpus 1"]
    assert sampler.emotion_names == ["emotion 0", "emotion 1", "emotion 2"]


def error_of(labels, corpora, batch, negatives="emotion", processes=1):
    with pytest.raises(ValueError) as error:
        SupConSampler(labels, CorpusSampling(corpora, negatives), batch, processes)
    return str(error.value)


def test_batch_sizes_that_cannot_be_divided():
    text = "a batch of {} cannot be divided: positives and negatives of 2 corpora need a multiple of {}; give {} as"
    for batch, nearest in ((2, 4), (5, 4), (7, 8)):
        assert error_of(LABELS, CORPORA, batch) == text.format(batch, 4, nearest) + " the batch size"
    assert error_of(LABELS, CORPORA, 0) == text.format(0, 4, 4) + " the batch size"
    assert error_of(LABELS, CORPORA, 12, processes=2) == (
        text.format(12, 8, "16 (8 for each of 2 processes)") + " the batch size"
    )


def test_corpora_that_have_too_few_clips():
    remedy = (
        ": give a smaller batch, leave the emotion out (--emotions with --drop_other_emotions true), or, if corpora "
        'use different words for an emotion, map them by --emotion_map \'{"word": "emotion"}\''
    )
    needs = "corpus {} has {} clips of emotion {}, and a step of {} needs {} different ones as positives"
    assert error_of(LABELS, CORPORA, 12) == needs.format(0, 4, 2, 12, 6) + remedy, "emotion 2 is in corpus 0 alone"
    assert error_of(LABELS, CORPORA, 12, "emotion_or_corpus") == needs.format(0, 5, 0, 12, 6) + remedy
    few = [0, 1, 1, 1, 0, 0, 1, 1]
    assert error_of(few, [0] * 4 + [1] * 4, 4) == needs.format(0, 1, 0, 4, 2) + remedy, "two, even if one suffices"
    text = "corpus 1 has too few clips that are not emotion 0: a step of 8 needs 2 as negatives; give a smaller batch"
    assert error_of([0] * 4 + [1] * 4 + [0] * 8, [0] * 8 + [1] * 8, 8) == text
    assert SupConSampler([0] * 4 + [1] * 4 + [0] * 8 + [1] * 2, CorpusSampling([0] * 8 + [1] * 10), 8).steps == 3
    # Corpus 1 has no other emotion than 1; it has enough negatives where emotion 0 is positive.
    text = "corpus 1 has too few clips that are not emotion 1: a step of 8 needs 2 as negatives; give a smaller batch"
    assert error_of([0] * 4 + [1] * 6, [0] * 8 + [1] * 2, 8) == text
    assert error_of([0] * 4, [0, 0, 1, 1], 4) == (
        "positives and negatives need two or more emotions: corpus 0 has emotion 0; corpus 1 has emotion 0"
    )
    assert error_of([0, 0, 1, 1, 2, 2], [0, 0, 0, 0, 1, 1], 4).startswith(
        "the corpora share no emotion: corpus 0 has emotion 0, emotion 1; corpus 1 has emotion 2; if corpora use"
    )


def test_negatives_suffice_if_positives_come_from_other_corpora():
    """With `emotion_or_corpus`, negatives of a corpus without the emotion may have any emotion."""
    labels, corpora = [0] * 8 + [1] * 4 + [0] * 4, [0] * 12 + [1] * 4
    assert error_of(labels, corpora, 8, "emotion_or_corpus").startswith("corpus 1 has too few clips that are not emo")
    labels, corpora = [0] * 8 + [1] * 4 + [2] * 4 + [3] * 2, [0] * 12 + [1] * 4 + [0] * 2
    assert error_of(labels, corpora, 8, "emotion_or_corpus").startswith("the corpora share no emotion")


@pytest.mark.parametrize(("total", "parts", "expected"), [(4, 3, [2, 1, 1]), (5, 3, [2, 2, 1]), (6, 3, [2, 2, 2])])
def test_positives_are_divided_equally(total, parts, expected):
    assert _split_evenly(total, parts) == expected and all(type(part) is int for part in _split_evenly(total, parts))
