"""Restrictions on the files of a checkpoint: encoder families, remote code, weight indices and pickles."""

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from test_security import Opens, edit
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from modeling_gemoclap import GEmoClapAudioConfig, GEmoClapProcessor
from modeling_gemoclap.command_line.failures import failure_message
from modeling_gemoclap.encoding_gemoclap import FIXED_LENGTH, PADDING_SAFE
from modeling_gemoclap.safety_gemoclap import refuse_compiled_families, refuse_foreign_code
from modeling_gemoclap.towers_gemoclap import build_text_tower, load_text_tower


@pytest.mark.parametrize("file", ["processor_config.json", "tokenizer_config.json", "config.json"])
def test_trust_remote_code_covers_only_the_folder_of_the_processor(make_model, make_processor, tmp_path, file):
    make_processor(make_model()).save_pretrained(tmp_path)
    edit(tmp_path / file, auto_map={"AutoTokenizer": [None, f"{tmp_path}--mine.Class"]})
    refuse_foreign_code(str(tmp_path), {})
    edit(tmp_path / file, auto_map={"AutoTokenizer": [None, "stranger/repository--x.Class"]})
    with pytest.raises(
        ValueError, match=f"auto_map in {file} names code of another repository, 'stranger/repository'"
    ):
        GEmoClapProcessor.from_pretrained(tmp_path, trust_remote_code=True)


@pytest.mark.parametrize("shard", ["/etc/passwd", "../other/model.safetensors", "a\\b.safetensors", "..", 3, None])
@pytest.mark.parametrize("index", ["model.safetensors.index.json", "pytorch_model.bin.index.json"])
def test_an_index_must_not_name_files_in_other_folders(make_model, tmp_path, shard, index):
    tower = make_model("wavlm-base").text_model
    tower.save_pretrained(tmp_path, max_shard_size="10KB")
    load_text_tower(str(tmp_path))
    (tmp_path / "model.safetensors.index.json").rename(tmp_path / index)
    edit(tmp_path / index, weight_map={"a": shard})
    with pytest.raises(ValueError, match=re.escape(f"{index} names {shard!r}, which is not a file in its folder")):
        load_text_tower(str(tmp_path))


def families_with_kernels() -> set[str]:
    """Families of transformers whose source downloads a kernel or compiles an extension."""
    families, models = set(), Path(transformers.__file__).parent / "models"
    for kind, config_class in CONFIG_MAPPING.items():
        if not config_class.__module__.startswith("transformers.models."):
            continue  # a family that another test registered
        folder = models / config_class.__module__.split(".")[2]
        source = folder / f"{config_class.__module__.rpartition('.')[2].replace('configuration_', 'modeling_')}.py"
        words = ("get_kernel", "load_cuda_kernel", "cpp_extension", "lazy_load_kernel", "LocalKernel", "load_inline")
        if source.is_file() and any(word in source.read_text(encoding="utf-8") for word in words):
            families.add(kind)
    return families


def test_families_that_compile_code_are_refused():
    """The encoders of the benchmarks are accepted."""
    compiling = families_with_kernels()
    assert {"mra", "rwkv", "yoso"} <= compiling
    for kind in compiling:
        with pytest.raises(ValueError, match=f"text_config: a '{kind}' model fetches files or compiles code"):
            refuse_compiled_families(CONFIG_MAPPING[kind](), "text_config")
    for kind in (*PADDING_SAFE, *FIXED_LENGTH, "sew", "roberta", "bert", "mpnet", "xlm-roberta", "modernbert"):
        config = GEmoClapAudioConfig() if kind == "gemoclap_audio" else CONFIG_MAPPING[kind]()
        refuse_compiled_families(config, "tower")


@pytest.mark.parametrize(
    "nested",
    [{"model_type": "bert", "x": {"model_type": "yoso"}}, {"model_type": "timm_wrapper"}, CONFIG_MAPPING["mra"]()],
)
def test_nested_families_that_compile_code_are_refused(nested):
    with pytest.raises(ValueError, match="text_config: a '(yoso|timm_wrapper|mra)' model fetches files or compiles"):
        build_text_tower(CONFIG_MAPPING["roberta"](part=nested))


def test_reference_compile_in_a_file_is_ignored():
    config = CONFIG_MAPPING["roberta"](
        reference_compile=True, hidden_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    assert build_text_tower(config).config.reference_compile is False


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is incomplete"),
        (b"PK\x03\x04 of an archive", "is incomplete"),
        (
            b"<html>not found</html>",
            "is a pickle of objects other than tensors, which may run code, or contains no tensors",
        ),
        (pickle.dumps(Opens("nothing")), "is a pickle of objects other than tensors"),
        (pickle.dumps(np.ones(3)), "is a pickle of objects other than tensors"),
    ],
)
def test_the_error_for_an_unsafe_file_names_it_and_does_not_advise_unpickling(tmp_path, content, words):
    (tmp_path / "scaler.pt").write_bytes(content)
    with pytest.raises(Exception) as refused:  # noqa: B017, PT011
        torch.load(str(tmp_path / "scaler.pt"), weights_only=True)
    sentence = failure_message(refused.value)
    assert sentence.startswith(f"{tmp_path / 'scaler.pt'} {words}") and "weights_only" not in sentence
