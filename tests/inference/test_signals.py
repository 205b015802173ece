"""Level, noise, clipping and bandwidth of recordings that are made with known ones."""

import numpy as np
import pytest

from modeling_gemoclap.inference.signals import HIGHEST_SNR_DB, measure_signal

RATE = 16000


def speech(level_db, noise_db, rate=RATE, seconds=3.0, highest=7000):
    """Noise below `highest` Hz in bursts with pauses, over a floor of white noise."""
    generator = np.random.default_rng(0)
    spectrum = np.fft.rfft(generator.standard_normal(int(seconds * rate)))
    spectrum[np.fft.rfftfreq(int(seconds * rate), 1 / rate) > highest] = 0
    wave = np.fft.irfft(spectrum)
    bursts = (np.arange(len(wave)) // (rate // 4) % 2 == 0).astype(float)
    window = np.hanning(rate // 50)
    wave = wave / wave.std() * np.convolve(bursts, window / window.sum(), "same")  # without clicks, which are wide
    wave *= 10 ** (level_db / 20) / np.sqrt(np.mean(wave[: -rate // 4] ** 2))
    floor = generator.standard_normal(len(wave)) * 10 ** (noise_db / 20)
    return (wave + floor).astype(np.float32)


@pytest.mark.parametrize("level", [-20, -45])
@pytest.mark.parametrize("snr", [15, 30])
def test_level_and_noise(level, snr):
    signal = measure_signal(speech(level, level - snr), RATE)
    assert signal.level_db == pytest.approx(level, abs=1) and signal.snr_db == pytest.approx(snr, abs=2.5)
    assert signal.seconds == 3 and signal.sampling_rate == RATE and signal.clipped == 0


def test_silence_around_speech_does_not_change_its_level():
    wave = speech(-20, -60)
    padded = np.concatenate([np.zeros(5 * RATE, np.float32), wave, np.zeros(5 * RATE, np.float32)])
    assert measure_signal(padded, RATE).level_db == pytest.approx(measure_signal(wave, RATE).level_db, abs=0.5)
    assert measure_signal(padded, RATE).snr_db == HIGHEST_SNR_DB


def test_clipping_is_the_share_of_samples_at_full_scale():
    wave = speech(-20, -60)
    assert measure_signal(np.clip(30 * wave, -1, 1), RATE).clipped > 0.1 > measure_signal(wave, RATE).clipped


def test_the_telephone_is_told_by_its_rate_and_after_resampling():
    wide, narrow = (measure_signal(speech(-20, -100, highest=highest), RATE) for highest in (7000, 3400))
    assert not wide.is_narrow and wide.bandwidth_hz == pytest.approx(7000, abs=100)
    assert narrow.is_narrow and narrow.bandwidth_hz == pytest.approx(3400, abs=100)
    assert measure_signal(speech(-20, -50, rate=8000), 8000).is_narrow


@pytest.mark.parametrize("wave", [np.zeros(RATE), np.full(RATE, 0.2), np.ones(3), np.zeros(1)])
def test_recordings_without_speech_have_finite_measures(wave):
    signal = measure_signal(wave.astype(np.float32), RATE)
    assert np.isfinite([signal.level_db, signal.bandwidth_hz, signal.seconds]).all() and signal.level_db <= -119
    assert (signal.snr_db is None) == (len(wave) < RATE)


def test_a_long_recording_is_measured_in_blocks():
    wave = speech(-20, -50)
    once, many = measure_signal(wave, RATE), measure_signal(np.tile(wave, 25), RATE)
    assert many.level_db == pytest.approx(once.level_db, abs=0.5) and many.snr_db == pytest.approx(once.snr_db, abs=1)
