"""`push_checkpoint` against a Hub on the loopback: what is pushed, what is refused, what is left after a failure."""

import hashlib
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from conftest import AUDIO, ROOT
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(ROOT / "tests/travelling"))
from hub_server import TOKEN, Hub  # noqa: E402

from modeling_gemoclap import (  # noqa: E402
    GEmoClapForAudioClassification,
    GEmoClapForXVector,
    GEmoClapModel,
)
from modeling_gemoclap.fingerprint import TRAINING_CLIPS  # noqa: E402
from modeling_gemoclap.objectives.gemo_clap.build import build_tokenizer  # noqa: E402
from modeling_gemoclap.processing_gemoclap import GEmoClapProcessor  # noqa: E402
from modeling_gemoclap.publishing.card import write_card  # noqa: E402
from modeling_gemoclap.publishing.contents import checkpoint_files, is_pushed  # noqa: E402
from modeling_gemoclap.publishing.push import PushError, load_snippet, push_checkpoint  # noqa: E402
from modeling_gemoclap.safety_gemoclap import tensors_sha256  # noqa: E402
from modeling_gemoclap.training.history import stamp_weights  # noqa: E402
from modeling_gemoclap.training_clips import MEASURES, to_bytes, training_clips_of  # noqa: E402

REPO = "me/tones"
OLD_CLIENT = huggingface_hub.__version__.startswith("0.")
WRONG_TOKEN = "Invalid credentials in Authorization header"


@pytest.fixture
def folder(make_model, tmp_path):
    """A complete checkpoint, whose weights are recorded."""
    model, path = make_model(), tmp_path / "checkpoint"
    stamp_weights(model, complete=True)
    model.save_pretrained(path)
    extractor = AUDIO["compact"].small_extractor(tmp_path / "extractor")
    GEmoClapProcessor(extractor, build_tokenizer(model.config)).save_pretrained(path)
    write_card(path)
    return path


@pytest.fixture
def hub(monkeypatch):
    """A Hub that this process talks to; its weights are uploaded as large files, before the commit."""
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    server = Hub(large=r"\.safetensors$")
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)  # between the client's retries
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield server
    server.server.shutdown()


