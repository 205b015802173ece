"""Whether a checkpoint was trained on the speakers that it is evaluated on."""

from __future__ import annotations

from ..corpora.manifest import Corpus
from ..corpora.provenance import Heard, heard_speakers

CONTROL_NOTE = "; A CONTROL, trained on shuffled labels"


class SeenSpeakersError(ValueError):
    """The checkpoint was trained on speakers of the test set."""


def is_control(training_data: list[dict] | None) -> bool:
    """Whether the last training used shuffled labels. Earlier trainings, which have a `stage`, do not count."""
    return any(record.get("labels_shuffled") and "stage" not in record for record in training_data or [])


def refuse_seen_speakers(
    corpus: Corpus, training_data: list[dict] | None, allow: bool = False, model: str = "the checkpoint"
) -> Heard:
    """Look up the speakers of `corpus` in the training records of a checkpoint.

    Args:
        corpus: The test clips.
        training_data: Training records of the checkpoint; None if it has none.
        allow: Whether speakers seen in training are allowed.
        model: Name of the checkpoint in the error message.

    Returns:
        The test speakers that the checkpoint was trained or developed on, and what is unknown.

    Raises:
        SeenSpeakersError: If the checkpoint was trained or developed on test speakers and `allow` is False.
    """
    heard = heard_speakers(corpus, training_data)
    if heard.speakers and not allow:
        unseen = sorted(set(corpus.speakers) - set(heard.speakers))
        advice = f"Give --speakers {' '.join(unseen)}" if unseen else "Choose another corpus"
        raise SeenSpeakersError(
            f"{corpus.name}: {model} was trained or developed on its speakers {', '.join(heard.speakers)}, so figures "
            f"on them do not measure generalisation. {advice}, or give --allow_seen_speakers, which the report states"
        )
    return heard


def speaker_independence(heard: Heard, count: int, corpus: str) -> str:
    """State whether an evaluation is speaker-independent.

    Args:
        heard: Result of `refuse_seen_speakers`.
        count: Number of test speakers.
        corpus: Name of their corpus.
    """
    names = " and ".join(heard.encoders)
    encoders = f"; the pretraining data of {names} are not recorded" if names else ""
    if heard.speakers:
        others = f"; unknown for the other speakers: {'; '.join(heard.unknown)}" if heard.unknown else ""
        return f"NOT speaker-independent: trained on speakers {', '.join(heard.speakers)}{others}{encoders}"
    if heard.unknown:
        return f"UNKNOWN whether speaker-independent: {'; '.join(heard.unknown)}{encoders}"
    speakers = f"none of the {count} speakers of {corpus} is" if count > 1 else f"the speaker of {corpus} is not"
    return f"speaker-independent: {speakers} in the training record{encoders}"
