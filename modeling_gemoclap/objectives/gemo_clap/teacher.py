"""The teacher of a distilled GEmo-CLAP: loading it, and its embeddings of clips and prompts."""

from __future__ import annotations

from pathlib import Path

import torch
from tqdm.auto import tqdm

from ...corpora.manifest import Corpus
from ...modeling_gemoclap import GEmoClapModel
from ...processing_gemoclap import GEmoClapProcessor
from ...towers_gemoclap import load_complete_model
from ...training.frozen import collate_audio
from ..initial_checkpoint import read_checkpoint_config

PROMPTS_PER_BATCH = 64


class Teacher:
    """A GEmo-CLAP checkpoint in evaluation mode, which teaches another model.

    Args:
        path: Folder of the checkpoint, or its name on the Hub.
        projection_dim: Dimension of the student's embeddings.

    Raises:
        ValueError: If it is not a checkpoint of GEmo-CLAP, or if its embeddings have another dimension.
    """

    def __init__(self, path: str, projection_dim: int):
        config = read_checkpoint_config(path, "--distil_from")
        if "GEmoClapModel" not in (config.architectures or []):
            raise ValueError(
                f"--distil_from {path}: a checkpoint without a text encoder; give one of train.py --head contrastive"
            )
        if config.projection_dim != projection_dim:
            raise ValueError(
                f"--distil_from {path} has embeddings of projection_dim {config.projection_dim}, and --projection_dim "
                f"is {projection_dim}: give --projection_dim {config.projection_dim}, or another teacher"
            )
        self.name = _name_of(path)
        self.model = load_complete_model(GEmoClapModel, path).eval().requires_grad_(False)
        self.processor = GEmoClapProcessor.from_pretrained(path)
        self.processor.feature_extractor.check_window(self.model.config.audio_config)

    @torch.no_grad()
    def embed_clips(self, corpus: Corpus, quiet: bool = False) -> torch.Tensor:
        """Embed the complete, unchanged clips, each alone, so that its embedding does not depend on other clips.

        Args:
            corpus: Clips that are not in shards.
            quiet: Whether to show no progress.

        Returns:
            `(clips, projection_dim)`, unit length, on the CPU.

        Raises:
            AudioError: If a clip cannot be read.
            ValueError: If an embedding is not finite.
        """
        extractor, embeds = self.processor.feature_extractor, []
        for path in tqdm(corpus.clips["path"], desc="encoding audio by the teacher", disable=quiet):
            inputs = collate_audio(extractor, [{"clip": extractor.features(extractor.load(path))}])
            inputs = {name: value.to(self.model.device) for name, value in inputs.items()}
            embeds.append(self.model.get_audio_features(**inputs)[0].float().cpu())
        embeds = torch.stack(embeds)
        if bad := int((~embeds.isfinite().all(dim=1)).sum()):
            raise ValueError(
                f"--distil_from: the teacher's embedding of {bad} of the {len(embeds)} clips is not finite"
            )
        return embeds

    @torch.no_grad()
    def embed_prompts(self, prompts: list[str]) -> torch.Tensor:
        """Embed prompts: `(prompts, projection_dim)`, unit length, on the CPU."""
        embeds = []
        for start in range(0, len(prompts), PROMPTS_PER_BATCH):
            tokens = self.processor(text=prompts[start : start + PROMPTS_PER_BATCH])
            tokens = {name: tokens[name].to(self.model.device) for name in ("input_ids", "attention_mask")}
            embeds.append(self.model.get_text_features(**tokens).float().cpu())
        return torch.cat(embeds)

    def embed_classes(self, emotions: list[str]) -> torch.Tensor:
        """Embed emotions by the teacher's class texts: `(emotions, projection_dim)`, unit length, on the CPU."""
        prompts = self.model.config.class_prompts(emotions)
        return self.model.get_class_embeddings(prompts, self.processor.tokenizer).float().cpu()


def _name_of(path: str) -> str:
    """The name of a teacher in records: its folder, for a fold with the run that it is part of, without their path."""
    if not Path(path).exists():
        return path  # a model on the Hub
    parts = Path(path).resolve().parts
    return "/".join(parts[-3:] if Path(path, "fold.json").is_file() else parts[-1:])
