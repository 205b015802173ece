"""Export of a model to one ONNX file, from waveforms to scores, which runs without torch and transformers."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from ..command_line.places import refuse_unwritable
from ..configuration_gemoclap import GEmoClapConfig
from ..corpora.files import read_object, write_json
from ..encoding_gemoclap import PADDING_SAFE, ignores_padding
from ..feature_extraction_gemoclap import SILENCE_PEAK
from ..fingerprint import file_sha256
from ..pipeline_gemoclap import ZeroShotEmotionPipeline
from ..spectrograms_gemoclap import window_seconds
from ..version import __version__
from .classifier import AudioClassifier
from .export_features import CONSTANTS, ExportedFeatures
from .predictions import PredictionOptions, extractor_of, why_only_ranks

FORMAT = 1  # of the JSON file
OPSET = 20
INPUTS, OUTPUTS = ("waveform", "lengths"), ("scores", "embedding")
EXPORTABLE = sorted({*PADDING_SAFE, "whisper"} - {"wav2vec2-bert"})
MODULE = re.compile(r"'([\w.]+)', '[^']*'\]$")  # the module that a node was traced in, among its scopes
FIRST_ATTENTION = re.compile(r"layers\.0\.(?:self_attn|attention)\.")
PROTOBUF_LIMIT = 2**31  # bytes of a file


@dataclass(frozen=True)
class ExportOptions:
    """What is exported, and how.

    Args:
        labels: Words to choose from; None: the emotions of the model. A classifier has no others.
        templates: Prompt templates with `{}`; None: those of the model.
        quantize: `"int8"` to store the weights of linear layers in 8 bits and multiply in 8 bits; None: float32.
        restart: Whether to overwrite files that are no earlier export.
        name: Name of the model, which the JSON file states.
        licence: Licence of the model, which the JSON file states.

    Raises:
        ValueError: If `quantize` is unknown.
    """

    labels: Sequence[str] | str | None = None
    templates: Sequence[str] | str | None = None
    quantize: str | None = None
    restart: bool = False
    name: str | None = None
    licence: str | None = None

    def __post_init__(self):
        if self.quantize not in (None, "int8"):
            raise ValueError(f"quantize={self.quantize!r} is unknown: give int8, or leave it out for float32")


class ExportedModel(nn.Module):
    """The graph of an exported file: waveforms to scores and embeddings.

    Args:
        pipe: The model, from `load_pipeline`.
        options: Labels and templates.

    Raises:
        ValueError: If labels or templates are invalid.
    """

    def __init__(self, pipe: ZeroShotEmotionPipeline | AudioClassifier, options: ExportOptions):
        super().__init__()
        extractor, model = extractor_of(pipe), pipe.model
        self.features, self.model, self.input_name = ExportedFeatures(extractor), model, extractor.input_name
        given = {"candidate_labels": options.labels, "hypothesis_template": options.templates}
        pipe(iter(()), **{name: value for name, value in given.items() if value is not None})  # checks both
        self.labels = PredictionOptions(options.labels).labels_of(pipe)
        self.classifier, self.templates = None, None
        if isinstance(pipe, AudioClassifier):
            self.labels, self.classifier = list(model.config.emotions), model.classifier
        else:
            prompts = model.config.class_prompts(options.labels, options.templates)
            classes = model.get_class_embeddings(prompts, pipe.processor.tokenizer)
            self.register_buffer("class_embeddings", (model.audio_scale.detach() * classes).T.contiguous())
            self.templates = _templates(model.config, options.templates)
        self.temperature = model.config.calibration_temperature or 1.0
        self.to(model.device)

    def forward(self, waveform: torch.Tensor, lengths: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute scores `(batch, labels)` and embeddings `(batch, dimensions)`.

        Args:
            waveform: `(batch, samples)`, mono at the sampling rate of the model, padded at the end.
            lengths: `(batch,)`, valid samples of each clip.
        """
        inputs, mask = self.features(waveform, lengths)
        inputs = {self.input_name: inputs, "audio_attention_mask": mask}
        if self.classifier is None:
            embedding = self.model.get_audio_features(**inputs)
            logits = embedding @ self.class_embeddings
        else:
            embedding = self.model.pool_audio(**inputs)
            logits = self.classifier(embedding)
        return dict(zip(OUTPUTS, ((logits / self.temperature).softmax(-1), embedding), strict=True))


