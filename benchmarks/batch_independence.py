"""How far a clip's embedding moves when other clips are batched with it: every family of encoders, random batches.

    python benchmarks/batch_independence.py [--batches 200] [--families wavlm-base whisper]
    python benchmarks/batch_independence.py --true --batches 3 --families wavlm-base data2vec-base

Each clip is embedded alone and in a batch of random size, lengths and order, padded. For scale: what plain
transformers does with the same weights, mask and pooling, and how far the embeddings of different clips lie apart.
Weights are random and wide, the shapes small; float32, eval mode. With `--true` shapes and weights are those of the
configuration, for the encoders of raw waves.
"""

from __future__ import annotations

import argparse
import tempfile

import numpy as np
import torch
from families import AUDIO, text_config
from transformers import AutoModel

from modeling_gemoclap import GEmoClapConfig, GEmoClapModel
from modeling_gemoclap.encoding_gemoclap import FIXED_LENGTH

RATE = 16000


def make_model(family: str, small: bool = True, **fields) -> GEmoClapModel:
    """A model; if small, with weights wide enough that clips differ."""
    torch.manual_seed(0)
    towers = {"audio_config": AUDIO[family].config(small=small), "text_config": text_config(small=True)}
    model = GEmoClapModel(GEmoClapConfig(**towers, projection_dim=16, **fields)).eval()
    if not small:
        return model
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 and name.startswith("audio_"):
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def plain_embeddings(model: GEmoClapModel, plain, batch: dict) -> torch.Tensor:
    """The same weights, mask and pooling with transformers' own tower."""
    (name, inputs), (_, mask) = sorted(batch.items(), key=lambda item: item[0] == "audio_attention_mask")
    hidden = plain(inputs, attention_mask=mask).last_hidden_state
    frames = plain._get_feature_vector_attention_mask(hidden.shape[1], mask).bool()
    return model.audio_projection(model.audio_pooling([hidden], frames))


@torch.no_grad()
def measure(family: str, batches: int = 200, seed: int = 0, small: bool = True) -> dict[str, float | None]:
    """The largest differences of an embedding's entries over random batches.

    Args:
        family: A name of `families.AUDIO`.
        batches: How many batches.
        seed: Seed of the clips.
        small: Whether the shape is the small one.

    Returns:
        `ours`, `plain` (None where transformers' own tower has no mask or is ours) and `apart`, the median over pairs
        of different clips of the largest difference of their embeddings.
    """
    model, rng = make_model(family, small), np.random.default_rng(seed)
    plain, kind = None, model.config.audio_config.model_type
    if kind not in FIXED_LENGTH and kind != "gemoclap_audio":
        plain = AutoModel.from_config(model.config.audio_config).eval()
        plain.load_state_dict(model.audio_model.state_dict())
    with tempfile.TemporaryDirectory() as folder:
        extractor = AUDIO[family].small_extractor(folder)
    ours = off = 0.0
    apart = []
    for _ in range(batches):
        samples = rng.integers(RATE * 3 // 20, 2 * RATE, size=rng.integers(2, 7))
        clips = [{"array": rng.standard_normal(n).astype(np.float32), "sampling_rate": RATE} for n in samples]
        alone = torch.cat([model.get_audio_features(**extractor(clip)) for clip in clips])
        order = rng.permutation(len(clips))
        batch = dict(extractor([clips[index] for index in order]))
        ours = max(ours, (model.get_audio_features(**batch) - alone[order]).abs().max().item())
        if plain is not None:
            off = max(off, (plain_embeddings(model, plain, batch) - alone[order]).abs().max().item())
        apart.append((alone[0] - alone[1]).abs().max().item())
    return {"ours": ours, "plain": None if plain is None else off, "apart": float(np.median(apart))}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--true", action="store_true")
    parser.add_argument("--families", nargs="+", default=list(AUDIO), choices=list(AUDIO))
    arguments = parser.parse_args()
    print("| family | largest difference | plain transformers | different clips |\n|---|---|---|---|")
    for family in arguments.families:
        found = measure(family, arguments.batches, small=not arguments.true)
        plain = "-" if found["plain"] is None else f"{found['plain']:.1e}"
        print(f"| {family} | {found['ours']:.1e} | {plain} | {found['apart']:.1e} |", flush=True)
