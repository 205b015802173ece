"""Records of the data that a checkpoint was trained on, and the search for the speakers of a corpus in them.

The configuration of a checkpoint holds `training_data`, a list of records. Training appends to it and never rewrites
it. The records have three forms:

- `{"corpus", "speakers", "num_clips", "manifest_sha256", ...}`: the clips that weights were trained on, and with
  `dev_speakers` the clips that were used for development. `{"stage": ...}` beside these fields names an earlier
  training that this one started from, or the training of its teacher.
- `{"encoder": name}`: a pretrained encoder, whose training data are not recorded.
- `{"unknown": reason}`: a training without a record, or with clips of the speaker `UNKNOWN_SPEAKER`.

No list (`None`) means that nothing is known. The absence of a record never counts as evidence that speakers are new.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from .catalogue import CORPORA
from .manifest import Corpus
from .partition import published_speakers

NO_RECORD = "the checkpoint has no record of what it was trained on"
UNREADABLE = "the checkpoint's record of what it was trained on has another form than training gives it"
SUPERVISED = "an encoder by supervised contrast"  # value of `stage` in records
TEACHER = "the teacher of this model"  # value of `stage` in records of what only its teacher was trained on
UNKNOWN_SPEAKER = "unknown"  # as `speaker_id` of clips whose speakers are unknown
SPEAKERS_UNKNOWN = "the speakers of some of its recordings are unknown"
HEARD, NOT_HEARD, UNKNOWN = "heard", "not heard", "unknown"
MAX_HASHES = 256  # hashes of recordings in a record, all speakers together
MAX_HASHES_OF_A_SPEAKER = 8
HASH_DIGITS = 16


@dataclass(frozen=True)
class Heard:
    """Whether a checkpoint was trained or developed on the speakers of some clips.

    Args:
        speakers: The speakers among them that were used for training or development, sorted.
        unknown: The reasons why it is unknown for the other speakers. Empty if these were certainly not used.
        encoders: The pretrained encoders of the checkpoint, whose training data are not recorded.
    """

    speakers: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    encoders: list[str] = field(default_factory=list)

    @property
    def answer(self) -> str:
        """`"heard"`, `"not heard"` or `"unknown"`."""
        return HEARD if self.speakers else UNKNOWN if self.unknown else NOT_HEARD

    def to_dict(self) -> dict:
        """The answer in the form that `results.json` stores."""
        encoders = {"pretrained_encoders": self.encoders} if self.encoders else {}
        return {"answer": self.answer, "speakers": self.speakers, "unknown": self.unknown, **encoders}

    @classmethod
    def from_dict(cls, values: dict) -> Heard:
        """The inverse of `to_dict`."""
        return cls(values["speakers"], values["unknown"], values.get("pretrained_encoders", []))


def merged(answers: Sequence[Heard]) -> Heard:
    """Merge the answers for several checkpoints: the union of their speakers, reasons and encoders."""
    return Heard(
        sorted({speaker for answer in answers for speaker in answer.speakers}),
        list(dict.fromkeys(reason for answer in answers for reason in answer.unknown)),
        list(dict.fromkeys(encoder for answer in answers for encoder in answer.encoders)),
    )


def training_records(train: Corpus, dev: Corpus | None = None) -> list[dict]:
    """Make the records of a training, one for each corpus.

    Args:
        train: The training clips.
        dev: The development clips, which select the epoch or calibrate the scores.
    """
    records = _with_unknown_speakers([_record(*part) for part in _parts(train)])
    return with_development(records, dev) if dev else records


def with_development(records: list[dict], dev: Corpus) -> list[dict]:
    """Add the development speakers to the records of a training.

    Args:
        records: The records of the training clips.
        dev: The development clips.
    """
    records = [dict(record) for record in records]
    for developed in (_record(*part) for part in _parts(dev)):
        record = _record_to_extend(records, developed)
        _add(record, "dev_speakers", developed["speakers"])
        _add(record, "dev_recordings", developed.get("recordings", []))
        if published := developed.get("published"):
            ids_by_corpus = record["dev_published"] = dict(record.get("dev_published", {}))
            for name, ids in published.items():
                _add(ids_by_corpus, name, ids)
    return _with_unknown_speakers(records)


def _with_unknown_speakers(records: list[dict]) -> list[dict]:
    """The records, and one with `unknown` if clips of the speaker `UNKNOWN_SPEAKER` are among them."""
    reason = {"unknown": SPEAKERS_UNKNOWN}
    own = [record for record in records if "stage" not in record]
    known = all(UNKNOWN_SPEAKER not in (*each.get("speakers", ()), *each.get("dev_speakers", ())) for each in own)
    return records if known or reason in records else [*records, reason]


def _record_to_extend(records: list[dict], developed: dict) -> dict:
    """The record of the same corpus in the present training. If there is none, an empty one is appended."""
    for record in records:
        if record.get("manifest_sha256") == developed["manifest_sha256"] and "stage" not in record:
            return record
    of_training = ("speakers", "recordings", "published")
    record = {name: value for name, value in developed.items() if name not in of_training}
    records.append(record | {"speakers": [], "num_clips": 0})
    return records[-1]


def _add(record: dict, name: str, values: list[str]) -> None:
    record[name] = sorted({*record.get(name, ()), *values})


def _parts(corpus: Corpus) -> Iterator[tuple[Corpus, Corpus, str]]:
    """For each corpus of a mixture: the complete corpus, its selected clips, and the prefix of its speaker ids."""
    for complete, prefix in corpus.by_part():
        clips = corpus.where("speaker_id", lambda speaker, prefix=prefix: speaker.startswith(prefix))
        if len(clips):
            yield complete, clips, prefix


def _record(complete: Corpus, clips: Corpus, prefix: str) -> dict:
    record = {
        "corpus": complete.name,
        "speakers": [speaker.removeprefix(prefix) for speaker in clips.speakers],
        "num_clips": len(clips),
        "manifest_sha256": complete.manifest_sha256,
        "unlabelled_sha256": complete.unlabelled_sha256,
    }
    if complete.known:
        record |= {"known": complete.known.name, "licence": complete.known.licence}
    if published := _published_ids(complete, clips):
        record["published"] = {name: sorted(ids) for name, ids in published.items()}
    if hashes := _sample_hashes(clips):
        record["recordings"] = hashes
    record |= {} if clips.emotions else {"unlabelled": True}
    return record | ({"labels_shuffled": True} if clips.labels_shuffled else {})


def _published_ids(complete: Corpus, clips: Corpus) -> dict[str, dict[str, str]]:
    """See `published_speakers`: from the own ids of published corpora to the ids of the manifest."""
    table = clips.clips.with_format("arrow")[:]
    return published_speakers(table.select(["file_name", "speaker_id"]), complete.known)


def _speaker_by_hash(clips: Corpus) -> dict[str, str]:
    """From the hash of each recording to its speaker. Content that occurs twice (silence, a jingle) is left out."""
    speakers = defaultdict(list)
    for speaker, sha256 in zip(clips.column("speaker_id").to_pylist(), clips.recording_hashes(), strict=True):
        if sha256:
            speakers[sha256[:HASH_DIGITS]].append(speaker)
    return {sha256: candidates[0] for sha256, candidates in speakers.items() if len(candidates) == 1}


def _sample_hashes(clips: Corpus) -> list[str]:
    """The smallest hashes of each speaker's recordings. They identify copies under other names."""
    hashes_by_speaker = defaultdict(list)
    for sha256, speaker in _speaker_by_hash(clips).items():
        hashes_by_speaker[speaker].append(sha256)
    number = max(1, min(MAX_HASHES_OF_A_SPEAKER, MAX_HASHES // max(1, len(hashes_by_speaker))))
    return sorted(sha256 for hashes in hashes_by_speaker.values() for sha256 in sorted(hashes)[:number])[:MAX_HASHES]


def heard_speakers(corpus: Corpus, training_data: list[dict] | None) -> Heard:
    """Find out whether weights were trained or developed on the speakers of some clips.

    The rules are:

    - A recording with the same content was heard, whatever its name.
    - The same manifest has the same speakers.
    - The speakers of published corpora are compared by the corpora's own ids, which the names of the recordings
      contain, whatever ids the manifest uses. Two published corpora share no speaker.
    - Otherwise, a speaker with the same id in a corpus of the same name was heard. For the others it is unknown.

    Args:
        corpus: The clips.
        training_data: The records of the checkpoint, or None if it has no record.
    """
    if training_data is None:
        return Heard(unknown=[NO_RECORD])
    if not isinstance(training_data, list):
        return Heard(unknown=[UNREADABLE])
    heard, unknown = set(), []
    for record in training_data:
        if not _is_record_of_clips(record):
            unknown += _unknown_reasons(record)
            continue
        for complete, clips, prefix in _parts(corpus):
            speakers, reason = _compare(record, complete, clips, prefix)
            heard.update(prefix + speaker for speaker in speakers)
            unknown += [reason] if reason else []
    encoders = [record["encoder"] for record in training_data if isinstance(record, dict) and "encoder" in record]
    return Heard(sorted(heard), list(dict.fromkeys(unknown)), list(dict.fromkeys(encoders)))


def _is_record_of_clips(record) -> bool:
    """Whether a record has the form that `_record` gives it."""
    if not isinstance(record, dict) or not isinstance(record.get("corpus"), str):
        return False
    lists = (
        record.get("speakers"),
        *(record.get(name, []) for name in ("dev_speakers", "recordings", "dev_recordings")),
    )
    published = (record.get(name, {}) for name in ("published", "dev_published"))
    return all(isinstance(value, list) for value in lists) and all(isinstance(value, dict) for value in published)


def _unknown_reasons(record) -> list[str]:
    """The reasons why a record without clips leaves speakers unknown."""
    if isinstance(record, dict) and isinstance(record.get("encoder"), str):
        return []
    return [str(record["unknown"])] if isinstance(record, dict) and "unknown" in record else [UNREADABLE]


def _compare(record: dict, complete: Corpus, clips: Corpus, prefix: str) -> tuple[set[str], str]:
    """The speakers of some clips that a record names, and why it is unknown for the others, or ""."""
    ids = {speaker.removeprefix(prefix) for speaker in clips.speakers}
    recorded = {*record["speakers"], *record.get("dev_speakers", ())}
    heard = _speakers_of_same_recordings(record, clips, prefix)
    if {record.get("manifest_sha256"), record.get("unlabelled_sha256")} & complete.hashes:
        return heard | ids & recorded, ""
    same_name, recorded_ids = record["corpus"] == complete.name, _recorded_published_ids(record, recorded)
    decided = set()
    for corpus, own_ids in _published_ids(complete, clips).items():
        recorded_of_corpus = recorded_ids.get(corpus, ())
        heard |= {label.removeprefix(prefix) for true_id, label in own_ids.items() if true_id in recorded_of_corpus}
        decided |= {label.removeprefix(prefix) for label in own_ids.values()}
    if sum(map(len, recorded_ids.values())) < len(recorded):  # some recorded speakers are of no published corpus
        decided = set()
    if ids <= heard | decided:
        return heard, ""
    heard |= ids & recorded if same_name else set()
    if ids <= heard | decided:
        return heard, ""
    reason = _difference(record, complete, same_name)
    return heard, f"whether it has heard the speakers of {complete.name} is not recorded: {reason}"


def _recorded_published_ids(record: dict, recorded: set[str]) -> dict[str, list[str]]:
    """The speakers of published corpora in a record, by the corpora's own ids. Older records may not have them."""
    if "published" in record or "dev_published" in record:
        train, dev = (record.get(name, {}) for name in ("published", "dev_published"))
        return {name: sorted({*train.get(name, ()), *dev.get(name, ())}) for name in {**train, **dev}}
    known = CORPORA.get(record.get("known", ""))
    return {known.name: sorted(recorded)} if known and recorded <= set(known.speakers) else {}


def _difference(record: dict, complete: Corpus, same_name: bool) -> str:
    if complete.known and complete.known.name == record.get("known"):
        ids = ", ".join(record["speakers"][:3])
        return f"the record spells {complete.known.title}'s speakers otherwise than the corpus does ({ids})"
    return "it was trained on another version of it" if same_name else f"it was trained on {record['corpus']}"


def _speakers_of_same_recordings(record: dict, clips: Corpus, prefix: str) -> set[str]:
    recorded = {*record.get("recordings", ()), *record.get("dev_recordings", ())}
    speakers = _speaker_by_hash(clips) if recorded else {}
    return {speakers[sha256].removeprefix(prefix) for sha256 in recorded & speakers.keys()}
