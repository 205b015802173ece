"""Evaluation protocols: the division of the clips of a corpus into training and test parts, as data with a hash.

A protocol is a list of folds. Each fold lists the speakers of its test part. Their clips are judged by a model that
was trained on the other speakers.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from ..command_line.files import listed
from .manifest import Corpus

KINDS = (
    "leave-one-session-out",
    "leave-one-speaker-out",
    "K-folds-by-speaker",
    "K-folds-speaker-dependent",
)


class ProtocolError(ValueError):
    """A protocol does not fit a corpus. The message says what to do."""


@dataclass(frozen=True)
class Protocol:
    """The folds of a corpus.

    Args:
        name: One of `KINDS`, with a number for K.
        corpus: The name of the corpus.
        folds: The test part of each fold: speakers, or files if the protocol is speaker-dependent.
        seed: The seed of the random division, if there was one.
        by: The column of the values in `folds`: `"speaker_id"` or `"file_name"`.
    """

    name: str
    corpus: str
    folds: list[list[str]] = field(hash=False)
    seed: int | None = None
    by: str = "speaker_id"

    @property
    def sha256(self) -> str:
        """Hash of the protocol as data."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    @property
    def speaker_independent(self) -> bool:
        """Whether no speaker is both in the training part and in the test part of a fold."""
        return self.by == "speaker_id"

    def to_dict(self) -> dict:
        """The protocol in the form that is stored as JSON."""
        return {
            "name": self.name,
            "corpus": self.corpus,
            "seed": self.seed,
            "by": self.by,
            "folds": [list(fold) for fold in self.folds],
        }

    def test(self, corpus: Corpus, fold: int) -> Corpus:
        """The test part of a fold."""
        return corpus.where(self.by, set(self.folds[fold]).__contains__)

    def training(self, corpus: Corpus, fold: int) -> Corpus:
        """The training part of a fold: all clips that are not in its test part."""
        test = set(self.folds[fold])
        return corpus.where(self.by, lambda value: value not in test)


def genders_of(corpus: Corpus) -> dict[str, str]:
    """Find the gender of each speaker; "" if no clip of the speaker has one.

    Raises:
        ProtocolError: If a speaker has clips of both genders.
    """
    pairs = set(zip(corpus.column("speaker_id").to_pylist(), corpus.column("gender").to_pylist(), strict=True))
    known = {(speaker, gender) for speaker, gender in pairs if gender}
    both = [speaker for speaker, count in Counter(speaker for speaker, _ in known).items() if count > 1]
    if both:
        raise ProtocolError(
            f"{corpus.name}: speaker {min(both)} is female in some clips and male in others; correct the manifest"
        )
    return {speaker: "" for speaker, _ in pairs} | dict(known)


def deal_speakers(genders: dict[str, str], k: int, seed: int) -> list[list[str]]:
    """Deal speakers into folds: women first, then men, then speakers of unknown gender.

    The ids of each gender are sorted and shuffled by one generator. Speakers are then assigned to the folds in turn,
    without a restart between the genders.

    Args:
        genders: The gender of each speaker.
        k: The number of folds.
        seed: Seed of the shuffling.

    Returns:
        `k` lists of speakers.
    """
    generator, dealt = np.random.default_rng(seed), []
    for gender in ("female", "male", ""):
        speakers = sorted(speaker for speaker, label in genders.items() if label == gender)
        generator.shuffle(speakers)
        dealt += speakers
    return [dealt[fold::k] for fold in range(k)]


