"""Protocols: which clips are trained on and which are judged, as data with a hash.

A protocol is a list of folds; a fold names the speakers whose clips are judged by a model that has heard none of them.
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

from .manifest import Corpus

KINDS = (
    "leave-one-session-out",
    "leave-one-speaker-out",
    "K-folds-by-speaker",
    "K-folds-speaker-dependent",
)


class ProtocolError(ValueError):
    """A protocol does not fit a corpus; the message says what to do."""


@dataclass(frozen=True)
class Protocol:
    """Folds of a corpus.

    Args:
        name: One of `KINDS`, with a number for K.
        corpus: Name of the corpus.
        folds: What is judged in each fold: speakers or, in a speaker-dependent one, files.
        seed: What the folds were dealt with, where they were dealt.
        by: The column that `folds` has values of: `"speaker_id"` or `"file_name"`.
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
        """Whether no speaker is both trained on and judged."""
        return self.by == "speaker_id"

    def to_dict(self) -> dict:
        """As JSON has it."""
        return {
            "name": self.name,
            "corpus": self.corpus,
            "seed": self.seed,
            "by": self.by,
            "folds": [list(fold) for fold in self.folds],
        }

    def test(self, corpus: Corpus, fold: int) -> Corpus:
        """The clips that a fold judges."""
        return corpus.where(self.by, set(self.folds[fold]).__contains__)

    def training(self, corpus: Corpus, fold: int) -> Corpus:
        """All other clips."""
        kept = set(self.folds[fold])
        return corpus.where(self.by, lambda value: value not in kept)


def genders_of(corpus: Corpus) -> dict[str, str]:
    """The gender of each speaker: that of most of the clips, "" where it is not known.

    Raises:
        ProtocolError: If a speaker has clips of both genders.
    """
    pairs = set(zip(corpus.column("speaker_id").to_pylist(), corpus.column("gender").to_pylist(), strict=True))
    known = {(speaker, gender) for speaker, gender in pairs if gender}
    twice = [speaker for speaker, count in Counter(speaker for speaker, _ in known).items() if count > 1]
    if twice:
        raise ProtocolError(f"{corpus.name}: speaker {min(twice)} is female in some clips and male in others")
    return {speaker: "" for speaker, _ in pairs} | dict(known)


def deal_speakers(genders: dict[str, str], k: int, seed: int) -> list[list[str]]:
    """Deal speakers into folds, women first, then men, then speakers of unknown gender.

    Ids are sorted and shuffled by one generator, and dealt in turn; the dealing goes on from one gender to the next.

    Args:
        genders: Gender of each speaker.
        k: Folds.
        seed: Of the shuffling.

    Returns:
        `k` lists of speakers.
    """
    generator, dealt = np.random.default_rng(seed), []
    for gender in ("female", "male", ""):
        speakers = sorted(speaker for speaker, own in genders.items() if own == gender)
        generator.shuffle(speakers)
        dealt += speakers
    return [dealt[fold::k] for fold in range(k)]


