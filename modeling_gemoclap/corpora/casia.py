"""CASIA, the Chinese emotional speech corpus, in the version that papers use: `liuchanhg/angry/201.wav`."""

from __future__ import annotations

import re

from .layout import KnownCorpus, decode_label, name_pattern, path_pattern

EMOTIONS = {word: word for word in ("angry", "fear", "happy", "neutral", "sad", "surprise")}
GENDERS = {"liuchanhg": "female", "zhaoquanyin": "female", "wangzhe": "male", "ZhaoZuoxiang": "male"}
SPEAKERS = "|".join(GENDERS)


def _parse_name(match: re.Match) -> dict:
    speaker = match["speaker"]
    return {
        "speaker_id": speaker,
        "gender": GENDERS[speaker],
        "emotion": decode_label(match["emotion"], EMOTIONS, "emotion"),
    }


CORPUS = KnownCorpus(
    name="casia",
    title="CASIA",
    licence="research only, by agreement",
    citation=(
        "Institute of Automation, Chinese Academy of Sciences: CASIA Chinese emotional speech corpus, 2005; "
        "four speakers, 50 sentences in six emotions each"
    ),
    url="http://www.chineseldc.org",
    language="zh",
    path_pattern=path_pattern(rf"(?P<speaker>{SPEAKERS})/(?P<emotion>[A-Za-z]+)/(?P<number>\d+)"),
    name_pattern=name_pattern(rf"(?P<speaker>{SPEAKERS})[/_\-](?P<emotion>[A-Za-z]+)[/_\-](?P<number>\d+)"),
    parse_name=_parse_name,
    describe=lambda match, _: _parse_name(match),
    counts=dict.fromkeys(EMOTIONS, 200),
    num_speakers=4,
    speakers=tuple(sorted(GENDERS)),
)