def protocol_of(name: str | None, corpus: Corpus, seed: int = 0, folds_file: str | Path | None = None) -> Protocol:
    """Make a protocol for a corpus.

    Args:
        name: `"leave-one-session-out"`, `"leave-one-speaker-out"`, `"5-folds-by-speaker"` or
            `"5-folds-speaker-dependent"`, in which training and test parts have the same speakers. None if
            `folds_file` holds folds by speaker.
        corpus: The clips.
        seed: Seed of a random division.
        folds_file: A JSON file with the folds of a publication, in place of a random division; see `read_folds`.

    Returns:
        The protocol, which passed `check_protocol`.

    Raises:
        ProtocolError: If the protocol does not exist or does not fit the corpus.
    """
    name = name or ("K-folds-by-speaker" if folds_file else "")
    match = re.fullmatch(r"(\d+)-folds-(by-speaker|speaker-dependent)", name)
    if not match and (name not in KINDS or (name.startswith("K") and not folds_file)):
        raise ProtocolError(
            f"no protocol {name!r}; the protocols are {', '.join(KINDS)} (K is a number, as in 5-folds-by-speaker)"
        )
    if folds_file:
        protocol = _published_protocol(name, match, corpus, seed, folds_file)
    elif name == "leave-one-speaker-out":
        protocol = Protocol(name, corpus.name, [[speaker] for speaker in corpus.speakers])
    elif name == "leave-one-session-out":
        protocol = Protocol(name, corpus.name, _sessions(corpus))
    elif match[2] == "by-speaker":
        protocol = Protocol(name, corpus.name, _speaker_folds(corpus, int(match[1]), seed), seed)
    else:
        protocol = Protocol(name, corpus.name, _clip_folds(corpus, int(match[1]), seed), seed, "file_name")
    return check_protocol(protocol, corpus)


def _published_protocol(
    name: str, match: re.Match | None, corpus: Corpus, seed: int, folds_file: str | Path
) -> Protocol:
    if not name.endswith("by-speaker"):
        raise ProtocolError(f"--folds_file holds folds of speakers; give --protocol K-folds-by-speaker, not {name}")
    folds, seed_of_folds = read_folds(folds_file, seed)
    if match and int(match[1]) != len(folds):
        raise ProtocolError(
            f"--folds_file {folds_file}: the file has {len(folds)} folds, but {name} needs {match[1]}; give "
            f"--protocol {len(folds)}-folds-by-speaker"
        )
    return Protocol(f"{len(folds)}-folds-by-speaker", corpus.name, folds, seed_of_folds)


def _sessions(corpus: Corpus) -> list[list[str]]:
    sessions = corpus.column("session").to_pylist() if "session" in corpus.clips.column_names else []
    if not any(sessions):
        raise ProtocolError(
            f"{corpus.name}: its clips have no session; give --protocol leave-one-speaker-out, or add a column "
            f"session to metadata.csv"
        )
    files = corpus.column("file_name").to_pylist()
    if empty := [file for file, session in zip(files, sessions, strict=True) if not session]:
        raise ProtocolError(
            f"{corpus.name}: {len(empty)} clips have no session, first {empty[0]}; fill in the column session"
        )
    pairs = set(zip(sessions, corpus.column("speaker_id").to_pylist(), strict=True))
    return [sorted(speaker for label, speaker in pairs if label == session) for session in sorted(set(sessions))]


def _speaker_folds(corpus: Corpus, k: int, seed: int) -> list[list[str]]:
    """Deal the speakers into folds. Each corpus of a mixture is dealt separately, so its folds are the same alone."""
    speakers = len(corpus.speakers)
    if not 2 <= k <= speakers:
        raise ProtocolError(f"{corpus.name}: {k} folds of {speakers} speakers; give 2 to {speakers}")
    genders, folds = genders_of(corpus), [[] for _ in range(k)]
    for _, prefix in corpus.by_part():
        of_part = {speaker: gender for speaker, gender in genders.items() if speaker.startswith(prefix)}
        folds = [fold + dealt for fold, dealt in zip(folds, deal_speakers(of_part, k, seed), strict=True)]
    return folds


