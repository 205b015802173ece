"""Build a small corpus of sentences spoken by espeak-ng, whose emotions differ in pitch, rate and energy.

    python demo/espeak_corpus.py demo/output/corpus

The corpus makes it possible to run everything without a download; it is no substitute for human speech. espeak-ng is
GPL. Only this program uses it, through `espeakng-loader`; the package does not.
"""

from __future__ import annotations

import csv
import ctypes
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile

# The lowest voice (m8) and the highest (f3) are for training, so that no test voice is outside the range of training.
TRAIN_VOICES = ["en+f1", "en+f2", "en+f3", "en+m1", "en+m2", "en+m3", "en+m5", "en+m8"]
TEST_VOICES = ["en+f4", "en+f5", "en+m4", "en+m6", "en+m7"]
TRAIN_SENTENCES = """The train leaves from platform nine. | My brother lives across the river.
She put the letters on the kitchen table. | We will paint the door on Saturday.
The meeting starts in twenty minutes. | Somebody left a bicycle in the garden.
They are moving to another city. | The doctor called this afternoon.
He forgot his keys in the office. | There is a new bakery on the corner.
The children are waiting at the station. | I have read the book you gave me.
Two of the chairs are broken. | They want to see the old bridge.
Please put the bread into the basket. | The museum is closed on Mondays.
My sister works in a hospital. | It takes an hour to walk there.
We had soup and potatoes for dinner. | The letter came from a friend.""".replace("\n", " | ").split(" | ")
TEST_SENTENCES = """The window in the hall is open. | Our neighbours bought a yellow boat.
You can find the tickets in my coat. | The last bus goes before midnight.
Anna has written to the manager. | It rained on the way to the market.""".replace("\n", " | ").split(" | ")


@dataclass(frozen=True)
class Manner:
    """How a sentence is spoken.

    Args:
        rate: Words per minute.
        volume: Loudness in per cent.
        pitch: From 0 to 99, as is `pitch_range`.
        dynamics: Exponent that widens the difference between loud and soft moments; with -1 all are equally loud.
    """

    rate: float
    volume: float
    pitch: float
    pitch_range: float
    dynamics: float


MANNERS = {
    "angry": Manner(rate=220, volume=150, pitch=55, pitch_range=90, dynamics=0.7),
    "happy": Manner(rate=185, volume=110, pitch=85, pitch_range=75, dynamics=0.0),
    "neutral": Manner(rate=155, volume=90, pitch=44, pitch_range=35, dynamics=0.0),
    "sad": Manner(rate=125, volume=55, pitch=30, pitch_range=12, dynamics=-0.5),
}
JITTER = Manner(rate=7, volume=15, pitch=4, pitch_range=7, dynamics=0.1)  # standard deviations: the classes overlap
FLAT = {None: {}, "pitch": {"pitch": 50, "pitch_range": 0}, "energy": {"volume": 90, "dynamics": -1.0}}


def speaker_of(voice: str) -> str:
    """The speaker id of a voice of espeak-ng."""
    return voice.removeprefix("en+")


class Synthesizer:
    """espeak-ng as a function from text to samples."""

    def __init__(self):
        import espeakng_loader

        self.library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        self.sampling_rate = self.library.espeak_Initialize(1, 0, data, 0)  # 1: samples go to the callback
        callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        self._callback = callback(self._receive)  # the library holds no reference to it
        self._parts: list[np.ndarray] = []
        self.library.espeak_SetSynthCallback(self._callback)

    def _receive(self, samples, count, _events) -> int:
        if samples and count > 0:
            self._parts.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def say(self, text: str, voice: str, manner: Manner) -> np.ndarray:
        """Speak a text.

        Returns:
            Samples, `(time,)` float32 at `sampling_rate` Hz.

        Raises:
            ValueError: If espeak-ng has no such voice.
        """
        if self.library.espeak_SetVoiceByName(voice.encode()):
            raise ValueError(f"espeak-ng has no voice {voice!r}")
        limits = {1: (manner.rate, 80, 450), 3: (manner.pitch, 0, 99), 4: (manner.pitch_range, 0, 99)}
        for parameter, (value, low, high) in limits.items():
            self.library.espeak_SetParameter(parameter, int(np.clip(value, low, high)), 0)
        self._parts.clear()
        self.library.espeak_Synth(text.encode(), len(text) + 1, 0, 1, 0, 1, None, None)
        self.library.espeak_Synchronize()
        wave = shape_energy(np.concatenate(self._parts) / 32768, self.sampling_rate, manner.dynamics)
        return np.clip(wave * max(manner.volume, 10) / 100 * 0.6, -1, 1)


def shape_energy(wave: np.ndarray, rate: int, dynamics: float) -> np.ndarray:
    """Raise the loudness in windows of 50 ms to the power `1 + dynamics`, and keep the mean level."""
    window = np.hanning(rate // 20)
    power = np.convolve(wave.astype(np.float64) ** 2, window / window.sum(), mode="same") + 1e-6
    shaped = wave * (power / power.mean()) ** (dynamics / 2)
    return shaped * np.sqrt((wave**2).mean() / (shaped**2).mean())


def build(folder: Path, synthesizer: Synthesizer, split: str, flat: str | None = None, seed: int = 0) -> None:
    """Write a corpus.

    Args:
        folder: Folder of the corpus.
        synthesizer: Speaks the sentences.
        split: `"all"`, or `"test"` for the test voices and sentences alone.
        flat: `"pitch"` removes the intonation, `"energy"` makes all moments equally loud.
        seed: Seed of the jitter; a clip has the same jitter in every variant.
    """
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    plan = [(voice, TEST_SENTENCES) for voice in TEST_VOICES]
    if split == "all":
        plan += [(voice, TRAIN_SENTENCES) for voice in TRAIN_VOICES]
    rng, rows = np.random.default_rng(seed), []
    fields = list(JITTER.__dataclass_fields__)
    for voice, sentences in plan:
        speaker = speaker_of(voice)
        for number, sentence in enumerate(sentences):
            for emotion, mean in MANNERS.items():
                drawn = {name: getattr(mean, name) + getattr(JITTER, name) * rng.standard_normal() for name in fields}
                wave = synthesizer.say(sentence, voice, replace(Manner(**drawn), **FLAT[flat]))
                name = f"audio/{speaker}_{number:02d}_{emotion}.wav"
                soundfile.write(folder / name, wave, synthesizer.sampling_rate)
                rows.append([name, emotion, "female" if "f" in speaker else "male", speaker, sentence])
    with open(folder / "metadata.csv", "w", newline="") as file:
        csv.writer(file).writerows([["file_name", "emotion", "gender", "speaker_id", "transcript"], *rows])


if __name__ == "__main__":
    build(Path(sys.argv[1]), Synthesizer(), "all")
