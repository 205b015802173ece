"""Write the table of docs/encoders.md: what happens when each encoder is built, loaded, trained and exported.

    python benchmarks/encoders.py [--batches 200] [--families wavlm-base whisper]
    python benchmarks/encoders.py --only learns

Parameters are counted in the true shape; everything else runs in the small shape. Families that are not named keep
their row. With `--only`, a row keeps its other cells.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from batch_independence import make_embedding_model, measure
from documents import BLOCK, render, table_row, write_blocks
from families import AUDIO, text_config
from harness import ROOT, parser_of
from learning import learn
from models import audio_inputs, noise_clips
from transformers import AutoModel, RobertaModel

from modeling_gemoclap import GEmoClapAudioModel, GEmoClapModel
from modeling_gemoclap.encoding_gemoclap import ignores_padding
from modeling_gemoclap.towers_gemoclap import build_audio_tower

DOCUMENT = ROOT / "docs" / "encoders.md"
LEARNS = 7  # column of the table


def shape_of(family: str) -> list[str]:
    """Norm of the feature encoder, attention implementations, parameters in the true shape, and how clips are run."""
    config = AUDIO[family].config()
    norm = "masked instance" if family == "compact" else getattr(config, "feat_extract_norm", "layer")
    with torch.device("meta"):
        tower = build_audio_tower(config)
    flags = {"sdpa": "_supports_sdpa", "flash": "_supports_flash_attn", "flex": "_supports_flex_attn"}
    attention = [name for name, flag in flags.items() if getattr(tower, flag, False)]
    attention = "sdpa" if family == "compact" else ", ".join(["eager", *attention])
    count = sum(parameter.numel() for parameter in tower.parameters()) / 1e6
    return [norm, attention, f"{count:.1f} M", "together" if ignores_padding(config) else "by length"]


def loads(family: str) -> str:
    """The forms of a checkpoint from which every parameter of the tower is loaded."""
    torch.manual_seed(1)
    config, complete = AUDIO[family].config(small=True), []
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
            loaded = model.audio_model.state_dict()
        if set(loaded) == set(weights) and all(torch.equal(weights[name], loaded[name]) for name in loaded):
            complete.append(form)
    return ", ".join(complete) or "no"


def _old_name(name: str) -> str:
    """A parameter's name in checkpoints from before torch's parametrizations."""
    return re.sub(r"parametrizations\.weight\.original([01])", lambda match: "weight_" + "gv"[int(match[1])], name)


def learns(family: str) -> str:
    """The divergence before and after training on tones, and the accuracy on the batch and on new clips."""
    result = learn(family)
    return f"{result.before:.2f} → {result.after:.2f}, {result.accuracy:.0%}, new {result.new:.0%}"


def independence(family: str, batches: int) -> str:
    """The largest difference of an embedding's entries between batches; in brackets with plain transformers."""
    measured = measure(family, batches)
    plain = "" if measured["plain"] is None else f" ({measured['plain']:.0e})"
    return f"{measured['ours']:.0e}{plain}"


class _Embed(torch.nn.Module):
    """`get_audio_features` with positional inputs, as `torch.export` takes them."""

    def __init__(self, model: GEmoClapModel, names: list[str]):
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs):
        return self.model.get_audio_features(**dict(zip(self.names, inputs, strict=True)))


def exports(family: str) -> str:
    """`torch.export` with dynamic batch and length, and its difference for another batch with other lengths."""
    model = make_embedding_model(family)
    padded = ignores_padding(model.config.audio_config)
    lengths = ([9000, 16000], [8000, 20000, 12000]) if padded else ([16000] * 2, [12000] * 3)
    batches = [audio_inputs(family, noise_clips(samples, np.random.default_rng(0))) for samples in lengths]
    names = list(batches[0]) if padded else [name for name in batches[0] if name != "audio_attention_mask"]
    inputs, others = (tuple(batch[name] for name in names) for batch in batches)
    embed, dims = _Embed(model, names), tuple(dict.fromkeys(range(2), torch.export.Dim.AUTO) for _ in names)
    try:
        with torch.no_grad():
            program = torch.export.export(embed, inputs, dynamic_shapes=(dims,), strict=False)
            difference = (program.module()(*others) - embed(*others)).abs().max().item()
        return f"{'padded' if padded else 'unpadded'}, {difference:.0e}"
    except Exception as error:
        return f"no: {type(error).__name__}"


def row_of(family: str, batches: int) -> list[str]:
    """The cells of a family's row."""
    cells = [family, AUDIO[family].hub_name, *shape_of(family), loads(family), learns(family)]
    return [*cells, independence(family, batches), exports(family)]


def main() -> None:
    """Measure families and write their rows, or their cells of one column."""
    parser = parser_of(__doc__)
    parser.add_argument("--batches", type=int, default=200, help="random batches for each family")
    parser.add_argument("--families", nargs="+", default=list(AUDIO), choices=list(AUDIO))
    parser.add_argument("--only", choices=["learns"], help="measure this column alone")
    options = parser.parse_args()
    table = BLOCK.search(DOCUMENT.read_text(encoding="utf-8"))[4]
    rows = {line.split(" | ")[0][2:]: line[2:-2].split(" | ") for line in table.splitlines()[4:]}
    for family in options.families:
        if options.only:
            rows[family][LEARNS] = learns(family)
        else:
            rows[family] = row_of(family, options.batches)
        print(table_row(*rows[family]), flush=True)
    versions = f"transformers {transformers.__version__}, torch {torch.__version__}"
    caption = f"{versions}, {options.batches} batches for each family:"
    caption = table.partition("\n")[0] if options.only else caption
    content = render("encoders", caption=caption, rows=[rows[family] for family in AUDIO if family in rows])
    write_blocks(DOCUMENT, lambda name: content if name == "table" else None)


if __name__ == "__main__":
    main()
