"""`push_to_hub` of model, processor and trainer against a Hub on the loopback, and loading from it by revision."""

import json
import os
import subprocess
import sys

import pytest
import torch
from conftest import AUDIO, ROOT, TINY, run_script
from hub_server import TOKEN, Hub

from modeling_gemoclap.objectives.gemo_clap.build import build_tokenizer
from modeling_gemoclap.processing_gemoclap import GEmoClapProcessor
from modeling_gemoclap.publishing.contents import checkpoint_files
from modeling_gemoclap.publishing.push import PushError

LOAD = """
import sys
sys.modules["modeling_gemoclap"] = None
from transformers import AutoModel, AutoProcessor, pipeline
revision = sys.argv[2]
processor = AutoProcessor.from_pretrained("me/tones", revision=revision, trust_remote_code=True)
model = AutoModel.from_pretrained("me/tones", revision=revision, trust_remote_code=True)
pipe = pipeline("zero-shot-emotion-recognition", model="me/tones", revision=revision, trust_remote_code=True)
print("ANSWER", pipe(sys.argv[1], top_k=1)[0]["label"], len(model.get_audio_features(**processor(audio=sys.argv[1]))))
"""
# The first process saves and pushes by the functions of the model and its processor, the second loads each revision.
PUSH = """
import sys
from huggingface_hub import HfApi, ModelCard
from transformers import AutoModel, AutoProcessor
from modeling_gemoclap import GEmoClapModel, GEmoClapProcessor
from modeling_gemoclap.publishing.push import push_checkpoint

folder = sys.argv[1]
model, processor = GEmoClapModel.from_pretrained(folder), GEmoClapProcessor.from_pretrained(folder)
first = model.push_to_hub("me/versions", private=True)
first = processor.push_to_hub("me/versions")
first = HfApi().upload_file(path_or_fileobj=f"{folder}/README.md", path_in_repo="README.md", repo_id="me/versions")
HfApi().create_tag("me/versions", tag="v1", revision=first.oid)
model.audio_logit_scale.data += 1
second = model.push_to_hub("me/versions")
whole = push_checkpoint(folder, "me/versions", revision="whole", tag="v3")
print("COMMITS", first.oid, second.oid)
"""
VERSIONS = """
import json, os, sys
sys.modules["modeling_gemoclap"] = None
from transformers import AutoModel, AutoProcessor
scales = {}
for revision in sys.argv[1:]:
    options = {"revision": revision, "trust_remote_code": True}
    scales[revision] = AutoModel.from_pretrained("me/versions", **options).audio_logit_scale.item()
    AutoProcessor.from_pretrained("me/versions", **options)
print("SCALES", json.dumps(scales))
"""
# A model of the Hub is saved again: with the Hub, without it but with its cache, and with neither facts nor licences.
SAVE = """
import sys, time
from huggingface_hub import constants
from modeling_gemoclap import GEmoClap
model = GEmoClap.from_pretrained("me/tones", revision=sys.argv[1])
if sys.argv[2] == "unreachable":
    constants.ENDPOINT = "http://127.0.0.1:9"
    time.sleep = lambda seconds: None  # the pauses between attempts
model.save_pretrained(sys.argv[3])
"""
PRIVATE = """
from transformers import AutoModel
try:
    AutoModel.from_pretrained("me/versions", revision="v1", token=False, trust_remote_code=True)
except OSError as error:
    print("REFUSED", str(error).replace(chr(10), " "))
"""


@pytest.fixture
def environment(tmp_path):
    hub = Hub()
    more = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    yield hub, {**more, "HF_HOME": str(tmp_path / "home"), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    hub.server.shutdown()


@pytest.fixture
def loopback(monkeypatch):
    """A Hub that this process talks to."""
    from huggingface_hub import constants

    hub = Hub()
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    # Clients that other tests may have made with the endpoint of then, of transformers 5 and 4.57
    monkeypatch.setattr("transformers.utils.hub._hf_api", None, raising=False)
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield hub
    hub.server.shutdown()


def run(code, folder, env, *arguments):
    """Run code in a fresh process; what it prints."""
    (folder / "program.py").write_text(code)
    command = [sys.executable, "program.py", *map(str, arguments)]
    options = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL}
    done = subprocess.run(command, cwd=folder, env={**os.environ, **env}, **options)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    return done.stdout


