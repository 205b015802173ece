"""`--push_to_hub` against a Hub on the loopback, and loading from it."""

import os
import subprocess
import sys

import pytest
from conftest import TINY, run_script
from hub_server import Hub

LOAD = """
import sys
sys.modules["modeling_gemoclap"] = None
from transformers import AutoModel, AutoProcessor, pipeline
processor = AutoProcessor.from_pretrained("me/tones", trust_remote_code=True)
model = AutoModel.from_pretrained("me/tones", trust_remote_code=True)
pipe = pipeline("zero-shot-emotion-recognition", model="me/tones", trust_remote_code=True)
print("ANSWER", pipe(sys.argv[1], top_k=1)[0]["label"], len(model.get_audio_features(**processor(audio=sys.argv[1]))))
"""


@pytest.fixture
def environment(tmp_path):
    hub = Hub()
    more = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_test", "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    yield hub, {**more, "HF_HOME": str(tmp_path / "home"), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    hub.server.shutdown()


@pytest.mark.slow
def test_pushed_and_loaded(tones, tmp_path, environment):
    hub, env = environment
    options = ("--data_dir", tones, "--exclude_speakers", "04", "--output_dir", tmp_path / "run")
    run_script("train.py", *TINY, *options, "--push_to_hub", "true", "--hub_model_id", "me/tones", env=env)
    files = hub.files["me/tones"]
    assert {"config.json", "model.safetensors", "processor_config.json", "pipeline_gemoclap.py", "README.md"} <= set(
        files
    )
    assert b"| tones | see its source | 36 | 01, 02, 03 |" in files["README.md"]
    clip = tones / "audio/04_sad_1.wav"
    (tmp_path / "load.py").write_text(LOAD)
    done = subprocess.run(
        [sys.executable, "load.py", str(clip)],
        cwd=tmp_path,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert "ANSWER sad 1" in done.stdout, done.stderr[-3000:]
