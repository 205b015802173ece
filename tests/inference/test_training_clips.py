"""The sample of training clips: distances against numbers worked out by hand, and what is refused when it is read."""

import numpy as np
import pytest
from safetensors.numpy import load, save

from modeling_gemoclap.fingerprint import TRAINING_CLIPS
from modeling_gemoclap.training_clips import (
    MEASURES,
    OTHER_CLIPS,
    OTHER_SPEAKERS,
    load_training_clips,
    to_bytes,
    training_clips_of,
)

ANGLES = np.radians([0, 10, 40, 90])
EMBEDDINGS = np.stack([np.cos(ANGLES), np.sin(ANGLES)], 1)
VALUES = {name: [1.0, 2.0, 3.0, None] for name in MEASURES}


def sample(speakers=("a", "a", "b", "b"), **values):
    return training_clips_of(EMBEDDINGS, list(speakers), VALUES | values, "0" * 64)


def gap(degrees):
    return 1 - np.cos(np.radians(degrees))


def test_distances_are_to_the_nearest_clip_of_another_speaker():
    clips = sample()
    assert clips.compared_with == OTHER_SPEAKERS and clips.embeddings.dtype == np.float16
    nearest = sorted(map(gap, (40, 30, 30, 80)))
    assert clips.distances[[0, -1]] == pytest.approx([nearest[0], nearest[-1]], abs=2e-3)
    for one in (sample("aaaa"), sample(["a", "a", "b", ""])):
        assert one.compared_with == OTHER_CLIPS
        assert one.distances[-1] == pytest.approx(gap(50), abs=2e-3)


def test_a_recording_is_compared_with_all_clips_whatever_its_length():
    clips = sample()
    assert clips.distance(7 * np.array([np.cos(np.radians(-20)), np.sin(np.radians(-20))])) == pytest.approx(
        gap(20), abs=2e-3
    )
    assert clips.percentile(gap(5)) == 0 and clips.percentile(gap(170)) == 100
    assert 0 < clips.percentile(gap(35)) < 100


def test_unknown_measures_are_no_numbers():
    clips = sample(snr_db=[None] * 4)
    assert clips.range_of("snr_db") is None and clips.range_of("level_db")[1] == 2.0
    with pytest.raises(ValueError, match="1 training clips to describe: give 2 to 512"):
        training_clips_of(EMBEDDINGS[:1], ["a"], VALUES, "0" * 64)


def test_the_file_is_read_as_it_was_written(tmp_path):
    assert load_training_clips(tmp_path) is None
    (tmp_path / TRAINING_CLIPS).write_bytes(to_bytes(sample()))
    clips = load_training_clips(tmp_path)
    assert np.array_equal(clips.embeddings, sample().embeddings) and clips.weights_sha256 == "0" * 64
    assert np.array_equal(clips.distances, sample().distances) and clips.compared_with == OTHER_SPEAKERS


METADATA = {"weights_sha256": "0" * 64, "compared_with": OTHER_SPEAKERS}


@pytest.mark.parametrize(
    "changes, metadata, message",
    [
        ({"embeddings": EMBEDDINGS.astype(np.float32)}, METADATA, "other types"),
        ({"embeddings": EMBEDDINGS[0].astype(np.float16)}, METADATA, "other shapes"),
        ({"embeddings": np.full((4, 2), np.nan, np.float16)}, METADATA, "no unit length"),
        ({"embeddings": np.ones((600, 2), np.float16)}, METADATA, "other shapes"),
        ({"distances": np.zeros(7, np.float32)}, METADATA, "other shapes"),
        ({"distances": np.arange(101, 0, -1).astype(np.float32)}, METADATA, "not sorted"),
        ({"seconds": np.array([0, 1, 2, 3, 9, 5, 6], np.float32)}, METADATA, "percentiles are not sorted numbers"),
        (
            {"seconds": np.array([0, 1, 2, 3, 4, 5, np.inf], np.float32)},
            METADATA,
            "percentiles are not sorted numbers",
        ),
        ({"speakers": np.zeros(1, np.float32)}, METADATA, "other names"),
        ({}, {"weights_sha256": "0" * 64}, "other names"),
        ({}, METADATA | {"compared_with": "<b>all</b>"}, "its metadata is unknown"),
    ],
)
def test_another_form_is_refused(changes, metadata, message, tmp_path):
    tensors = load(to_bytes(sample())) | changes
    (tmp_path / TRAINING_CLIPS).write_bytes(save(tensors, metadata=metadata))
    with pytest.raises(ValueError, match=f"{TRAINING_CLIPS}: .*{message}.*; remove it"):
        load_training_clips(tmp_path)


def test_a_damaged_or_huge_file_is_refused(tmp_path):
    (tmp_path / TRAINING_CLIPS).write_bytes(to_bytes(sample())[:-5])
    with pytest.raises(ValueError, match="cannot be read"):
        load_training_clips(tmp_path)
    with open(tmp_path / TRAINING_CLIPS, "wb") as file:
        file.truncate(10**9)
    with pytest.raises(ValueError, match="1,000,000,000 bytes, of .* at most"):
        load_training_clips(tmp_path)
