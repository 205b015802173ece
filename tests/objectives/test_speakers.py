"""Pretraining on clusters of speaker embeddings: losses, sampler, embeddings, clusters, training, errors."""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import soundfile
import torch
from conftest import TINY, TONES, TORCHRUN, load_script, run_script, worker_results, write_corpus
from hypothesis import given, settings
from hypothesis import strategies as st
from test_distributed import AUDIO

from modeling_gemoclap import AudioError, GEmoClapForXVector
from modeling_gemoclap.corpora.manifest import load_corpora, load_corpus
from modeling_gemoclap.corpora.protocols import sample_clips
from modeling_gemoclap.evaluation import cluster_analysis
from modeling_gemoclap.evaluation.actions import refuse_idle_options
from modeling_gemoclap.evaluation.cluster_analysis import agreement, analyse, purity
from modeling_gemoclap.objectives.speaker_clusters import embeddings as embeddings_module
from modeling_gemoclap.objectives.speaker_clusters.clusters import Clusters, cluster_within_speakers
from modeling_gemoclap.objectives.speaker_clusters.embeddings import speaker_embeddings
from modeling_gemoclap.objectives.speaker_clusters.losses import cluster_info_nce, reversal_strength, reverse_gradient
from modeling_gemoclap.objectives.speaker_clusters.sampler import SpeakerClusterSampler

