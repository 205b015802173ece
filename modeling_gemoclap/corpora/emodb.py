"""Emo-DB, the Berlin Database of Emotional Speech: `wav/03a01Fa.wav`."""

from __future__ import annotations

import re

from .layout import KnownCorpus, decode_label, name_pattern, path_pattern

EMOTIONS = {
    "W": "angry",
    "L": "boredom",
    "E": "disgust",
    "A": "fear",
    "F": "happy",
    "T": "sad",
    "N": "neutral",
}
# From the documentation of the corpus. Some of the lists in circulation are wrong.
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


def _parse_name(match: re.Match) -> dict:
    speaker, sentence, letter = match["speaker"], match["sentence"], match["emotion"]
    return {
        "speaker_id": speaker,
        "gender": decode_label(speaker, GENDERS, "speaker"),
        "emotion": decode_label(letter, EMOTIONS, "emotion letter"),
        "transcript": decode_label(sentence, SENTENCES, "sentence"),
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
    path_pattern=path_pattern(NAME),
    name_pattern=name_pattern(NAME),
    parse_name=_parse_name,
    describe=lambda match, _: _parse_name(match),
    counts={"angry": 127, "boredom": 81, "disgust": 46, "fear": 69, "happy": 71, "neutral": 79, "sad": 62},
    num_speakers=10,
    speakers=tuple(sorted(GENDERS)),
)
