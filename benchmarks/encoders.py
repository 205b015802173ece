"""Write the table of encoders in docs/encoders.md from what happens when each is built, loaded, trained and exported.

    python benchmarks/encoders.py [--batches 200] [--families wavlm-base whisper]
    python benchmarks/encoders.py --only learns

Parameters are counted in the true shape, all else runs in the small one. Families that are not named keep their row;
with `--only` a row keeps its other cells.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from batch_independence import RATE, make_model, measure
from families import AUDIO, text_config
from learning import learn
from transformers import AutoModel, RobertaModel

from modeling_gemoclap import GEmoClapAudioModel, GEmoClapModel
from modeling_gemoclap.encoding_gemoclap import ignores_padding
from modeling_gemoclap.towers_gemoclap import build_audio_tower

TABLE = Path(__file__).parent.parent / "docs" / "encoders.md"
HEAD = (
    "| family | on the Hub | norm | attention | parameters | padded clips | loads | learns "
    "| batch independence (plain transformers) | exports |"
)
LEARNS = HEAD.split(" | ").index("learns") + 1


def shape_of(family: str) -> list[str]:
    """Norm of the feature encoder, attention implementations, parameters in the true shape, and how clips run."""
    config = AUDIO[family].config()
    norm = "masked instance" if family == "compact" else getattr(config, "feat_extract_norm", "layer")
    with torch.device("meta"):
        tower = build_audio_tower(config)
    flags = {"sdpa": "_supports_sdpa", "flash": "_supports_flash_attn", "flex": "_supports_flex_attn"}
    attention = [name for name, flag in flags.items() if getattr(tower, flag, False)]
    attention = "sdpa" if family == "compact" else ", ".join(["eager", *attention])
    count = sum(parameter.numel() for parameter in tower.parameters()) / 1e6
    together = "together" if ignores_padding(config) else "by length"
    return [norm, attention, f"{count:.1f} M", together]


def loads(family: str) -> str:
    """Whether each form of a checkpoint on the Hub is taken over whole."""
    torch.manual_seed(1)
    config, whole = AUDIO[family].config(small=True), []
    source = GEmoClapAudioModel(config) if family == "compact" else AutoModel.from_config(config)
    weights = (source.get_encoder() if config.is_encoder_decoder else source).state_dict()
    for form in ("safetensors", "sharded", "bin"):
        with tempfile.TemporaryDirectory() as folder:
            source.save_pretrained(f"{folder}/audio", max_shard_size="8KB" if form == "sharded" else "5GB")
            if form == "bin":
                Path(folder, "audio/model.safetensors").unlink()
                old = {_old_name(name): value for name, value in source.state_dict().items()}
                torch.save(old, f"{folder}/audio/pytorch_model.bin")
            RobertaModel(text_config(small=True)).save_pretrained(f"{folder}/text")
            model = GEmoClapModel.from_audio_text_pretrained(f"{folder}/audio", f"{folder}/text")
            ours = model.audio_model.state_dict()
            same = set(ours) == set(weights) and all(torch.equal(weights[name], ours[name]) for name in ours)
            whole += [form] if same else []
    return ", ".join(whole) or "no"


def _old_name(name: str) -> str:
    """A parameter's name in checkpoints from before torch's parametrizations."""
    return re.sub(r"parametrizations\.weight\.original([01])", lambda found: "weight_" + "gv"[int(found[1])], name)


def noise_batch(family: str, samples: list[int]) -> dict[str, torch.Tensor]:
    """Clips of noise as the family's input."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        extractor = AUDIO[family].small_extractor(folder)
    clips = [{"array": rng.standard_normal(n).astype(np.float32), "sampling_rate": RATE} for n in samples]
    return dict(extractor(clips))


def learns(family: str) -> str:
    """The divergence before and after training on tones, and the accuracy on the batch and on new clips."""
    found = learn(family)
    return f"{found.before:.2f} → {found.after:.2f}, {found.accuracy:.0%}, new {found.new:.0%}"


class _Embed(torch.nn.Module):
    def __init__(self, model: GEmoClapModel, names: list[str]):
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs):
        return self.model.get_audio_features(**dict(zip(self.names, inputs, strict=True)))


def exports(family: str) -> str:
    """`torch.export` with free batch and length, and its difference at another batch and other lengths."""
    model = make_model(family)
    padded = ignores_padding(model.config.audio_config)
    lengths = ([9000, 16000], [8000, 20000, 12000]) if padded else ([16000] * 2, [12000] * 3)
    made, other = (noise_batch(family, samples) for samples in lengths)
    names = list(made) if padded else [name for name in made if name != "audio_attention_mask"]
    auto, inputs = torch.export.Dim.AUTO, tuple(made[name] for name in names)
    dims = tuple({axis: auto for axis in range(2)} for _ in names)
    try:
        with torch.no_grad():
            program = torch.export.export(_Embed(model, names), inputs, dynamic_shapes=(dims,), strict=False)
            others = tuple(other[name] for name in names)
            off = (program.module()(*others) - _Embed(model, names)(*others)).abs().max().item()
        return f"{'padded' if padded else 'unpadded'}, {off:.0e}"
    except Exception as error:
        return f"no: {type(error).__name__}"


def row(family: str, batches: int) -> str:
    """One family's row."""
    found = measure(family, batches)
    plain = "" if found["plain"] is None else f" ({found['plain']:.0e})"
    cells = [family, AUDIO[family].hub_name, *shape_of(family), loads(family), learns(family)]
    return "| " + " | ".join([*cells, f"{found['ours']:.0e}{plain}", exports(family)]) + " |"


def main(families: list[str], batches: int, only: str | None) -> None:
    """Measure some families and write their rows, or their cells of the column `only`."""
    before, table, after = re.split(r"(?<=<!-- table -->\n)(.*?)(?=<!-- /table -->)", TABLE.read_text(), flags=re.S)
    rows = {line.split("|")[1].strip(): line for line in table.splitlines()[4:] if line.startswith("|")}
    for family in families:
        cells = (rows[family] if only else row(family, batches)).split("|")
        cells[LEARNS] = f" {learns(family)} " if only else cells[LEARNS]
        rows[family] = "|".join(cells)
        print(rows[family], flush=True)
    made = f"transformers {transformers.__version__}, torch {torch.__version__}, {batches} batches a family:"
    made = table.split("\n")[0] if only else made
    lines = [made, "", HEAD, re.sub(r"[^|]+", "---", HEAD), *(rows[name] for name in AUDIO if name in rows), ""]
    TABLE.write_text(before + "\n".join(lines) + after)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--families", nargs="+", default=list(AUDIO), choices=list(AUDIO))
    parser.add_argument("--only", choices=["learns"], help="measure this column alone")
    arguments = parser.parse_args()
    main(arguments.families, arguments.batches, arguments.only)
