"""Speaker embeddings of a corpus, computed once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import AutoModelForAudioXVector

from ..corpora.files import whole
from ..corpora.manifest import Corpus, ManifestError
from ..feature_extraction_gemoclap import AudioError, GEmoClapFeatureExtractor
from ..towers_gemoclap import load_whole

RESEMBLYZER = "resemblyzer"
INSTALL = "make speaker-extra"  # what the error without Resemblyzer tells


def speaker_embeddings(
    corpus: Corpus,
    source: str = RESEMBLYZER,
    on_bad_audio: str = "raise",
    cache_dir: str | None = None,
    device: str | None = None,
) -> tuple[Corpus, np.ndarray, list[str]]:
    """The speaker embedding of every clip.

    Args:
        corpus: The clips.
        source: `"resemblyzer"`, whose wheel carries a trained GE2E encoder; or the name or folder of an x-vector
            model of transformers, as `microsoft/wavlm-base-plus-sv`; or a file of one's own, see `read_embeddings`.
        on_bad_audio: `"raise"`, or `"skip"` to go on without clips that cannot be read.
        cache_dir: Where embeddings are kept; None: in the cache of `datasets`.
        device: Where the model runs; None: where there is a GPU, there.

    Returns:
        The clips that have one, their embeddings `(clips, size)`, of unit length, and what is wrong with the others.

    Raises:
        AudioError: If clips cannot be used and `on_bad_audio` is `"raise"`.
        ValueError: If the model cannot be had, or the rows of a file are not the corpus's.
    """
    if Path(source).suffix in (".npy", ".npz"):
        return corpus, _of_unit_length(read_embeddings(Path(source), corpus)), []
    embed, made_of = _speaker_model(source, device)
    path = _cache_file(corpus, made_of, cache_dir)
    if not path.is_file():
        found, errors = _embed_all(corpus, embed)
        kept = [place for place, one in enumerate(found) if one is not None]
        rows = {"embeddings": np.array([found[place] for place in kept], np.float32), "kept": kept}
        with whole(path) as part, open(part, "wb") as file:
            np.savez(file, **rows, errors=np.array(errors, str))
    stored = np.load(path)
    kept, errors = stored["kept"].tolist(), stored["errors"].tolist()
    if errors and (on_bad_audio == "raise" or not kept):
        path.unlink()  # they may be mended
        raise AudioError(f"{corpus.cannot_be_used(errors)}or give --on_bad_audio skip to go on without")
    corpus = replace(corpus, clips=corpus.clips.select(kept)) if errors else corpus
    return corpus, _of_unit_length(stored["embeddings"]), errors


def read_embeddings(path: Path, corpus: Corpus) -> np.ndarray:
    """Embeddings of one's own.

    Args:
        path: A `.npz` with `embeddings`, `(clips, size)`, and `file_name`, `(clips,)`, in any order; or a `.npy` with
            the rows in the order of the corpus.
        corpus: The clips.

    Returns:
        `(clips, size)`, in the order of the corpus.

    Raises:
        ValueError: If it is no such file, or its rows are not the corpus's.
    """
    try:
        found = np.load(path, allow_pickle=False)
        names = found["file_name"].astype(str).tolist() if path.suffix == ".npz" else None
        values = np.asarray(found["embeddings"] if path.suffix == ".npz" else found, dtype=np.float32)
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(
            f"{path}: cannot be read ({error}); it must be a .npz with embeddings and file_name, or a .npy"
        ) from None
    wanted = corpus.column("file_name").to_pylist()
    if values.ndim != 2 or len(values) != len(names or wanted):
        raise ValueError(f"{path}: {values.shape} embeddings of {len(names or wanted)} clips of {corpus.name}")
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values).all(1))[0])
        raise ValueError(f"{path}, row {row}: not all of it is a number")
    if names is None:
        return values
    places = {name: place for place, name in enumerate(names)}
    if len(places) < len(names):
        raise ValueError(f"{path}: {max(names, key=names.count)} stands in it twice")
    if missing := [name for name in wanted if name not in places]:
        raise ValueError(f"{path}: no embedding of {len(missing)} clips of {corpus.name}, first {missing[0]}")
    return values[[places[name] for name in wanted]]


def _speaker_model(source: str, device: str | None) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    """What embeds a wave at 16 kHz, and what it is made of."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return _resemblyzer(device) if source == RESEMBLYZER else _x_vector(source, device)


def _resemblyzer(device: str):
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

    return embed, hashlib.sha256(weights).hexdigest()


def _x_vector(source: str, device: str):
    try:
        model = load_whole(AutoModelForAudioXVector, source).to(device).eval()
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
        return model(**{model.main_input_name: inputs}).embeddings[0].float().cpu().numpy()

    return embed, made_of.hexdigest()


def _embed_all(corpus: Corpus, embed: Callable) -> tuple[list[np.ndarray | None], list[str]]:
    reader, found, errors = GEmoClapFeatureExtractor(do_normalize=False), [], []
    for recording in tqdm(corpus.recordings(), total=len(corpus), desc="speaker embeddings"):
        try:
            found.append(embed(reader.load_speech(recording)))
        except AudioError as error:
            found.append(None)
            errors.append(str(error))
    return found, errors


def _cache_file(corpus: Corpus, made_of: str, cache_dir: str | None) -> Path:
    """Named by model and recordings, their sizes and times: a change of either is seen."""
    folder = Path(cache_dir or os.path.join(datasets.config.HF_DATASETS_CACHE, "gemoclap"))
    folder.mkdir(parents=True, exist_ok=True)
    if corpus.shards:
        raise ManifestError(f"{corpus.name}: speaker embeddings are computed from recordings, not from shards")
    digest = hashlib.sha256(made_of.encode() + corpus.file_states()).hexdigest()
    return folder / f"speakers-{digest[:32]}.npz"


def _of_unit_length(embeddings: np.ndarray) -> np.ndarray:
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True).clip(1e-12)
