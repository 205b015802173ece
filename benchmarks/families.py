"""The encoders that are measured and tested, each by its configuration in the true shape and in a small one."""

from __future__ import annotations

from dataclasses import dataclass, field

import harness  # noqa: F401  (puts the project on the import path)
import transformers
from transformers import PretrainedConfig

from modeling_gemoclap import GEmoClapAudioConfig, GEmoClapFeatureExtractor

LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
STABLE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
SMALL_LAYERS = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
NO_DROPOUT = dict.fromkeys(("hidden_dropout", "attention_dropout", "activation_dropout", "layerdrop"), 0.0)
NO_DROPOUT["feat_proj_dropout"] = 0.0
SMALL_WAVE = {
    **SMALL_LAYERS,
    **NO_DROPOUT,
    "conv_dim": (8, 8, 8),
    "conv_kernel": (10, 8, 4),
    "conv_stride": (5, 8, 8),
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "apply_spec_augment": False,
    "mask_time_prob": 0.0,
}
SMALL_DATA2VEC = {**SMALL_WAVE, "num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 3}
SMALL_WHISPER = {
    "d_model": 16,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 32,
    "num_mel_bins": 16,
    "max_source_positions": 100,
    "vocab_size": 60,
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 1),
}
SMALL_AST = {**SMALL_LAYERS, "max_length": 200, "num_mel_bins": 16, "patch_size": 8}
SMALL_AST |= {"frequency_stride": 4, "time_stride": 4, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
SMALL_BERT = {**SMALL_LAYERS, **NO_DROPOUT, "feature_projection_input_dim": 160, "conv_depthwise_kernel_size": 3}
SMALL_BERT |= {"apply_spec_augment": False, "mask_time_prob": 0.0, "conformer_conv_dropout": 0.0}
SMALL_COMPACT = {**SMALL_LAYERS, "num_mel_bins": 16, "conv_channels": (4, 8), "hidden_dropout": 0.0}
SMALL_COMPACT |= {"conv_dropout": 0.0, "apply_spec_augment": False}


@dataclass
class AudioFamily:
    """An audio encoder: its name on the Hub, its configuration, and the extractor of its input."""

    hub_name: str
    config_class: type[PretrainedConfig]
    true: dict = field(default_factory=dict)
    small: dict = field(default_factory=dict)
    extractor_class: type | None = transformers.Wav2Vec2FeatureExtractor
    extractor: dict = field(default_factory=dict)

    def config(self, small: bool = False, **fields) -> PretrainedConfig:
        """The configuration of the true or the small shape."""
        return self.config_class(**{**self.true, **(self.small if small else {}), **fields})

    def save_extractor(self, folder) -> None:
        """Write the feature extractor as checkpoints on the Hub have it, with settings for the small shape."""
        if self.extractor_class:
            self.extractor_class(return_attention_mask=True, **self.extractor).save_pretrained(folder)

    def small_extractor(self, folder) -> GEmoClapFeatureExtractor:
        """Our extractor for the small shape, read from a folder that transformers' extractor is saved to."""
        self.save_extractor(folder)
        if self.extractor_class is None:
            return GEmoClapFeatureExtractor(feature_type="log_mel", num_mel_bins=16)
        return GEmoClapFeatureExtractor.from_audio_pretrained(str(folder))


def _wave(hub_name: str, config_class: type[PretrainedConfig], **true) -> AudioFamily:
    return AudioFamily(hub_name, config_class, true, SMALL_WAVE)


t = transformers
AUDIO = {
    "wavlm-large": _wave("microsoft/wavlm-large", t.WavLMConfig, **LARGE, **STABLE),
    "hubert-large": _wave("facebook/hubert-large-ll60k", t.HubertConfig, **LARGE, **STABLE, conv_bias=True),
    "wav2vec2-large": _wave("facebook/wav2vec2-large-lv60", t.Wav2Vec2Config, **LARGE, **STABLE, conv_bias=True),
    "data2vec-large": AudioFamily("facebook/data2vec-audio-large", t.Data2VecAudioConfig, LARGE, SMALL_DATA2VEC),
    "wavlm-base": _wave("microsoft/wavlm-base-plus", t.WavLMConfig),
    "hubert-base": _wave("facebook/hubert-base-ls960", t.HubertConfig),
    "wav2vec2-base": _wave("facebook/wav2vec2-base", t.Wav2Vec2Config),
    "data2vec-base": AudioFamily("facebook/data2vec-audio-base", t.Data2VecAudioConfig, {}, SMALL_DATA2VEC),
    "unispeech-sat-large": _wave(
        "microsoft/unispeech-sat-large", t.UniSpeechSatConfig, **LARGE, **STABLE, conv_bias=True
    ),
    "unispeech-sat-base": _wave("microsoft/unispeech-sat-base-plus", t.UniSpeechSatConfig),
    "unispeech": _wave("microsoft/unispeech-large-1500h-cv", t.UniSpeechConfig, **LARGE, **STABLE, conv_bias=True),
    "sew": AudioFamily("(SEWConfig)", t.SEWConfig, {}, {**SMALL_WAVE, "squeeze_factor": 2}),
    "whisper": AudioFamily(
        "openai/whisper-small",
        t.WhisperConfig,
        {"d_model": 768, "encoder_layers": 12, "encoder_attention_heads": 12, "encoder_ffn_dim": 3072},
        SMALL_WHISPER,
        t.WhisperFeatureExtractor,
        {"feature_size": 16, "chunk_length": 2},
    ),
    "wav2vec2-bert": AudioFamily(
        "facebook/w2v-bert-2.0",
        t.Wav2Vec2BertConfig,
        {},
        SMALL_BERT,
        t.SeamlessM4TFeatureExtractor,
        {"feature_size": 80, "num_mel_bins": 80},
    ),
    "ast": AudioFamily(
        "MIT/ast-finetuned-audioset-10-10-0.4593",
        t.ASTConfig,
        {},
        SMALL_AST,
        t.ASTFeatureExtractor,
        {"num_mel_bins": 16, "max_length": 200},
    ),
    # The package has no code for this one: AutoModel knows it.
    "wav2vec2-conformer": AudioFamily(
        "(Wav2Vec2ConformerConfig, large)", t.Wav2Vec2ConformerConfig, LARGE, SMALL_WAVE
    ),
    "compact": AudioFamily("(from scratch)", GEmoClapAudioConfig, {}, SMALL_COMPACT, None),
}
PAPER = ("data2vec-large", "wav2vec2-large", "hubert-large", "wavlm-large")

SMALL_TEXT = {**SMALL_LAYERS, "num_hidden_layers": 1, "vocab_size": 400, "max_position_embeddings": 66}
SMALL_TEXT |= dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), 0.0)
ROBERTA = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
MINILM = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
TEXT = {
    "roberta": ("FacebookAI/roberta-base", t.RobertaConfig, ROBERTA),
    "bert": ("google-bert/bert-base-uncased", t.BertConfig, {}),
    "mpnet": ("sentence-transformers/all-mpnet-base-v2", t.MPNetConfig, {"max_position_embeddings": 514}),
    "minilm": ("sentence-transformers/all-MiniLM-L6-v2", t.BertConfig, MINILM),
    "xlm-roberta": ("FacebookAI/xlm-roberta-base", t.XLMRobertaConfig, {**ROBERTA, "vocab_size": 250002}),
}


def text_config(name: str = "roberta", small: bool = False, **fields) -> PretrainedConfig:
    """The configuration of a text encoder in the true or the small shape."""
    _, config_class, true = TEXT[name]
    return config_class(**{**true, **(SMALL_TEXT if small else {}), **fields})
