"""Speaker embeddings of a corpus, with a cache."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import datasets
import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import AutoModelForAudioXVector, PretrainedConfig

from ...audio_headers_gemoclap import error_summary
from ...corpora.files import write_atomically
from ...corpora.manifest import Corpus, ManifestError
from ...feature_extraction_gemoclap import AudioError, GEmoClapFeatureExtractor
from ...fingerprint import AUDIO_LIBRARIES, digest, fingerprint
from ...towers_gemoclap import load_complete_model

RESEMBLYZER = "resemblyzer"
SAVE_INTERVAL = 500  # new embeddings between writes of the cache, so that a killed run loses few
LIBRARIES = (*AUDIO_LIBRARIES, "torch", "librosa", "Resemblyzer", "scipy", "webrtcvad-wheels")
LARGE_ARRAY = 2**28  # bytes
MOST_COMPRESSED = 200  # how often smaller than its bytes a large array of embeddings or names is in a .npz file
INSTALL = "make speaker-extra (or, outside of .venv, its two pip lines)"  # installs Resemblyzer


def speaker_embeddings(
    corpus: Corpus,
    source: str = RESEMBLYZER,
    on_bad_audio: str = "raise",
    cache_dir: str | None = None,
    device: str | None = None,
) -> tuple[Corpus, np.ndarray, list[str]]:
    """Return the speaker embedding of every clip. Computed embeddings are cached for each model.

    Args:
        corpus: The clips.
        source: `"resemblyzer"`, whose wheel contains a trained GE2E encoder; or the name or folder of an x-vector
            model of transformers, such as `microsoft/wavlm-base-plus-sv`; or a `.npz` file, see `read_embeddings`.
        on_bad_audio: `"raise"`, or `"skip"` to leave out clips that cannot be used.
        cache_dir: Folder of the cache; None: in the cache of `datasets`.
        device: Device of the model; None: the GPU if there is one.

    Returns:
        The clips with an embedding, their embeddings of unit length, `(clips, size)`, and the errors of the other
        clips.

    Raises:
        AudioError: If clips cannot be used and `on_bad_audio` is `"raise"`.
        ManifestError: If the clips are in shards.
        ValueError: If the model cannot be loaded, or the rows of a file do not match the corpus.
    """
    if Path(source).suffix == ".npz":
        return corpus, _normalize_rows(read_embeddings(Path(source), corpus)), []
    if corpus.shards:
        raise ManifestError(f"{corpus.name}: speaker embeddings are computed from recordings, not from shards")
    model = _load_speaker_model(source, device or ("cuda" if torch.cuda.is_available() else "cpu"))
    embeddings, errors = _embed_all(corpus, model, _cache_file(model, cache_dir))
    usable = [index for index, embedding in enumerate(embeddings) if embedding is not None]
    if errors and (on_bad_audio == "raise" or not usable):
        raise AudioError(f"{corpus.cannot_be_used(errors)}or give --on_bad_audio skip to leave them out")
    corpus = replace(corpus, clips=corpus.clips.select(usable)) if errors else corpus
    return corpus, _normalize_rows(np.stack([embeddings[index] for index in usable])), errors


def read_embeddings(path: Path, corpus: Corpus) -> np.ndarray:
    """Read embeddings from a file.

    Args:
        path: A `.npz` file with `embeddings`, `(clips, size)`, and `file_name`, `(clips,)`, in any order. It may have
            more clips than the corpus.
        corpus: The clips.

    Returns:
        The embeddings in the order of the corpus, `(clips, size)`.

    Raises:
        ValueError: If the file cannot be read, or has no embedding of a clip.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            _refuse_bomb(file)
            names, values = file["file_name"].astype(str), np.asarray(file["embeddings"], dtype=np.float32)
    except Exception as error:  # NumPy, zipfile and zlib raise errors of many types for a damaged file
        raise ValueError(
            f"{path}: cannot be read ({error_summary(error)}); give a .npz file with embeddings and file_name"
        ) from None
    if values.ndim != 2 or not values.shape[1] or names.shape != values.shape[:1]:
        raise ValueError(f"{path}: {values.shape} embeddings of {names.shape} file names; give a row for each name")
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values).all(1))[0])
        raise ValueError(f"{path}: the embedding of {names[row]} is not finite")
    rows = {name: row for row, name in enumerate(names.tolist())}
    if len(rows) < len(names):
        raise ValueError(f"{path}: {Counter(names.tolist()).most_common(1)[0][0]} occurs twice; give each clip once")
    clips = corpus.column("file_name").to_pylist()
    if missing := [name for name in clips if name not in rows]:
        raise ValueError(f"{path}: no embedding of {len(missing)} clips of {corpus.name}, first {missing[0]}")
    return values[[rows[name] for name in clips]]


def _refuse_bomb(file) -> None:
    """Refuse an array that expands to far more bytes than embeddings and names do, before memory is allocated."""
    for member in file.zip.infolist():
        if member.file_size > max(LARGE_ARRAY, MOST_COMPRESSED * member.compress_size):
            raise ValueError(f"{member.filename} expands to {member.file_size:,} bytes")