def protocol_of(name: str | None, corpus: Corpus, seed: int = 0, folds_file: str | Path | None = None) -> Protocol:
    """Make a protocol for a corpus.

    Args:
        name: `"leave-one-session-out"`, `"leave-one-speaker-out"`, `"5-folds-by-speaker"` or
            `"5-folds-speaker-dependent"`, in which the same speakers are trained on and judged; None where
            `folds_file` has folds by speaker.
        corpus: The clips.
        seed: What folds are dealt with.
        folds_file: A JSON file with the folds of a publication, in place of a deal; see `read_folds`.

    Returns:
        The protocol; see `check` for what is made sure of.

    Raises:
        ProtocolError: If there is no such protocol, or it does not fit the corpus.
    """
    name = name or ("K-folds-by-speaker" if folds_file else "")
    match = re.fullmatch(r"(\d+)-folds-(by-speaker|speaker-dependent)", name)
    if not match and (name not in KINDS or (name.startswith("K") and not folds_file)):
        raise ProtocolError(
            f"no protocol {name!r}; there are {', '.join(KINDS)} (K a number, as in 5-folds-by-speaker)"
        )
    if folds_file:
        if not name.endswith("by-speaker"):
            raise ProtocolError(f"--folds_file has folds of speakers: give --protocol K-folds-by-speaker, not {name}")
        folds, seed_of_folds = read_folds(folds_file, seed)
        if match and int(match[1]) != len(folds):
            raise ProtocolError(f"--folds_file {folds_file}: {len(folds)} folds there, not the {match[1]} of {name}")
        return check(Protocol(f"{len(folds)}-folds-by-speaker", corpus.name, folds, seed_of_folds), corpus)
    if name == "leave-one-speaker-out":
        return check(Protocol(name, corpus.name, [[speaker] for speaker in corpus.speakers]), corpus)
    if name == "leave-one-session-out":
        return check(Protocol(name, corpus.name, _sessions(corpus)), corpus)
    k, speakers = int(match[1]), len(corpus.speakers)
    if match[2] == "by-speaker":
        if not 2 <= k <= speakers:
            raise ProtocolError(f"{corpus.name}: {k} folds of {speakers} speakers; give 2 to {speakers}")
        genders, folds = genders_of(corpus), [[] for _ in range(k)]
        for _, start in corpus.by_part():  # each by itself, so that a mixture's folds are those of its corpora
            own = {speaker: gender for speaker, gender in genders.items() if speaker.startswith(start)}
            folds = [fold + dealt for fold, dealt in zip(folds, deal_speakers(own, k, seed), strict=True)]
        return check(Protocol(name, corpus.name, folds, seed), corpus)
    if k < 2:
        raise ProtocolError(f"{name}: two folds are the least")
    return check(Protocol(name, corpus.name, _deal_clips(corpus, k, seed), seed, "file_name"), corpus)


def _sessions(corpus: Corpus) -> list[list[str]]:
    sessions = corpus.column("session").to_pylist() if "session" in corpus.clips.column_names else []
    if not any(sessions):
        raise ProtocolError(
            f"{corpus.name}: its clips have no session; give --protocol leave-one-speaker-out, or a column session in "
            f"metadata.csv"
        )
    if blank := [file for file, own in zip(corpus.column("file_name").to_pylist(), sessions, strict=True) if not own]:
        raise ProtocolError(f"{corpus.name}: {len(blank)} clips have no session, first {blank[0]}; fill the column in")
    pairs = set(zip(sessions, corpus.column("speaker_id").to_pylist(), strict=True))
    return [sorted(speaker for own, speaker in pairs if own == session) for session in sorted(set(sessions))]


def _deal_clips(corpus: Corpus, k: int, seed: int) -> list[list[str]]:
    """Clips of every speaker and emotion are spread over all folds, of a mixture each corpus by itself."""
    columns = (corpus.column(name).to_pylist() for name in ("speaker_id", "emotion", "file_name"))
    clips, folds = sorted(zip(*columns, strict=True)), [[] for _ in range(k)]
    for _, start in corpus.by_part():
        generator, groups, dealt = np.random.default_rng(seed), {}, []
        for speaker, emotion, file in clips:
            if speaker.startswith(start):
                groups.setdefault((speaker, emotion), []).append(file)
        for files in groups.values():
            generator.shuffle(files)
            dealt += files
        folds = [fold + dealt[number::k] for number, fold in enumerate(folds)]
    return [sorted(fold) for fold in folds]


def read_folds(path: str | Path, seed: int = 0) -> tuple[list[list[str]], int | None]:
    """Read folds from a JSON file.

    Args:
        path: A list of lists of test speakers; or an object with such a list in `folds`, or in `test_speakers`, there
            either the list or one for each seed (`seed_0`, ...).
        seed: Which of them.

    Returns:
        The folds, and the seed where the file has one for each.

    Raises:
        ProtocolError: If it is no such file.
    """
    form = 'a list of lists of speakers, or an object with one in "folds" or "test_speakers"'
    try:
        text = Path(os.path.expanduser(path)).read_text(encoding="utf-8-sig")
        found = json.loads(text, object_pairs_hook=_without_repeats)
    except RecursionError:
        raise ProtocolError(f"--folds_file {path}: nested too deep; it must be JSON: {form}") from None
    except (OSError, ValueError) as error:
        raise ProtocolError(f"--folds_file {path}: cannot be read ({error}); it must be JSON: {form}") from None
    seeded = None
    if isinstance(found, dict):
        found = found.get("folds", found.get("test_speakers"))
    if isinstance(found, dict):
        if f"seed_{seed}" not in found:
            raise ProtocolError(f"--folds_file {path}: no seed_{seed} there; it has {', '.join(found)}")
        found, seeded = found[f"seed_{seed}"], seed
    is_list = isinstance(found, list) and found and all(isinstance(fold, list) and fold for fold in found)
    if not is_list or not all(isinstance(speaker, str) for fold in found for speaker in fold):
        raise ProtocolError(f'--folds_file {path}: must be {form}, speakers as text ("03")')
    return [[speaker.strip() for speaker in fold] for fold in found], seeded


