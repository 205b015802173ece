"""What the attacks of bad files and of numbers found, each by its own test."""

import copy
import io
import json

import numpy as np
import pytest
import soundfile
import torch

from modeling_gemoclap import GEmoClapConfig, GEmoClapFeatureExtractor
from modeling_gemoclap.command_line.failures import failure_message
from modeling_gemoclap.corpora.delimited import is_git_lfs_pointer, read_csv
from modeling_gemoclap.corpora.files import damage_is_named, read_json
from modeling_gemoclap.corpora.tables import ManifestError
from modeling_gemoclap.heads_gemoclap import GEmoClapProjection
from modeling_gemoclap.inference.embeddings import embed_texts
from modeling_gemoclap.inference.loading import load_pipeline
from modeling_gemoclap.inference.streaming.files import open_recording
from modeling_gemoclap.inference.turns import Turn, _split, read_rttm
from modeling_gemoclap.publishing.results import score_rows
from modeling_gemoclap.recordings_gemoclap import read_audio
from modeling_gemoclap.safety_gemoclap import check_config
from modeling_gemoclap.versions_gemoclap import check_format

RATE = 16000


@pytest.fixture(scope="module")
def pipe():
    return load_pipeline("compact", "cpu")


@pytest.fixture
def changed(pipe):
    """The pipeline with a model whose weights a test may change."""
    other = copy.copy(pipe)
    other.model, other._class_embeddings, other._embedded_by = copy.deepcopy(pipe.model), {}, None
    return other


TONE = {"array": 0.3 * np.sin(np.arange(8000) / 9), "sampling_rate": RATE}


# ---- numbers --------------------------------------------------------------------------------------------------------
def test_norm_of_large_activations_does_not_overflow_float16(make_model):
    projection = GEmoClapProjection(4, GEmoClapConfig(projection_dim=512)).half()
    torch.nn.init.constant_(projection.linear2.bias, 30_000.0)
    embeds = projection(torch.zeros(2, 4, dtype=torch.float16))
    assert embeds.dtype == torch.float16
    assert torch.allclose(embeds.float().norm(dim=-1), torch.ones(2), atol=0.01)


@pytest.mark.parametrize("name", ["audio_projection.linear2.bias", "text_projection.linear2.bias"])
def test_embeddings_that_overflow_are_refused(changed, name):
    with torch.no_grad():
        dict(changed.model.named_parameters())[name][0] = 1e30
    with pytest.raises(ValueError, match="embeddings are not of unit length: the weights are damaged"):
        changed(TONE)


@pytest.mark.parametrize("value", [float("-inf"), float("nan"), -1e4])
def test_scale_that_is_not_positive_is_refused(changed, value):
    with torch.no_grad():
        changed.model.audio_logit_scale.fill_(value)
    with pytest.raises(ValueError, match="the scale of the model's logits is (nan|0.0): its weights are damaged"):
        changed(TONE)


def test_embeddings_of_texts_must_be_finite(changed):
    with torch.no_grad():
        changed.model.text_projection.linear2.bias[0] = float("nan")
    with pytest.raises(ValueError, match="embeddings of texts are not finite: its weights are damaged"):
        embed_texts(changed, ["a furious woman"])


@pytest.mark.parametrize(
    "settings", [{"log_mel_std": 1e-50}, {"log_mel_mean": 1e39}, {"padding_value": -1e39}, {"num_mel_bins": 10**9}]
)
def test_settings_that_overflow_float32_are_refused(settings):
    [name] = settings
    with pytest.raises(ValueError, match=f"^{name}=.* must be"):
        GEmoClapFeatureExtractor(feature_type="log_mel", **settings)


# ---- files ----------------------------------------------------------------------------------------------------------
def test_mp3_with_too_small_a_frame_count_is_the_same_in_blocks(tmp_path):
    """A frame count that is too small: two recordings in one file."""
    parts = []
    for seconds in (0.3, 1.0):
        buffer = io.BytesIO()
        soundfile.write(buffer, 0.3 * np.sin(np.arange(int(seconds * RATE)) / 9), RATE, format="MP3")
        parts.append(buffer.getvalue())
    path = tmp_path / "two.mp3"
    path.write_bytes(b"".join(parts))
    wave, rate = read_audio(path)
    blocks = open_recording(path)
    assert len(wave) > 1.2 * rate and sum(map(len, blocks.blocks)) == len(wave)


def test_turns_that_would_fill_the_memory_are_refused(tmp_path):
    path = tmp_path / "turns.rttm"
    path.write_text("".join(f"SPEAKER clip 1 {86400 * day} 86400 <NA> <NA> a <NA> <NA>\n" for day in range(31)))
    with pytest.raises(ValueError, match=r"turns.rttm: its turns .* more than 30 days; give times in seconds"):
        read_rttm(path)
    with pytest.raises(ValueError, match="end at inf s"):
        _split([Turn(0.0, float("inf"), "a")], RATE, 30.0)


