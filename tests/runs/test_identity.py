"""The identity of a run: written at the start, compared before resuming; overwriting; and caches."""

import json
import os
import shutil

import pytest
import soundfile
import torch
from conftest import RATE, TONES, tone, write_corpus
from safetensors.torch import load_file

from modeling_gemoclap import GEmoClapConfig, GEmoClapFeatureExtractor, GEmoClapModel, fingerprint
from modeling_gemoclap.corpora.manifest import load_corpus
from modeling_gemoclap.feature_extraction_gemoclap import AudioError
from modeling_gemoclap.fingerprint import IDENTITY
from modeling_gemoclap.runs import fit as fit_module
from modeling_gemoclap.runs.folder import BACKUP, PARTIAL_BACKUP, RUN_FILES, RunFolder, move_run
from modeling_gemoclap.runs.identity import CODE, initial_weights_of, read_identity
from modeling_gemoclap.runs.lock import LOCK
from modeling_gemoclap.runs.recipe import recipe_of
from modeling_gemoclap.runs.run import objective_of
from modeling_gemoclap.training import clips as clips_module
from modeling_gemoclap.training.checkpoints import record_files
from modeling_gemoclap.training.clips import read_clips
from modeling_gemoclap.training.frozen import attach_frames


# ---- the fingerprint ------------------------------------------------------------------------------------------------
def test_source_files_are_followed_through_imports():
    files = set(fingerprint.source_hashes("objectives.registry"))
    assert {"training/trainer.py", "corpora/manifest.py", "losses_gemoclap.py"} <= files
    assert not any(name.startswith("evaluation/") for name in files), "the weights do not depend on evaluation"
    assert list(fingerprint.source_hashes("losses_gemoclap")) == ["losses_gemoclap.py"]


def test_differences_are_named():
    before = fingerprint.fingerprint(["losses_gemoclap"], ["numpy"], settings={"alpha": 0.9, "gone": 1}, seed=0)
    now = json.loads(json.dumps(before))
    assert fingerprint.differences(before, now) == []
    now["settings"] = {"alpha": 0.5, "new": "x" * 100}
    now["code"]["losses_gemoclap.py"] = "0"
    now["versions"]["numpy"] = "3.0"
    found = fingerprint.differences(before, now)
    assert "alpha (0.9 then, 0.5 now)" in found and "gone (1 then, not recorded now)" in found and "new" in found
    assert "the package's source file losses_gemoclap.py" in found
    assert any(text.startswith("the version of numpy (") and "3.0 now" in text for text in found)
    assert fingerprint.digest(before) != fingerprint.digest(now)


def test_a_folder_is_identified_by_its_content(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "model.safetensors").write_bytes(b"weights")
    assert fingerprint.folder_sha256(tmp_path / "a") == fingerprint.folder_sha256(tmp_path / "b")
    before = fingerprint.folder_sha256(tmp_path / "a")
    state = (tmp_path / "a/model.safetensors").stat()
    (tmp_path / "a/model.safetensors").write_bytes(b"WEIGHTS")  # same size and time
    os.utime(tmp_path / "a/model.safetensors", ns=(state.st_atime_ns, state.st_mtime_ns))
    assert fingerprint.folder_sha256(tmp_path / "a") != before


def initial_weights(**options):
    recipe = recipe_of(use_cpu=True, **options)
    return initial_weights_of(recipe, objective_of(recipe))


def test_initial_weights_are_identified_by_their_content(tmp_path):
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder/model.safetensors").write_bytes(b"weights")
    before = initial_weights(audio_model=str(tmp_path / "encoder"))
    shutil.copytree(tmp_path / "encoder", tmp_path / "moved")
    assert initial_weights(audio_model=str(tmp_path / "moved")) == before, "the path has no effect"
    (tmp_path / "moved/model.safetensors").write_bytes(b"others!")
    assert initial_weights(audio_model=str(tmp_path / "moved")) != before


