"""CASIA, the Chinese emotional speech corpus as papers use it: `liuchanhg/angry/201.wav`."""

from __future__ import annotations

import re

from .layout import KnownCorpus, anywhere, code, in_layout

EMOTIONS = {word: word for word in ("angry", "fear", "happy", "neutral", "sad", "surprise")}
GENDERS = {"liuchanhg": "female", "zhaoquanyin": "female", "wangzhe": "male", "ZhaoZuoxiang": "male"}
SPEAKERS = "|".join(GENDERS)


def _by_name(match: re.Match) -> dict:
    speaker = match["speaker"]
    return {"speaker_id": speaker, "gender": GENDERS[speaker], "emotion": code(match["emotion"], EMOTIONS, "emotion")}


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
    path=in_layout(rf"(?P<speaker>{SPEAKERS})/(?P<emotion>[A-Za-z]+)/(?P<number>\d+)"),
    wherever=anywhere(rf"(?P<speaker>{SPEAKERS})[/_\-](?P<emotion>[A-Za-z]+)[/_\-](?P<number>\d+)"),
    by_name=_by_name,
    describe=lambda match, _: _by_name(match),
    counts=dict.fromkeys(EMOTIONS, 200),
    num_speakers=4,
    speakers=tuple(sorted(GENDERS)),
)