PRETRAIN = ("--head", "speaker", "--speaker_clusters", "3", "--per_device_train_batch_size", "16")
PRETRAIN += ("--num_train_epochs", "3", "--pooling", "self_attention")
USE = """
import sys
sys.modules["modeling_gemoclap"] = None
from transformers import AutoFeatureExtractor, AutoModel
model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)
extractor = AutoFeatureExtractor.from_pretrained(sys.argv[1], trust_remote_code=True)
print(type(model).__name__, list(model(extractor(sys.argv[2])["input_features"]).last_hidden_state.shape)[-1])
"""


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Two corpora of tones."""
    folder = tmp_path_factory.mktemp("both")
    return [write_corpus(folder / "first"), write_corpus(folder / "second", salt="s")]


@pytest.fixture(scope="module")
def vectors(both, tmp_path_factory):
    """A file with embeddings of both corpora in another order, in which each emotion is a cluster."""
    corpus, generator = load_corpora(list(map(str, both))), np.random.default_rng(0)
    names, emotions = (corpus.column(name).to_pylist() for name in ("file_name", "emotion"))
    values = np.stack([np.eye(8)[list(TONES).index(word)] + 0.1 * generator.standard_normal(8) for word in emotions])
    order = generator.permutation(len(names))
    path = tmp_path_factory.mktemp("vectors") / "vectors.npz"
    np.savez(path, file_name=np.array(names)[order], embeddings=values[order])
    return path


@pytest.fixture(scope="module")
def pretrained(both, vectors, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "pretrained"
    options = ("--data_dir", *both, "--exclude_speakers", "first/04", "second/s04", "--output_dir", run)
    run_script("train.py", *TINY, *PRETRAIN, "--speaker_embeddings", vectors, "--speaker_task", "multi-task", *options)
    return run


# ---- losses ---------------------------------------------------------------------------------------------------------
def np_cluster_info_nce(values, speakers, clusters, temperature):
    unit, losses = values / np.linalg.norm(values, axis=1, keepdims=True), []
    for i in range(len(values)):
        others = [k for k in range(len(values)) if speakers[k] == speakers[i] and clusters[k] != clusters[i]]
        repelled = sum(np.exp(unit[i] @ unit[k] / temperature) for k in others)
        for j in range(len(values)):
            if j != i and speakers[j] == speakers[i] and clusters[j] == clusters[i] and others:
                attracted = np.exp(unit[i] @ unit[j] / temperature)
                losses.append(-np.log(attracted / (attracted + repelled)))
    return np.mean(losses), len(losses)


def test_cluster_info_nce_against_numpy():
    generator = np.random.default_rng(0)
    values, speakers = generator.standard_normal((14, 5)), [0] * 5 + [1] * 6 + [2] * 3
    clusters = [0, 0, 1, 1, 1, 0, 0, 1, 1, 2, 0, 0, 0, 0]  # the third speaker has one cluster: no negatives
    expected, count = np_cluster_info_nce(values, speakers, clusters, 0.1)
    tensors = torch.from_numpy(values), torch.tensor(speakers), torch.tensor(clusters)
    total, pairs = cluster_info_nce(tensors[0], *tensors, 0.1)
    assert pairs == count and (total / pairs).item() == pytest.approx(expected, rel=1e-12)
    parts = [cluster_info_nce(tensors[0][i : i + 7], *tensors, 0.1, first=i)[0] for i in (0, 7)]
    assert sum(parts).item() == pytest.approx(total.item(), rel=1e-12)


def test_cluster_info_nce_ignores_other_speakers():
    torch.manual_seed(0)
    values = torch.randn(8, 4, requires_grad=True)
    speakers, clusters = torch.tensor([0] * 4 + [1] * 4), torch.tensor([0, 0, 1, 1, 0, 0, 0, 0])
    total, pairs = cluster_info_nce(values, values, speakers, clusters)
    (slope,) = torch.autograd.grad(total / pairs, values)
    assert pairs == 4 and torch.isfinite(slope).all()
    assert slope[:4].abs().sum(1).min() > 0 and not slope[4:].any(), "the second speaker has no negatives"


def test_cluster_info_nce_by_hand():
    right, up, left = torch.eye(2)[0], torch.eye(2)[1], -torch.eye(2)[0]
    values = torch.stack([right, right, up, left])
    total, pairs = cluster_info_nce(values, values, torch.zeros(4), torch.tensor([0, 0, 1, 2]), 1.0)
    # two ordered pairs of equal clips, s = 1; against them s = 0 and s = -1: log(1 + (1 + 1/e) / e)
    assert pairs == 2 and (total / pairs).item() == pytest.approx(np.log(1 + (1 + 1 / np.e) / np.e), rel=1e-6)


def test_cluster_info_nce_without_pairs():
    """The second value is a divisor, so it is 1 where there are no pairs."""
    values = torch.eye(3, requires_grad=True)
    total, pairs = cluster_info_nce(values, values, torch.zeros(3), torch.tensor([0, 1, 2]))
    total.backward()
    assert (total.item(), pairs.item()) == (0, 1) and not values.grad.any()


def test_cluster_info_nce_of_the_default_temperature_and_on_another_device():
    """A wrong device is an error also on the device `meta`."""
    torch.manual_seed(1)
    values, speakers, clusters = torch.randn(6, 4), torch.zeros(6), torch.tensor([0, 0, 1, 1, 2, 2])
    given = cluster_info_nce(values, values, speakers, clusters, 0.1, 0)
    assert torch.equal(torch.stack(cluster_info_nce(values, values, speakers, clusters)), torch.stack(given))
    tensors = [tensor.to("meta") for tensor in (values, values, speakers, clusters)]
    assert [value.device.type for value in cluster_info_nce(*tensors)] == ["meta", "meta"]


def test_gradient_reversal():
    values = torch.tensor([1.0, -2.0], requires_grad=True)
    reversed_values = reverse_gradient(values, 0.3)
    assert torch.equal(reversed_values, values)
    (reversed_values * torch.tensor([5.0, 7.0])).sum().backward()
    assert torch.allclose(values.grad, torch.tensor([-1.5, -2.1]))
    assert reversal_strength(0) == 0 and reversal_strength(0.1) == pytest.approx(2 / (1 + np.exp(-1)) - 1)
    assert 0.9999 < reversal_strength(1) < 1


def test_two_processes_have_the_loss_and_gradient_of_one():
    results = worker_results("tests/objectives/speaker_worker.py")
    assert len(results) == 6
    for dtype, task, errors in results:
        bound = 1e-5 if dtype == "torch.float32" else 1e-10
        assert errors.pop("loss") < bound and errors.pop("gradient") < bound, (task, errors)
        assert errors["without gradient"] > 1e-3, "the shortcut must fail the same check"


# ---- sampler --------------------------------------------------------------------------------------------------------
@st.composite
def setups(draw):
    group, processes = draw(st.sampled_from([4, 6])), draw(st.sampled_from([1, 2]))
    speakers, clusters = [], []
    for speaker in range(draw(st.integers(1, 4))):
        for cluster in range(draw(st.integers(1, 3))):
            count = draw(st.integers(1, 9))
            speakers, clusters = speakers + [speaker] * count, clusters + [cluster] * count
    speakers, clusters = speakers + [0] * 12, clusters + [7] * 6 + [8] * 6
    return speakers, clusters, group * processes * draw(st.integers(1, 2)), processes, draw(st.integers(0, 3)), group


@settings(max_examples=80, deadline=None)
@given(setups())
def test_composition_of_every_step(setup):
    speakers, clusters, batch, _, _, group = setup
    try:
        sampler = SpeakerClusterSampler(*setup)
    except ValueError as error:
        assert "give a smaller batch" in str(error)
        return
    drawn = [clip % len(speakers) for clip in sampler]
    assert len(drawn) == len(sampler) == sampler.steps * batch
    usable_speakers = len(sampler.pools)
    for start in range(0, len(drawn), batch):
        step = drawn[start : start + batch]
        assert len(set(step)) == batch, "no clip occurs in a step twice"
        groups = [step[i : i + group] for i in range(0, batch, group)]
        for clips in groups:
            assert len({speakers[clip] for clip in clips}) == 1
            first, second = ({clusters[clip] for clip in part} for part in (clips[: group // 2], clips[group // 2 :]))
            assert len(first) == len(second) == 1 and first != second
        if len(groups) <= usable_speakers:
            assert len({speakers[clips[0]] for clips in groups}) == len(groups), "each speaker once"


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 5), st.integers(0, 3))
def test_an_epoch_is_a_function_of_seed_and_number(seed, epoch):
    speakers, clusters = [0] * 20 + [1] * 20 + [2] * 20, ([0] * 8 + [1] * 12) * 3
    straight, jumped = (SpeakerClusterSampler(speakers, clusters, 16, seed=seed) for _ in range(2))
    for number in range(epoch):
        straight.set_epoch(number)
        assert list(straight)
    for sampler in (straight, jumped):
        sampler.set_epoch(epoch)
    assert list(straight) == list(jumped)
    drawn = Counter()
    for number in range(12):
        jumped.set_epoch(number)
        drawn.update(speakers[clip % 60] for clip in list(jumped)[::4])
    assert max(drawn.values()) - min(drawn.values()) <= 1, "speakers are drawn equally often"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 10}, "cannot be divided into groups of 4 clips; give 8"),
        ({"batch_size": 12, "processes": 2}, "give 16"),
        ({"group_size": 5}, "must be even"),
        ({"clusters": [0] * 20}, "the speakers have clips for 0"),
        ({"batch_size": 40}, "has 10 groups, and the speakers have clips for 5"),
        (
            {"group_size": 2},
            "^group_size 2 must be even and at least 4: two or more clips of each of two clusters$",
        ),
        (
            {"batch_size": 24},
            "^a step of 24 clips has 6 groups, and the speakers have clips for 5: a group is 2 clips of each of two "
            "clusters of one speaker; give a smaller batch$",
        ),
        ({"batch_size": 0}, "^a batch of 0 cannot be divided into groups of 4 clips; give 4$"),
        ({"batch_size": 1}, "^a batch of 1 cannot be divided into groups of 4 clips; give 4$"),
        ({"batch_size": 11, "processes": 2}, "^a batch of 11 cannot be divided into groups of 4 clips; give 8$"),
        ({"batch_size": 28, "group_size": 6, "processes": 3}, "cannot be divided into groups of 6 clips; give 36$"),
    ],
)
def test_invalid_arguments_of_the_sampler(options, message):
    values = {"speakers": [0] * 20, "clusters": [0] * 10 + [1] * 10, "batch_size": 8} | options
    with pytest.raises(ValueError, match=message):
        SpeakerClusterSampler(**values)


# Clusters of 4 and 5 clips, of 3, 2 and 2, of 2 and 1 (unusable), and two clips of no cluster beside 2 and 2.
POOLS = {
    "speakers": [0] * 9 + [1] * 7 + [2] * 3 + [3] * 6,
    "clusters": [0] * 4 + [1] * 5 + [0, 0, 0, 1, 1, 2, 2] + [0, 0, 1] + [-1] * 2 + [1, 1, 2, 2],
}


@pytest.mark.parametrize(
    ("batch", "seed", "epoch", "expected"),
    [
        (8, 0, 0, [2, 3, 8, 5, 11, 9, 15, 14, 23, 24, 22, 21, 13, 12, 10, 36]),
        (8, 0, 1, [2, 0, 7, 5, 21, 22, 23, 24, 13, 12, 9, 10, 48, 49, 47, 46]),
        (12, 3, 0, [15, 14, 13, 12, 22, 21, 24, 23, 2, 3, 5, 7, 46, 47, 49, 48]),
        (4, 1, 1, [15, 14, 13, 12, 21, 22, 24, 23, 7, 8, 3, 2, 39, 40, 10, 9]),
    ],
)
def test_composition_of_the_first_steps_of_a_seed(batch, seed, epoch, expected):
    """Another order would change what a published seed trains on, and what a resumed run draws."""
    sampler = SpeakerClusterSampler(**POOLS, batch_size=batch, seed=seed)
    sampler.set_epoch(epoch)
    drawn = list(sampler)
    assert drawn[:16] == expected and len(drawn) == len(sampler) == -(-20 // batch) * batch
    assert sampler.num_unused == 5
    assert {speaker: [pool.tolist() for pool in pools] for speaker, pools in sampler.pools.items()} == {
        0: [[0, 1, 2, 3], [4, 5, 6, 7, 8]],
        1: [[9, 10, 11], [12, 13], [14, 15]],
        3: [[21, 22], [23, 24]],
    }


def test_composition_of_single_groups_prefers_no_cluster():
    """Each pair of clusters occurs if each speaker occurs once in a step, also if one cluster has more clips."""
    sampler = SpeakerClusterSampler([0] * 13, [0] * 2 + [1] * 2 + [2] * 9, 4)
    steps = [clip % 13 for epoch in range(6) for clip in (sampler.set_epoch(epoch), *sampler)[1:]]
    small = [max(steps[start : start + 4]) < 4 for start in range(0, len(steps), 4)]
    assert 0 < sum(small) < len(small)


@pytest.mark.parametrize(
    ("halves", "expected"), [([1, 1], 1), ([3, 1], 1), ([3, 1, 1], 2), ([2, 2, 1], 2), ([2, 2, 2], 3), ([4], 0)]
)
def test_composition_needs_two_clusters_for_each_group(halves, expected):
    assert SpeakerClusterSampler._max_groups(halves) == expected


def test_composition_with_defaults():
    given = SpeakerClusterSampler(**POOLS, batch_size=8, processes=1, seed=0, group_size=4)
    assert list(SpeakerClusterSampler(**POOLS, batch_size=8)) == list(given)


def test_composition_of_steps_that_need_all_clips():
    """Four groups of 16 clips: two speakers occur twice, and the clusters with most clips left are chosen."""
    speakers, clusters = [0] * 8 + [1] * 8, [0, 0, 0, 0, 1, 1, 2, 2] * 2
    sampler = SpeakerClusterSampler(speakers, clusters, 16)
    for epoch in range(20):
        sampler.set_epoch(epoch)
        assert sorted(clip % 16 for clip in sampler) == list(range(16))


# ---- embeddings and clusters ----------------------------------------------------------------------------------------
def test_clusters_within_speakers():
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((3, 16))
    values = np.concatenate([centre + 0.05 * generator.standard_normal((8, 16)) for centre in centres])
    speakers = ["a"] * 24
    truth = np.repeat(range(3), 8)
    for k in (None, 3):
        clusters = cluster_within_speakers(values, speakers, k)
        assert clusters.counts == {"a": 3} and not clusters.notes
        assert agreement(truth, clusters.labels, np.zeros((24, 24)))["adjusted_rand"] == 1.0
    few = cluster_within_speakers(values[:10], ["a"] * 6 + ["b"] * 3 + ["c"], 4)
    assert few.counts == {"a": 3, "b": 1} and few.labels[9] == -1
    assert few.notes[0] == "speaker a has 6 clips and 3 cluster(s) instead of 4"
    assert few.notes[1] == "speaker b has 3 clips and 1 cluster(s) instead of 4"
    assert few.notes[2] == "speaker c has one clip and is left out"
    assert cluster_within_speakers(values[:3], ["a"] * 3).notes == [
        "speaker a has 3 clips and 1 cluster, so it has no negatives"
    ]
    with pytest.raises(ValueError, match="1 clusters"):
        cluster_within_speakers(values, speakers, 1)
    with pytest.raises(ValueError, match="24 embeddings of 3 clips"):
        cluster_within_speakers(values, ["a"] * 3)


def test_a_speaker_with_very_many_clips(monkeypatch, tones):
    """If all clips of the sample are in one cluster, the speaker has no figures."""
    monkeypatch.setattr(cluster_analysis, "MOST_CLIPS", 6)
    corpus = load_corpus(tones).of_speakers(["01", "02"])
    values = np.random.default_rng(0).standard_normal((24, 4))
    labels = np.array([1] + [0] * 11 + [0, 1] * 6)
    record = analyse(values, Clusters(labels, {"01": 2, "02": 2}), corpus, seed=0)
    assert list(record["silhouette_of_the_clusters"]) == ["02"] == list(record["labels"]["emotion"]["speakers"])


def test_purity_by_hand():
    assert purity(np.array([0, 0, 1, 1, 1, 2]), np.array([0, 0, 0, 1, 1, 1])) == pytest.approx(4 / 6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda names, values: (names[1:], values[1:]), "no embedding of 1 clips of tones, first audio/"),
        (lambda names, values: (names, values[1:]), r"\(47, 8\) embeddings of \(48,\) file names"),
        (lambda names, values: ([names[0], *names[:-1]], values), "occurs twice"),
        (lambda names, values: (names, np.full_like(values, np.nan)), "embedding of audio/.* is not finite"),
        (lambda names, values: (names, values[:, :0]), r"\(48, 0\) embeddings"),
    ],
)
def test_invalid_embedding_files_are_refused(change, message, tones, tmp_path):
    corpus = load_corpus(tones)
    names, values = change(corpus.column("file_name").to_pylist(), np.random.default_rng(0).standard_normal((48, 8)))
    np.savez(tmp_path / "own.npz", file_name=np.array(names), embeddings=values)
    with pytest.raises(ValueError, match=message):
        speaker_embeddings(corpus, str(tmp_path / "own.npz"))
    for content in (b"no array", b"", (tmp_path / "own.npz").read_bytes()[:100]):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(ValueError, match="bad.npz: cannot be read"):
            speaker_embeddings(corpus, str(tmp_path / "bad.npz"))


def test_an_x_vector_model_of_transformers(tones, tmp_path, monkeypatch):
    from transformers import Wav2Vec2FeatureExtractor, WavLMConfig, WavLMForXVector

    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    small |= {"conv_dim": (8, 8), "conv_kernel": (10, 8), "conv_stride": (10, 16), "num_conv_pos_embeddings": 8}
    small |= {"num_conv_pos_embedding_groups": 2, "tdnn_dim": (8, 8), "tdnn_kernel": (15, 1), "tdnn_dilation": (1, 1)}
    WavLMForXVector(WavLMConfig(**small, xvector_output_dim=6)).save_pretrained(tmp_path / "xvector")
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(tmp_path / "xvector")
    corpus = load_corpus(tones)
    options = {"cache_dir": str(tmp_path / "cache"), "device": "cpu"}
    kept, values, errors = speaker_embeddings(corpus, str(tmp_path / "xvector"), **options)
    assert values.shape == (48, 6) and len(kept) == 48 and not errors
    assert np.linalg.norm(values, axis=1) == pytest.approx(1, abs=1e-5)
    save_cache = embeddings_module._save_cache
    monkeypatch.setattr(embeddings_module, "_save_cache", lambda *_: pytest.fail("all embeddings are cached"))
    again = speaker_embeddings(corpus.of_speakers(exclude=["04"]), str(tmp_path / "xvector"), **options)
    assert np.array_equal(again[1], values[:36]), "a subset of the clips uses the cache of all clips"
    monkeypatch.setattr(embeddings_module, "_save_cache", save_cache)
    config = json.loads((tmp_path / "xvector/config.json").read_text()) | {"architectures": ["WavLMModel"]}
    shutil.copytree(tmp_path / "xvector", tmp_path / "plain")
    (tmp_path / "plain/config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"plain is not an x-vector model \(WavLMModel\)"):
        speaker_embeddings(corpus, str(tmp_path / "plain"), **options)
    soundfile.write(tmp_path / "short.wav", 0.1 * np.random.default_rng(0).standard_normal(2000), 16000)
    (tmp_path / "metadata.csv").write_text("file_name,emotion,gender,speaker_id\nshort.wav,,,a\n")
    with pytest.raises(AudioError, match="short.wav.*too short"):
        speaker_embeddings(load_corpus(tmp_path), str(tmp_path / "xvector"), **options)


def test_a_speaker_model_that_cannot_be_loaded(tones, monkeypatch):
    with pytest.raises(ValueError, match="no-such/model cannot be loaded.*make speaker-extra"):
        speaker_embeddings(load_corpus(tones), "no-such/model")
    monkeypatch.setitem(sys.modules, "resemblyzer", None)
    with pytest.raises(ValueError, match="Resemblyzer cannot be imported.*make speaker-extra"):
        speaker_embeddings(load_corpus(tones))


# ---- programs -------------------------------------------------------------------------------------------------------
def test_no_emotion_label_is_read(both, vectors, train, tmp_path):
    """Shuffled, missing or unknown labels, or no label column, give bit-identical weights and losses."""
    runs = {}
    for name in ("true", "shuffled", "absent", "foreign", "no column"):
        corpora = [shutil.copytree(corpus, tmp_path / name / corpus.name) for corpus in both]
        for corpus in corpora:
            with open(corpus / "metadata.csv", newline="") as file:
                rows = list(csv.DictReader(file))
            emotions = [row["emotion"] for row in rows]
            np.random.default_rng(0).shuffle(emotions)
            for row, emotion in zip(rows, emotions, strict=True):
                row["emotion"] = {"true": row["emotion"], "shuffled": emotion, "absent": "", "foreign": "wut"}.get(
                    name
                )
            columns = [column for column in rows[0] if column != "emotion" or name != "no column"]
            with open(corpus / "metadata.csv", "w", newline="") as file:
                csv.DictWriter(file, columns).writeheader()
                csv.DictWriter(file, columns, extrasaction="ignore").writerows(rows)
        options = ("--speaker_embeddings", vectors, "--data_dir", *corpora, "--output_dir", tmp_path / name / "run")
        train(*PRETRAIN, *options, "--speaker_task", "adversarial")
        history = json.loads((tmp_path / name / "run/trainer_state.json").read_text())["log_history"]
        losses = [entry["loss"] for entry in history if "loss" in entry]
        runs[name] = GEmoClapForXVector.from_pretrained(tmp_path / name / "run").state_dict(), losses
    for name in ("shuffled", "absent", "foreign", "no column"):
        assert runs[name][1] == runs["true"][1]
        assert all(torch.equal(value, runs["true"][0][key]) for key, value in runs[name][0].items())


def test_files_and_logs_of_pretraining(pretrained, both, tmp_path):
    history = json.loads((pretrained / "trainer_state.json").read_text())["log_history"]
    logs = [entry for entry in history if "cluster_info_nce" in entry]
    for entry in logs:
        assert entry["loss"] == pytest.approx(
            entry["cluster_info_nce"] + 0.1 * entry["speaker_cross_entropy"], abs=2e-3
        )
    assert logs[-1]["cluster_info_nce"] < logs[0]["cluster_info_nce"]
    card = (pretrained / "README.md").read_text()
    assert "no emotion label" in card and "| emotions |" not in card
    (tmp_path / "use.py").write_text(USE)
    command = [sys.executable, "use.py", str(pretrained / "encoder"), str(both[0] / "audio/04_sad_1.wav")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == ["GEmoClapAudioModel", "32"]


def test_fine_tuning_starts_from_the_pretrained_encoder(pretrained, both, train, tmp_path):
    """From the encoder and its pooling by --init_from, or from the audio tower only by --audio_model."""
    few = ("--head", "classifier", "--data_dir", both[0], "--exclude_speakers", "04", "--label_fraction", "0.5")
    few += ("--num_train_epochs", "1", "--learning_rate", "1e-12", "--pooling", "self_attention")
    train(*few, "--init_from", pretrained, "--output_dir", tmp_path / "start")
    heard = ("--protocol", "2-folds-by-speaker", "--audio_model", pretrained / "encoder", "--audio_config", "{}")
    with pytest.raises(ValueError, match="was trained on .*, which fold 0 tests"):
        train(*few[:4], *heard, "--feature_config", "{}", "--output_dir", tmp_path / "heard")
    tower = ("--audio_model", pretrained / "encoder", "--audio_config", "{}", "--feature_config", "{}")
    train(*few, *tower, "--output_dir", tmp_path / "tower")
    expected = GEmoClapForXVector.from_pretrained(pretrained).state_dict()
    for name in ("start", "tower"):
        found = GEmoClapForXVector.from_pretrained(tmp_path / name).state_dict()
        for key, value in expected.items():
            if key.startswith("audio_model") or name == "start":
                torch.testing.assert_close(found[key], value)
        config = json.loads((tmp_path / name / "config.json").read_text())
        assert [record["num_clips"] for record in config["training_data"]] == [36, 36, 18]
        assert config["training_data"][0]["unlabelled"] and "unlabelled" not in config["training_data"][2]
        assert "training_data" not in config["audio_config"]


@pytest.mark.slow
def test_two_processes_train_like_one(both, vectors, tmp_path):
    """The same clips, losses and weights, with plain gradient descent and without dropout."""
    options = (*PRETRAIN, "--speaker_embeddings", vectors, "--data_dir", *both, "--speaker_task", "multi-task")
    options += ("--optimizer", "optim", "--optim", "sgd", "--learning_rate", "0.1")
    options += ("--audio_config", json.dumps(AUDIO))
    one, two = tmp_path / "one", tmp_path / "two"
    run_script("train.py", *TINY, *options, "--output_dir", one)
    more = ("--per_device_train_batch_size", 8, "--output_dir", two)
    run_script("train.py", *TINY, *options, *more, launcher=TORCHRUN)
    first, second = (GEmoClapForXVector.from_pretrained(folder).state_dict() for folder in (one, two))
    assert max((first[name] - second[name]).abs().max().item() for name in first) < 1e-5
    logs = [json.loads((run / "trainer_state.json").read_text())["log_history"] for run in (one, two)]
    for a, b in zip(*logs, strict=True):
        for name in {"loss", "cluster_info_nce", "speaker_cross_entropy"} & set(a):
            assert a[name] == pytest.approx(b[name], abs=2e-4)


@pytest.mark.slow
def test_protocols_of_both_steps(both, vectors, train, tmp_path):
    """Each fold of the fine-tuning starts from the pretraining fold that left out its test speakers."""
    protocol = ("--protocol", "2-folds-by-speaker", "--num_train_epochs", 2)
    options = ("--speaker_embeddings", vectors, "--data_dir", *both, "--output_dir", tmp_path / "pretrained")
    train(*PRETRAIN, *protocol, *options)
    start = ("--head", "classifier", "--pooling", "self_attention", "--init_from", tmp_path / "pretrained")
    data = ("--data_dir", both[0], "--label_fraction", 0.5, "--control", "false", "--output_dir", tmp_path / "ser")
    train(*start, *protocol, *data)
    for fold in (0, 1):
        config, place = json.loads((tmp_path / f"ser/fold_{fold}/seed_42/config.json").read_text()), tmp_path / "ser"
        heard = {speaker for record in config["training_data"] for speaker in record["speakers"]}
        judged = json.loads((place / "run.json").read_text())["protocols"]["42"]["folds"][fold]
        assert config["training_data"][0]["unlabelled"] and not heard & set(judged)
    with pytest.raises(ValueError, match="is the run of a protocol: --init_from takes it"):
        train(*start[:4], "--audio_model", tmp_path / "pretrained", *protocol, *data[:-1], tmp_path / "other")
    run_script("evaluate.py", "--model", tmp_path / "ser", "--data_dir", both[0], "--protocol", protocol[1])
    record = json.loads((tmp_path / "ser/results/results.json").read_text())
    assert record["n"] == 48 and 0 <= record["uar"] <= 1


@pytest.mark.skipif(not os.environ.get("GEMOCLAP_CORPORA"), reason="GEMOCLAP_CORPORA is not set: it holds emodb/")
def test_resemblyzer_separates_real_speakers(tmp_path):
    """GE2E embeddings of one speaker are more similar than those of two; sentences have a row in the analysis."""
    pytest.importorskip("resemblyzer", reason="Resemblyzer is not installed; make speaker-extra")
    corpus = load_corpus(os.path.join(os.environ["GEMOCLAP_CORPORA"], "emodb")).of_speakers(["03", "08"])
    kept, values, _ = speaker_embeddings(corpus, "resemblyzer", cache_dir=str(tmp_path / "cache"), device="cpu")
    speakers = np.array(kept.column("speaker_id").to_pylist())
    same = speakers[:, None] == speakers
    cosines = values @ values.T
    assert values.shape == (len(corpus), 256)
    assert cosines[same & ~np.eye(len(same), dtype=bool)].mean() > cosines[~same].mean() + 0.1
    record = analyse(values, cluster_within_speakers(values, speakers.tolist(), 4), kept)
    assert record["labels"]["gender"] is None and set(record["labels"]["sentence"]["speakers"]) == {"03", "08"}


def test_some_clips_are_of_every_speaker_and_emotion(tones):
    corpus = load_corpus(tones)
    half, quarter = (sample_clips(corpus, share, 0) for share in (0.5, 0.25))
    names = [set(part.column("file_name").to_pylist()) for part in (half, quarter)]
    assert len(half) == 24 and len(quarter) == 12 and names[1] < names[0]
    counts = Counter(zip(*(half.column(name).to_pylist() for name in ("speaker_id", "emotion")), strict=True))
    assert len(counts) == 12 and max(counts.values()) - min(counts.values()) <= 1
    with pytest.raises(ValueError, match="label_fraction 0"):
        sample_clips(corpus, 0, 0)


def test_cluster_analysis(both, vectors, tmp_path):
    options = ("--cluster_analysis", "--data_dir", *both, "--output_dir", tmp_path)
    done = run_script("evaluate.py", *options, "--speaker_embeddings", vectors, "--speaker_clusters", 3)
    record = json.loads((tmp_path / "cluster_analysis.json").read_text())
    emotion = record["labels"]["emotion"]["overall"]["adjusted_rand"]
    assert emotion["value"] > 0.9 > 0.2 > emotion["chance_95"] and emotion["p"] == pytest.approx(1 / 201)
    assert record["labels"]["gender"] is None and "one for each speaker" in done.stdout
    assert min(record["silhouette_of_the_clusters"].values()) > 0.3
    assert len(record["labels"]["emotion"]["speakers"]) == 8 and record["clips"] == 96
    assert "| emotion |" in done.stdout and (tmp_path / "cluster_analysis.png").stat().st_size > 1000
    refused = run_script("evaluate.py", *options, "--speaker_embeddings", "no-such/model", check=False)
    assert refused.returncode == 1 and "another embeddings, clusters" in refused.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "give --model"),
        (("--cluster_analysis", "--model", "x", "--seeds", "1"), "leave out --model, --seeds"),
        (("--cluster_analysis", "--layer_similarity"), "one at a time"),
        (("--model", "x", "--speaker_clusters", "3"), "--speaker_clusters is for --cluster_analysis"),
        (("--model", "x", "--before", "y"), "--before is for --layer_similarity"),
    ],
)
def test_options_without_effect_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        refuse_idle_options(load_script("evaluate").parse(["--data_dir", "corpus", *options]))


def test_a_resumed_pretraining_gives_the_same_weights(both, vectors, tmp_path, train):
    options = (*PRETRAIN, "--speaker_task", "multi-task", "--speaker_embeddings", vectors, "--data_dir", *both)
    options += ("--save_strategy", "epoch", "--output_dir")
    train(*options, tmp_path / "straight")
    shutil.copytree(tmp_path / "straight", tmp_path / "killed")
    last = max((tmp_path / "killed").glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    shutil.rmtree(last)
    train(*options, tmp_path / "killed", "--resume_from_checkpoint", "true")
    first, second = (GEmoClapForXVector.from_pretrained(tmp_path / run).state_dict() for run in ("straight", "killed"))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--per_device_train_batch_size", "10"), "groups of 4 clips"),
        (("--speaker_temperature", "0"), "must be above 0"),
        (("--num_dev_speakers", "2"), "no development clips"),
        (("--speaker_clusters", "1"), "--speaker_clusters 1 must be at least 2"),
        (("--class_balanced_sampling", "true"), "class_balanced_sampling"),
        (("--mix_prob", "0.5"), "--mix_prob 0.5: not supported by speaker clusters.*; leave it out"),
        (("--protocol", "2-folds-speaker-dependent"), "emotion labels, which speaker clusters does not read"),
        (("--label_fraction", "2"), "label_fraction 2.0"),
    ],
)
def test_bad_input(options, message, both, vectors, train, tmp_path):
    more = ("--speaker_embeddings", vectors, "--data_dir", *both, "--output_dir", tmp_path / "run")
    with pytest.raises(ValueError, match=message):
        train(*PRETRAIN, *more, *options)
