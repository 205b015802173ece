"""Small towers, a small corpus of tones, and a checkpoint trained on it."""

import csv
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: tests run side by side

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import soundfile  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
RATE = 16000
TONES = {"angry": 1800.0, "happy": 900.0, "sad": 300.0}

CONV = {
    "conv_dim": (8, 8, 8),
    "conv_kernel": (10, 8, 4),
    "conv_stride": (5, 8, 8),
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}
LAYERS = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "feat_proj_dropout": 0.0,
    "layerdrop": 0.0,
    "apply_spec_augment": False,
    "mask_time_prob": 0.0,
}


def audio_config(family: str, norm: str = "layer"):
    """A small configuration of one of the raw-wave families."""
    if family == "gemoclap_audio":
        from modeling_gemoclap import GEmoClapAudioConfig

        return GEmoClapAudioConfig(
            num_mel_bins=16,
            conv_channels=(4, 8),
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            hidden_dropout=0.0,
            conv_dropout=0.0,
            apply_spec_augment=False,
        )
    if family == "data2vec-audio":
        return transformers.Data2VecAudioConfig(
            **{**CONV, "num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 3}, **LAYERS
        )
    classes = {"wavlm": "WavLMConfig", "hubert": "HubertConfig", "wav2vec2": "Wav2Vec2Config"}
    stable = {"feat_extract_norm": norm, "do_stable_layer_norm": norm == "layer", "conv_bias": norm == "layer"}
    return getattr(transformers, classes[family])(**CONV, **LAYERS, **stable)


def text_config(**fields):
    return transformers.RobertaConfig(
        **{
            "vocab_size": 400,
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "max_position_embeddings": 66,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            **fields,
        }
    )


@pytest.fixture
def make_model():
    """A small model of any audio family, seeded, in eval mode."""

    def make(family="gemoclap_audio", norm="layer", **fields):
        from modeling_gemoclap import GEmoClapConfig, GEmoClapModel

        torch.manual_seed(0)
        options = {"projection_dim": 12, "emotions": list(TONES), **fields}
        config = GEmoClapConfig(audio_config=audio_config(family, norm), text_config=text_config(), **options)
        return GEmoClapModel(config).eval()

    return make


@pytest.fixture
def make_processor():
    """The processor for `make_model`."""

    def make(model):
        from modeling_gemoclap import GEmoClapFeatureExtractor, GEmoClapProcessor
        from modeling_gemoclap.training.build import build_tokenizer

        ours = model.config.audio_config.model_type == "gemoclap_audio"
        extractor = GEmoClapFeatureExtractor(feature_type="log_mel" if ours else "wave", num_mel_bins=16)
        tokenizer = build_tokenizer(model.config)
        assert len(tokenizer) <= model.config.text_config.vocab_size
        return GEmoClapProcessor(extractor, tokenizer)

    return make


def tone(emotion: str, seed: int, seconds: float = 0.6, level: float = 0.1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    wave = np.sin(2 * np.pi * TONES[emotion] * rng.uniform(0.9, 1.1) * time)
    return (level * (wave + 0.1 * rng.standard_normal(len(time)))).astype(np.float32)


def write_corpus(folder: Path, rows: list[list[str]] | None = None, clips: int = 4) -> Path:
    """Tones whose pitch is their emotion, by four speakers of two genders."""
    (folder / "audio").mkdir(parents=True)
    written = []
    for speaker, gender in (("01", "female"), ("02", "male"), ("03", "female"), ("04", "male")):
        for emotion in TONES:
            for number in range(clips):
                name = f"audio/{speaker}_{emotion}_{number}.wav"
                seed = hash_of(name)
                soundfile.write(folder / name, tone(emotion, seed, 0.4 + 0.1 * number), RATE)
                written.append([name, emotion, gender, speaker])
    with open(folder / "metadata.csv", "w", newline="") as file:
        csv.writer(file).writerows([["file_name", "emotion", "gender", "speaker_id"], *written, *(rows or [])])
    return folder


def hash_of(text: str) -> int:
    return sum((index + 1) * ord(letter) for index, letter in enumerate(text))


@pytest.fixture(scope="session")
def tones(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpora") / "tones")


def run_script(script: str, *arguments, check: bool = True, env: dict | None = None, launcher=()):
    """Run `train.py` or `evaluate.py` as a user does."""
    command = [sys.executable, *launcher, script, *map(str, arguments)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **(env or {})}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if check:
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    return done


TINY = (
    "--config",
    "tests/tiny.yaml",
)


@pytest.fixture(scope="session")
def trained(tones, tmp_path_factory):
    """A checkpoint that `accelerate launch train.py` made of three speakers of the tones."""
    output = tmp_path_factory.mktemp("runs") / "tones-sl"
    launcher = ("-m", "accelerate.commands.launch")
    options = ("--data_dir", tones, "--exclude_speakers", "04", "--output_dir", output)
    run_script("train.py", *TINY, *options, launcher=launcher)
    return output


@pytest.fixture(scope="session")
def corpora():
    """Real recordings; a test that needs them is skipped without, but never in continuous integration."""
    folder = os.environ.get("GEMOCLAP_CORPORA")
    if not folder:
        assert not os.environ.get("CI"), "GEMOCLAP_CORPORA must be set in continuous integration"
        pytest.skip("GEMOCLAP_CORPORA is not set: the folder with emodb/ and ravdess/")
    return Path(folder)
