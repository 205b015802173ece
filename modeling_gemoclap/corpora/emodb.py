"""Emo-DB, the Berlin Database of Emotional Speech: `wav/03a01Fa.wav`."""

from __future__ import annotations

import re

from .layout import KnownCorpus, anywhere, code, in_layout

EMOTIONS = {
    "W": "angry",
    "L": "boredom",
    "E": "disgust",
    "A": "fear",
    "F": "happy",
    "T": "sad",
    "N": "neutral",
}
# From the corpus's documentation; lists that circulate have some of them wrong.
GENDERS = {
    **dict.fromkeys(("03", "10", "11", "12", "15"), "male"),
    **dict.fromkeys(("08", "09", "13", "14", "16"), "female"),
}
SENTENCES = {
    "a01": "Der Lappen liegt auf dem Eisschrank.",
    "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute abend könnte ich es ihm sagen.",
    "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
    "a07": "In sieben Stunden wird es soweit sein.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}
NAME = r"(?P<speaker>\d\d)(?P<sentence>[ab]\d\d)(?P<emotion>[A-Z])(?P<version>[a-z]?)"


def _by_name(match: re.Match) -> dict:
    speaker, sentence, letter = match["speaker"], match["sentence"], match["emotion"]
    return {
        "speaker_id": speaker,
        "gender": code(speaker, GENDERS, "speaker"),
        "emotion": code(letter, EMOTIONS, "emotion letter"),
        "transcript": code(sentence, SENTENCES, "sentence"),
    }


CORPUS = KnownCorpus(
    name="emodb",
    title="Emo-DB",
    licence="CC0-1.0",
    citation=(
        "F. Burkhardt, A. Paeschke, M. Rolfes, W. F. Sendlmeier, B. Weiss: A Database of German Emotional Speech. "
        "Interspeech 2005, 1517-1520"
    ),
    url="http://emodb.bilderbar.info",
    language="de",
    path=in_layout(NAME),
    wherever=anywhere(NAME),
    by_name=_by_name,
    describe=lambda match, _: _by_name(match),
    counts={"angry": 127, "boredom": 81, "disgust": 46, "fear": 69, "happy": 71, "neutral": 79, "sad": 62},
    num_speakers=10,
    speakers=tuple(sorted(GENDERS)),
)
