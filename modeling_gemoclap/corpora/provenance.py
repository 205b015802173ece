"""What a checkpoint's weights have heard: records of training data, and the question whether speakers are among them.

A checkpoint's configuration holds `training_data`, a list of records that training appends to and never rewrites:

- `{"corpus", "speakers", "num_clips", "manifest_sha256", ...}`: clips that weights were trained on, or with
  `dev_speakers` developed on; `{"stage": ...}` beside it names an earlier training that this one started from;
- `{"encoder": name}`: a pretrained encoder, whose own training data are not recorded;
- `{"unknown": reason}`: training of which nothing is recorded.

No list at all (`None`) means that nothing is known. Absence of evidence is never evidence of absence.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from .layout import KnownCorpus
from .manifest import Corpus

NO_RECORD = "the checkpoint has no record of what it was trained on"
HEARD, NOT_HEARD, UNKNOWN = "heard", "not heard", "unknown"
SAMPLED = 256  # recordings that a record keeps the hash of, all speakers together
SAMPLED_OF_A_SPEAKER = 8
DIGITS = 16


@dataclass(frozen=True)
class Heard:
    """Whether a checkpoint was trained or developed on the speakers of some clips.

    Args:
        speakers: Speakers among them that it was trained or developed on, sorted.
        unknown: Why it is not known of the other speakers; empty where it is known that they were not heard.
        encoders: Pretrained encoders it started from, whose own training data are not recorded.
    """

    speakers: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    encoders: list[str] = field(default_factory=list)

    @property
    def answer(self) -> str:
        """`"heard"`, `"not heard"` or `"unknown"`."""
        return HEARD if self.speakers else UNKNOWN if self.unknown else NOT_HEARD

    def to_dict(self) -> dict:
        """As `results.json` has it."""
        encoders = {"pretrained_encoders": self.encoders} if self.encoders else {}
        return {"answer": self.answer, "speakers": self.speakers, "unknown": self.unknown, **encoders}

    @classmethod
    def from_dict(cls, found: dict) -> Heard:
        """What `to_dict` gave."""
        return cls(found["speakers"], found["unknown"], found.get("pretrained_encoders", []))


def merged(answers: Sequence[Heard]) -> Heard:
    """Several checkpoints' answers as one: speakers that one has heard are heard, and what is unknown of one is."""
    return Heard(
        sorted({speaker for answer in answers for speaker in answer.speakers}),
        list(dict.fromkeys(reason for answer in answers for reason in answer.unknown)),
        list(dict.fromkeys(encoder for answer in answers for encoder in answer.encoders)),
    )


def training_records(train: Corpus, dev: Corpus | None = None) -> list[dict]:
    """Records of the clips that weights are trained on, one for each corpus.

    Args:
        train: The training clips.
        dev: The clips that the training is developed on: an epoch chosen, or scores calibrated.
    """
    records = [_record(*part) for part in _parts(train)]
    return with_development(records, dev) if dev else records


def with_development(records: list[dict], dev: Corpus) -> list[dict]:
    """Records of a training, with the speakers that it is developed on.

    Args:
        records: Of its training clips.
        dev: The development clips.
    """
    records = [dict(record) for record in records]
    for developed in (_record(*part) for part in _parts(dev)):
        same = [record for record in records if record.get("manifest_sha256") == developed["manifest_sha256"]]
        if not same:
            same = [developed | {"speakers": [], "num_clips": 0}]
            records += same
        same[0]["dev_speakers"] = developed["speakers"]
        for name in ("known_speakers", "recordings"):
            if name in developed:
                same[0][name] = sorted({*same[0].get(name, ()), *developed[name]})
    return records


def _parts(corpus: Corpus):
    """Of each corpus in a mixture: the whole, its clips in the selection, and how its speakers begin there."""
    for whole, start in corpus.by_part():
        clips = corpus.where("speaker_id", lambda speaker, start=start: speaker.startswith(start))
        if len(clips):
            yield whole, clips, start


def _record(whole: Corpus, clips: Corpus, start: str) -> dict:
    record = {
        "corpus": whole.name,
        "speakers": [speaker.removeprefix(start) for speaker in clips.speakers],
        "num_clips": len(clips),
        "manifest_sha256": whole.manifest_sha256,
        "unlabelled_sha256": whole.unlabelled_sha256,
    }
    if whole.known:
        record |= {"known": whole.known.name, "licence": whole.known.licence}
        own_ids = set(known_ids(whole, clips, start).values())
        if None not in own_ids:
            record["known_speakers"] = sorted(own_ids)
    if sample := _sample(clips):
        record["recordings"] = sample
    record |= {} if clips.emotions else {"unlabelled": True}
    return record | ({"labels_shuffled": True} if clips.labels_shuffled else {})


