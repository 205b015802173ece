"""Measure how much an embedding changes when other clips are in the batch, for every family of audio encoders.

    python benchmarks/batch_independence.py [--batches 200] [--families wavlm-base whisper]
    python benchmarks/batch_independence.py --true --batches 3 --families wavlm-base data2vec-base

Each clip is embedded alone and in a padded batch of random size, lengths and order. For comparison, plain transformers
is measured with the same weights, mask and pooling, and the distance between embeddings of different clips is given.
Shapes are small and weights are random with a large variance; float32, eval mode. With `--true`, shapes and weights
are those of the configuration; this is for encoders of raw waves.
"""

from __future__ import annotations

import numpy as np
import torch
from documents import table_row
from families import AUDIO
from harness import RATE, parser_of
from models import make_extractor, make_model, noise_clips
from transformers import AutoModel

from modeling_gemoclap import GEmoClapModel
from modeling_gemoclap.encoding_gemoclap import FIXED_LENGTH

COLUMNS = ("family", "largest difference", "plain transformers", "different clips")


def make_embedding_model(family: str, small: bool = True) -> GEmoClapModel:
    """A model in eval mode; if small, its audio weights have a large variance, so that embeddings differ clearly."""
    model = make_model(family, small, small_text=True, projection_dim=16).eval()
    for name, parameter in model.named_parameters() if small else ():
        if parameter.dim() > 1 and name.startswith("audio_"):
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def plain_tower(model: GEmoClapModel) -> torch.nn.Module | None:
    """The audio tower as transformers has it, with the same weights; None if it takes no mask or is ours."""
    config = model.config.audio_config
    if config.model_type in FIXED_LENGTH or config.model_type == "gemoclap_audio":
        return None
    plain = AutoModel.from_config(config).eval()
    plain.load_state_dict(model.audio_model.state_dict())
    return plain


def plain_embeddings(model: GEmoClapModel, plain: torch.nn.Module, batch: dict) -> torch.Tensor:
    """Embeddings with the tower of transformers and the pooling and projection of the model."""
    (name, inputs), (_, mask) = sorted(batch.items(), key=lambda item: item[0] == "audio_attention_mask")
    hidden = plain(inputs, attention_mask=mask).last_hidden_state
    frames = plain._get_feature_vector_attention_mask(hidden.shape[1], mask).bool()
    return model.audio_projection(model.audio_pooling([hidden], frames))


def _largest_difference(embeddings: torch.Tensor, reference: torch.Tensor) -> float:
    return (embeddings - reference).abs().max().item()


@torch.no_grad()
def measure(family: str, batches: int = 200, seed: int = 0, small: bool = True) -> dict[str, float | None]:
    """The largest differences of an embedding's entries over random batches.

    Args:
        family: A name of `families.AUDIO`.
        batches: Number of batches.
        seed: Seed of the clips.
        small: Whether the shape is the small one.

    Returns:
        `ours`; `plain`, or None where transformers' tower takes no mask or is ours; and `apart`, the median over pairs
        of different clips of the largest difference between their embeddings.
    """
    model, rng = make_embedding_model(family, small), np.random.default_rng(seed)
    plain, extractor = plain_tower(model), make_extractor(family)
    differences = {"ours": [], "plain": [], "apart": []}
    for _ in range(batches):
        clips = noise_clips(rng.integers(RATE * 3 // 20, 2 * RATE, size=rng.integers(2, 7)), rng)
        alone = torch.cat([model.get_audio_features(**extractor(clip)) for clip in clips])
        order = rng.permutation(len(clips))
        batch = dict(extractor([clips[index] for index in order]))
        differences["ours"].append(_largest_difference(model.get_audio_features(**batch), alone[order]))
        if plain is not None:
            differences["plain"].append(_largest_difference(plain_embeddings(model, plain, batch), alone[order]))
        differences["apart"].append(_largest_difference(alone[0], alone[1]))
    ours, off, apart = differences.values()
    return {"ours": max(ours), "plain": max(off, default=None), "apart": float(np.median(apart))}


def main() -> None:
    """Measure families and print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--batches", type=int, default=200, help="random batches for each family")
    parser.add_argument("--true", action="store_true", help="use the true shapes")
    parser.add_argument("--families", nargs="+", default=list(AUDIO), choices=list(AUDIO))
    options = parser.parse_args()
    print(table_row(*COLUMNS), "|---" * len(COLUMNS) + "|", sep="\n")
    for family in options.families:
        measured = measure(family, options.batches, small=not options.true)
        values = ("-" if value is None else f"{value:.1e}" for value in measured.values())
        print(table_row(family, *values), flush=True)


if __name__ == "__main__":
    main()