def test_the_source_of_speaker_embeddings_is_part_of_the_initial_weights(tmp_path):
    assert initial_weights(head="speaker") == {"speaker_embeddings": "resemblyzer"}
    (tmp_path / "vectors.npz").write_bytes(b"vectors")
    before = initial_weights(head="speaker", speaker_embeddings=str(tmp_path / "vectors.npz"))
    shutil.copy(tmp_path / "vectors.npz", tmp_path / "moved.npz")
    moved = {"head": "speaker", "speaker_embeddings": str(tmp_path / "moved.npz")}
    assert initial_weights(**moved) == before
    (tmp_path / "moved.npz").write_bytes(b"others!")
    assert initial_weights(**moved) != before


def test_the_precision_of_the_launcher_is_a_setting(train, half_done, monkeypatch):
    options, _ = half_done
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    with pytest.raises(ValueError, match=r"differs in: mixed_precision \(no then, bf16 now\)"):
        train(*options, "--resume_from_checkpoint", "true")


def test_the_metrics_are_code_of_the_run():
    assert {"evaluation/metrics.py", "evaluation/war_uar/war_uar.py"} <= set(fingerprint.source_hashes(*CODE))


# ---- resuming -------------------------------------------------------------------------------------------------------
@pytest.fixture
def own_tones(tmp_path):
    return write_corpus(tmp_path / "tones")


@pytest.fixture
def half_done(train, own_tones, tmp_path):
    """The options and folder of a run of three epochs that was killed after its first checkpoint."""
    options = ("--data_dir", own_tones, "--save_strategy", "epoch", "--num_train_epochs", "3", "--output_dir")
    train(*options, tmp_path / "complete")
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(tmp_path / "complete" / IDENTITY, folder)
    shutil.copytree(tmp_path / "complete/checkpoint-4", folder / "checkpoint-4")
    return (*options, folder), folder


def test_a_run_is_resumed_only_with_the_same_options(train, half_done, own_tones, tmp_path):
    options, folder = half_done
    resume = ("--resume_from_checkpoint", "true")
    for more, named in (
        (("--exclude_speakers", "04"), "exclude_speakers"),
        (("--objective", "ml"), r"objective \(sl then, ml now\)"),
        (("--seed", "7"), "seed"),
        (("--learning_rate", "1e-3"), r"learning_rate \(0.003 then, 0.001 now\)"),
        (("--emotions", "angry", "happy", "sad", "fear"), "emotions"),
    ):
        with pytest.raises(ValueError, match=f"is of another run, which differs in: .*{named}"):
            train(*options, *more, *resume)
    assert not (folder / "model.safetensors").exists()
    train(*options, *resume)
    records = GEmoClapConfig.from_pretrained(folder).training_data
    assert [record["speakers"] for record in records] == [["01", "02", "03", "04"]]
    first, second = (load_file(place / "model.safetensors") for place in (tmp_path / "complete", folder))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_run_folder_of_an_earlier_version_is_refused(train, half_done, tmp_path):
    """It is not resumed, and the message says why; its finished checkpoint still loads and can be started from."""
    options, folder = half_done
    for path in (folder / IDENTITY, folder / "checkpoint-4" / IDENTITY):
        identity = json.loads(path.read_text())
        identity.pop("layout")
        path.write_text(json.dumps(identity))
    record_files(folder / "checkpoint-4")
    with pytest.raises(ValueError, match="written by an earlier version of this package.*cannot be resumed"):
        train(*options, "--resume_from_checkpoint", "true")
    earlier = tmp_path / "complete" / IDENTITY
    earlier.write_text(earlier.read_text().replace('"layout"', '"another"'))
    train(*options[:-1], tmp_path / "next", "--init_from", tmp_path / "complete", "--num_train_epochs", "1")