def change_weights(folder):
    """Write other weights of the same shapes, as a program does that knows nothing of their record."""
    weights = {name: value + 1 for name, value in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def save_another_model(folder):
    """Save a model with other weights, whose record and card are its own."""
    model = GEmoClapModel.from_pretrained(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    stamp_weights(model, complete=True)
    model.save_pretrained(folder)
    write_card(folder)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_one_commit_has_the_whole_checkpoint_and_its_snippet_pins_it(folder, hub):
    (folder / "training_args.bin").write_bytes(b"pickle")
    (folder / "results.json").write_text("{}")
    write("adapter/adapter_config.json")(folder)  # `--lora_towers` leaves it beside the merged checkpoint
    (folder / "checkpoint-3").mkdir()  # `save_strategy: epoch` leaves the last one in the folder of the run
    (folder / "checkpoint-3/optimizer.pt").write_bytes(b"pickle")
    commit = push_checkpoint(folder, REPO, private=True, tag="v1", token=TOKEN)
    pushed = hub.files[REPO]
    assert pushed == {name: (folder / name).read_bytes() for name in checkpoint_files(folder)}
    assert {"config.json", "model.safetensors", "processor_config.json", "README.md", "pipeline_gemoclap.py"} <= {
        *pushed
    }
    assert not {"training_args.bin", "results.json"} & {*pushed}
    repository = hub.repositories[REPO]
    assert repository.private and repository.refs == {"main": commit.oid, "v1": commit.oid}
    assert [path for method, path in hub.requests if "/commit/" in path] == [f"/api/models/{REPO}/commit/main"]
    snippet = load_snippet(REPO, commit.oid)
    assert snippet.count(f'from_pretrained("{REPO}", revision="{commit.oid}", trust_remote_code=True)') == 2
    with pytest.raises(ValueError, match="'main' is not the hash of a commit"):
        load_snippet(REPO, "main")


@pytest.mark.parametrize("kind", [GEmoClapModel, GEmoClapForAudioClassification, GEmoClapForXVector])
def test_the_snippet_loads_each_kind_of_checkpoint(folder, kind, tmp_path):
    model = GEmoClapModel.from_pretrained(folder)
    other, path = kind(model.config), tmp_path / kind.__name__
    other.save_pretrained(path)
    processor = GEmoClapProcessor.from_pretrained(folder)
    (processor if kind is GEmoClapModel else processor.feature_extractor).save_pretrained(path)
    snippet = load_snippet(REPO, "a" * 40, kind.__name__)
    names = {}
    exec(snippet.replace(f'"{REPO}", revision="{"a" * 40}"', repr(str(path))), names)
    extractor = getattr(names["processor"], "feature_extractor", names["processor"])
    assert type(names["model"]).__name__ == kind.__name__ and extractor.sampling_rate == 16000


def test_the_next_version_replaces_the_files_and_the_first_is_kept(folder, hub):
    first = push_checkpoint(folder, REPO, token=TOKEN)
    save_another_model(folder)
    (folder / "LICENSE").write_text("free")
    second = push_checkpoint(folder, REPO, token=TOKEN)
    (folder / "LICENSE").unlink()
    third = push_checkpoint(folder, REPO, token=TOKEN)
    commits = hub.repositories[REPO].commits
    assert len({first.oid, second.oid, third.oid}) == 3
    assert commits[first.oid]["model.safetensors"] != commits[second.oid]["model.safetensors"]
    assert "LICENSE" in commits[second.oid] and "LICENSE" not in commits[third.oid]


def test_files_of_others_in_the_repository_are_kept(folder, hub):
    push_checkpoint(folder, REPO, token=TOKEN)
    repository = hub.repositories[REPO]
    others = (
        "onnx/model.onnx",
        "figure.png",
        "data/train.csv",
        "tools/run.py",
        "x.gguf",
        "app.py",
        "voice.safetensors",
    )
    others = {name: b"x" for name in (*others, "onnx/config.json", "a[b].png")}
    old = ("old_gemoclap.py", "model-00001-of-00002.safetensors", "model.safetensors.index.json", "vocab.txt")
    old = {name: b"{}" for name in (*old, "preprocessor_config.json", "probe.json", "training_args.bin", "NOTICE[1]")}
    repository.refs["main"] = repository.add(hub.files[REPO] | others | old, repository.refs["main"])
    (folder / "NOTICE").write_text("new")
    (folder / "LICENSE[2]").write_text("new")
    push_checkpoint(folder, REPO, token=TOKEN)
    assert hub.files[REPO].keys() == others.keys() | {*checkpoint_files(folder)}


def test_code_that_the_earlier_card_lists_is_removed(folder, hub):
    write("their_model.py")(folder)
    write_card(folder)
    push_checkpoint(folder, REPO, token=TOKEN)
    assert "their_model.py" in hub.files[REPO]
    remove("their_model.py")(folder)
    write_card(folder)
    push_checkpoint(folder, REPO, token=TOKEN)
    assert hub.files[REPO].keys() == {*checkpoint_files(folder)}


@pytest.mark.parametrize("revision", [None, "next"])
def test_an_adapter_of_an_earlier_push_is_not_loaded_with_the_new_checkpoint(folder, hub, revision):
    push_checkpoint(folder, REPO, revision=revision, token=TOKEN)
    repository, branch = hub.repositories[REPO], revision or "main"
    adapter = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin", "adapter/adapter_config.json")
    files = repository.commits[repository.refs[branch]] | {name: b"{}" for name in adapter}
    repository.refs[branch] = repository.add(files, repository.refs[branch])
    commit = push_checkpoint(folder, REPO, revision=revision, token=TOKEN)
    assert repository.refs[branch] == commit.oid and repository.commits[commit.oid].keys() == {
        *checkpoint_files(folder)
    }


def test_a_branch_is_made_and_the_main_branch_is_kept(folder, hub):
    main = push_checkpoint(folder, REPO, token=TOKEN)
    (folder / "NOTICE").write_text("new")
    other = push_checkpoint(folder, REPO, revision="next", token=TOKEN)
    assert hub.repositories[REPO].refs == {"main": main.oid, "next": other.oid}


def test_with_a_tag_that_exists_nothing_is_pushed(folder, hub):
    first = push_checkpoint(folder, REPO, tag="v1", token=TOKEN)
    (folder / "NOTICE").write_text("new")
    with pytest.raises(PushError, match="nothing was pushed: me/tones has a tag v1 already; give another name"):
        push_checkpoint(folder, REPO, tag="v1", token=TOKEN)
    assert hub.repositories[REPO].refs["main"] == first.oid


FAILURES = [
    (
        r"/api/(repos|models)/",
        401,
        "access token is missing, wrong, or may not write to me/tones .HTTP 401.: run hf auth",
    ),
    (r"/commit/", 403, "may not write to me/tones .HTTP 403."),
    (r"/preupload/", 404, "there is no repository me/tones"),
    (r"/commit/", 429, "too many requests .HTTP 429.: wait some minutes"),
    (r"/preupload/", 429, "too many requests .HTTP 429.: wait some minutes"),
    (r"/commit/", 500, "an error of its own .HTTP 500.: push again later"),
    (r"/blobs/", 503, "an error of its own .HTTP 503.: push again later"),
    (r"/commit/", 0, "the connection to the Hub broke"),
    (r"/blobs/", 0, "the connection to the Hub broke"),
]


@pytest.mark.parametrize("path, status, message", FAILURES, ids=lambda value: str(value).strip("/")[:12])
def test_a_failure_is_one_sentence_and_leaves_no_partial_commit(folder, hub, path, status, message):
    first = push_checkpoint(folder, REPO, token=TOKEN)
    save_another_model(folder)
    before, files = contents(folder), hub.files[REPO]
    headers = {404: {"X-Error-Code": "RepoNotFound"}, 401: {"X-Error-Message": WRONG_TOKEN}}.get(status, {})
    hub.fail(path, status, **headers)
    with pytest.raises(PushError, match=message) as error:
        push_checkpoint(folder, REPO, token=TOKEN)
    assert "\n" not in str(error.value) and f"{folder} is unchanged, and {REPO} has no partial commit" in str(
        error.value
    )
    undecided = path == "/commit/" and (status == 0 or status >= 500)
    start = f"{folder} may or may not have been pushed: look at {REPO}" if undecided else f"{folder} was not pushed"
    assert str(error.value).startswith(start)
    assert contents(folder) == before and hub.files[REPO] == files
    assert hub.repositories[REPO].refs == {"main": first.oid}
    hub.failures.clear()
    second = push_checkpoint(folder, REPO, token=TOKEN)
    assert hub.files[REPO]["model.safetensors"] == before["model.safetensors"] and second.oid != first.oid


def test_a_commit_whose_answer_is_lost_may_be_there(folder, hub, monkeypatch):
    lose_answers_to(hub, monkeypatch, "commit")
    with pytest.raises(PushError, match="may or may not have been pushed: look at me/tones: the connection"):
        push_checkpoint(folder, REPO, token=TOKEN)
    assert "model.safetensors" in hub.files[REPO], "it was pushed"


def test_a_tag_whose_answer_is_lost_may_be_there(folder, hub, monkeypatch):
    lose_answers_to(hub, monkeypatch, "tag")
    with pytest.raises(PushError, match=r"as commit [0-9a-f]{40}, but it may or may not have the tag v1: the connect"):
        push_checkpoint(folder, REPO, tag="v1", token=TOKEN)
    assert "v1" in hub.repositories[REPO].tags


@pytest.mark.parametrize(
    "path, status", [(r"/preupload/", 500), (r"/preupload/", 429), (r"/blobs/", 503), (r"/blobs/", 0)]
)
def test_the_client_repeats_what_failed_once(folder, hub, path, status):
    if OLD_CLIENT and "preupload" in path:
        pytest.skip("huggingface_hub 0.36 does not repeat this request")
    hub.fail(path, status, times=1)
    commit = push_checkpoint(folder, REPO, token=TOKEN)
    assert hub.repositories[REPO].refs["main"] == commit.oid and not hub.failures[0].times


def test_without_a_token_nothing_is_pushed(folder, hub, monkeypatch):
    for token in (None, "hf_wrong"):
        with pytest.raises(PushError, match="the access token is missing, wrong"):
            push_checkpoint(folder, REPO, token=token)
    assert hub.repositories == {}


def test_names_and_an_offline_client_are_explained(folder, hub, monkeypatch):
    from huggingface_hub import constants

    with pytest.raises(PushError, match="'a/b/c' is not the name of a repository: give NAMESPACE/NAME"):
        push_checkpoint(folder, "a/b/c", token=TOKEN)
    if OLD_CLIENT:
        return  # huggingface_hub 0.36 reads the variable when its session begins
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(PushError, match="HF_HUB_OFFLINE is set"):
        push_checkpoint(folder, REPO, token=TOKEN)


def test_an_unreachable_hub_is_explained(folder, hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(PushError, match="the connection to the Hub broke"):
        push_checkpoint(folder, REPO, token=TOKEN)


def lose_answers_to(hub, monkeypatch, action):
    """Let the Hub do an action and close the connection without an answer."""
    post = hub.post

    def post_and_lose(path, body, authorization):
        answer = post(path, body, authorization)
        if f"/{action}/" in path:
            raise ConnectionAbortedError
        return answer

    monkeypatch.setattr(hub, "post", post_and_lose)


def remove(name):
    return lambda folder: (folder / name).unlink()


def write(name, content=b"x"):
    def change(folder):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)

    return change


def link_code(folder):
    path = folder / "prompts_gemoclap.py"
    path.unlink()
    path.symlink_to(ROOT / "modeling_gemoclap/prompts_gemoclap.py")


def cut_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def change_code(folder):
    path = folder / "losses_gemoclap.py"
    path.write_text(path.read_text() + "# changed\n")


def other_code(folder):
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"modeling_gemoclap.GEmoClapModel"', '"they/x--modeling.Model"'))


@pytest.mark.parametrize(
    "change, message",
    [
        (remove("README.md"), "no README.md there, so the checkpoint is not complete"),
        (remove("processor_config.json"), "no processor_config.json there"),
        (remove("config.json"), "no config.json there"),
        (remove("model.safetensors"), "no model.safetensors there, so the weights are not complete"),
        (cut_weights, "model.safetensors: the weights cannot be read"),
        (write("model.safetensors"), "model.safetensors: the weights cannot be read"),
        (remove("modeling_gemoclap.py"), "no modeling_gemoclap.py there"),
        (remove("pipeline_gemoclap.py"), "no pipeline_gemoclap.py there"),
        (remove("losses_gemoclap.py"), "no losses_gemoclap.py there"),
        (link_code, r"prompts_gemoclap.py is a link.*cp -rL"),
        (change_weights, "the weights are not those that its record of training describes"),
        (change_code, r"README.md has other hashes than the code, of losses_gemoclap.py: write the card again"),
        (write("more.py", b""), r"README.md has other hashes than the code, of more.py: write the card again"),
        (other_code, "they/x--modeling.Model is the code of another repository"),
        (write("optimizer.pt"), "optimizer.pt is the state of an optimizer"),
        (write("adapter_config.json", b"{}"), "adapter_config.json is a LoRA adapter"),
        (write("run.json", b"{}"), "run.json is the run of a protocol"),
    ],
)
def test_what_is_not_a_checkpoint_is_refused_before_anything_is_sent(folder, hub, change, message):
    change(folder)
    with pytest.raises(ValueError, match=message):
        push_checkpoint(folder, REPO, token=TOKEN)
    assert hub.requests == []


def test_a_sample_of_training_clips_is_pushed_and_that_of_other_weights_is_refused(folder):
    weights = tensors_sha256(load_file(folder / "model.safetensors").values())
    embeddings, measures = np.eye(3), {name: [1.0, 2.0, 3.0] for name in MEASURES}
    clips = training_clips_of(embeddings, ["a", "b", "c"], measures, weights)
    (folder / TRAINING_CLIPS).write_bytes(to_bytes(clips))
    card = write_card(folder).read_text()
    assert f"`{TRAINING_CLIPS}` holds embeddings of 3 of these clips" in card
    assert TRAINING_CLIPS in checkpoint_files(folder) and is_pushed(TRAINING_CLIPS, "")
    (folder / TRAINING_CLIPS).write_bytes(to_bytes(replace(clips, weights_sha256="0" * 64)))
    for refused in (checkpoint_files, write_card):
        with pytest.raises(ValueError, match=f"{TRAINING_CLIPS} was made with other weights"):
            refused(folder)
    (folder / TRAINING_CLIPS).write_bytes(b"no tensors")
    with pytest.raises(ValueError, match=f"{TRAINING_CLIPS}: it cannot be read"):
        checkpoint_files(folder)


@pytest.mark.parametrize("name", ["gemoclap-base", "gemoclap-compact"])
def test_a_shipped_checkpoint_is_pushed_as_a_copy_without_links(name, tmp_path):
    shipped = ROOT / "checkpoints" / name
    with pytest.raises(ValueError, match="is a link"):
        checkpoint_files(shipped)
    copy = shutil.copytree(shipped, tmp_path / name)
    files = checkpoint_files(Path(copy))
    assert ".eval_results/RavdessZeroshot.yaml" in files and "card.json" in files
    kept = {path.relative_to(copy).as_posix() for path in Path(copy).rglob("*") if path.is_file()}
    assert {*files} == kept, "every file of a shipped checkpoint belongs to it"
    card = (Path(copy) / "README.md").read_text()
    for file in (file for file in files if file.endswith(".py")):
        assert hashlib.sha256((Path(copy) / file).read_bytes()).hexdigest() in card


def test_the_command_pushes_and_names_the_revision(folder, hub, monkeypatch, capsys):
    from modeling_gemoclap import cli

    monkeypatch.setenv("HF_TOKEN", TOKEN)
    (folder / "README.md").unlink()
    for words in (["card", str(folder)], ["push", str(folder), REPO, "--private", "--tag", "v1"]):
        with pytest.raises(SystemExit) as error:
            cli.main(words)
        assert error.value.code == 0
    commit = hub.repositories[REPO].refs["v1"]
    captured = capsys.readouterr()
    assert captured.out.count(f'revision="{commit}"') == 2
    assert captured.err.endswith(f"Next: gemoclap predict RECORDING --model {REPO} --revision {commit}\n")
    with pytest.raises(SystemExit) as error:
        cli.main(["push", str(folder / "absent"), REPO])
    assert error.value.code == 2 and "no such folder" in capsys.readouterr().err


def test_a_model_in_python_is_pushed_with_its_card(folder, hub):
    from modeling_gemoclap import GEmoClap

    commit = GEmoClap.from_pretrained(folder).push_to_hub(REPO, token=TOKEN, tag="v1")
    assert hub.repositories[REPO].refs == {"main": commit.oid, "v1": commit.oid}
    assert {"README.md", "modules.json", "pipeline_gemoclap.py"} <= hub.files[REPO].keys()
