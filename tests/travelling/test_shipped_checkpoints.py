"""The checkpoints in `checkpoints/`: used without the package, and with room tone around real recordings."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import RATE, ROOT, tone

from modeling_gemoclap import GEmoClapFeatureExtractor
from modeling_gemoclap.corpora.manifest import load_corpus
from modeling_gemoclap.inference.loading import load_pipeline

BASE = ROOT / "checkpoints/gemoclap-base"
CHECKPOINTS = [BASE, ROOT / "checkpoints/gemoclap-compact"]
# What `pip install torch transformers soundfile` installs; soxr, as other packages of the project, is refused.
ALONE = """
import sys
from importlib.abc import MetaPathFinder

REFUSED = {"modeling_gemoclap", "soxr", "accelerate", "datasets", "evaluate", "sklearn", "scipy", "peft", "librosa"}
REFUSED |= {"matplotlib", "pandas", "pyarrow", "torchaudio"}

class Refuse(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in REFUSED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
import importlib.util
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name.partition(".")[0] in REFUSED else find_spec(name, *rest)

import json
import numpy
from transformers import pipeline

wave = numpy.load("wave.npy")
pipe = pipeline("zero-shot-emotion-recognition", model="checkpoint", trust_remote_code=True, device=-1)
results = [pipe({"array": wave, "sampling_rate": 16000}), pipe("clip.wav", candidate_labels=["furious", "gloomy"])]
assert not any(name.partition(".")[0] in REFUSED for name in sys.modules)
print(json.dumps(results))
"""


@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=lambda folder: folder.name)
def test_a_copied_checkpoint_needs_transformers_and_soundfile_alone(checkpoint, tmp_path):
    import soundfile

    shutil.copytree(checkpoint, tmp_path / "checkpoint")  # links become files
    wave = tone("angry", 0, seconds=1.5)
    np.save(tmp_path / "wave.npy", wave)
    soundfile.write(tmp_path / "clip.wav", wave, RATE, subtype="FLOAT")
    (tmp_path / "use.py").write_text(ALONE)
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-I", "use.py"]
    env["HF_MODULES_CACHE"] = str(tmp_path / "modules")  # no code of an earlier test
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr[-4000:]
    pipe = load_pipeline(str(checkpoint), "cpu")
    ours = [pipe({"array": wave, "sampling_rate": RATE}), pipe(str(tmp_path / "clip.wav"), ["furious", "gloomy"])]
    for there, here in zip(json.loads(done.stdout.splitlines()[-1]), ours, strict=True):
        assert [item["label"] for item in there] == [item["label"] for item in here]
        assert [item["score"] for item in there] == pytest.approx([item["score"] for item in here], abs=1e-5)


def test_words_that_training_never_showed_are_near_their_emotion():
    """Emo-DB has no calm, so only the text encoder can know the word. *livid* is near sad in MiniLM itself."""
    pipe = load_pipeline(str(BASE), "cpu")
    config = pipe.model.config
    labels = [*config.emotions, "calm"]
    words = {"cheerful": "happy", "terrified": "fear", "tranquil": "calm", "infuriated": "angry", "mournful": "sad"}
    assert not {*words} & {word for prompt in config.training_prompts() for word in prompt.split()}
    with torch.no_grad():
        known, new = (
            pipe.model.get_class_embeddings(config.class_prompts(texts), pipe.tokenizer)
            for texts in (labels, list(words))
        )
    nearest = [labels[row] for row in (new @ known.T).argmax(1).tolist()]
    assert dict(zip(words, nearest, strict=True)) == words


def quiet_noise(wave, rng):
    """A second of white noise at the level of the quietest 50 ms of a clip, 80 dB below full scale at least."""
    size = RATE // 20
    frames = wave[: len(wave) // size * size].reshape(-1, size)
    return (max(frames.std(1).min(), 1e-4) * rng.standard_normal(RATE)).astype(np.float32)


@pytest.mark.slow
def test_room_tone_keeps_the_answer_of_the_base_checkpoint(corpora):
    """One second of silence or quiet noise before or after each of 125 clips; untrimmed, more answers change."""
    pipe, rng = load_pipeline(str(BASE), "cpu"), np.random.default_rng(0)
    plain = GEmoClapFeatureExtractor(do_normalize=False)
    paths = load_corpus(corpora / "emodb").of_speakers(["14", "15"]).column("path").to_pylist()
    waves = [plain.load(path) for path in paths]

    def answers(clips):
        results = pipe([{"array": clip, "sampling_rate": RATE} for clip in clips], batch_size=16, top_k=1)
        return np.array([result[0]["label"] for result in results])

    silence, kept = np.zeros(RATE, np.float32), {}
    for trim, kinds in ((True, ("silence", "noise")), (False, ("silence",))):
        pipe.processor.feature_extractor.trim_silence = trim
        reference = answers(waves)
        for kind in kinds:
            added = [silence if kind == "silence" else quiet_noise(wave, rng) for wave in waves]
            before = [np.concatenate(parts) for parts in zip(added, waves, strict=True)]
            after = [np.concatenate(parts) for parts in zip(waves, added, strict=True)]
            kept[trim, kind] = [float((answers(clips) == reference).mean()) for clips in (before, after)]
    print(kept)
    assert min(kept[True, "silence"] + kept[True, "noise"]) >= 0.95
    assert min(kept[False, "silence"]) < min(kept[True, "silence"] + kept[True, "noise"])
