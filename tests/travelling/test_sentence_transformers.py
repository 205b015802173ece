"""A checkpoint as a model of sentence-transformers."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from conftest import RATE, ROOT, TONES, tone
from test_remote_code import FACE

from modeling_gemoclap import (
    GEmoClapForAudioClassification,
    GEmoClapForXVector,
    GEmoClapModel,
    GEmoClapProcessor,
)
from modeling_gemoclap.configuration_gemoclap import SENTENCE_TRANSFORMERS_FILES
from modeling_gemoclap.feature_extraction_gemoclap import AudioError

SHIPPED = [ROOT / "checkpoints/gemoclap-base", ROOT / "checkpoints/gemoclap-compact"]
PROMPTS = ["a furious woman", "this person is feeling sad", "a calm man who speaks slowly to a child"]
# In a process without the package, whose folder has a copy of a checkpoint and recordings.
ALONE = """
import sys
from importlib.abc import MetaPathFinder

class Refuse(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "modeling_gemoclap":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Refuse())
import json
from pathlib import Path
from sentence_transformers import SentenceTransformer

def error_of(call, *arguments, **options):
    try:
        call(*arguments, **options)
    except Exception as error:
        return type(error).__name__, str(error)

clips, prompts = json.load(sys.stdin)
untrusted = error_of(SentenceTransformer, "checkpoint", device="cpu")
before = sorted(name for name in sys.modules if name.startswith("transformers_modules."))
model = SentenceTransformer("checkpoint", trust_remote_code=True, device="cpu")
bad = {"broken": ["broken.wav"], "missing": ["missing.wav"], "mixed": [clips[0], prompts[0]]}
print(json.dumps({
    "untrusted": untrusted,
    "before": before,
    "audio": model.encode(clips).tolist(),
    "one": model.encode(clips[1]).tolist(),
    "batches": model.encode(clips, batch_size=2).tolist(),
    "dict": model.encode([{"audio": clip} for clip in clips]).tolist(),
    "text": model.encode(prompts).tolist(),
    "errors": {name: error_of(model.encode, inputs) for name, inputs in bad.items()},
    "code": sorted({Path(module.__file__).name for name, module in sys.modules.items()
                    if name.startswith("transformers_modules.") and module.__file__}),
    "size": model.get_embedding_dimension(),
    "similarity": model.similarity_fn_name,
}))
"""


def own_embeddings(checkpoint, clips, prompts):
    model, processor = GEmoClapModel.from_pretrained(checkpoint), GEmoClapProcessor.from_pretrained(checkpoint)
    with torch.no_grad():
        audio = model.get_audio_features(**processor(audio=clips))
        return audio.numpy(), model.get_text_features(**processor(text=prompts)).numpy()


def write_clips(folder):
    """Recordings of several lengths, rates and numbers of channels, and a file that is no recording."""
    clips = []
    for number, (emotion, seconds) in enumerate(zip(TONES, (0.6, 2.0, 1.1), strict=True)):
        wave = tone(emotion, number, seconds)
        rate, wave = (RATE, wave) if number < 2 else (44100, np.stack([wave, 0.5 * wave], 1))
        clips.append(f"{emotion}.{'flac' if number == 1 else 'wav'}")
        soundfile.write(folder / clips[-1], wave, rate)
    (folder / "broken.wav").write_bytes(b"no recording")
    return clips


@pytest.mark.parametrize("checkpoint", SHIPPED, ids=lambda folder: folder.name)
def test_a_checkpoint_gives_our_embeddings_without_the_package(checkpoint, tmp_path):
    import sentence_transformers  # noqa: F401  (without it, conftest.py skips the test)

    shutil.copytree(checkpoint, tmp_path / "checkpoint")  # links become files
    clips = write_clips(tmp_path)
    (tmp_path / "use.py").write_text(ALONE)
    env = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")}  # no code of an earlier test
    command = [sys.executable, "use.py"]
    words = json.dumps([clips, PROMPTS])
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, input=words)
    assert done.returncode == 0, done.stderr[-4000:]
    results = json.loads(done.stdout.splitlines()[-1])
    audio, text = own_embeddings(checkpoint, [str(tmp_path / clip) for clip in clips], PROMPTS)
    for name, expected in (("audio", audio), ("batches", audio), ("dict", audio), ("one", audio[1]), ("text", text)):
        assert np.abs(np.array(results[name]) - expected).max() < 1e-5, name
    assert np.linalg.norm(results["audio"], axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    assert (results["size"], results["similarity"]) == (audio.shape[1], "cosine")
    assert results["before"] == [] and "trust_remote_code=True" in results["untrusted"][1]
    assert set(results["code"]) - {"__init__.py"} <= FACE
    errors = results["errors"]
    assert errors["broken"][0] == errors["missing"][0] == "AudioError"
    assert errors["broken"][1].startswith("broken.wav: ") and "check that the file exists" in errors["missing"][1]
    assert errors["mixed"][0] == "ValueError"  # of sentence-transformers


@pytest.mark.parametrize("checkpoint", SHIPPED, ids=lambda folder: folder.name)
def test_shipped_files_are_those_that_are_saved(checkpoint):
    for name, content in SENTENCE_TRANSFORMERS_FILES.items():
        assert json.loads((checkpoint / name).read_text()) == content
    assert SENTENCE_TRANSFORMERS_FILES["modules.json"][0]["type"].startswith("sentence_transformers.")


def test_which_checkpoints_are_models_of_sentence_transformers(make_model, make_processor, tmp_path):
    """Only those with a text encoder; neither a processor alone nor an adapter, which has no model."""
    files = set(SENTENCE_TRANSFORMERS_FILES)
    model = make_model()
    model.save_pretrained(tmp_path / "contrastive")
    assert files <= {path.name for path in (tmp_path / "contrastive").iterdir()}
    processor = make_processor(model)
    processor.save_pretrained(tmp_path / "processor")
    for kind in (GEmoClapForAudioClassification, GEmoClapForXVector):
        other = make_model(model_class=kind)
        other.save_pretrained(tmp_path / kind.__name__)
        processor.feature_extractor.save_pretrained(tmp_path / kind.__name__)
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter/adapter_config.json").write_text("{}")
    model.config.save_pretrained(tmp_path / "adapter")
    for folder in ("processor", "adapter", "GEmoClapForAudioClassification", "GEmoClapForXVector"):
        assert not files & {path.name for path in (tmp_path / folder).iterdir()}, folder


def test_saving_again_keeps_the_settings_of_sentence_transformers(make_model, make_processor, tmp_path):
    from sentence_transformers import SentenceTransformer

    model = make_model()
    model.save_pretrained(tmp_path / "first")
    make_processor(model).save_pretrained(tmp_path / "first")
    loaded = SentenceTransformer(str(tmp_path / "first"), trust_remote_code=True, device="cpu")
    loaded.prompts["query"] = "this person is feeling "
    loaded.save_pretrained(str(tmp_path / "second"))
    again = SentenceTransformer(str(tmp_path / "second"), trust_remote_code=True, device="cpu")
    assert again.prompts["query"] == "this person is feeling "
    audio, text = own_embeddings(tmp_path / "first", [{"array": tone("sad", 0), "sampling_rate": RATE}], PROMPTS[1:2])
    assert np.abs(again.encode(tone("sad", 0), processing_kwargs=RATE_OF_ARRAYS) - audio[0]).max() < 1e-5
    assert np.abs(again.encode_query(["sad"]) - text).max() < 1e-5


RATE_OF_ARRAYS = {"audio": {"sampling_rate": RATE}}


def test_search_as_in_the_documentation(tmp_path):
    """docs/search.md: float, int8 and binary embeddings."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import quantize_embeddings, semantic_search

    clips = []
    for number, emotion in enumerate(8 * list(TONES)):
        clips.append(str(tmp_path / f"{number}.wav"))
        soundfile.write(clips[-1], tone(emotion, number, 0.6 + 0.1 * (number % 5)), RATE)
    model = SentenceTransformer(str(SHIPPED[1]), trust_remote_code=True, device="cpu")
    recordings, queries = model.encode(clips), model.encode_query(PROMPTS)
    audio, text = own_embeddings(SHIPPED[1], clips, PROMPTS)
    cosines = text @ audio.T
    for row, hits in enumerate(semantic_search(queries, recordings, top_k=5)):
        assert [hit["score"] for hit in hits] == pytest.approx(np.sort(cosines[row])[::-1][:5], abs=1e-5)
        assert [cosines[row, hit["corpus_id"]] for hit in hits] == pytest.approx(
            [hit["score"] for hit in hits], abs=1e-5
        )
    bits = quantize_embeddings(recordings, precision="ubinary")
    assert bits.shape == (len(clips), audio.shape[1] // 8)
    assert (np.unpackbits(bits, axis=1) == (recordings > 0)).all()
    bytes_ = quantize_embeddings(recordings, precision="int8", calibration_embeddings=recordings)
    assert bytes_.dtype == np.int8 and bytes_.shape == audio.shape
    low, high = recordings.min(0), recordings.max(0)
    restored = low + (bytes_.astype(np.float32) + 128) * (high - low) / 255
    assert np.abs(restored - recordings).max() <= ((high - low) / 255).max() * 1.01
    assert np.abs(queries @ restored.T - cosines).max() < 0.01


# ---- the processor --------------------------------------------------------------------------------------------------
def test_options_by_modality(make_model, make_processor):
    processor = make_processor(make_model())
    wave = tone("happy", 0)
    plain = processor(audio=[wave], sampling_rate=RATE, text=PROMPTS)
    by_modality = {"text_kwargs": {"padding": True, "truncation": "longest_first"}, "images_kwargs": {}}
    by_modality |= {"audio_kwargs": {"padding": True, "sampling_rate": RATE}, "videos_kwargs": {}}
    given = processor(audio=[wave], text=PROMPTS, **by_modality, common_kwargs={"return_tensors": "np"})
    assert given.keys() == plain.keys()
    for name, value in plain.items():
        assert isinstance(given[name], np.ndarray) and np.array_equal(given[name], value.numpy()), name
    short = processor(text=PROMPTS, text_kwargs={"max_length": 3}, common_kwargs={"return_tensors": "pt"})
    assert short["input_ids"].shape == (3, 3) and processor(text=PROMPTS, text_kwargs=None)["input_ids"].shape[1] > 3
    with pytest.raises(TypeError, match="unknown options image_kwargs; choose from text_kwargs, "):
        processor(text=PROMPTS, image_kwargs={})


@pytest.mark.parametrize("name", ["clip.wav", "/a folder/Clip 1.FLAC", "song.m4a"])
def test_a_prompt_that_names_a_recording_is_refused(make_model, make_processor, name):
    processor = make_processor(make_model())
    with pytest.raises(AudioError, match=r"the name of an audio file, given as text: check that the file exists"):
        processor(text=["a sad voice", name])
    processor(text=["a wav", "the .wav format", "wav"])
