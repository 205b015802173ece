"""Recipes and grids in YAML, and what must hold for damaged ones."""

from __future__ import annotations

import random
from pathlib import Path

from fuzz_judge import BrokenPromise
from fuzz_mutate import damage
from fuzz_structure import VALUES

RECIPE = b"""head: contrastive
data_dir: corpus
output_dir: runs/x
emotions: [angry, happy, sad]
num_train_epochs: 3
learning_rate: 1e-4
audio_config: {hidden_size: 32, num_hidden_layers: 1}
emotion_map: '{"wut": "angry"}'
per_device_train_batch_size: 8
bf16: false
cells: &cells [{name: a, alpha: 0.9}]
"""
YAML_PARTS = (
    b"&a [*a]",
    b"!!python/object/apply:os.system [id]",
    b"!!binary YQ==",
    b"{a: &x [l, l], b: *x}",
    b"? [1]",
)
YAML_PARTS += (
    b"- - - -",
    b"<<: *cells",
    b"[" * 500,
    b"'",
    b"0x1F",
    b"1_000",
    b"2001-01-01",
    b"no",
    b"~",
    b"\t",
    b"|\n  x",
)
BOMB = b"a: &a [x,x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (ord("a") + level, ord("a") + level, b",".join([b"*%c" % (ord("a") + level - 1)] * 10))
    for level in range(1, 12)
)
RECIPE_SEEDS = [RECIPE.replace(b"cells: &cells [{name: a, alpha: 0.9}]\n", b""), b"head: classifier\nseed: 1\n", BOMB]


def seeds() -> list[bytes]:
    """Recipes, one of which expands to ten to the twelfth values."""
    return RECIPE_SEEDS


def grids() -> list[bytes]:
    """Grids of trainings."""
    return [
        b"base: {head: classifier}\nprotocol: {k: 3}\ncells: [{name: a, seed: 1}]\nvary:\n  alpha: [0.8, 0.9]\n",
        BOMB,
    ]


def damage_recipe(data: bytes, dice: random.Random) -> bytes:
    """Damage a recipe: its bytes, its values or its structure."""
    if dice.random() < 0.3:
        return damage(data, dice)
    lines = data.split(b"\n")
    for _ in range(dice.choice((1, 1, 2))):
        at = dice.randrange(len(lines))
        name, _, value = lines[at].partition(b": ")
        word = str(dice.choice(VALUES)).encode(errors="replace")
        new = dice.choice((*YAML_PARTS, word, value * 2, b"[%s, %s]" % (value, word)))
        lines[at] = dice.choice((b"%s: %s" % (name, new), new, lines[at] + b"\n" + lines[at], b"  " + lines[at]))
    return b"\n".join(lines)


def read_recipe(path: Path) -> None:
    """Check a recipe as `train.py` does before it reads any clip."""
    from modeling_gemoclap.runs.recipe import check_recipe

    check_recipe(["--config", str(path)], str(path))


def read_grid(path: Path) -> None:
    """Read the cells of a grid."""
    from modeling_gemoclap.runs.grid import cells_of

    if not cells_of(str(path))[1]:
        raise BrokenPromise("no cells")
