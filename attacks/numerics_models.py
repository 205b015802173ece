"""Signals, precisions, batches and scales at their limits: finite embeddings of unit length, or a clear error."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import torch
from attack import Attack
from numerics_statistics import NotFinite, finite_or_refused

RATE = 16000
FAMILIES = ("compact", "wavlm-base", "wavlm-large", "wav2vec2-base", "data2vec-base", "wav2vec2-bert")
PRECISIONS = ("float32", "float16", "bfloat16", "autocast")


def signals(small: bool) -> dict[str, object]:
    """Recordings at the limits of what samples, lengths and types can be."""
    time = np.arange(RATE) / RATE
    tone, noise = np.sin(1500 * time), np.random.default_rng(0).standard_normal(RATE)
    found = {
        "zero": np.zeros(RATE),
        "constant": np.full(RATE, 0.5),
        "offset": 0.9 + 1e-3 * tone,
        "a large offset": 1e6 + tone,
        "square wave": np.sign(tone),
        "one impulse": np.eye(1, RATE, 500)[0],
        "denormal": 1e-310 * tone,
        "denormal in float32": (1e-40 * tone).astype(np.float32),
        "at -80 dBFS": 1.01e-4 * tone,
        "loud": 2.0**31 * tone,
        "too loud": 1e300 * tone,
        "largest float64": np.full(RATE, np.finfo(float).max) * np.sign(tone),
        "integer extremes": np.where(tone > 0, 32767, -32768).astype(np.int16),
        "32-bit extremes": np.where(tone > 0, 2**31 - 1, -(2**31)).astype(np.int32),
        "float16": (6e4 * tone).astype(np.float16),
        "NaN": np.where(time > 0.5, np.nan, tone),
        "infinite": np.where(time > 0.5, -np.inf, tone),
        "one sample": np.ones(1),
        "one frame": noise[:400],
        "0.1 s": noise[:1600],
        "opposite channels": np.stack([tone, -tone]),
        "noise of one bit": np.where(noise > 0, 1, -1) * 2.0**-15,
    }
    return found if small else found | {"30 minutes": np.tile(noise.astype(np.float32) * 0.1, 1800)}


def attack_signals(attack: Attack) -> None:
    """Features, measurements and predictions of recordings at the limits."""
    from fuzz_listening import pipe_of

    from modeling_gemoclap import GEmoClapFeatureExtractor
    from modeling_gemoclap.inference.signals import measure_signal

    options = {"feature_type": ("wave", "log_mel"), "do_normalize": (True, False)}
    extractors = [
        GEmoClapFeatureExtractor(**dict(zip(options, values, strict=True)))
        for values in itertools.product(*options.values())
    ]
    extractors.append(GEmoClapFeatureExtractor(feature_type="log_mel", do_normalize=False, level_db=-20.0))
    extractors.append(GEmoClapFeatureExtractor(feature_type="log_mel", trim_silence=True))

    def features(recording: dict, extractor) -> None:
        wave = extractor.load_speech(recording)
        check_finite(torch.from_numpy(extractor.features(wave)))
        finite_or_refused(lambda: vars(measure_signal(wave, RATE)))

    for name, samples in signals(attack.options.small).items():
        for rate, extractor in itertools.product((RATE, 8000, 44100), extractors):
            if name != "30 minutes" or rate == RATE:
                with attack.case("features of extreme signals", f"{name} {rate}"):
                    recording = {"array": samples, "sampling_rate": rate}
                    finite_or_refused(lambda extractor=extractor, recording=recording: features(recording, extractor))
        with attack.case("predictions of extreme signals", name):
            recording = {"array": samples, "sampling_rate": RATE}
            finite_or_refused(lambda recording=recording: pipe_of("compact")(recording))


def check_finite(values: torch.Tensor, has_input: torch.Tensor | None = None) -> None:
    """Check that values are finite and, with `has_input` `(batch,)`, that rows of clips with input have unit length.

    Raises:
        NotFinite: If they are not.
    """
    if not values.numel() or not values.isfinite().all():
        raise NotFinite(f"{tuple(values.shape)} not finite, or empty")
    lengths = values.float().norm(dim=-1)
    if has_input is not None and not torch.allclose(lengths[has_input], torch.ones(()), atol=0.02):
        raise NotFinite(f"embeddings of length {lengths.tolist()}")


@functools.cache
def _model(family: str, pooling: str, precision: str):
    import families

    from modeling_gemoclap import GEmoClapConfig, GEmoClapModel

    torch.manual_seed(0)
    towers = {"audio_config": families.AUDIO[family].config(small=True)}
    towers["text_config"] = families.text_config("roberta", small=True)
    model = GEmoClapModel(GEmoClapConfig(**towers, projection_dim=16, pooling=pooling)).eval()
    return model if precision in ("float32", "autocast") else model.to(getattr(torch, precision))


def _inputs(model, lengths: list[int], factor: float) -> dict:
    compact = model.main_input_name == "input_features"
    bands = getattr(model.config.audio_config, "feature_projection_input_dim", 16)
    shape = (len(lengths), max([*lengths, 1000]) // (40 if compact else 1), *((bands,) if compact else ()))
    values = factor * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    steps = torch.tensor(lengths)[:, None] // (40 if compact else 1)
    return {model.main_input_name: values, "audio_attention_mask": (torch.arange(shape[1]) < steps).long()}


def attack_precisions(attack: Attack) -> None:
    """Embeddings in all precisions, of large and tiny input, alone and in uneven batches."""
    lengths = {"one clip": [4000], "uneven": [16000, 1000, 4000], "an empty clip": [4000, 0], "all empty": [0, 0]}
    lengths |= {"one frame": [480, 480], "very uneven": [48_000, 480]}
    poolings = ("mean", "mean_std", "self_attention")
    grid = itertools.product(FAMILIES, poolings, PRECISIONS, lengths, (1.0, 1e-6, 30.0, 1000.0))
    for number, (family, pooling, precision, kind, factor) in enumerate(grid):
        if number % (29 if attack.options.small else 3) or attack.seconds_left() < 0:
            continue
        with attack.case(f"embeddings in {precision}", f"{family} {pooling} {kind} {factor:g}"):
            model = _model(family, pooling, precision)
            inputs = _inputs(model, lengths[kind], factor)
            name = model.main_input_name
            inputs[name] = inputs[name].to(model.dtype)
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast"):
                embeddings = model.get_audio_features(**inputs)
            has_input = inputs["audio_attention_mask"].any(1)
            try:
                check_finite(embeddings, has_input)
            except NotFinite:
                if factor <= 1 or not _is_refused(embeddings[has_input]):
                    raise


def _is_refused(embeddings: torch.Tensor) -> bool:
    """Whether the pipeline refuses embeddings that overflowed: input of many standard deviations, in float16."""
    from fuzz_listening import pipe_of

    classes = torch.eye(2, embeddings.shape[1])
    try:
        pipe_of("compact")._rank(embeddings, classes, ["a", "b"])
    except ValueError as error:
        return "the precision is too low" in str(error)
    return False
