"""Recordings: valid files of every container, and what must hold for a damaged one."""

from __future__ import annotations

import io
import random
import subprocess

import fuzz_mutate
import fuzz_structure
import numpy as np
import soundfile

RATE = 16000
CONTAINERS = {  # kind: pairs of libsndfile's format and encoding
    "WAV": [("WAV", name) for name in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "IMA_ADPCM")]
    + [("WAV", "GSM610"), ("WAVEX", "PCM_16"), ("WAV", "MS_ADPCM")],
    "RF64": [("RF64", "PCM_16"), ("RF64", "FLOAT")],
    "W64": [("W64", "PCM_16"), ("W64", "DOUBLE")],
    "AIFF": [("AIFF", "PCM_16"), ("AIFF", "FLOAT"), ("AIFF", "IMA_ADPCM")],
    "AU": [("AU", "PCM_16"), ("AU", "G721_32"), ("AU", "FLOAT")],
    "CAF": [("CAF", "PCM_24"), ("CAF", "ALAC_16"), ("CAF", "ULAW")],
    "FLAC": [("FLAC", "PCM_16"), ("FLAC", "PCM_24"), ("FLAC", "PCM_S8")],
    "OGG": [("OGG", "VORBIS"), ("OGG", "OPUS")],
    "MP3": [("MP3", "MPEG_LAYER_III")],
    "rarer containers": [
        ("NIST", "PCM_16"),
        ("VOC", "PCM_16"),
        ("IRCAM", "PCM_16"),
        ("SVX", "PCM_16"),
        ("PAF", "PCM_16"),
    ]
    + [
        ("MAT4", "DOUBLE"),
        ("MAT5", "FLOAT"),
        ("PVF", "PCM_16"),
        ("HTK", "PCM_16"),
        ("AVR", "PCM_16"),
        ("SDS", "PCM_16"),
    ]
    + [("WVE", "ALAW"), ("XI", "DPCM_16"), ("MPC2K", "PCM_16")],
}
BY_FFMPEG = {"webm": ("-c:a", "libopus"), "mp4": ("-c:a", "aac"), "adts": ("-c:a", "aac"), "asf": ("-c:a", "wmav2")}
OGG_TABLE = []
for _entry in range(256):
    _entry <<= 24
    for _ in range(8):
        _entry = (_entry << 1 ^ (0x04C11DB7 if _entry & 0x80000000 else 0)) & 0xFFFFFFFF
    OGG_TABLE.append(_entry)
WITH_CHUNKS = (b"RIFF", b"RIFX", b"FORM", b"RF64")


def wave(seconds: float, channels: int, rate: int = RATE) -> np.ndarray:
    """A voice-like tone with noise and one pause."""
    time = np.arange(int(seconds * rate)) / rate
    tone = 0.3 * np.sin(900 * time + 4 * np.sin(9 * time)) * (np.sin(4 * time) > -0.8)
    tone += 0.02 * np.random.default_rng(0).standard_normal(len(time))
    return np.stack([tone * 0.9**channel for channel in range(channels)], axis=1).astype(np.float32)


def encoded(samples: np.ndarray, rate: int, format: str, subtype: str) -> bytes:
    """A file in memory."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=format, subtype=subtype)
    return buffer.getvalue()


def seeds_of(container: str) -> list[bytes]:
    """Valid files of a container, of one and two channels."""
    files = []
    for format, subtype in CONTAINERS[container]:
        for channels, rate in ((1, RATE), (2, 44100)):
            rate = 8000 if subtype in ("GSM610", "G721_32", "ALAW") else rate
            try:
                files.append(encoded(wave(0.3, channels, rate), rate, format, subtype))
            except (soundfile.LibsndfileError, ValueError, TypeError):  # not every encoding takes two channels
                continue
    return files


def seeds_by_ffmpeg() -> list[bytes]:
    """Valid files that only ffmpeg reads; none where there is no ffmpeg."""
    from modeling_gemoclap.audio_files_gemoclap import find_ffmpeg

    files, wav = [], encoded(wave(0.5, 1, 48000), 48000, "WAV", "PCM_16")
    for muxer, codec in BY_FFMPEG.items() if find_ffmpeg() else ():
        where = ("-movflags", "frag_keyframe+empty_moov") if muxer == "mp4" else ()
        command = [find_ffmpeg(), "-v", "error", "-f", "wav", "-i", "pipe:0", *codec, *where, "-f", muxer, "pipe:1"]
        done = subprocess.run(command, input=wav, capture_output=True)
        files += [done.stdout] if done.returncode == 0 and done.stdout else []
    return files


def damage(data: bytes, dice: random.Random) -> bytes:
    """Damage a recording: half of the files with chunks by their chunks, and most Ogg files with right checksums."""
    if data[:4] in WITH_CHUNKS and dice.random() < 0.5:
        return fuzz_structure.damage_chunks(data, dice)
    damaged = fuzz_mutate.damage(data, dice, header=96)
    return _with_checksums(damaged) if data[:4] == b"OggS" and dice.random() < 0.8 else damaged


def _with_checksums(data: bytes) -> bytes:
    """An Ogg file whose pages have right checksums: a decoder leaves out the others before it reads them."""
    pages, position = [], 0
    while data[position : position + 4] == b"OggS" and position + 27 <= len(data):
        size = 27 + data[position + 26] + sum(data[position + 27 : position + 27 + data[position + 26]])
        page = bytearray(data[position : position + size])
        page[22:26] = bytes(4)
        register = 0
        for byte in page:
            register = (register << 8 & 0xFFFFFFFF) ^ OGG_TABLE[register >> 24 ^ byte]
        page[22:26] = register.to_bytes(4, "little")
        pages.append(bytes(page))
        position += size
    return b"".join(pages) + data[position:]
