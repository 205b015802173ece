"""Draw what the paper leaves open, and write the measured effects, for docs/open_choices.md.

    python benchmarks/open_choices.py

The pictures show matrices that the loss functions of the package compute for a small batch. The table is taken from
the records in docs/evidence.
"""

from __future__ import annotations

import re

import evidence_tables
import matplotlib
import torch
from documents import table_row, write_blocks
from harness import ROOT

from modeling_gemoclap.losses_gemoclap import (
    emo_clap_loss,
    match_matrix,
    similarity_logits,
    sl_gemo_clap_loss,
    soft_label_matrix,
    soft_targets,
)

PAGE = ROOT / "docs" / "open_choices.md"
TARGETS, SIMILARITY = ROOT / "docs" / "open_choices_targets.png", ROOT / "docs" / "open_choices_similarity.png"
CLIPS = ("angry f", "angry m", "happy f", "happy m", "sad f", "sad m")
EMOTIONS, GENDERS = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([0, 1, 0, 1, 0, 1])
ALPHA, SCALE = 0.9, torch.tensor(1 / 0.07)
PARTS = {"readings": "compact encoder, one seed", "whisper-readings": "pretrained encoders, three seeds"}
READINGS = {  # rows of the records: the options that differ from the recipe
    "recipe": "`--sl_texts joint --similarity cross --targets row`",
    "joint, intra": "`--similarity intra`",
    "joint, both": "`--similarity both`",
    "emotion, cross": "`--sl_texts emotion`",
    "emotion, intra": "`--sl_texts emotion --similarity intra`",
    "emotion, both": "`--sl_texts emotion --similarity both`",
    "targets softmax": "`--targets softmax`",
}


def target_matrices() -> dict[str, torch.Tensor]:
    """Match matrices and targets of the batch by their titles, each `(clips, clips)`."""
    mixed = soft_label_matrix(EMOTIONS, GENDERS, ALPHA)
    return {
        "$M_e$: same emotion": match_matrix(EMOTIONS, EMOTIONS),
        "$M_g$: same gender": match_matrix(GENDERS, GENDERS),
        f"SL: {ALPHA} $M_e$ + {1 - ALPHA:.1f} $M_g$": mixed,
        "targets softmax: $S(M)$": soft_targets(mixed, "softmax"),
        "targets row: $M$ / row sum": soft_targets(mixed, "row"),
    }


def embeddings() -> tuple[torch.Tensor, torch.Tensor]:
    """Audio and text embeddings of the batch, `(clips, 3)`: clips lie near the text of their emotion."""
    noise = 0.2 * torch.randn(len(CLIPS), 3, generator=torch.Generator().manual_seed(0))
    text = torch.eye(3)[EMOTIONS]
    return torch.nn.functional.normalize(text + noise, dim=1), text


def rotated(text: torch.Tensor) -> torch.Tensor:
    """All texts rotated together: each emotion takes the place of the next."""
    return text.roll(1, dims=1)


def similarities() -> dict[str, dict]:
    """By title, the matrix that a reading compares, with its loss and the accuracy of the nearest text."""
    audio, text = embeddings()
    found = {}
    for words, texts in (("", text), (", texts rotated", rotated(text))):
        nearest = (audio @ texts.T).argmax(1)
        accuracy = (EMOTIONS[nearest] == EMOTIONS).float().mean().item()
        for reading, title in (("cross", "clips and texts"), ("intra", "clips and clips")):
            matrix = similarity_logits(audio, texts, SCALE, SCALE, reading)[0] / SCALE
            loss = emo_clap_loss(audio, texts, SCALE, SCALE, EMOTIONS, reading, "row").item()
            found[f"{reading}: {title}{words}"] = {"matrix": matrix, "loss": loss, "accuracy": accuracy}
    return found


def gender_in_gradient() -> dict[str, float]:
    """Largest change of the gradient if the genders in the targets change, by the text of a clip.

    The batch stays balanced: in each emotion, one clip is by a woman and one by a man.
    """
    audio, text = embeddings()
    joint = torch.nn.functional.normalize(torch.cat([text, 0.5 * torch.eye(2)[GENDERS]], 1), dim=1).double()
    found, audio = {}, torch.cat([audio, torch.full((len(audio), 2), 0.1)], 1).double()
    texts = {"emotion": torch.cat([text, torch.zeros(len(text), 2)], 1).double(), "joint": joint}
    for name, values in texts.items():
        gradients = []
        for genders in (GENDERS, torch.tensor([0, 1, 1, 0, 0, 1])):
            leaf = audio.clone().requires_grad_()
            sl_gemo_clap_loss(leaf, values, SCALE, SCALE, EMOTIONS, genders, ALPHA).backward()
            gradients.append(leaf.grad)
        found[name] = (gradients[0] - gradients[1]).abs().max().item()
    return found


def draw(panels: dict[str, tuple[torch.Tensor, str]], path) -> None:
    """Draw matrices with their numbers side by side; each has a title and a line below."""
    from matplotlib import pyplot

    matplotlib.rcParams |= {"font.size": 7, "savefig.dpi": 100}
    figure, axes = pyplot.subplots(1, len(panels), figsize=(2.4 * len(panels), 2.6), layout="constrained")
    for place, (axis, (title, (matrix, below))) in enumerate(zip(axes, panels.items(), strict=True)):
        axis.pcolormesh(matrix.numpy(), cmap="Blues", vmin=0, vmax=1.4, edgecolors="white", linewidth=0.5)
        for row, column in ((row, column) for row in range(len(matrix)) for column in range(len(matrix))):
            axis.text(column + 0.5, row + 0.5, f"{matrix[row, column]:.2f}", ha="center", va="center", fontsize=6)
        ticks = torch.arange(len(CLIPS)).numpy() + 0.5
        axis.set(title=title, xlabel=below, xticks=ticks, yticks=ticks, aspect="equal")
        axis.set_xticklabels(CLIPS, rotation=90)
        axis.set_yticklabels(CLIPS if place == 0 else [])
        axis.invert_yaxis()
    figure.savefig(path)
    pyplot.close(figure)


def effects() -> str:
    """The table of measured effects, from the tables of the records."""
    rows = {}
    for part in PARTS:
        head, _, *lines = [re.split(r" \| ", line.strip("| ")) for line in evidence_tables.block(part).splitlines()]
        for name, *cells in lines:
            rows.setdefault(name, []).extend([cells[0], cells[3].strip() or "–"])
    heads = [f"{words}: {column}" for words in PARTS.values() for column in ("UAR", "minus the first row (interval)")]
    lines = [table_row("options", *heads), table_row(*["---"] * (1 + len(heads)))]
    return "\n".join(lines + [table_row(options, *rows[name]) for name, options in READINGS.items()])


def main() -> None:
    """Draw the pictures and write the table."""
    matplotlib.use("Agg")
    draw({title: (matrix, "") for title, matrix in target_matrices().items()}, TARGETS)
    panels = similarities().items()
    below = {title: f"loss {each['loss']:.3f}, accuracy {each['accuracy']:.0%}" for title, each in panels}
    draw({title: (each["matrix"], below[title]) for title, each in panels}, SIMILARITY)
    write_blocks(PAGE, {"effects": effects()}.get)
    for title, each in panels:
        print(f"{title}: loss {each['loss']:.4f}, accuracy {each['accuracy']:.2f}")
    print(gender_in_gradient())


if __name__ == "__main__":
    main()