def test_header_of_a_manifest_with_a_field_that_is_too_long(tmp_path):
    path = tmp_path / "metadata.csv"
    path.write_text(f"file_name,emotion,gender,speaker_id,{'x' * 200_000}\na.wav,sad,f,1,\n")
    with pytest.raises(ManifestError, match="metadata.csv, line 1: a quotation mark"):
        read_csv(path)


def test_invalid_byte_after_a_long_word_is_found_in_time(tmp_path):
    """The search for the beginning of the word took time that grew with the square of the file."""
    path = tmp_path / "metadata.csv"
    path.write_bytes(b"file_name\n" + b"x" * 2_000_000 + b"\xe9\n")
    with pytest.raises(ManifestError, match="not UTF-8 in line 2") as error:
        read_csv(path)
    assert len(str(error.value)) < 400


def test_half_of_a_surrogate_pair_is_refused(tmp_path):
    path = tmp_path / "card.json"
    path.write_text(r'{"name": "\ud800"}')
    with pytest.raises(ValueError, match="card.json: not valid JSON .*surrogates not allowed"):
        read_json(path)
    path.write_text(r'{"name": "\ud83d\ude00"}')
    assert read_json(path)["name"] == "\N{GRINNING FACE}"


def test_damage_is_named_once():
    with pytest.raises(ValueError, match=r"^x.json: its rows cannot be used \(KeyError: 'a'\); download or create"):
        with damage_is_named("x.json", "its rows"):
            raise KeyError("a")
    with pytest.raises(ValueError, match="^x.json: one sentence$"):
        with damage_is_named("x.json", "its rows"):
            raise ValueError("x.json: one sentence")
    with pytest.raises(MemoryError), damage_is_named("x.json", "its rows"):
        raise MemoryError


class ConnectError(Exception):
    """Like that of httpx, which is no OSError."""

    __module__ = "httpx"


@pytest.mark.parametrize(
    "error, sentence",
    [
        (ConnectError("no route"), "the network or the Hub cannot be reached (no route)"),
        (ConnectionResetError(104, "Connection reset by peer"), "the network or the Hub cannot be reached ("),
        (TimeoutError("slow"), "the network or the Hub cannot be reached (slow)"),
        (PermissionError(13, "Permission denied", "/hub/x"), "/hub/x: Permission denied"),
        (FileNotFoundError("not in the cache"), "not in the cache"),
    ],
)
def test_the_network_and_the_system_are_not_damage(error, sentence):
    with pytest.raises(type(error)) as raised, damage_is_named("compact", "config.json"):
        raise error
    assert raised.value is error and failure_message(error).startswith(sentence)
    with pytest.raises(OSError, match="connect to the Hub"), damage_is_named("compact", "config.json"):
        raise OSError("We could not\nconnect to the Hub") from ConnectError("no route")


def test_an_error_of_our_own_code_stays_a_bug_and_that_of_a_library_is_damage():
    for broken, kind in (
        (check_config, AttributeError),
        (is_git_lfs_pointer, AttributeError),
        (score_rows, TypeError),
    ):
        with pytest.raises(kind) as raised, damage_is_named("compact", "config.json"):
            broken(None)
        assert failure_message(raised.value) is None
    with pytest.raises(
        ValueError, match="config.json cannot be used .TypeError: .*; download or create the file again"
    ):
        with damage_is_named("compact", "config.json"):
            json.loads(1)
    with pytest.raises(ValueError, match="cannot be used .AttributeError"):
        with damage_is_named("compact", "its rows", fields=True):
            check_config(None)


@pytest.mark.parametrize("words", [{0: ["sad"], 1: "angry"}, {0: {}, 1: "angry"}])
def test_labels_that_are_lists_are_refused(words):
    with pytest.raises(ValueError, match="must be a dict of all labels"):
        GEmoClapConfig(id2label=words)


def test_a_message_with_its_own_advice_gets_no_second():
    with pytest.raises(ValueError) as raised, damage_is_named("compact", "config.json"):
        check_format(99)
    assert str(raised.value).endswith("own code (trust_remote_code=True))")
    with pytest.raises(ValueError, match="download or create the file again"), damage_is_named("x.npy", "its rows"):
        int("a")


def test_labels_in_messages_are_cut():
    with pytest.raises(ValueError, match="emotions names only") as error:
        GEmoClapConfig(emotions=["a" * 100_000])
    assert len(str(error.value)) < 400