def _clip_folds(corpus: Corpus, k: int, seed: int) -> list[list[str]]:
    """Spread the clips of every speaker and emotion over all folds. Each corpus of a mixture is dealt separately."""
    if k < 2:
        raise ProtocolError(f"{k}-folds-speaker-dependent: at least two folds are needed")
    columns = (corpus.column(name).to_pylist() for name in ("speaker_id", "emotion", "file_name"))
    clips, folds = sorted(zip(*columns, strict=True)), [[] for _ in range(k)]
    for _, prefix in corpus.by_part():
        generator, groups, dealt = np.random.default_rng(seed), {}, []
        for speaker, emotion, file in clips:
            if speaker.startswith(prefix):
                groups.setdefault((speaker, emotion), []).append(file)
        for files in groups.values():
            generator.shuffle(files)
            dealt += files
        folds = [fold + dealt[number::k] for number, fold in enumerate(folds)]
    return [sorted(fold) for fold in folds]


def read_folds(path: str | Path, seed: int = 0) -> tuple[list[list[str]], int | None]:
    """Read folds from a JSON file.

    Args:
        path: The file. It holds a list of lists of test speakers, or an object with such a list in `folds` or in
            `test_speakers`. The value of `test_speakers` may also be an object with one list for each seed
            (`seed_0`, ...).
        seed: The seed to select in such an object.

    Returns:
        The folds, and the seed if the file has one list for each seed.

    Raises:
        ProtocolError: If the file cannot be read or has another form.
    """
    form = 'a list of lists of speakers, or an object with one in "folds" or "test_speakers"'
    try:
        text = Path(os.path.expanduser(path)).read_text(encoding="utf-8-sig")
        folds = json.loads(text, object_pairs_hook=_refuse_repeated_keys)
    except RecursionError:
        raise ProtocolError(f"--folds_file {path}: nested too deep; it must be JSON: {form}") from None
    except (OSError, ValueError) as error:
        raise ProtocolError(f"--folds_file {path}: cannot be read ({error}); it must be JSON: {form}") from None
    seed_of_folds = None
    if isinstance(folds, dict):
        folds = folds.get("folds", folds.get("test_speakers"))
    if isinstance(folds, dict):
        if f"seed_{seed}" not in folds:
            raise ProtocolError(f"--folds_file {path}: the file has no seed_{seed}; it has {listed(folds)}")
        folds, seed_of_folds = folds[f"seed_{seed}"], seed
    is_list = isinstance(folds, list) and folds and all(isinstance(fold, list) and fold for fold in folds)
    if not is_list or not all(isinstance(speaker, str) for fold in folds for speaker in fold):
        raise ProtocolError(f'--folds_file {path}: must be {form}, with speakers as text ("03")')
    return [[speaker.strip() for speaker in fold] for fold in folds], seed_of_folds


def _refuse_repeated_keys(pairs: list[tuple]) -> dict:
    if repeated := [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]:
        raise ValueError(f"the key {repeated[0]} occurs twice")
    return dict(pairs)


def check_protocol(protocol: Protocol, corpus: Corpus) -> Protocol:
    """Check that a protocol fits a corpus: no test parts overlap, and every fold has a training and a test part.

    Returns:
        The protocol.

    Raises:
        ProtocolError: If a fold names a speaker or file that is not in the corpus, if two folds overlap, or if a
            training or test part is empty.
    """
    present = set(corpus.column(protocol.by).unique().to_pylist())
    word = "speaker" if protocol.speaker_independent else "file"
    counts = Counter(value for fold in protocol.folds for value in fold)
    if missing := sorted(set(counts) - present):
        raise ProtocolError(
            f"{protocol.name}: {corpus.name} has no {word} {', '.join(missing[:5])}"
            + (f"; it has {listed(sorted(present))}" if protocol.speaker_independent else "")
        )
    if repeated := sorted(value for value, count in counts.items() if count > 1):
        raise ProtocolError(f"{protocol.name}: {word} {repeated[0]} occurs twice in the folds; remove one of them")
    for number, fold in enumerate(protocol.folds):
        if not fold or not present - set(fold):
            raise ProtocolError(f"{protocol.name}: fold {number} leaves nothing to {'train on' if fold else 'judge'}")
    return protocol


