"""Write a tiny Whisper model, its tokenizer and its settings in the form in which CTranslate2 has them."""

import json
import struct

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import WhisperConfig, WhisperForConditionalGeneration
from transformers.models.whisper.modeling_whisper import sinusoids

TYPES = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}
LANGUAGES = ("<|en|>", "<|de|>")
SPECIAL = ("<|endoftext|>", "<|startoftranscript|>", *LANGUAGES, "<|translate|>", "<|transcribe|>")
SPECIAL += ("<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>")
LETTERS = "abcdef"
TOKENS = {token: len(LETTERS) + place for place, token in enumerate(SPECIAL)}
SETTINGS = {
    "alignment_heads": [[0, 0]],
    "lang_ids": [TOKENS[name] for name in LANGUAGES],
    "suppress_ids": [1, TOKENS["<|startoftranscript|>"]],
    "suppress_ids_begin": [2, TOKENS["<|endoftext|>"]],
}


def tiny_whisper():
    """A model with two layers in each half, whose values are exact in half precision."""
    torch.manual_seed(0)
    sizes = {"d_model": 8, "num_mel_bins": 4, "max_source_positions": 6, "max_target_positions": 5}
    for side, width in (("encoder", 12), ("decoder", 16)):
        sizes |= {f"{side}_layers": 2, f"{side}_attention_heads": 2, f"{side}_ffn_dim": width}
    end = TOKENS["<|endoftext|>"]
    tokens = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end}
    config = WhisperConfig(vocab_size=len(LETTERS) + len(SPECIAL), **sizes, **tokens)
    model = WhisperForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
        model.model.encoder.embed_positions.weight.copy_(sinusoids(6, 8))
    return model.half().float()


def variables_of(model):
    """The variables of CTranslate2, named and stacked by the documented rules."""
    state = {name: value.half().numpy() for name, value in model.state_dict().items()}
    found = {}

    def put(target, *sources, bias=True):
        for kind, name in (("weight", "weight"), ("bias", "bias")) if bias else (("weight", "weight"),):
            parts = [state.get(f"{source}.{name}") for source in sources]
            parts = [np.zeros(8, np.float16) if part is None else part for part in parts]  # keys have no bias
            found[f"{target}/{kind}"] = np.concatenate(parts)

    def put_norm(target, source):
        found[f"{target}/gamma"], found[f"{target}/beta"] = state[f"{source}.weight"], state[f"{source}.bias"]

    for number in (1, 2):
        put(f"encoder/conv{number}", f"model.encoder.conv{number}")
    put("decoder/embeddings", "model.decoder.embed_tokens", bias=False)
    for side in ("encoder", "decoder"):
        found[f"{side}/position_encodings/encodings"] = state[f"model.{side}.embed_positions.weight"]
        found[f"{side}/num_heads"] = np.int16(2)
        put_norm(f"{side}/layer_norm", f"model.{side}.layer_norm")
        for layer in range(2):
            target, source = f"{side}/layer_{layer}", f"model.{side}.layers.{layer}"
            put(f"{target}/self_attention/linear_0", *(f"{source}.self_attn.{part}_proj" for part in "qkv"))
            put(f"{target}/self_attention/linear_1", f"{source}.self_attn.out_proj")
            put_norm(f"{target}/self_attention/layer_norm", f"{source}.self_attn_layer_norm")
            put(f"{target}/ffn/linear_0", f"{source}.fc1")
            put(f"{target}/ffn/linear_1", f"{source}.fc2")
            put_norm(f"{target}/ffn/layer_norm", f"{source}.final_layer_norm")
            if side == "decoder":
                put(f"{target}/attention/linear_0", f"{source}.encoder_attn.q_proj")
                put(f"{target}/attention/linear_1", *(f"{source}.encoder_attn.{part}_proj" for part in "kv"))
                put(f"{target}/attention/linear_2", f"{source}.encoder_attn.out_proj")
                put_norm(f"{target}/attention/layer_norm", f"{source}.encoder_attn_layer_norm")
    for name, value in {"activation": 3, "alibi": 0, "pre_norm": 1, "scale_embeddings": 0}.items():
        found[f"decoder/{name}"] = np.int8(value)
    found["decoder/start_from_zero_embedding"] = np.int8(0)
    found["decoder/alignment_heads"], found["decoder/alignment_layer"] = np.int16(1), np.int16(-1)
    return found


def string(text):
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def model_bytes(variables, version=6, specification="WhisperSpec", revision=3, aliases=None):
    """The bytes of a model file."""
    if aliases is None:
        aliases = {"decoder/projection/weight": "decoder/embeddings/weight"}
    parts = [struct.pack("<I", version), string(specification), struct.pack("<II", revision, len(variables))]
    for name, value in variables.items():
        parts += [string(name), struct.pack("<B", value.ndim), struct.pack(f"<{value.ndim}I", *value.shape)]
        parts += [struct.pack("<BI", TYPES[value.dtype.name], value.nbytes), value.tobytes()]
    parts.append(struct.pack("<I", len(aliases)))
    return b"".join([*parts, *(string(alias) + string(target) for alias, target in aliases.items())])


def write_files(folder):
    """Write `config.json` and `tokenizer.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(SETTINGS))
    tokenizer = Tokenizer(BPE({letter: place for place, letter in enumerate(LETTERS)}, []))
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.save(str(folder / "tokenizer.json"))