def _without_repeats(pairs: list[tuple]) -> dict:
    if twice := [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]:
        raise ValueError(f"{twice[0]} stands there twice")
    return dict(pairs)


def check(protocol: Protocol, corpus: Corpus) -> Protocol:
    """Make sure that a protocol fits a corpus: nothing is judged twice, nothing that is judged is trained on.

    Returns:
        The protocol.

    Raises:
        ProtocolError: If a fold names what is not there, two folds overlap, or a fold leaves nothing to train on.
    """
    there = set(corpus.column(protocol.by).unique().to_pylist())
    word = "speaker" if protocol.speaker_independent else "file"
    judged = Counter(value for fold in protocol.folds for value in fold)
    if absent := sorted(set(judged) - there):
        raise ProtocolError(
            f"{protocol.name}: {corpus.name} has no {word} {', '.join(absent[:5])}"
            + (f"; it has {', '.join(sorted(there))}" if protocol.speaker_independent else "")
        )
    if twice := sorted(value for value, count in judged.items() if count > 1):
        raise ProtocolError(f"{protocol.name}: {word} {twice[0]} is named twice; each may stand in one fold, once")
    for number, fold in enumerate(protocol.folds):
        if not fold or not there - set(fold):
            raise ProtocolError(f"{protocol.name}: fold {number} leaves nothing to {'train on' if fold else 'judge'}")
    return protocol


def not_judged(protocol: Protocol, corpus: Corpus) -> list[str]:
    """Speakers or files that no fold judges: those of a publication may leave some out."""
    return sorted(
        set(corpus.column(protocol.by).unique().to_pylist()) - {value for fold in protocol.folds for value in fold}
    )


def absent_classes(protocol: Protocol, corpus: Corpus) -> list[str]:
    """Which folds train or judge on clips of some emotions only: a fold's own UAR is over those that it judges."""
    notes, every = [], set(corpus.emotions)
    for fold in range(len(protocol.folds)):
        if absent := sorted(every - set(protocol.test(corpus, fold).emotions)):
            notes.append(f"fold {fold} judges no {', '.join(absent)}: its own UAR is over the other emotions")
        if absent := sorted(every - set(protocol.training(corpus, fold).emotions)):
            notes.append(f"fold {fold} has no {', '.join(absent)} to train on, and cannot answer so")
    return notes


def development_speakers(corpus: Corpus, number: int, seed: int) -> list[str]:
    """Speakers of a training part to develop on: women and men in turn.

    Args:
        corpus: The training part of a fold.
        number: How many.
        seed: Of the shuffling.

    Returns:
        Sorted speakers.

    Raises:
        ProtocolError: If that leaves fewer than two to train on.
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


def some_clips(corpus: Corpus, share: float, seed: int) -> Corpus:
    """A share of the clips, of every speaker and emotion as equally as can be.

    A smaller share is part of a larger one. Of the clips of a speaker and emotion the n-th, in a random order, has
    the rank `(n + u) / clips` with a random `u` in [0, 1), and the clips of the lowest ranks are taken.

    Args:
        corpus: Training clips.
        share: Above 0, at most 1.
        seed: Of the order.

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
    kept = set(sorted(ranks, key=ranks.get)[: max(1, round(share * len(ranks)))])
    return corpus.where("file_name", kept.__contains__)


def shuffled_labels(corpus: Corpus, seed: int) -> Corpus:
    """The same clips, their emotions dealt out at random: what is learnt from them is chance.

    Args:
        corpus: Training clips.
        seed: Of the shuffling.
    """
    emotions = np.array(corpus.column("emotion").to_pylist())
    np.random.default_rng([seed, 2]).shuffle(emotions)
    shuffled = corpus.with_column("emotion", pa.array(emotions.tolist(), pa.string()))
    return replace(shuffled, labels_shuffled=True)
