"""What the files of a checkpoint may hold, so that loading one runs no code that its user did not ask for."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import json
import math
import numbers
import pickle
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import transformers
from transformers import PretrainedConfig, PreTrainedTokenizerBase
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import cached_file

# The extractors of transformers that make the input of the measured encoders. They open no files.
EXTRACTORS = (
    "ASTFeatureExtractor",
    "SeamlessM4TFeatureExtractor",
    "Wav2Vec2FeatureExtractor",
    "WhisperFeatureExtractor",
)
# All others fetch a kernel from the Hub, or start a compiler as flex_attention does. A user who wants one gives
# attn_implementation to from_pretrained.
ATTENTION = ("eager", "sdpa")
QUANTIZERS = ("bitsandbytes", "bitsandbytes_4bit", "bitsandbytes_8bit")
# What a model's source has where it fetches a kernel from the Hub or compiles an extension by itself.
KERNEL_LOADERS = re.compile(r"\b(get_kernel|lazy_load_kernel|load_inline)\(|\bcpp_extension\b")
# What torch's refusal to unpickle a file means.
MAY_RUN_CODE = "holds a pickle of more than tensors, which may run code, or no tensors at all"
HUB_OPTIONS = ("revision", "subfolder", "token", "cache_dir", "force_download", "local_files_only", "proxies")


def hub_options(options: dict) -> tuple[dict, dict]:
    """What says where a checkpoint lies, which configuration and weights need alike, and the rest."""
    where = {name: value for name, value in options.items() if name in HUB_OPTIONS}
    return where, {name: value for name, value in options.items() if name not in HUB_OPTIONS}


def check_config(values: dict, name: str = "config.json") -> dict:
    """Make sure that a configuration from a file, and those in it, choose no code.

    Args:
        values: What the file holds.
        name: What errors call it.

    Returns:
        The same.

    Raises:
        ValueError: If it names an attention or experts that may load or compile code, or an unknown quantizer.
    """
    for key, value in values.items():
        if any(word in str(key) for word in ("attn_implementation", "experts_implementation")):
            for kind in value.values() if isinstance(value, dict) else [value]:
                if isinstance(kind, str) and kind not in ATTENTION:
                    raise ValueError(
                        f"{name}: {key} names {kind!r}, which may load or compile code; delete it there, and give "
                        f"attn_implementation to from_pretrained if you want it"
                    )
        elif key == "quantization_config" and value:
            kind = value.get("quant_method") if isinstance(value, dict) else value
            if kind not in QUANTIZERS:
                raise ValueError(
                    f"{name}: quantization by {kind!r} is not supported; known are {', '.join(QUANTIZERS)}"
                )
        elif isinstance(value, dict):
            check_config(value, name)
    return values


# What the numbers of both configurations must be, and the fields of which this is asked.
_COUNTS = "projection_dim projection_hidden_size classifier_hidden_size num_mel_bins hidden_size num_hidden_layers"
_DROPOUTS = "projection_dropout classifier_dropout hidden_dropout conv_dropout"
_NUMBERS = (
    ("a whole number of at least 1", lambda n: isinstance(n, numbers.Integral) and n >= 1, _COUNTS),
    ("a whole number of at least 1", lambda n: n >= 1, "num_attention_heads intermediate_size"),
    ("between 0 and 1", lambda n: 0 <= n <= 1, "alpha mask_time_prob layerdrop"),
    ("at least 0 and below 1", lambda n: 0 <= n < 1, _DROPOUTS),
    ("finite and above 0", lambda n: 0 < n < math.inf, "calibration_temperature layer_norm_eps"),
    ("finite and at least 0", lambda n: 0 <= n < math.inf, "initializer_range mask_time_length num_masks"),
    ("finite and at most ln 100", lambda n: -math.inf < n <= math.log(100), "logit_scale_init_value"),
)


def check_numbers(values: dict) -> None:
    """Make sure that the fields in `_NUMBERS` have values that they may have; None is passed over, NaN is not.

    Raises:
        ValueError: If one has another.
    """
    for words, holds, names in _NUMBERS:
        for name in names.split():
            value = values.get(name)
            if value is not None and not (isinstance(value, numbers.Real) and holds(value)):
                raise ValueError(f"{name}={value!r} must be {words}")


def loads_kernels(config_class: type[PretrainedConfig]) -> bool:
    """Whether the models of a configuration fetch or compile code of their own accord.

    Their source is read without importing it, so that this holds for every version of transformers.
    """
    module = config_class.__module__.replace(".configuration_", ".modeling_")
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # a configuration outside of transformers
        found = None
    has_source = found is not None and found.origin and Path(found.origin).is_file()
    return bool(has_source and KERNEL_LOADERS.search(Path(found.origin).read_text(encoding="utf-8")))


def refuse_compiled_families(config: PretrainedConfig, name: str) -> None:
    """Make sure that no kernel is fetched or compiled because of a tower's `model_type`, or of one nested in it.

    Args:
        config: The tower's configuration. `reference_compile` of ModernBERT, which compiles too, is switched off.
        name: What errors call it.

    Raises:
        ValueError: If the family does so, or is one of timm, which fetches files by what its configuration names.
    """
    if loads_kernels(type(config)) or config.model_type.startswith("timm"):
        raise ValueError(
            f"{name}: a {config.model_type!r} model fetches files or compiles code while it is built, so it is not "
            f"supported as a tower: choose another encoder"
        )
    if hasattr(config, "reference_compile"):
        config.reference_compile = False
    for value in vars(config).values():
        if isinstance(value, dict) and value.get("model_type") in CONFIG_MAPPING:
            value = CONFIG_MAPPING[value["model_type"]](
                **{key: setting for key, setting in value.items() if key != "model_type"}
            )
        if isinstance(value, PretrainedConfig):
            refuse_compiled_families(value, name)


def own_extractor_class(name: str) -> type[SequenceFeatureExtractor]:
    """The class of transformers that makes a spectrogram, by its name in a file.

    Raises:
        ValueError: If it is none of `EXTRACTORS`, or this version of transformers lacks it.
    """
    if name not in EXTRACTORS:
        raise ValueError(
            f"feature_extractor_type {name!r} is not known as the extractor of an audio encoder; known are "
            f"{', '.join(EXTRACTORS)}"
        )
    found = getattr(transformers, name, None)
    if not (inspect.isclass(found) and issubclass(found, SequenceFeatureExtractor)):
        raise ValueError(f"this version of transformers has no {name}, which makes the audio tower's input")
    return found


def own_settings(extractor_class: type, settings: dict) -> dict:
    """Of an extractor's settings from a file those that its constructor names; the rest is derived from them."""
    known = {"return_attention_mask", "padding_side"}
    for each in (extractor_class, SequenceFeatureExtractor):
        known.update(inspect.signature(each.__init__).parameters)
    return {name: value for name, value in settings.items() if name in known - {"self", "kwargs"}}


