"""Save, load, save again, push to and load from a Hub: every family, as remote code, without the package."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers
from conftest import RATE
from families import AUDIO, TEXT
from hub_server import Hub

from modeling_gemoclap import GEmoClapForAudioClassification, GEmoClapProcessor
from modeling_gemoclap.objectives.gemo_clap.build import build_tokenizer

ELSEWHERE = """
import json, sys
sys.modules["modeling_gemoclap"] = None  # as if it were not installed
import numpy as np
import torch
from transformers import AutoModel, AutoModelForAudioClassification, AutoProcessor, pipeline

def embed(source):
    model = AutoModel.from_pretrained(source, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(source, trust_remote_code=True)
    with torch.no_grad():
        return model, processor, model.get_audio_features(**processor(audio=WAVES, sampling_rate=16000)).tolist()

WAVES = [np.load(path) for path in sys.argv[2:]]
root, results = sys.argv[1], {}
for name in json.load(open(f"{root}/names.json")):
    model, processor, here = embed(f"{root}/{name}")
    for part in (model, processor):
        part.save_pretrained(f"{root}/again-{name}")
        part.push_to_hub(f"me/{name}")
    scores = pipeline("zero-shot-emotion-recognition", model=f"me/{name}", trust_remote_code=True)
    labels = {"candidate_labels": ["angry", "happy", "sad"], "hypothesis_template": "this person is feeling {}"}
    stock_clap = pipeline("zero-shot-audio-classification", model=f"{root}/{name}", trust_remote_code=True)
    by_clap = stock_clap(WAVES, batch_size=2, **labels)
    stock = pipeline("audio-classification", model=f"{root}/class-{name}", trust_remote_code=True)
    classifier = AutoModelForAudioClassification.from_pretrained(f"{root}/class-{name}", trust_remote_code=True)
    classifier.save_pretrained(f"{root}/class-again-{name}")
    results[name] = {
        "loaded": here,
        "resaved": embed(f"{root}/again-{name}")[2],
        "hub": embed(f"me/{name}")[2],
        "scores": [s["score"] for s in scores(WAVES[0], sampling_rate=16000)],
        "stock": [[s["score"] for s in sorted(a, key=lambda s: s["label"])] for a in stock(WAVES, batch_size=2)],
        "stock_class": type(stock).__module__,
        "by_clap": [[s["score"] for s in answer] for answer in by_clap],
    }
json.dump(results, open(f"{root}/results.json", "w"))
"""


def tokenizer_of(config, folder):
    """A tokenizer for the text encoder; BERT's returns a third input."""
    if config.text_config.model_type != "bert":
        return build_tokenizer(config)
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] this person is feeling angry happy sad female male"
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(words.split()) + "\n")
    tokenizer = transformers.BertTokenizerFast.from_pretrained(folder, model_max_length=64)
    assert "token_type_ids" in tokenizer("this person is sad")
    return tokenizer


# Every audio family with RoBERTa, and every text encoder with one audio family.
PAIRS = {family: (family, "roberta") for family in AUDIO} | {text: ("hubert-base", text) for text in TEXT}


@pytest.fixture(scope="module")
def waves(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("waves"), np.random.default_rng(0)
    arrays = [rng.standard_normal(int(seconds * RATE)).astype(np.float32) for seconds in (0.5, 1.4, 0.9)]
    paths = [str(folder / f"{index}.npy") for index in range(len(arrays))]
    for path, array in zip(paths, arrays, strict=True):
        np.save(path, array)
    return arrays, paths


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_family_loads_without_the_package(make_model, waves, tmp_path):
    arrays, paths = waves
    expected = {}
    for name, (family, text) in PAIRS.items():
        model = make_model(family, text)
        classifier = make_model(family, model_class=GEmoClapForAudioClassification)
        extractor = AUDIO[family].small_extractor(tmp_path / "extractor")
        processor = GEmoClapProcessor(extractor, tokenizer_of(model.config, tmp_path / "tokenizer"))
        for folder, parts in ((name, (model, processor)), (f"class-{name}", (classifier, extractor))):
            for part in parts:
                part.save_pretrained(tmp_path / folder)
        inputs = extractor([{"array": array, "sampling_rate": RATE} for array in arrays])
        with torch.no_grad():
            expected[name] = (model.get_audio_features(**inputs), classifier(**inputs).logits.softmax(-1))
    (tmp_path / "names.json").write_text(json.dumps(list(PAIRS)))
    (tmp_path / "use.py").write_text(ELSEWHERE)
    hub = Hub()
    env = {**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_test", "HF_HUB_OFFLINE": "0"}
    env |= {"HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path / "home"), "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "use.py", str(tmp_path), *paths]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    hub.server.shutdown()
    assert done.returncode == 0, done.stderr[-4000:]
    results = json.loads((tmp_path / "results.json").read_text())
    assert set(results) == set(PAIRS)
    for name, (embeds, probabilities) in expected.items():
        for way in ("loaded", "resaved", "hub"):
            assert (torch.tensor(results[name][way]) - embeds).abs().max() < 1e-5, (name, way)
        assert len(results[name]["by_clap"]) == len(arrays)
        assert all(sum(scores) == pytest.approx(1) and len(scores) == 3 for scores in results[name]["by_clap"])
        assert len(results[name]["scores"]) == 3 and sum(results[name]["scores"]) == pytest.approx(1)
        assert (torch.tensor(results[name]["stock"]) - probabilities).abs().max() < 1e-5, name
        assert results[name]["stock_class"] == "transformers.pipelines.audio_classification"
        for again in (f"again-{name}", f"class-again-{name}"):
            travelled = {path.name for path in (tmp_path / again).glob("*.py")}
            assert travelled == {path.name for path in (tmp_path / name).glob("*.py")}
