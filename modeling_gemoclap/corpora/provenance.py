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

from .catalogue import CORPORA
from .manifest import Corpus
from .partition import published_speakers

NO_RECORD = "the checkpoint has no record of what it was trained on"
UNREADABLE = "the checkpoint's record of what it was trained on has another form than training gives it"
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
        own = developed["manifest_sha256"]
        same = [one for one in records if one.get("manifest_sha256") == own and "stage" not in one]
        if not same:
            heard = ("speakers", "recordings", "published")
            same = [{name: value for name, value in developed.items() if name not in heard}]
            same[0] |= {"speakers": [], "num_clips": 0}
            records += same
        _add(same[0], "dev_speakers", developed["speakers"])
        _add(same[0], "dev_recordings", developed.get("recordings", []))
        if published := developed.get("published"):
            own_ids = same[0]["dev_published"] = dict(same[0].get("dev_published", {}))
            for name, ids in published.items():
                _add(own_ids, name, ids)
    return records


def _add(record: dict, name: str, values: list[str]) -> None:
    record[name] = sorted({*record.get(name, ()), *values})


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
    if published := _published(whole, clips):
        record["published"] = {name: sorted(ids) for name, ids in published.items()}
    if sample := _sample(clips):
        record["recordings"] = sample
    record |= {} if clips.emotions else {"unlabelled": True}
    return record | ({"labels_shuffled": True} if clips.labels_shuffled else {})


def _published(whole: Corpus, clips: Corpus) -> dict[str, dict[str, str]]:
    """For each published corpus with recordings among the clips: from its own id of a speaker to the manifest's."""
    table = clips.clips.with_format("arrow")[:]
    return published_speakers(table.select(["file_name", "speaker_id"]), whole.known)


def _owners(clips: Corpus) -> dict[str, str]:
    """From the hash of each recording to its speaker; what several recordings hold (silence, a jingle) is left out."""
    speakers = defaultdict(list)
    for speaker, own in zip(clips.column("speaker_id").to_pylist(), clips.recording_hashes(), strict=True):
        if own:
            speakers[own[:DIGITS]].append(speaker)
    return {own: who[0] for own, who in speakers.items() if len(who) == 1}


def _sample(clips: Corpus) -> list[str]:
    """Hashes of some recordings of each speaker, the smallest: a copy under another name is known by them."""
    of_speaker = defaultdict(list)
    for own, speaker in _owners(clips).items():
        of_speaker[speaker].append(own)
    each = max(1, min(SAMPLED_OF_A_SPEAKER, SAMPLED // max(1, len(of_speaker))))
    return sorted(own for hashes in of_speaker.values() for own in sorted(hashes)[:each])[:SAMPLED]


def heard_speakers(corpus: Corpus, training_data: list[dict] | None) -> Heard:
    """Whether weights were trained or developed on the speakers of some clips.

    A recording that both have was heard, whatever it is called. The same manifest has the same speakers. The speakers
    of published corpora are compared by the corpora's own ids,
    which the names of the recordings tell, whatever the manifest calls them; two published corpora share none.
    Otherwise a speaker of a corpus of the same name was heard, and of the others it is unknown.

    Args:
        corpus: The clips.
        training_data: The records of the checkpoint; None where it has none.
    """
    if training_data is None:
        return Heard(unknown=[NO_RECORD])
    if not isinstance(training_data, list):
        return Heard(unknown=[UNREADABLE])
    heard, unknown = set(), []
    for record in training_data:
        if not _names_speakers(record):
            unknown += _reason(record)
            continue
        for whole, clips, start in _parts(corpus):
            found, reason = _compare(record, whole, clips, start)
            heard.update(start + speaker for speaker in found)
            unknown += [reason] if reason else []
    encoders = [record["encoder"] for record in training_data if isinstance(record, dict) and "encoder" in record]
    return Heard(sorted(heard), list(dict.fromkeys(unknown)), list(dict.fromkeys(encoders)))


def _names_speakers(record) -> bool:
    """Whether a record is one of clips, as this module makes them."""
    if not isinstance(record, dict) or not isinstance(record.get("corpus"), str):
        return False
    lists = (
        record.get("speakers"),
        *(record.get(name, []) for name in ("dev_speakers", "recordings", "dev_recordings")),
    )
    published = (record.get(name, {}) for name in ("published", "dev_published"))
    return all(isinstance(one, list) for one in lists) and all(isinstance(one, dict) for one in published)


def _reason(record) -> list[str]:
    """What a record of no clips leaves unknown."""
    if isinstance(record, dict) and isinstance(record.get("encoder"), str):
        return []
    return [str(record["unknown"])] if isinstance(record, dict) and "unknown" in record else [UNREADABLE]


def _compare(record: dict, whole: Corpus, clips: Corpus, start: str) -> tuple[set[str], str]:
    """Speakers of some clips that a record names, and why it is not known of the others, or ""."""
    ids = {speaker.removeprefix(start) for speaker in clips.speakers}
    named = {*record["speakers"], *record.get("dev_speakers", ())}
    found = _same_recordings(record, clips, start)
    if {record.get("manifest_sha256"), record.get("unlabelled_sha256")} & whole.hashes:
        return found | ids & named, ""
    same, theirs = record["corpus"] == whole.name, _recorded_as_published(record, named)
    decided = set()
    for corpus, own in _published(whole, clips).items():
        found |= {given.removeprefix(start) for true, given in own.items() if true in theirs.get(corpus, ())}
        decided |= {given.removeprefix(start) for given in own.values()}
    if sum(map(len, theirs.values())) < len(named):  # some of the record's speakers are of no published corpus
        decided = set()
    if ids <= found | decided:
        return found, ""
    found |= ids & named if same else set()
    if ids <= found | decided:
        return found, ""
    return found, f"whether it has heard the speakers of {whole.name} is not recorded: {_what(record, whole, same)}"


def _recorded_as_published(record: dict, named: set[str]) -> dict[str, list[str]]:
    """Speakers of published corpora in a record, by the corpora's own ids; older records have these or none."""
    if "published" in record or "dev_published" in record:
        both = [record.get(name, {}) for name in ("published", "dev_published")]
        return {name: sorted({*both[0].get(name, ()), *both[1].get(name, ())}) for name in {**both[0], **both[1]}}
    known = CORPORA.get(record.get("known", ""))
    return {known.name: sorted(named)} if known and named <= set(known.speakers) else {}


def _what(record: dict, whole: Corpus, same: bool) -> str:
    if whole.known and whole.known.name == record.get("known"):
        named = ", ".join(record["speakers"][:3])
        return f"the record spells {whole.known.title}'s speakers otherwise than the corpus does ({named})"
    return "it was trained on another version of it" if same else f"it was trained on {record['corpus']}"


def _same_recordings(record: dict, clips: Corpus, start: str) -> set[str]:
    sampled = {*record.get("recordings", ()), *record.get("dev_recordings", ())}
    owners = _owners(clips) if sampled else {}
    return {owners[own].removeprefix(start) for own in sampled & owners.keys()}