def _templates(config: GEmoClapConfig, templates: Sequence[str] | str | None) -> list[str]:
    if templates is None:
        templates = config.joint_templates if config.uses_joint_texts else config.emotion_templates
    return [templates] if isinstance(templates, str) else list(templates)


def export_onnx(
    pipe: ZeroShotEmotionPipeline | AudioClassifier, path: str | Path, options: ExportOptions | None = None
) -> dict:
    """Write a model to an ONNX file, and its labels to a JSON file beside it.

    Args:
        pipe: The model, from `load_pipeline`.
        path: The file, whose name ends in `.onnx`. An earlier export is replaced.
        options: Labels, templates, quantisation.

    Returns:
        The content of the JSON file.

    Raises:
        ValueError: If the encoder cannot be exported, if labels or templates are invalid, or if the files exist and
            are no export.
        ImportError: If a package of the extra `onnx` is missing.
    """
    path, options = Path(path).expanduser(), options or ExportOptions()
    check_output(path, options.restart)
    check_encoder(pipe)
    import onnx

    graph = ExportedModel(pipe, options).eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent)
    with unfinished as temporary, _without_noise():
        exported = Path(temporary, "float32.onnx")
        _save(_trace(graph), exported)
        if options.quantize:
            exported = _quantize(exported, Path(temporary, "int8.onnx"))
        onnx.checker.check_model(str(exported), full_check=True)
        content = {"format": FORMAT, "file": path.name, "sha256": file_sha256(exported)}
        content |= _description(pipe, graph, options)
        described = Path(temporary, "labels.json")
        write_json(described, content)
        path.with_suffix(".json").unlink(missing_ok=True)  # no file is ever beside the labels of another one
        os.replace(exported, path)
        os.replace(described, path.with_suffix(".json"))
    return content


def exported_name(model: str) -> str:
    """The name of a model in the JSON file: that of its folder, or that on the Hub, or `base` or `compact`."""
    return Path(model).resolve().name if Path(model).is_dir() else model


def check_output(path: Path, restart: bool = False) -> None:
    """Check, before a model is loaded, that an export may be written to a path.

    Args:
        path: The file.
        restart: Whether files that are no export may be overwritten.

    Raises:
        ValueError: If the name does not end in `.onnx`, if the folder cannot be written, or if the ONNX file or the
            JSON file beside it exists and is no export.
    """
    if path.suffix != ".onnx":
        raise ValueError(f"--output {path}: give a name that ends in .onnx")
    refuse_unwritable({"--output": path.parent})
    beside = path.with_suffix(".json")
    if restart or not (path.exists() or beside.exists()):
        return
    try:
        ours = read_object(beside, format=int, file=str, sha256=str)["file"] == path.name
    except (ValueError, OSError):
        ours = False
    if not ours:
        existing = path if path.exists() else beside
        raise ValueError(
            f"{existing} exists and is not an export of gemoclap: give another --output, or --restart to overwrite it"
        )


def check_encoder(pipe: ZeroShotEmotionPipeline | AudioClassifier) -> None:
    """Check that the audio encoder of a model can be exported.

    Args:
        pipe: The model.

    Raises:
        ValueError: If it cannot, or if the weights are not in float32.
    """
    config, extractor = pipe.model.config.audio_config, extractor_of(pipe)
    other_features = extractor.feature_type == "own" and window_seconds(extractor.own) is None
    reason = "its spectrogram is computed by transformers" if other_features else ""
    if not ignores_padding(config):
        reason = "it processes only clips of equal length together"
    if reason or config.model_type not in EXPORTABLE:
        raise ValueError(
            f"the audio encoder {config.model_type!r} cannot be exported{': ' * bool(reason)}{reason}; these can: "
            f"{', '.join(EXPORTABLE)}"
        )
    if pipe.model.dtype != torch.float32:
        raise ValueError(f"the model is in {pipe.model.dtype}: load it in float32 to export it")