def test_the_training_pushes_the_checked_checkpoint_alone_in_one_commit(train, tones, tmp_path, loopback):
    """The files of the training stay in its folder, and the options of transformers apply."""
    hub, run = loopback, tmp_path / "run"
    options = ("--data_dir", tones, "--output_dir", run, "--num_train_epochs", 1, "--save_strategy", "epoch")
    where = ("--hub_model_id", "tones", "--hub_token", TOKEN, "--hub_private_repo", "true", "--hub_revision", "next")
    train(*options, "--push_to_hub", "true", *where)
    repository = hub.repositories["me/tones"]
    assert repository.private and not repository.commits[repository.refs["main"]]
    assert [path for method, path in hub.requests if "/commit/" in path] == ["/api/models/me/tones/commit/next"]
    pushed = repository.commits[repository.refs["next"]]
    assert pushed == {name: (run / name).read_bytes() for name in checkpoint_files(run)}
    assert any(run.glob("checkpoint-*")) and (run / "training_args.bin").is_file()
    assert TOKEN not in pushed["README.md"].decode() + pushed["card.json"].decode()


def test_what_training_cannot_push_is_refused_before_it_begins(train, tones, tmp_path, loopback):
    options = (
        "--data_dir",
        tones,
        "--output_dir",
        tmp_path / "run",
        "--push_to_hub",
        "true",
        "--hub_model_id",
        "me/a",
    )
    with pytest.raises(ValueError, match="--push_to_hub true: a protocol has a model for each fold"):
        train(*options, "--protocol", "leave-one-speaker-out")
    with pytest.raises(ValueError, match="--hub_strategy every_save"):
        train(*options, "--hub_strategy", "every_save")
    assert loopback.requests == []
    with pytest.raises(PushError, match="--hub_model_id me/a: the access token is missing, wrong"):
        train(*options, "--hub_token", "hf_wrong")
    assert loopback.repositories == {}


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
    commit = hub.repositories["me/tones"].refs["main"]
    assert "ANSWER sad 1" in run(LOAD, tmp_path, {**env, "HF_HOME": str(tmp_path / "empty")}, clip, commit)


def test_both_versions_load_by_commit_and_by_tag_and_a_private_one_needs_a_token(make_model, tmp_path, environment):
    """Each step has a process and an empty cache of its own."""
    hub, env = environment
    model, folder = make_model(), tmp_path / "checkpoint"
    torch.nn.init.constant_(model.audio_logit_scale, 0.25)
    model.save_pretrained(folder)
    extractor = AUDIO["compact"].small_extractor(tmp_path / "extractor")
    GEmoClapProcessor(extractor, build_tokenizer(model.config)).save_pretrained(folder)
    (folder / "README.md").write_text("---\nlibrary_name: transformers\n---\n\n# A card\n")
    first, second = run(PUSH, tmp_path, env, folder).split("COMMITS ")[1].split()
    assert first != second and hub.repositories["me/versions"].private
    assert hub.files["me/versions"]["README.md"].startswith(b"---\nlibrary_name")
    printed = run(VERSIONS, tmp_path, {**env, "HF_HOME": str(tmp_path / "empty")}, first, second, "v1", "v3", "main")
    scales = json.loads(printed.split("SCALES ")[1])
    assert scales == {first: 0.25, second: 1.25, "v1": 0.25, "v3": 0.25, "main": 1.25}
    without = {**env, "HF_HOME": str(tmp_path / "other"), "HF_TOKEN": ""}
    printed = run(PRIVATE, tmp_path, without)
    assert "REFUSED me/versions is not a local folder" in printed and "private repository" in printed


def test_a_model_of_the_hub_keeps_its_facts_and_licences_when_it_is_saved_again(tmp_path, environment):
    hub, env = environment
    source = {
        path.name: path.read_bytes() for path in (ROOT / "checkpoints/gemoclap-compact").iterdir() if path.is_file()
    }
    hub.publish("me/tones", source | {"LICENSE-tower": b"a licence", "figure.png": b"x"})
    first, repository = hub.repositories["me/tones"].refs["main"], hub.repositories["me/tones"]
    repository.refs["main"] = repository.add({**source, "LICENSE-tower": b"another"}, first)
    for hub_is in ("reachable", "unreachable"):
        run(SAVE, tmp_path, env, first, hub_is, tmp_path / hub_is)
        assert (tmp_path / hub_is / "LICENSE-tower").read_bytes() == b"a licence"
        assert (tmp_path / hub_is / "card.json").read_bytes() == source["card.json"]
        assert not (tmp_path / hub_is / "figure.png").exists()
    never_saved = {**env, "HF_HOME": str(tmp_path / "empty")}
    run(SAVE, tmp_path, never_saved, first, "unreachable", tmp_path / "without")
    assert not (tmp_path / "without/card.json").exists()
    assert "Length of the training: unknown" in (tmp_path / "without/README.md").read_text()
