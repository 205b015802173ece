"""What is attacked: for each kind of file valid files, how they are damaged, and what must hold for them."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import fuzz_audio
import fuzz_checkpoints
import fuzz_listening
import fuzz_lists
import fuzz_recipes
import fuzz_requests
import fuzz_runs
import fuzz_tables
import fuzz_turns
from fuzz_checkpoints import load_and_predict
from fuzz_listening import without_ffmpeg
from fuzz_mutate import damage
from fuzz_requests import receive_request
from fuzz_structure import damage_json
from fuzz_tables import damage_parquet, read_manifest
from fuzz_turns import read_diarisation

from modeling_gemoclap.fingerprint import TRAINING_CLIPS


class Target(NamedTuple):
    """One kind of input.

    Args:
        kind: The row of the table.
        name: Name of the file. A message must contain it, or one of `words`.
        seeds: Valid files.
        damage: Damages one of them.
        run: Uses the file, and raises `BrokenPromise` for a wrong answer.
        share: How many inputs of this kind there are for each input of a kind with share 1.
        prepare: Writes the other files of the folder.
        words: Other words that name the input.
    """

    kind: str
    name: str
    seeds: Callable[[], list[bytes]]
    damage: Callable[[bytes, random.Random], bytes]
    run: Callable[[Path], None]
    share: float = 1
    prepare: Callable[[Path], None] | None = None
    words: tuple[str, ...] = ()

    @property
    def valid(self) -> int:
        """Number of valid files, which are the first inputs."""
        return len(_seeds(self.kind, self.seeds))

    def input(self, number: int, seed: int) -> bytes:
        """The input of a number, the same at every call. The first ones are the valid files."""
        seeds = _seeds(self.kind, self.seeds)
        dice = random.Random(f"{self.kind}/{seed}/{number}")
        return seeds[number] if number < len(seeds) else self.damage(dice.choice(seeds), dice)


@cache
def _seeds(kind: str, seeds: Callable[[], list[bytes]]) -> list[bytes]:
    return seeds()


def _audio(kind: str, share: float, run: Callable[[Path], None], seeds: Callable[[], list[bytes]]) -> Target:
    return Target(kind, "clip.audio", seeds, fuzz_audio.damage, run, share)


def _predicted() -> Target:
    return _audio("recordings, with a prediction", 0.5, without_ffmpeg(fuzz_listening.predict), _mixed_recordings)


def _of_checkpoint(kind: str, name: str, run: Callable[[Path], None], share: float = 1, damage=damage_json) -> Target:
    seeds, prepare = partial(fuzz_checkpoints.seed_of, name), fuzz_checkpoints.prepare_checkpoint
    return Target(kind, name, seeds, damage, run, share, prepare, ("checkpoint", "its weights are damaged"))


def _of_run(kind: str, name: str, seeds: Callable[[], list[bytes]], damage: Callable, share: float = 1) -> Target:
    run, words = fuzz_runs.compare_runs, ("folder", "the runs")
    return Target(kind, name, seeds, damage, run, share, fuzz_runs.prepare_run, words)


def _on_card() -> Target:
    words, prepare = ("checkpoint",), fuzz_checkpoints.prepare_checkpoint
    seeds, run = fuzz_runs.results_seeds, fuzz_runs.write_card
    return Target("results.json on a model card", "results.json", seeds, damage_json, run, 0.2, prepare, words)


def _continued(suffix: str) -> Target:
    name, run = f"output.{suffix}", fuzz_runs.continue_predictions
    seeds, prepare = partial(fuzz_runs.output_seeds, name), fuzz_runs.prepare_output
    return Target(f"continued predictions ({suffix})", name, seeds, damage, run, 0.5, prepare)


def _in_run(name: str) -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        fuzz_runs.prepare_run(Path(folder))
        return [Path(folder, name).read_bytes()]


def _mixed_recordings() -> list[bytes]:
    return [seed for kind in ("WAV", "FLAC", "OGG", "MP3") for seed in fuzz_audio.seeds_of(kind)[:2]]


ATTACKED = [
    *(
        _audio(f"recordings: {kind}", 3, without_ffmpeg(fuzz_listening.decode), partial(fuzz_audio.seeds_of, kind))
        for kind in fuzz_audio.CONTAINERS
    ),
    _audio("recordings: WebM, MP4, AAC, WMA", 0.1, fuzz_listening.decode, fuzz_audio.seeds_by_ffmpeg),
    _predicted(),
    Target("metadata.csv", "metadata.csv", fuzz_tables.manifest_seeds, fuzz_tables.damage_manifest, read_manifest, 2),
    Target("Parquet shards", "clips.parquet", fuzz_tables.shard_seeds, damage_parquet, fuzz_tables.read_shards, 2),
    Target("diarisations (RTTM)", "turns.rttm", fuzz_turns.seeds, fuzz_turns.damage_rttm, read_diarisation, 2),
    Target("label maps", "map.json", fuzz_lists.maps, damage_json, fuzz_lists.read_map, 2, words=("--emotion_map",)),
    Target("folds files", "folds.json", fuzz_lists.folds, damage_json, fuzz_lists.read_folds),
    Target("speaker embeddings", "x.npz", fuzz_lists.vectors, fuzz_lists.damage_zip, fuzz_lists.read_vectors),
    _of_checkpoint("config.json", "config.json", fuzz_checkpoints.describe, 2),
    _of_checkpoint("processor_config.json", "processor_config.json", fuzz_checkpoints.extract),
    _of_checkpoint("tokenizer.json", "tokenizer.json", fuzz_checkpoints.extract),
    _of_checkpoint("tokenizer_config.json", "tokenizer_config.json", fuzz_checkpoints.extract),
    _of_checkpoint("card.json", "card.json", fuzz_checkpoints.read_card_facts, 0.3),
    _of_checkpoint("training_clips.safetensors", TRAINING_CLIPS, fuzz_checkpoints.read_training_clips, 1, damage),
    _of_checkpoint("model.safetensors", "model.safetensors", load_and_predict, 0.3, partial(damage, header=9000)),
    _of_checkpoint("config.json, with the model", "config.json", load_and_predict, 0.3),
    _on_card(),
    _of_run("results.json, compared", "results.json", fuzz_runs.results_seeds, damage_json),
    _of_run("predictions.csv", "predictions.csv", partial(_in_run, "predictions.csv"), damage),
    _of_run("answers.json", "answers.json", partial(_in_run, "answers.json"), damage_json, 0.5),
    _of_run("embeddings.npy", "embeddings.npy", partial(_in_run, "embeddings.npy"), damage, 0.5),
    Target("indexes for search", "index.parquet", fuzz_runs.index_seeds, damage_parquet, fuzz_runs.read_index),
    _continued("csv"),
    _continued("jsonl"),
    Target("requests", "request.bin", fuzz_requests.request_seeds, fuzz_requests.damage_request, receive_request, 2),
    Target("recipes (YAML)", "recipe.yaml", fuzz_recipes.seeds, fuzz_recipes.damage_recipe, fuzz_recipes.read_recipe),
    Target("grids (YAML)", "grid.yaml", fuzz_recipes.grids, fuzz_recipes.damage_recipe, fuzz_recipes.read_grid),
]