def not_judged(protocol: Protocol, corpus: Corpus) -> list[str]:
    """List the speakers or files that are in no test part. The folds of a publication may omit some."""
    return sorted(
        set(corpus.column(protocol.by).unique().to_pylist()) - {value for fold in protocol.folds for value in fold}
    )


def absent_classes(protocol: Protocol, corpus: Corpus) -> list[str]:
    """Notes on folds whose training or test part lacks an emotion. The UAR of a fold covers only its test emotions."""
    notes, emotions = [], set(corpus.emotions)
    for fold in range(len(protocol.folds)):
        if absent := sorted(emotions - set(protocol.test(corpus, fold).emotions)):
            notes.append(f"fold {fold} judges no {', '.join(absent)}: its own UAR is over the other emotions")
        if absent := sorted(emotions - set(protocol.training(corpus, fold).emotions)):
            notes.append(f"fold {fold} has no {', '.join(absent)} to train on, and cannot answer so")
    return notes


def development_speakers(corpus: Corpus, number: int, seed: int) -> list[str]:
    """Select development speakers from a training part: women and men in turn.

    Args:
        corpus: The training part of a fold.
        number: The number of development speakers.
        seed: Seed of the shuffling.

    Returns:
        The sorted speakers.

    Raises:
        ProtocolError: If fewer than two speakers remain for training.
    """
    if len(corpus.speakers) - number < 2:
        raise ProtocolError(
            f"{corpus.name}: {number} development speakers of {len(corpus.speakers)} leave fewer than two to train "
            f"on; give a smaller --num_dev_speakers"
        )
    generator, genders = np.random.default_rng([seed, 1]), genders_of(corpus)
    groups = [
        sorted(speaker for speaker in genders if genders[speaker] == gender) for gender in ("female", "male", "")
    ]
    for group in groups:
        generator.shuffle(group)
    order = []
    while any(groups):
        order += [group.pop() for group in groups if group]
    return sorted(order[:number])


def sample_clips(corpus: Corpus, share: float, seed: int) -> Corpus:
    """Select a share of the clips, stratified by speaker and emotion.

    A smaller share is a subset of a larger one. The clips of each speaker and emotion are put in random order. The
    n-th of them has the rank `(n + u) / clips` with a random `u` in [0, 1). The clips with the lowest ranks are
    selected.

    Args:
        corpus: Training clips.
        share: The share, above 0 and at most 1.
        seed: Seed of the order.

    Raises:
        ProtocolError: If the share is out of range.
    """
    if not 0 < share <= 1:
        raise ProtocolError(f"--label_fraction {share}: must lie above 0 and be at most 1")
    if share == 1:
        return corpus
    generator, groups, ranks = np.random.default_rng([seed, 5]), {}, {}
    columns = (corpus.column(name).to_pylist() for name in ("speaker_id", "emotion", "file_name"))
    for speaker, emotion, file in sorted(zip(*columns, strict=True)):
        groups.setdefault((speaker, emotion), []).append(file)
    for files in groups.values():
        generator.shuffle(files)
        ranks |= {file: (n + generator.random()) / len(files) for n, file in enumerate(files)}
    selected = set(sorted(ranks, key=ranks.get)[: max(1, round(share * len(ranks)))])
    return corpus.where("file_name", selected.__contains__)


def shuffled_labels(corpus: Corpus, seed: int) -> Corpus:
    """Shuffle the emotions of the clips, as a control. A model that is trained on them performs at chance level.

    Args:
        corpus: Training clips.
        seed: Seed of the shuffling.
    """
    emotions = np.array(corpus.column("emotion").to_pylist())
    np.random.default_rng([seed, 2]).shuffle(emotions)
    shuffled = corpus.with_column("emotion", pa.array(emotions.tolist(), pa.string()))
    return replace(shuffled, labels_shuffled=True)