def _trace(graph: ExportedModel):
    """The `onnx_ir.Model` of a graph, by transformers if it has exporters (5.23 and later), else by torch alone."""
    rate = graph.features.rate
    generator = torch.Generator().manual_seed(0)
    example = 0.1 * torch.randn(3, 2 * rate, generator=generator), torch.tensor([2 * rate, rate, rate + rate // 3])
    inputs = dict(zip(INPUTS, (tensor.to(graph.model.device) for tensor in example), strict=True))
    dynamic = torch.export.Dim.DYNAMIC
    shapes = {"waveform": {0: dynamic, 1: dynamic}, "lengths": {0: dynamic}}
    if _has_exporters():
        from transformers.exporters import OnnxConfig, OnnxExporter

        return OnnxExporter().export(graph, inputs, OnnxConfig(dynamic_shapes=shapes, opset_version=OPSET)).program
    with torch.no_grad():
        program = torch.export.export(graph, (), inputs, dynamic_shapes=shapes, strict=False)
        names = {"input_names": INPUTS, "output_names": OUTPUTS}
        return torch.onnx.export(program, kwargs=inputs, opset_version=OPSET, dynamo=True, **names).model


def _has_exporters() -> bool:
    return find_spec("transformers.exporters") is not None


def _save(model, path: Path) -> None:
    """Save a model to one file, without the paths and the source lines of this installation."""
    import onnx_ir

    graph = model.graph
    inner = [value for node in graph.all_nodes() for value in node.outputs if value not in graph.outputs]
    for value in inner:  # shapes with sizes that depend on the data may contradict each other
        value.shape = value.type = None
    for value in [*inner, *graph.initializers.values()]:
        if value.name in OUTPUTS:  # the output of an embedding layer is called like ours
            value.name = f"inner_{value.name}"
    for node in graph.all_nodes():
        if found := MODULE.search(node.metadata_props.get("pkg.torch.onnx.name_scopes", "")):
            node.name = f"{found[1]}/{node.name}"
    for part in (model, graph, *graph.all_nodes(), *graph.inputs, *graph.outputs, *inner):
        part.metadata_props.clear()
    model.producer_name, model.producer_version, model.doc_string = "gemoclap", __version__, None
    size = sum(value.const_value.nbytes for value in graph.initializers.values())
    if size >= PROTOBUF_LIMIT:
        raise ValueError(
            f"the model has {size / 1e9:.1f} GB of weights, and an ONNX file holds 2 GB: export a smaller encoder"
        )
    onnx_ir.save(model, path)


def _quantize(path: Path, output: Path) -> Path:
    """Quantise the linear layers of the encoder in a file: most of its weights.

    The Fourier transform, the mel filters and what follows pooling stay in float32, and so does the attention of the
    first layer, which has the largest share of the errors: see docs/export.md.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(path)
    kept = {constant.name for constant in model.graph.initializer if constant.name.rpartition(".")[2] in CONSTANTS}
    nodes = model.graph.node
    excluded = [node.name for node in nodes if kept.intersection(node.input) or FIRST_ATTENTION.search(node.name)]
    # The layers of a head are Gemm, which onnxruntime rewrites as MatMul, under other names, before it excludes nodes.
    excluded += [f"{node.name}_MatMul" for node in nodes if node.op_type == "Gemm"]
    settings = {"op_types_to_quantize": ["MatMul"], "per_channel": True, "weight_type": QuantType.QInt8}
    quantize_dynamic(model, output, nodes_to_exclude=excluded, **settings)
    return output


def _description(pipe, graph: ExportedModel, options: ExportOptions) -> dict:
    """The content of the JSON file, without the name and the hash of the ONNX file."""
    extractor = extractor_of(pipe)
    return {
        "model": options.name or pipe.model.name_or_path,
        "labels": graph.labels,
        "sampling_rate": extractor.sampling_rate,
        "min_seconds": max(extractor.min_seconds, extractor.frame_seconds * (extractor.feature_type == "log_mel")),
        "silence_peak": SILENCE_PEAK,
        "calibrated": why_only_ranks(pipe, PredictionOptions(options.labels, options.templates)) is None,
        "templates": graph.templates,
        "quantized": options.quantize,
        "licence": options.licence,
        "gemoclap_version": __version__,
    }


@contextlib.contextmanager
def _without_noise() -> Iterator[None]:
    """A context without the progress and the warnings of torch's exporter."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir", "root")]
    loggers += [logging.getLogger(name) for name in ("transformers.exporters", "onnxruntime.quantization")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
