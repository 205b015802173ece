"""A checkpoint in a process without the package: its folder must contain all code."""

import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import TONES

from modeling_gemoclap import GEmoClapModel, GEmoClapProcessor, ZeroShotEmotionPipeline
from modeling_gemoclap.configuration_gemoclap import SENTENCE_TRANSFORMERS_FILES

FACE = {
    "configuration_gemoclap.py",
    "attention_gemoclap.py",
    "audio_encoder_gemoclap.py",
    "audio_files_gemoclap.py",
    "audio_headers_gemoclap.py",
    "base_gemoclap.py",
    "batching_gemoclap.py",
    "encoding_gemoclap.py",
    "frozen_gemoclap.py",
    "heads_gemoclap.py",
    "feature_extraction_gemoclap.py",
    "processing_gemoclap.py",
    "modeling_gemoclap.py",
    "losses_gemoclap.py",
    "pipeline_gemoclap.py",
    "prompts_gemoclap.py",
    "recordings_gemoclap.py",
    "safety_gemoclap.py",
    "spectrograms_gemoclap.py",
    "speech_gemoclap.py",
    "towers_gemoclap.py",
    "versions_gemoclap.py",
}
ELSEWHERE = """
import json, sys
sys.modules["modeling_gemoclap"] = None  # as if it were not installed
import soundfile
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoProcessor, AutoTokenizer, pipeline

folder, resaved, clips = sys.argv[1], sys.argv[2], sys.argv[3:]
config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
embeds = model.get_audio_features(**processor(audio=clips))
model.save_pretrained(resaved)
processor.save_pretrained(resaved)
own = pipeline("zero-shot-emotion-recognition", model=resaved, trust_remote_code=True)
stock = pipeline("zero-shot-audio-classification", model=folder, trust_remote_code=True)
waves = [soundfile.read(clip, dtype="float32")[0] for clip in clips]
labels = config.emotions
answers = stock(waves, candidate_labels=labels, hypothesis_template="this person is feeling {}", batch_size=2)
print(json.dumps({
    "embeds": embeds.tolist(),
    "own": own(clips, batch_size=2),
    "own_class": type(own).__name__,
    "inferred": type(pipeline(model=resaved, trust_remote_code=True)).__name__,
    "stock": answers,
    "stock_class": type(stock).__module__,
    "feature_extractor": type(AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=True)).__name__,
    "tokens": AutoTokenizer.from_pretrained(folder, trust_remote_code=True)("this person is feeling sad")["input_ids"],
}))
"""


@pytest.fixture(scope="module")
def elsewhere(trained, tones, tmp_path_factory):
    folder = tmp_path_factory.mktemp("elsewhere")
    clips = [str(tones / f"audio/04_{emotion}_{number}.wav") for emotion in TONES for number in (0, 3)]
    (folder / "use.py").write_text(ELSEWHERE)
    command = [sys.executable, "use.py", str(trained), str(folder / "resaved"), *clips]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.strip().splitlines()[-1]), clips, folder / "resaved"


def test_all_code_files_are_saved(trained, elsewhere):
    for folder in (trained, elsewhere[2]):
        assert {path.name for path in folder.glob("*.py")} == FACE
        assert SENTENCE_TRANSFORMERS_FILES.keys() <= {path.name for path in folder.iterdir()}


def test_results_equal_those_of_the_installed_package(trained, elsewhere):
    results, clips, _ = elsewhere
    model, processor = GEmoClapModel.from_pretrained(trained), GEmoClapProcessor.from_pretrained(trained)
    embeds = model.get_audio_features(**processor(audio=clips)).detach().numpy()
    assert np.abs(np.array(results["embeds"]) - embeds).max() < 1e-5
    ours = ZeroShotEmotionPipeline(model=model, processor=processor)(clips)
    for there, here in zip(results["own"], ours, strict=True):
        assert [item["label"] for item in there] == [item["label"] for item in here]
        assert [i["score"] for i in there] == pytest.approx([i["score"] for i in here], abs=1e-5)
    assert results["own_class"] == results["inferred"] == "ZeroShotEmotionPipeline"
    assert results["tokens"] == processor.tokenizer("this person is feeling sad")["input_ids"]
    assert results["feature_extractor"] == "GEmoClapFeatureExtractor"


def test_pipeline_of_transformers(elsewhere):
    results, _, _ = elsewhere
    assert results["stock_class"].startswith("transformers.pipelines.zero_shot_audio")
    assert [answer[0]["label"] for answer in results["stock"]] == [emotion for emotion in TONES for _ in range(2)]