@dataclass
class _SpeakerModel:
    """A speaker model: its function, its sampling rate in Hz, and a SHA-256 of its weights and settings."""

    embed: Callable[[np.ndarray], np.ndarray]
    sampling_rate: int
    sha256: str


def _load_speaker_model(source: str, device: str) -> _SpeakerModel:
    return _resemblyzer(device) if source == RESEMBLYZER else _x_vector(source, device)


def _resemblyzer(device: str) -> _SpeakerModel:
    try:
        import resemblyzer
        from resemblyzer import VoiceEncoder, preprocess_wav
    except ImportError as error:
        raise ValueError(f"Resemblyzer cannot be imported ({error}): install it by {INSTALL}") from None
    encoder = VoiceEncoder(device, verbose=False)
    weights = Path(resemblyzer.__file__).with_name("pretrained.pt").read_bytes()

    def embed(wave: np.ndarray) -> np.ndarray:
        voiced = preprocess_wav(wave)
        return encoder.embed_utterance(voiced if len(voiced) else wave)  # a whispered clip may be detected as silence

    return _SpeakerModel(embed, 16000, hashlib.sha256(weights).hexdigest())


def _x_vector(source: str, device: str) -> _SpeakerModel:
    try:
        architectures = PretrainedConfig.get_config_dict(source)[0].get("architectures") or []
        if not any(name.endswith("ForXVector") for name in architectures):
            raise ValueError(
                f"the speaker model {source} is not an x-vector model ({', '.join(architectures) or 'unknown'}): give "
                f"one such as microsoft/wavlm-base-plus-sv, or {RESEMBLYZER} ({INSTALL})"
            )
        model = load_complete_model(AutoModelForAudioXVector, source).to(device).eval()
        extractor = GEmoClapFeatureExtractor.from_audio_pretrained(source)
    except OSError as error:
        raise ValueError(
            f"the speaker model {source} cannot be loaded ({str(error).splitlines()[0]}): give the folder of a copy, "
            f"or {RESEMBLYZER}, which needs no download from the Hub ({INSTALL})"
        ) from None
    content = hashlib.sha256(extractor.to_json_string().encode())
    for name, value in sorted(model.state_dict().items()):
        content.update(name.encode() + value.cpu().contiguous().numpy().tobytes())

    @torch.no_grad()
    def embed(wave: np.ndarray) -> np.ndarray:  # one clip at a time: some of these models depend on padding
        inputs = torch.from_numpy(extractor.features(wave))[None].to(device)
        try:
            return model(**{model.main_input_name: inputs}).embeddings[0].float().cpu().numpy()
        except RuntimeError as error:
            raise AudioError(f"{len(wave)} samples are too short for {source} ({error})") from None

    return _SpeakerModel(embed, extractor.sampling_rate, content.hexdigest())


def _embed_all(corpus: Corpus, model: _SpeakerModel, path: Path) -> tuple[list[np.ndarray | None], list[str]]:
    """Return the embedding of each clip, or None, and the errors. New embeddings are written to the cache."""
    keys, paths = corpus.file_states().decode().splitlines(), corpus.clips["path"]
    cached = _read_cache(path)
    reader, embeddings, errors, new = GEmoClapFeatureExtractor(sampling_rate=model.sampling_rate), [], [], 0
    for key, recording in zip(keys, tqdm(paths, desc="speaker embeddings"), strict=True):
        try:
            if key not in cached:
                cached[key] = model.embed(reader.load_speech(recording))
                new += 1
            embeddings.append(cached[key])
        except AudioError as error:
            embeddings.append(None)
            errors.append(str(error) if recording in str(error) else f"{recording}: {error}")
        if new == SAVE_INTERVAL:
            _save_cache(path, cached)
            new = 0
    if new:
        _save_cache(path, cached)
    return embeddings, errors


def _read_cache(path: Path) -> dict[str, np.ndarray]:
    """The embeddings by key; empty if there is no file, or one that cannot be read: it is then written again."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(zip(file["keys"].tolist(), file["values"], strict=True))
    except Exception:  # as in `read_embeddings`
        return {}


def _save_cache(path: Path, cached: dict[str, np.ndarray]) -> None:
    with write_atomically(path) as part, open(part, "wb") as file:
        np.savez(file, keys=np.array(list(cached)), values=np.stack(list(cached.values())))


def _cache_file(model: _SpeakerModel, cache_dir: str | None) -> Path:
    """Return the cache file of a model and this code. Its keys are the path, size and times of a recording."""
    folder = Path(cache_dir or os.path.join(datasets.config.HF_DATASETS_CACHE, "gemoclap"))
    folder.mkdir(parents=True, exist_ok=True)
    contents = fingerprint(["objectives.speaker_clusters.embeddings"], LIBRARIES, weights=model.sha256)
    return folder / f"speakers-{digest(contents)[:32]}.npz"


def _normalize_rows(embeddings: np.ndarray) -> np.ndarray:
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True).clip(1e-12)