def test_the_protocol_run_of_an_earlier_version_is_refused(train, own_tones, tmp_path):
    options = ("--data_dir", own_tones, "--protocol", "2-folds-by-speaker", "--control", "false", "--folds", "0")
    options += ("--num_train_epochs", "1", "--output_dir", tmp_path / "run")
    train(*options)
    record = json.loads((tmp_path / "run/run.json").read_text())
    record["identity"].pop("layout")
    (tmp_path / "run/run.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="run was written by an earlier version of this package"):
        train(*options)


def test_changed_recordings_are_another_run(train, half_done, own_tones):
    options, folder = half_done
    path = own_tones / "audio/01_sad_0.wav"
    state = path.stat()
    soundfile.write(path, tone("happy", 1, 0.4), RATE)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    with pytest.raises(ValueError, match="differs in: training_clips.recordings"):
        train(*options, "--resume_from_checkpoint", "true")


def test_a_corpus_may_be_moved(train, half_done, own_tones, tmp_path):
    options, folder = half_done
    shutil.move(own_tones, tmp_path / "moved/tones")
    options = tuple(tmp_path / "moved/tones" if option == own_tones else option for option in options)
    train(*options, "--resume_from_checkpoint", "true")
    assert (folder / "model.safetensors").exists()


def test_changed_code_or_versions_are_another_run(train, half_done, monkeypatch):
    options, _ = half_done
    monkeypatch.setattr(fingerprint, "library_version", lambda name: "0.0")
    with pytest.raises(ValueError, match="differs in: the version of accelerate"):
        train(*options, "--resume_from_checkpoint", "true")
    monkeypatch.undo()
    changed = fingerprint.source_hashes(*CODE) | {"losses_gemoclap.py": "0"}
    monkeypatch.setattr(fingerprint, "source_hashes", lambda *modules: changed)
    with pytest.raises(ValueError, match="differs in: the package's source file losses_gemoclap.py"):
        train(*options, "--resume_from_checkpoint", "true")


def test_a_checkpoint_of_another_run_is_refused_in_any_folder(train, half_done, own_tones, tmp_path):
    options, folder = half_done
    train("--data_dir", own_tones, "--num_train_epochs", "2", "--save_strategy", "epoch", "--seed", "3",
          "--output_dir", tmp_path / "other")  # fmt: skip
    shutil.copytree(tmp_path / "other/checkpoint-8", folder / "checkpoint-8")
    with pytest.raises(
        ValueError, match="checkpoint-8 is of another run, which differs in: seed .3 then, 42 now.; num_train_epochs"
    ):
        train(*options, "--resume_from_checkpoint", "true")
    (folder / "checkpoint-8" / IDENTITY).unlink()
    record_files(folder / "checkpoint-8")
    with pytest.raises(ValueError, match="checkpoint-8 has no run_identity.json, so its run is unknown"):
        train(*options, "--resume_from_checkpoint", "true")
    elsewhere = (*options[:-1], tmp_path / "new")
    train(*elsewhere, "--resume_from_checkpoint", folder / "checkpoint-4")
    assert read_identity(tmp_path / "new") == read_identity(folder)
    with pytest.raises(ValueError, match="is not empty"):
        train(*elsewhere, "--resume_from_checkpoint", folder / "checkpoint-4")


# ---- overwriting -------------------------------------------------------------------------------------------------
class Killed(BaseException):
    pass


def release_lock(run_folder, *_):
    """What the system does when a process is killed."""
    run_folder._lock.release()


def test_overwriting_first_removes_the_files_of_the_earlier_run(train, half_done, own_tones, monkeypatch):
    """A new run that was killed before its first checkpoint cannot be resumed from the earlier run."""
    options, folder = half_done
    train(
        *options,
        "--resume_from_checkpoint",
        "true",
    )
    new = ("--objective", "emo", "--seed", "9", "--exclude_speakers", "04")
    (folder / "calibration").mkdir()
    (folder / "notes.txt").write_text("mine")
    before = read_identity(folder)

    def kill(run, resumed):
        assert read_identity(folder) not in (before, None), "the identity is written before training"
        raise Killed

    monkeypatch.setattr(fit_module, "build_trainer", kill)
    monkeypatch.setattr(RunFolder, "__exit__", release_lock)  # kill -9 runs no cleanup
    with pytest.raises(Killed):
        train(*options, *new, "--overwrite_output", "true")
    assert sorted(path.name for path in folder.iterdir()) == [BACKUP, LOCK, "notes.txt", IDENTITY]
    monkeypatch.undo()
    with pytest.raises(ValueError, match="differs in: .*objective"):
        train(*options, "--resume_from_checkpoint", "true")
    train(
        *options, "--objective", "emo", "--seed", "9", "--exclude_speakers", "04", "--resume_from_checkpoint", "true"
    )
    assert not (folder / BACKUP).exists()
    [record] = GEmoClapConfig.from_pretrained(folder).training_data
    assert record["speakers"] == ["01", "02", "03"] and GEmoClapModel.from_pretrained(folder).config.objective == "emo"


def file_times(folder):
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_run_that_cannot_start_overwrites_nothing(train, half_done):
    """The error occurs while the new run is built: all files of the earlier run are restored."""
    options, folder = half_done
    before = file_times(folder)
    bad = ("--freeze_audio_encoder", "true")
    with pytest.raises(ValueError, match="would freeze an audio encoder with random weights"):
        train(*options, *bad, "--overwrite_output", "true")
    assert before == file_times(folder)
    train(*options, "--resume_from_checkpoint", "true")


def test_a_protocol_run_that_cannot_start_overwrites_nothing(train, own_tones, tmp_path):
    folder = tmp_path / "folds"
    options = ("--data_dir", own_tones, "--protocol", "2-folds-by-speaker", "--control", "false")
    options += ("--num_train_epochs", "1", "--output_dir", folder)
    train(*options)
    before = file_times(folder)
    bad = ("--freeze_audio_encoder", "true")
    with pytest.raises(ValueError, match="would freeze an audio encoder with random weights"):
        train(*options, *bad, "--overwrite_output", "true")
    assert before == file_times(folder)
    train(*options, "--learning_rate", "1e-3", "--overwrite_output", "true")
    assert not (folder / BACKUP).exists() and (folder / "fold_1/seed_42/fold.json").is_file()
    with pytest.raises(ValueError, match="would freeze an audio encoder with random weights"):
        train(*options[:-1], tmp_path / "new", *bad)
    assert not (tmp_path / "new").exists()


def files_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("protocol", [False, True])
@pytest.mark.parametrize("killed", [False, True])
def test_the_earliest_run_is_restored_completely(train, own_tones, tmp_path, monkeypatch, protocol, killed):
    """A second run is interrupted and a third fails: the folder then contains all files of the first run only."""
    folder = tmp_path / "run"
    options = ("--data_dir", own_tones, "--num_train_epochs", "1", "--output_dir", folder)
    options += ("--protocol", "2-folds-by-speaker", "--control", "false") if protocol else ()
    train(*options)
    before = files_of(folder)

    def interrupt(run, resumed):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fit_module, "build_trainer", interrupt)
        if killed:
            patch.setattr(RunFolder, "__exit__", release_lock)
        with pytest.raises(KeyboardInterrupt):
            train(*options, "--learning_rate", "1e-6", "--overwrite_output", "true")
        assert (files_of(folder) == before) != killed
    with pytest.raises(ValueError, match="with random weights"):
        train(*options, "--learning_rate", "1e-5", "--freeze_audio_encoder", "true", "--overwrite_output", "true")
    assert files_of(folder) == before