def check_extractor_files(name: str, allowed: tuple[str, ...], where: dict) -> None:
    """Make sure that `feature_extractor_type` in the files of a checkpoint is one of those that are allowed.

    Raises:
        ValueError: If it is another.
    """
    for file in ("processor_config.json", "preprocessor_config.json", "config.json"):
        values = read_json(name, file, where)
        for part in (values, values.get("feature_extractor")):
            kind = part.get("feature_extractor_type") if isinstance(part, dict) else None
            if kind is not None and kind not in allowed:
                raise ValueError(
                    f"{name}: feature_extractor_type {kind!r} in {file} is not known as the extractor of an audio "
                    f"encoder; known are {', '.join(allowed)}"
                )


def check_tokenizer_file(name: str, where: dict) -> None:
    """Make sure that `tokenizer_class`, in `tokenizer_config.json` and `config.json`, names a tokenizer.

    Args:
        name: Name or path of a checkpoint.
        where: Options of the Hub.

    Raises:
        ValueError: If it names something else of transformers.
    """
    for file in ("tokenizer_config.json", "config.json"):
        kind = read_json(name, file, where).get("tokenizer_class")
        if kind is None:
            continue
        found = [getattr(transformers, str(kind).removesuffix("Fast") + end, None) for end in ("", "Fast")]
        classes = [each for each in found if each is not None]
        if not all(inspect.isclass(each) and _is_tokenizer(each) for each in classes):
            raise ValueError(f"{name}: tokenizer_class {kind!r} in {file} is not a tokenizer of transformers")


def _is_tokenizer(found: type) -> bool:
    # Where its library is missing, transformers puts a stand-in there, which says so when it is called.
    return issubclass(found, PreTrainedTokenizerBase) or found.__module__.endswith("_objects")


def check_processor_files(name: str, allowed: tuple[str, ...], where: dict) -> None:
    """Make sure that the files of a processor name its own parts alone.

    Args:
        name: Name or path of a checkpoint.
        allowed: The feature extractors that it may name.
        where: Options of the Hub.

    Raises:
        ValueError: If they name another feature extractor, no tokenizer, or an audio tokenizer, which is a model.
    """
    check_extractor_files(name, allowed, where)
    check_tokenizer_file(name, where)
    audio_tokenizers = ("audio_tokenizer", "audio_tokenizer_class")
    for file in ("processor_config.json", "preprocessor_config.json", "audio_tokenizer_config.json"):
        values = read_json(name, file, where)
        if any(key in values for key in audio_tokenizers):
            raise ValueError(f"{name}: {file} names an audio tokenizer, which GEmo-CLAP does not use: delete it there")


def refuse_code_of_others(name: str, where: dict) -> None:
    """Make sure that trust in the code of a checkpoint is no trust in another place that an `auto_map` names.

    Args:
        name: Name or path of a checkpoint that is loaded with `trust_remote_code=True`.
        where: Options of the Hub.

    Raises:
        ValueError: If one of its files names code of another repository or folder.
    """
    for file in ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json", "config.json"):
        for reference in _code_references(read_json(name, file, where)):
            place = reference.partition("--")[0]
            if "--" in reference and place != str(name):
                raise ValueError(
                    f"{name}: auto_map in {file} names code of another place, {place!r}: read that code, copy it into "
                    f"the checkpoint, and name it there as module.Class"
                )