def known_ids(whole: Corpus, clips: Corpus, start: str = "") -> dict[str, str | None]:
    """A published corpus's own id for each speaker, by the names of the recordings; None where it cannot be told.

    Args:
        whole: The published corpus.
        clips: Some of its clips.
        start: How their speakers begin, in a mixture.
    """
    found = defaultdict(set)
    columns = (clips.column(name).to_pylist() for name in ("speaker_id", "file_name"))
    for speaker, file in zip(*columns, strict=True):
        found[speaker.removeprefix(start)].add(whole.known.speaker_of(file))
    return {speaker: ids.pop() if len(ids) == 1 else None for speaker, ids in found.items()}


def _sample(clips: Corpus) -> list[str]:
    """Hashes of some recordings of each speaker, the smallest: a copy under another name is known by them."""
    of_speaker = defaultdict(list)
    for speaker, own in zip(clips.column("speaker_id").to_pylist(), clips.recording_hashes(), strict=True):
        if own:
            of_speaker[speaker].append(own[:DIGITS])
    each = max(1, min(SAMPLED_OF_A_SPEAKER, SAMPLED // max(1, len(of_speaker))))
    return sorted(own for hashes in of_speaker.values() for own in sorted(hashes)[:each])[:SAMPLED]


def heard_speakers(corpus: Corpus, training_data: list[dict] | None) -> Heard:
    """Whether weights were trained or developed on the speakers of some clips.

    The same manifest has the same speakers. The speakers of a published corpus are compared by its own ids, whatever
    the manifest calls them, and two published corpora share none. Otherwise a recording that both have, or a speaker
    of a corpus of the same name, was heard, and of the others it is unknown.

    Args:
        corpus: The clips.
        training_data: The records of the checkpoint; None where it has none.
    """
    if training_data is None:
        return Heard(unknown=[NO_RECORD])
    heard, unknown = set(), []
    for record in training_data:
        if "speakers" not in record:
            unknown += [record["unknown"]] if "unknown" in record else []
            continue
        for whole, clips, start in _parts(corpus):
            found, reason = _compare(record, whole, clips, start)
            heard.update(start + speaker for speaker in found)
            unknown += [reason] if reason else []
    encoders = [record["encoder"] for record in training_data if "encoder" in record]
    return Heard(sorted(heard), list(dict.fromkeys(unknown)), list(dict.fromkeys(encoders)))


def _compare(record: dict, whole: Corpus, clips: Corpus, start: str) -> tuple[set[str], str]:
    """Speakers of some clips that a record names, and why it is not known of the others, or ""."""
    ids = {speaker.removeprefix(start) for speaker in clips.speakers}
    named = {*record["speakers"], *record.get("dev_speakers", ())}
    if {record.get("manifest_sha256"), record.get("unlabelled_sha256")} & whole.hashes:
        return ids & named, ""
    if whole.known and record.get("known"):
        if whole.known.name != record["known"]:
            return set(), ""
        return _compare_known(record, known_ids(whole, clips, start), named, whole.known)
    same = record["corpus"] == whole.name
    found = (ids & named if same else set()) | _same_recordings(record, clips, start)
    if found == ids:
        return found, ""
    what = "it was trained on another version of it" if same else f"it was trained on {record['corpus']}"
    return found, f"whether it has heard the speakers of {whole.name} is not recorded: {what}"


def _compare_known(record: dict, ids: dict[str, str | None], named: set[str], known: KnownCorpus):
    own = set(record.get("known_speakers", named))
    found = {speaker for speaker, true in ids.items() if true in own or true is None and speaker in named}
    if not own <= set(known.speakers):
        strange = ", ".join(sorted(own - set(known.speakers))[:3])
        return found, f"the record names speakers of {known.title} in a spelling that is not the corpus's ({strange})"
    if None in ids.values() and len(found) < len(ids):
        return found, f"the names of some recordings of {known.title} do not tell who speaks"
    return found, ""


def _same_recordings(record: dict, clips: Corpus, start: str) -> set[str]:
    sampled = set(record.get("recordings", ()))
    if not sampled:
        return set()
    pairs = zip(clips.column("speaker_id").to_pylist(), clips.recording_hashes(), strict=True)
    return {speaker.removeprefix(start) for speaker, own in pairs if own and own[:DIGITS] in sampled}