@pytest.mark.parametrize("where", ["moving", "moved"])
def test_killed_while_a_run_is_backed_up(train, own_tones, tmp_path, where):
    folder = tmp_path / "run"
    options = ("--data_dir", own_tones, "--num_train_epochs", "1", "--output_dir", folder)
    options += ("--protocol", "2-folds-by-speaker", "--control", "false")
    train(*options)
    before = files_of(folder)
    if where == "moving":
        (folder / PARTIAL_BACKUP).mkdir()
        (folder / "fold_0").rename(folder / PARTIAL_BACKUP / "fold_0")
    else:
        move_run(folder, folder / BACKUP)
    with pytest.raises(ValueError, match="with random weights"):
        train(*options, "--freeze_audio_encoder", "true", "--overwrite_output", "true")
    assert files_of(folder) == before


def test_all_files_of_a_run_are_known(train, own_tones, tmp_path):
    folder = tmp_path / "run"
    options = ("--data_dir", own_tones, "--num_train_epochs", "1", "--save_strategy", "epoch", "--output_dir", folder)
    train(*options, "--calibration_folds", "2")
    left = [path for path in folder.iterdir() if not any(path.match(pattern) for pattern in RUN_FILES)]
    assert left == []


def test_overwriting_refuses_folders_without_a_run(train, own_tones, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/README.md").write_text("not a run's")
    options = ("--data_dir", own_tones, "--output_dir", tmp_path / "mine", "--overwrite_output", "true")
    with pytest.raises(ValueError, match="contains files but no run"):
        train(*options)
    assert (tmp_path / "mine/README.md").read_text() == "not a run's"
    with pytest.raises(ValueError, match="give one of them"):
        train(*options, "--resume_from_checkpoint", "true")


# ---- caches ---------------------------------------------------------------------------------------------------------
def test_errors_are_not_cached(own_tones, tmp_path, monkeypatch):
    """After an error of the environment is fixed the clip is read; features of other clips are cached."""
    corpus, extractor = load_corpus(own_tones), GEmoClapFeatureExtractor(feature_type="log_mel")
    real, broken = GEmoClapFeatureExtractor.load_speech, {"01_sad_0.wav", "02_sad_1.wav"}

    def load(self, audio, *args):
        if os.path.basename(audio) in broken:
            raise AudioError(f"{audio}: the decoder is broken")
        return real(self, audio, *args)

    monkeypatch.setattr(GEmoClapFeatureExtractor, "load_speech", load)
    options = {"on_bad_audio": "skip", "cache_dir": str(tmp_path / "cache")}
    assert len(read_clips(corpus, extractor, **options)[0]) == 46
    broken.remove("02_sad_1.wav")
    kept, errors = read_clips(corpus, extractor, **options)
    assert len(kept) == 47 and ["01_sad_0.wav" in error for error in errors] == [True]
    broken.clear()
    kept, errors = read_clips(corpus, extractor, **options)
    assert len(kept) == 48 and errors == []
    monkeypatch.setattr(GEmoClapFeatureExtractor, "load_speech", None)
    assert len(read_clips(corpus, extractor, **options)[0]) == 48, "all clips are cached"


def test_features_are_computed_again_for_changed_code(own_tones, tmp_path, monkeypatch):
    corpus, extractor = load_corpus(own_tones), GEmoClapFeatureExtractor(feature_type="log_mel")
    name = clips_module._cache_file(corpus, extractor, str(tmp_path)).name
    assert clips_module._cache_file(corpus, extractor, str(tmp_path)).name == name
    for what, value in (("source_hashes", lambda *modules: {}), ("library_version", lambda name: "0.0")):
        with monkeypatch.context() as patch:
            patch.setattr(fingerprint, what, value)
            assert clips_module._cache_file(corpus, extractor, str(tmp_path)).name != name
    os.utime(own_tones / "audio/01_sad_0.wav", ns=(1, 1))
    assert clips_module._cache_file(corpus, extractor, str(tmp_path)).name != name


def test_frames_are_computed_again_for_changed_code(make_model, own_tones, tmp_path, monkeypatch):
    model, extractor = make_model(), GEmoClapFeatureExtractor(feature_type="log_mel", num_mel_bins=16)
    corpus, _ = read_clips(load_corpus(own_tones).of_speakers(["01"]), extractor)
    clips = clips_module.ClipDataset(corpus, extractor, GEmoClapConfig(emotions=list(TONES)))
    for _ in range(2):
        attach_frames(model, clips, tmp_path / "frames", quiet=True)
    assert len(list((tmp_path / "frames").iterdir())) == 1
    monkeypatch.setattr(fingerprint, "source_hashes", lambda *modules: {})
    attach_frames(model, clips, tmp_path / "frames", quiet=True)
    assert len(list((tmp_path / "frames").iterdir())) == 2


def test_a_killed_calibration_is_resumed(train, own_tones, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    options = ("--data_dir", own_tones, "--num_train_epochs", "1", "--calibration_folds", "2", "--output_dir", folder)
    real, calls = fit_module.build_trainer, []

    def build(run, resumed):
        calls.append(run.folder.name)
        if len(calls) == 2:
            raise Killed
        return real(run, resumed)

    monkeypatch.setattr(fit_module, "build_trainer", build)
    with pytest.raises(Killed):
        train(*options)
    train(*options, "--resume_from_checkpoint", "true")
    assert calls == ["fold_0", "fold_1", "fold_1", "run"]
