"""Checks of a checkpoint's files, so that loading it does not run code without the user's consent."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import json
import math
import numbers
import pickle  # for the name of an error  # nosec B403
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import transformers
from transformers import PretrainedConfig, PreTrainedTokenizerBase
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import cached_file

# The extractors of transformers for the supported encoders. They do not open files.
EXTRACTORS = (
    "ASTFeatureExtractor",
    "SeamlessM4TFeatureExtractor",
    "Wav2Vec2FeatureExtractor",
    "WhisperFeatureExtractor",
)
# Other implementations fetch a kernel from the Hub or start a compiler (flex_attention). Users select one by passing
# attn_implementation to from_pretrained.
ATTENTION = ("eager", "sdpa")
QUANTIZERS = ("bitsandbytes", "bitsandbytes_4bit", "bitsandbytes_8bit")
# Matches the source of models that fetch a kernel from the Hub or compile an extension.
KERNEL_LOADERS = re.compile(r"\b(get_kernel|lazy_load_kernel|load_inline)\(|\bcpp_extension\b")
# The meaning of torch's refusal to unpickle a file.
MAY_RUN_CODE = "is a pickle of objects other than tensors, which may run code, or contains no tensors"
HUB_OPTIONS = ("revision", "subfolder", "token", "cache_dir", "force_download", "local_files_only", "proxies")


def split_hub_options(options: dict) -> tuple[dict, dict]:
    """Split options of `from_pretrained` into those that locate the checkpoint and the others."""
    where = {name: value for name, value in options.items() if name in HUB_OPTIONS}
    return where, {name: value for name, value in options.items() if name not in HUB_OPTIONS}


def check_config(values: dict, name: str = "config.json") -> dict:
    """Check that a configuration from a file and its nested configurations do not select code.

    Args:
        values: The content of the file.
        name: Name of the file in error messages.

    Returns:
        `values`.

    Raises:
        ValueError: If it names an implementation of attention or experts that may load or compile code, or an unknown
            quantizer.
    """
    for key, value in values.items():
        if any(word in str(key) for word in ("attn_implementation", "experts_implementation")):
            for kind in value.values() if isinstance(value, dict) else [value]:
                if isinstance(kind, str) and kind not in ATTENTION:
                    raise ValueError(
                        f"{name}: {key} names {kind!r:.80}, which may load or compile code; delete the entry, and "
                        f"pass attn_implementation to from_pretrained if you want it"
                    )
        elif key == "quantization_config" and value:
            kind = value.get("quant_method") if isinstance(value, dict) else value
            if kind not in QUANTIZERS:
                raise ValueError(
                    f"{name}: quantization by {kind!r:.80} is not supported; choose one of {', '.join(QUANTIZERS)}"
                )
        elif isinstance(value, dict):
            check_config(value, name)
    return values


# The ranges of numbers in both configurations: description, test, and names of fields.
_COUNTS = "projection_dim projection_hidden_size classifier_hidden_size num_mel_bins hidden_size num_hidden_layers"
_COUNTS += " num_attention_heads intermediate_size"
_DROPOUTS = "pooled_dropout projection_dropout classifier_dropout hidden_dropout conv_dropout"
_RANGES = (
    ("a whole number of at least 1", lambda n: isinstance(n, numbers.Integral) and n >= 1, _COUNTS),
    ("a whole number of at least 0", lambda n: isinstance(n, numbers.Integral) and n >= 0, "num_masks"),
    ("between 0 and 1", lambda n: 0 <= n <= 1, "alpha mask_time_prob layerdrop"),
    ("at least 0 and below 1", lambda n: 0 <= n < 1, _DROPOUTS),
    ("finite and above 0", lambda n: 0 < n < math.inf, "calibration_temperature layer_norm_eps"),
    ("finite and at least 0", lambda n: 0 <= n < math.inf, "initializer_range mask_time_length mask_feature_length"),
    ("finite and at most ln 100", lambda n: -math.inf < n <= math.log(100), "logit_scale_init_value"),
)
_MAY_BE_NONE = ("projection_hidden_size", "classifier_hidden_size", "calibration_temperature")


def check_numbers(values: dict) -> None:
    """Check the numbers of a configuration against `_RANGES`; NaN is not valid, nor is None but for `_MAY_BE_NONE`.

    Raises:
        ValueError: If a number is out of range.
    """
    for description, is_valid, names in _RANGES:
        for name in names.split():
            if name not in values or values[name] is None and name in _MAY_BE_NONE:
                continue
            value = values[name]
            if isinstance(value, bool) or not (isinstance(value, numbers.Real) and is_valid(value)):
                raise ValueError(f"{name}={value!r} must be {description}")


def loads_kernels(config_class: type[PretrainedConfig]) -> bool:
    """Whether the models of a configuration class fetch or compile code without being asked.

    The source of the models is read without importing it, so the result holds for the installed transformers.
    """
    module = config_class.__module__.replace(".configuration_", ".modeling_")
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # a configuration outside of transformers
        spec = None
    has_source = spec is not None and spec.origin and Path(spec.origin).is_file()
    return bool(has_source and KERNEL_LOADERS.search(Path(spec.origin).read_text(encoding="utf-8")))


def refuse_compiled_families(config: PretrainedConfig, name: str) -> None:
    """Check that building a tower does not fetch or compile a kernel, nor do the configurations nested in it.

    Args:
        config: Configuration of the tower. The function disables `reference_compile`, with which ModernBERT compiles.
        name: Name of the tower in error messages.

    Raises:
        ValueError: If the family fetches or compiles code, or is one of timm, which fetches the files that its
            configuration names.
    """
    if loads_kernels(type(config)) or config.model_type.startswith("timm"):
        raise ValueError(
            f"{name}: a {config.model_type!r} model fetches files or compiles code when it is built, so it is not "
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


def encoder_extractor_class(name: str) -> type[SequenceFeatureExtractor]:
    """The feature extractor class of transformers for an audio encoder, by its name in a file.

    Raises:
        ValueError: If the name is not in `EXTRACTORS`, or if the installed transformers has no such class.
    """
    if name not in EXTRACTORS:
        raise ValueError(
            f"feature_extractor_type {name!r} is unknown as the extractor of an audio encoder; choose one of "
            f"{', '.join(EXTRACTORS)}"
        )
    extractor_class = getattr(transformers, name, None)
    if not (inspect.isclass(extractor_class) and issubclass(extractor_class, SequenceFeatureExtractor)):
        raise ValueError(f"this version of transformers has no {name}, which computes the input of the audio tower")
    return extractor_class


def constructor_settings(extractor_class: type, settings: dict) -> dict:
    """Select the settings that the constructor of an extractor accepts; the others are derived from them."""
    accepted = {"return_attention_mask", "padding_side"}
    for signature_class in (extractor_class, SequenceFeatureExtractor):
        accepted.update(inspect.signature(signature_class.__init__).parameters)
    return {name: value for name, value in settings.items() if name in accepted - {"self", "kwargs"}}


def check_extractor_files(name: str, allowed: tuple[str, ...], where: dict) -> None:
    """Check `feature_extractor_type` in the files of a checkpoint.

    Args:
        name: Name or path of a checkpoint.
        allowed: The allowed values.
        where: Options of the Hub.

    Raises:
        ValueError: If the value is not allowed.
    """
    for file in ("processor_config.json", "preprocessor_config.json", "config.json"):
        values = read_json(name, file, where)
        for part in (values, values.get("feature_extractor")):
            kind = part.get("feature_extractor_type") if isinstance(part, dict) else None
            if kind is not None and kind not in allowed:
                raise ValueError(
                    f"{name}: feature_extractor_type {kind!r:.80} in {file} is unknown as the extractor of an audio "
                    f"encoder; choose one of {', '.join(allowed)}"
                )


def check_tokenizer_file(name: str, where: dict) -> None:
    """Check that `tokenizer_class` in `tokenizer_config.json` and `config.json` names a tokenizer.

    Args:
        name: Name or path of a checkpoint.
        where: Options of the Hub.

    Raises:
        ValueError: If it names another object of transformers.
    """
    for file in ("tokenizer_config.json", "config.json"):
        kind = read_json(name, file, where).get("tokenizer_class")
        if kind is None:
            continue
        variants = [getattr(transformers, str(kind).removesuffix("Fast") + end, None) for end in ("", "Fast")]
        if not all(inspect.isclass(item) and _is_tokenizer(item) for item in variants if item is not None):
            raise ValueError(f"{name}: tokenizer_class {kind!r:.80} in {file} is not a tokenizer of transformers")


def _is_tokenizer(tokenizer_class: type) -> bool:
    # Without its library, a tokenizer of transformers is a dummy object, which raises an error when it is called.
    return issubclass(tokenizer_class, PreTrainedTokenizerBase) or tokenizer_class.__module__.endswith("_objects")


def check_processor_files(name: str, allowed: tuple[str, ...], where: dict) -> None:
    """Check that the files of a processor name only supported parts.

    Args:
        name: Name or path of a checkpoint.
        allowed: Names of the allowed feature extractors.
        where: Options of the Hub.

    Raises:
        ValueError: If they name another feature extractor, a class that is not a tokenizer, or an audio tokenizer,
            which is a model.
    """
    check_extractor_files(name, allowed, where)
    check_tokenizer_file(name, where)
    audio_tokenizers = ("audio_tokenizer", "audio_tokenizer_class")
    for file in ("processor_config.json", "preprocessor_config.json", "audio_tokenizer_config.json"):
        values = read_json(name, file, where)
        if any(key in values for key in audio_tokenizers):
            raise ValueError(
                f"{name}: {file} names an audio tokenizer, which GEmo-CLAP does not use: delete the entry"
            )


def refuse_foreign_code(name: str, where: dict) -> None:
    """Check that trusting the code of a checkpoint does not imply trusting code elsewhere that an `auto_map` names.

    Args:
        name: Name or path of a checkpoint that is loaded with `trust_remote_code=True`.
        where: Options of the Hub.

    Raises:
        ValueError: If one of its files names code of another repository or folder.
    """
    for file in ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json", "config.json"):
        for reference in _code_references(read_json(name, file, where)):
            repository = reference.partition("--")[0]
            if "--" in reference and repository != str(name):
                raise ValueError(
                    f"{name}: auto_map in {file} names code of another repository, {repository!r}: read that code, "
                    f"copy it into the checkpoint, and name it there as module.Class"
                )


def _code_references(values, in_auto_map: bool = False) -> Iterator[str]:
    """The strings in every `auto_map`, at any depth."""
    if isinstance(values, dict):
        for key, value in values.items():
            yield from _code_references(value, in_auto_map or key == "auto_map")
    elif isinstance(values, list):
        for value in values:
            yield from _code_references(value, in_auto_map)
    elif in_auto_map and isinstance(values, str):
        yield values


def check_weight_files(name: str, options: dict) -> None:
    """Check that a checkpoint is not an adapter, and that its index names only files in its folder.

    Args:
        name: Name or path of a checkpoint.
        options: Options of `from_pretrained`.

    Raises:
        ValueError: If the checkpoint is an adapter, or if its index names a file elsewhere.
    """
    where = split_hub_options(options)[0]
    refuse_adapter(name, where)
    variant = f".{options['variant']}" if options.get("variant") else ""
    for weights in ("model.safetensors", "pytorch_model.bin"):
        file = f"{weights}.index{variant}.json"
        files = read_json(name, file, where).get("weight_map") or {}
        for shard in files.values() if isinstance(files, dict) else [files]:
            if not isinstance(shard, str) or re.search(r"[/\\:]", shard) or shard in ("", ".", ".."):
                raise ValueError(
                    f"{name}: {file} names {shard!r}, which is not a file in its folder: download the checkpoint again"
                )


def refuse_adapter(name: str, where: dict) -> None:
    """Check that a checkpoint is not an adapter; transformers would fetch the base model that an adapter names.

    Raises:
        ValueError: If it is an adapter.
    """
    if read_json(name, "adapter_config.json", where):
        raise ValueError(
            f"{name} is a LoRA adapter: give the folder of its run, which holds the merged weights, or load the "
            f"adapter with training.lora.load_adapter"
        )


@contextmanager
def explain_unsafe_pickle(name: str) -> Iterator[None]:
    """Convert torch's refusal to unpickle a file to a short error message.

    Args:
        name: Name or path of the checkpoint that is being loaded.

    Raises:
        ValueError: If the file is not a pickle of tensors only.
    """
    try:
        yield
    except (pickle.UnpicklingError, OSError) as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, pickle.UnpicklingError):
            cause = cause.__context__  # transformers 4 raises an OSError while it handles torch's refusal
        if cause is None:
            raise
        # torch's message advises to unpickle the file anyway.
        raise ValueError(f"{name}: its weight file {MAY_RUN_CODE}: do not load it, get a safetensors file") from None


def check_adapter(values: dict, name: str) -> None:
    """Check that the configuration of an adapter is plain LoRA and does not name a module that PEFT would import.

    Raises:
        ValueError: If it is not.
    """
    if values.get("megatron_config") or values.get("peft_type") != "LORA":
        raise ValueError(f"{name}: not an adapter of train.py, since it is not plain LoRA; train it again")


def read_json(name: str, file: str, where: dict) -> dict:
    """Read a JSON file of a checkpoint; an empty dict if the file does not exist."""
    kinds = ("gated_repo", "missing_entries", "connection_errors")
    quiet = {f"_raise_exceptions_for_{kind}": False for kind in kinds}
    options = {option: value for option, value in where.items() if value is not None}
    path = cached_file(str(name), file, **options, **quiet)
    if path is None:
        return {}
    with open(path, encoding="utf-8") as opened:
        values = json.load(opened)
    return values if isinstance(values, dict) else {}


# ---- identity of weights --------------------------------------------------------------------------------------------
def tensors_sha256(tensors: Iterable) -> str:
    """Hash of the values of a model's tensors, independent of their names, order, files and precision on disk.

    Args:
        tensors: The tensors of `model.state_dict()` or of the files of a checkpoint.
    """
    hashes = set()
    for tensor in tensors:
        values = tensor.detach().float().cpu().contiguous()
        hashes.add(hashlib.sha256(repr(tuple(values.shape)).encode() + values.numpy().tobytes()).hexdigest())
    return hashlib.sha256("".join(sorted(hashes)).encode()).hexdigest()


def weight_probe(model) -> dict[str, list[float]]:
    """A few values of each parameter, with which a later change of the weights can be detected at little cost.

    Args:
        model: A model. The names under which PEFT keeps the original parameters are mapped to the original names.

    Returns:
        Values by name, without parameters that hold no values (on the meta device, or sharded).
    """
    probe = {}
    for name, parameter in model.named_parameters():
        name = name.replace("base_layer.", "").replace("original_module.", "")
        if parameter.numel() and parameter.device.type != "meta":
            flat = parameter.detach().reshape(-1)
            probe[name] = flat[[0, len(flat) // 3, len(flat) // 2, len(flat) - 1]].float().tolist()
    return probe