def _code_references(values, below: bool = False) -> Iterator[str]:
    """The strings in each `auto_map`, wherever it is nested."""
    if isinstance(values, dict):
        for key, value in values.items():
            yield from _code_references(value, below or key == "auto_map")
    elif isinstance(values, list):
        for value in values:
            yield from _code_references(value, below)
    elif below and isinstance(values, str):
        yield values


def check_weight_files(name: str, options: dict) -> None:
    """Make sure that a checkpoint is no adapter, and that its index names files beside it alone.

    Args:
        name: Name or path of a checkpoint.
        options: What `from_pretrained` is given.

    Raises:
        ValueError: If it is an adapter, or its index names a file elsewhere.
    """
    where = hub_options(options)[0]
    refuse_adapter(name, where)
    variant = f".{options['variant']}" if options.get("variant") else ""
    for weights in ("model.safetensors", "pytorch_model.bin"):
        file = f"{weights}.index{variant}.json"
        files = read_json(name, file, where).get("weight_map") or {}
        for shard in files.values() if isinstance(files, dict) else [files]:
            if not isinstance(shard, str) or re.search(r"[/\\:]", shard) or shard in ("", ".", ".."):
                raise ValueError(
                    f"{name}: {file} names {shard!r}, which is no file beside it: get the checkpoint again"
                )


def refuse_adapter(name: str, where: dict) -> None:
    """Make sure that a checkpoint is whole: transformers would fetch whatever an adapter names as its base.

    Raises:
        ValueError: If it is an adapter.
    """
    if read_json(name, "adapter_config.json", where):
        raise ValueError(
            f"{name} is a LoRA adapter: give the folder of its run, in which the updates are merged, or load it with "
            f"training.lora.load_adapter"
        )


@contextmanager
def naming_pickles(name: str) -> Iterator[None]:
    """Turn torch's refusal of a pickle into one sentence.

    Args:
        name: Name or path of the checkpoint of which weights are loaded.

    Raises:
        ValueError: If its weights are no pickle of tensors alone.
    """
    try:
        yield
    except (pickle.UnpicklingError, OSError) as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, pickle.UnpicklingError):
            cause = cause.__context__  # transformers 4 raises an OSError while it handles torch's refusal
        if cause is None:
            raise
        # Not torch's own message: it advises to unpickle the file all the same.
        raise ValueError(
            f"{name}: its file of weights {MAY_RUN_CODE}: do not load it, get a safetensors file"
        ) from None


def check_adapter(values: dict, name: str) -> None:
    """Make sure that an adapter's configuration is that of plain LoRA, and names no module that PEFT would import.

    Raises:
        ValueError: If it does.
    """
    if values.get("megatron_config") or values.get("peft_type") != "LORA":
        raise ValueError(f"{name}: not an adapter that train.py made, since it is no plain LoRA; make it again")


def read_json(name: str, file: str, where: dict) -> dict:
    """A JSON file of a checkpoint, or an empty dict where there is none."""
    kinds = ("gated_repo", "missing_entries", "connection_errors")
    quiet = {f"_raise_exceptions_for_{kind}": False for kind in kinds}
    given = {option: value for option, value in where.items() if value is not None}
    path = cached_file(str(name), file, **given, **quiet)
    if path is None:
        return {}
    with open(path, encoding="utf-8") as opened:
        values = json.load(opened)
    return values if isinstance(values, dict) else {}


# ---- are these the weights that a record is about? ------------------------------------------------------------------
def tensors_sha256(tensors: Iterable) -> str:
    """Hash of the values of a model's tensors, whatever their names, order, files and precision on disk.

    Args:
        tensors: Those of `model.state_dict()`, or of the files of a checkpoint.
    """
    found = set()
    for tensor in tensors:
        values = tensor.detach().float().cpu().contiguous()
        found.add(hashlib.sha256(repr(tuple(values.shape)).encode() + values.numpy().tobytes()).hexdigest())
    return hashlib.sha256("".join(sorted(found)).encode()).hexdigest()


def weight_probe(model) -> dict[str, list[float]]:
    """A few values of each parameter, to see later, at no cost, whether weights were changed meanwhile.

    Args:
        model: A model; parameters that another library has put aside or added are known by their own names.

    Returns:
        Values by name; nothing of parameters without values (on the meta device, or sharded).
    """
    found = {}
    for name, parameter in model.named_parameters():
        name = name.replace("base_layer.", "").replace("original_module.", "")
        if parameter.numel() and parameter.device.type != "meta":
            flat = parameter.detach().reshape(-1)
            found[name] = flat[[0, len(flat) // 3, len(flat) // 2, len(flat) - 1]].float().tolist()
    return found
