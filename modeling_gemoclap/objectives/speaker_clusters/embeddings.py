"""Speaker embeddings of a corpus, computed once."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from zipfile import BadZipFile

import datasets
import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import AutoModelForAudioXVector, PretrainedConfig

from ...corpora.files import write_atomically
from ...corpora.manifest import Corpus, ManifestError
from ...feature_extraction_gemoclap import AudioError, GEmoClapFeatureExtractor
from ...fingerprint import AUDIO_LIBRARIES, digest, fingerprint
from ...towers_gemoclap import load_complete_model

RESEMBLYZER = "resemblyzer"
KEPT_AFTER = 500  # new embeddings: what is computed is not lost with a run that is killed
LIBRARIES = (*AUDIO_LIBRARIES, "torch", "librosa", "Resemblyzer", "scipy", "webrtcvad-wheels")
INSTALL = "make speaker-extra (or, outside of .venv, its two pip lines)"  # what the error without it tells


def speaker_embeddings(
    corpus: Corpus,
    source: str = RESEMBLYZER,
    on_bad_audio: str = "raise",
    cache_dir: str | None = None,
    device: str | None = None,
) -> tuple[Corpus, np.ndarray, list[str]]:
    """The speaker embedding of every clip; that of a recording is computed once for each model.

    Args:
        corpus: The clips.
        source: `"resemblyzer"`, whose wheel carries a trained GE2E encoder; or the name or folder of an x-vector
            model of transformers, as `microsoft/wavlm-base-plus-sv`; or a `.npz` of one's own, see `read_embeddings`.
        on_bad_audio: `"raise"`, or `"skip"` to go on without clips that cannot be used.
        cache_dir: Where embeddings are kept; None: in the cache of `datasets`.
        device: Where the model runs; None: where there is a GPU, there.

    Returns:
        The clips that have one, their embeddings `(clips, size)`, of unit length, and what is wrong with the others.

    Raises:
        AudioError: If clips cannot be used and `on_bad_audio` is `"raise"`.
        ManifestError: If the clips are in shards.
        ValueError: If the model cannot be had, or the rows of a file are not the corpus's.
    """
    if Path(source).suffix == ".npz":
        return corpus, _of_unit_length(read_embeddings(Path(source), corpus)), []
    if corpus.shards:
        raise ManifestError(f"{corpus.name}: speaker embeddings are computed from recordings, not from shards")
    model = _speaker_model(source, device or ("cuda" if torch.cuda.is_available() else "cpu"))
    found, errors = _embed_all(corpus, model, _cache_file(model, cache_dir))
    kept = [place for place, one in enumerate(found) if one is not None]
    if errors and (on_bad_audio == "raise" or not kept):
        raise AudioError(f"{corpus.cannot_be_used(errors)}or give --on_bad_audio skip to go on without")
    corpus = replace(corpus, clips=corpus.clips.select(kept)) if errors else corpus
    return corpus, _of_unit_length(np.stack([found[place] for place in kept])), errors


def read_embeddings(path: Path, corpus: Corpus) -> np.ndarray:
    """Embeddings of one's own.

    Args:
        path: A `.npz` with `embeddings`, `(clips, size)`, and `file_name`, `(clips,)`, in any order; it may have more.
        corpus: The clips.

    Returns:
        `(clips, size)`, in the order of the corpus.

    Raises:
        ValueError: If it is no such file, or its rows are not the corpus's.
    """
    try:
        with np.load(path, allow_pickle=False) as found:
            names, values = found["file_name"].astype(str), np.asarray(found["embeddings"], dtype=np.float32)
    except (OSError, EOFError, KeyError, TypeError, ValueError, IndexError, AttributeError, BadZipFile) as error:
        raise ValueError(
            f"{path}: cannot be read ({error}): it must be a .npz with embeddings and file_name"
        ) from None
    if values.ndim != 2 or not values.shape[1] or names.shape != values.shape[:1]:
        raise ValueError(f"{path}: {values.shape} embeddings of {names.shape} file names; give a row for each name")
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values).all(1))[0])
        raise ValueError(f"{path}: the embedding of {names[row]} is not all of numbers")
    places = {name: place for place, name in enumerate(names.tolist())}
    if len(places) < len(names):
        raise ValueError(f"{path}: {Counter(names.tolist()).most_common(1)[0][0]} stands in it twice")
    wanted = corpus.column("file_name").to_pylist()
    if missing := [name for name in wanted if name not in places]:
        raise ValueError(f"{path}: no embedding of {len(missing)} clips of {corpus.name}, first {missing[0]}")
    return values[[places[name] for name in wanted]]


@dataclass
class _SpeakerModel:
    """What embeds a wave, the rate it wants in Hz, and what it is made of."""

    embed: Callable[[np.ndarray], np.ndarray]
    sampling_rate: int
    made_of: str


def _speaker_model(source: str, device: str) -> _SpeakerModel:
    return _resemblyzer(device) if source == RESEMBLYZER else _x_vector(source, device)


def _resemblyzer(device: str) -> _SpeakerModel:
    try:
        import resemblyzer
        from resemblyzer import VoiceEncoder, preprocess_wav
    except ImportError as error:
        raise ValueError(f"Resemblyzer cannot be imported ({error}): {INSTALL} installs it") from None
    encoder = VoiceEncoder(device, verbose=False)
    weights = Path(resemblyzer.__file__).with_name("pretrained.pt").read_bytes()

    def embed(wave: np.ndarray) -> np.ndarray:
        voiced = preprocess_wav(wave)
        return encoder.embed_utterance(voiced if len(voiced) else wave)  # it may take all of a whisper for silence

    return _SpeakerModel(embed, 16000, hashlib.sha256(weights).hexdigest())


def _x_vector(source: str, device: str) -> _SpeakerModel:
    try:
        architectures = PretrainedConfig.get_config_dict(source)[0].get("architectures") or []
        if not any(name.endswith("ForXVector") for name in architectures):
            raise ValueError(
                f"the speaker model {source} is no x-vector model ({', '.join(architectures) or 'nothing known'}): "
                f"give one, as microsoft/wavlm-base-plus-sv, or {RESEMBLYZER} ({INSTALL})"
            )
        model = load_complete_model(AutoModelForAudioXVector, source).to(device).eval()
        extractor = GEmoClapFeatureExtractor.from_audio_pretrained(source)
    except OSError as error:
        raise ValueError(
            f"the speaker model {source} cannot be had ({str(error).splitlines()[0]}): give the folder of a copy, or "
            f"{RESEMBLYZER}, which needs no download from the Hub ({INSTALL})"
        ) from None
    made_of = hashlib.sha256(extractor.to_json_string().encode())
    for name, value in sorted(model.state_dict().items()):
        made_of.update(name.encode() + value.cpu().contiguous().numpy().tobytes())

    @torch.no_grad()
    def embed(wave: np.ndarray) -> np.ndarray:  # one at a time: in some of these models padding would leak
        inputs = torch.from_numpy(extractor.features(wave))[None].to(device)
        try:
            return model(**{model.main_input_name: inputs}).embeddings[0].float().cpu().numpy()
        except RuntimeError as error:
            raise AudioError(f"{len(wave)} samples are too short for {source} ({error})") from None

    return _SpeakerModel(embed, extractor.sampling_rate, made_of.hexdigest())


def _embed_all(corpus: Corpus, model: _SpeakerModel, path: Path) -> tuple[list[np.ndarray | None], list[str]]:
    """The embedding of each clip, or None, and what is wrong with those; what is new is kept, now and then."""
    keys, paths = corpus.file_states().decode().splitlines(), corpus.clips["path"]
    known = dict(zip(*(np.load(path)[name] for name in ("keys", "values")), strict=True)) if path.is_file() else {}
    reader, found, errors, new = GEmoClapFeatureExtractor(sampling_rate=model.sampling_rate), [], [], 0
    for key, recording in zip(keys, tqdm(paths, desc="speaker embeddings"), strict=True):
        try:
            if key not in known:
                known[key] = model.embed(reader.load_speech(recording))
                new += 1
            found.append(known[key])
        except AudioError as error:
            found.append(None)
            errors.append(str(error) if recording in str(error) else f"{recording}: {error}")
        if new == KEPT_AFTER:
            _keep(path, known)
            new = 0
    if new:
        _keep(path, known)
    return found, errors


def _keep(path: Path, known: dict[str, np.ndarray]) -> None:
    with write_atomically(path) as part, open(part, "wb") as file:
        np.savez(file, keys=np.array(list(known)), values=np.stack(list(known.values())))


def _cache_file(model: _SpeakerModel, cache_dir: str | None) -> Path:
    """One file for each model and code; a recording is known in it by its path, size and times."""
    folder = Path(cache_dir or os.path.join(datasets.config.HF_DATASETS_CACHE, "gemoclap"))
    folder.mkdir(parents=True, exist_ok=True)
    made_of = fingerprint(["objectives.speaker_clusters.embeddings"], LIBRARIES, weights=model.made_of)
    return folder / f"speakers-{digest(made_of)[:32]}.npz"


def _of_unit_length(embeddings: np.ndarray) -> np.ndarray:
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True).clip(1e-12)
