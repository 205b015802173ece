"""Small trees in the true layouts of the corpora: silence under the right names."""

import itertools
from pathlib import Path

import numpy as np
import soundfile

from modeling_gemoclap.corpora import casia, cremad, emodb, esd, nemo, ravdess

QUIET = 0.01 * np.random.default_rng(0).standard_normal(1600)


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, QUIET, 16000)


def write_text(path: Path, text: str, encoding: str = "utf-8") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))


def emodb_tree(root: Path) -> Path:
    for speaker, letter in itertools.product(emodb.GENDERS, emodb.EMOTIONS):
        touch(root / f"wav/{speaker}a01{letter}a.wav")
    write_text(root / "erkennung.txt", "Satz   erkannt   natuerlich\n")
    return root


def ravdess_tree(root: Path) -> Path:
    for actor, emotion in itertools.product(range(1, 25), ravdess.EMOTIONS):
        touch(root / f"Actor_{actor:02}/03-01-{emotion}-01-02-01-{actor:02}.wav")
    touch(root / "Actor_01/03-02-03-01-02-01-01.wav")  # sung
    return root


def cremad_tree(root: Path) -> Path:
    actors = {"1001": "Male", "1002": "Female", "1003": "Female"}
    for actor, emotion in itertools.product(actors, cremad.EMOTIONS):
        touch(root / f"AudioWAV/{actor}_{'IEO' if emotion == 'SAD' else 'DFA'}_{emotion}_XX.wav")
    rows = [f"{actor},40,{sex},Caucasian,Not Hispanic" for actor, sex in actors.items()]
    write_text(root / "VideoDemographics.csv", "\n".join(["ActorID,Age,Sex,Race,Ethnicity", *rows]) + "\n")
    return root


def esd_tree(root: Path, split: str = "") -> Path:
    inside = root / "Emotion Speech Dataset"
    encodings = {"0001": "gb18030", "0009": "utf-16", "0011": "utf-8"}
    for speaker, encoding in encodings.items():
        lines = []
        for number, emotion in enumerate(esd.EMOTIONS):
            stem = f"{speaker}_{350 * number + 1:06}"
            touch(inside / speaker / emotion / split / f"{stem}.wav")
            lines.append(f"{stem}\t{'打远一看' if encoding != 'utf-8' else 'The nine the eggs'}\t{emotion}")
        write_text(inside / speaker / f"{speaker}.txt", "\n".join(lines), encoding)
    return root


def casia_tree(root: Path) -> Path:
    for speaker, emotion in itertools.product(casia.GENDERS, casia.EMOTIONS):
        touch(root / speaker / emotion / "201.wav")
    return root


def iemocap_tree(root: Path) -> Path:
    labels = ["neu", "ang", "sad", "hap", "exc", "fru", "xxx"]
    for session in range(1, 6):
        name = f"Ses0{session}F_impro01"
        folder, consensus, spoken = root / f"Session{session}", ["% [START_TIME - END_TIME] TURN_NAME EMOTION", ""], []
        for (number, label), gender in itertools.product(enumerate(labels), "FM"):
            turn = f"{name}_{gender}{number:03}"
            touch(folder / f"sentences/wav/{name}/{turn}.wav")
            consensus += [f"[{number}.2901 - {number}.8357]\t{turn}\t{label}\t[2.5000, 2.5000, 2.5000]"]
            consensus += ["C-E2:\tNeutral;\t()", "A-E3:\tval 3; act 2; dom  2;\t()", ""]
            spoken.append(f"{turn} [00{number}.2901-00{number}.8357]: Excuse me.")
        write_text(folder / f"dialog/EmoEvaluation/{name}.txt", "\n".join(consensus))
        write_text(folder / f"dialog/EmoEvaluation/Categorical/{name}_e2_cat.txt", f"{name}_F000 :Anger; ()")
        write_text(folder / f"dialog/EmoEvaluation/._{name}.txt", "\x00\x05\x16")
        write_text(folder / f"dialog/transcriptions/{name}.txt", "\n".join(spoken))
        write_text(folder / f"sentences/wav/{name}/._{name}_F000.wav", "\x00\x05\x16")
    return root


def nemo_tree(root: Path) -> Path:
    lines = ["file_id\temotion\traw_text\tnormalized_text\tspeaker_id\tgender\tage"]
    for (speaker, gender), emotion in itertools.product(nemo.GENDERS.items(), nemo.EMOTIONS):
        touch(root / f"samples/{speaker}_{emotion}_38.wav")
        sentence = '„Ród smoka" to serial telewizyjny.'  # the table does not escape quotation marks
        row = [f"{speaker}_{emotion}_38.wav", emotion, sentence, "ród smoka to serial telewizyjny"]
        lines.append("\t".join([*row, f"        {speaker}", gender, "27"]))
    write_text(root / "data.tsv", "\n".join(lines) + "\n")
    return root


TREES = {
    "casia": casia_tree,
    "cremad": cremad_tree,
    "emodb": emodb_tree,
    "esd": esd_tree,
    "iemocap": iemocap_tree,
    "nemo": nemo_tree,
    "ravdess": ravdess_tree,
}
