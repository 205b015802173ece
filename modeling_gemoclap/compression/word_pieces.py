"""Removing rare word pieces from a WordPiece tokenizer and from the word embedding of its text encoder."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import PreTrainedTokenizerBase

from ..configuration_gemoclap import GEmoClapConfig
from ..modeling_gemoclap import GEmoClapModel
from ..prompts_gemoclap import EMOTION_WORDS, GENDER_WORDS

OPTION = "--word_pieces"
CHARACTER = re.compile(r"(?:##)?[!-~]")  # printable ASCII
WORD = re.compile(r"(?:##)?[a-z]+")
EMOTION_WORDS_FILE = Path(__file__).with_name("emotion_words.txt")


@dataclass(frozen=True)
class Pieces:
    """The word pieces that are kept.

    Args:
        ids: Their ids in the complete vocabulary, in its order. The new id of a piece is its place in this list.
        before: Number of word pieces of the complete vocabulary.
    """

    ids: list[int]
    before: int


def listed_words() -> dict[str, list[str]]:
    """The words of `emotion_words.txt`, whose pieces are always kept, by emotion; `other` has words of none."""
    words, group = {}, "other"
    for line in EMOTION_WORDS_FILE.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        name, colon, rest = line.partition(":")
        group = name if colon else group
        words.setdefault(group, []).extend((rest if colon else line).split())
    return words


def needed_texts(config: GEmoClapConfig) -> list[str]:
    """The prompts of a configuration, in training and at inference, and words for emotions and genders."""
    texts = [*config.training_prompts(), *(prompt for group in config.class_prompts() for prompt in group)]
    texts += [word for words in listed_words().values() for word in words]
    for emotion, (word, aliases) in EMOTION_WORDS.items():
        texts += [emotion, word, *aliases]
    for gender, aliases in GENDER_WORDS.items():
        texts += [gender, *aliases]
    return list(dict.fromkeys(texts))


def choose_pieces(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], count: int) -> Pieces:
    """Choose the word pieces that are kept.

    These are the special tokens, single characters of ASCII, the pieces of the texts, and then the first pieces of the
    vocabulary that are words or parts of words in lower-case ASCII. The vocabulary of BERT is ordered by frequency.

    Args:
        tokenizer: The tokenizer.
        texts: Texts whose pieces are kept.
        count: Number of pieces, with the special tokens.

    Raises:
        ValueError: If the tokenizer does not have word pieces, if `count` is below the number of necessary pieces, or
            if there are not as many.
    """
    content = _content(tokenizer)
    ids = _ids(content)
    kept = {token["id"] for token in content["added_tokens"]} | {ids[content["model"]["unk_token"]]}
    kept |= {index for piece, index in ids.items() if CHARACTER.fullmatch(piece)}
    for row in tokenizer(list(texts), add_special_tokens=False)["input_ids"]:
        kept.update(row)
    words = [index for piece, index in sorted(ids.items(), key=lambda item: item[1]) if WORD.fullmatch(piece)]
    others = [index for index in words if index not in kept]
    most = min(len(kept) + len(others), len(ids) - 1)
    if not len(kept) <= count <= most:
        raise ValueError(
            f"{OPTION} {count}: give a number from {len(kept)}, which are the special tokens, single characters and "
            f"pieces of prompts and emotion words, to {most}"
        )
    return Pieces(sorted(kept.union(others[: count - len(kept)])), len(ids))


def cut_tokenizer(tokenizer: PreTrainedTokenizerBase, pieces: Pieces) -> PreTrainedTokenizerBase:
    """A copy of a tokenizer with only some of its pieces, which have new ids."""
    content = _content(tokenizer)
    new_ids = {old: new for new, old in enumerate(pieces.ids)}
    vocabulary = sorted(content["model"]["vocab"].items(), key=lambda item: item[1])
    content["model"]["vocab"] = {piece: new_ids[old] for piece, old in vocabulary if old in new_ids}
    for token in content["added_tokens"]:
        token["id"] = new_ids[token["id"]]
    if content.get("padding"):
        content["padding"]["pad_id"] = new_ids[content["padding"]["pad_id"]]
    content["post_processor"] = _with_new_ids(content.get("post_processor"), new_ids)
    cut = copy.deepcopy(tokenizer)
    cut._tokenizer = Tokenizer.from_str(json.dumps(content))  # the backend of every fast tokenizer, which is saved
    return cut


def cut_embedding(model: GEmoClapModel, pieces: Pieces) -> None:
    """Keep the rows of some word pieces in the word embedding of a text tower.

    Args:
        model: The model, which is changed in place, with its configuration.
        pieces: The word pieces.
    """
    tower, new_ids = model.text_model, {old: new for new, old in enumerate(pieces.ids)}
    embedding = tower.get_input_embeddings()
    rows = embedding.weight.detach()[torch.tensor(pieces.ids)].clone()
    cut = nn.Embedding.from_pretrained(rows, freeze=True, padding_idx=new_ids.get(embedding.padding_idx))
    cut.weight.requires_grad_(embedding.weight.requires_grad)
    tower.set_input_embeddings(cut)
    config = tower.config
    config.vocab_size = len(pieces.ids)
    for name, value in list(vars(config).items()):
        if name.endswith("_token_id") and isinstance(value, int):
            setattr(config, name, new_ids.get(value))
    model.config.text_config = config


def _content(tokenizer: PreTrainedTokenizerBase) -> dict:
    """The content of `tokenizer.json`.

    Raises:
        ValueError: If it is not a WordPiece tokenizer.
    """
    content = json.loads(tokenizer.backend_tokenizer.to_str()) if tokenizer.is_fast else {"model": {}}
    kind = content["model"].get("type", type(tokenizer).__name__)
    if kind != "WordPiece":
        raise ValueError(
            f"{OPTION} needs a text encoder with a WordPiece tokenizer, such as BERT or MiniLM; this tokenizer is of "
            f"type {kind}: leave the option out"
        )
    return content


def _ids(content: dict) -> dict[str, int]:
    """The id of each piece and added token."""
    return content["model"]["vocab"] | {token["content"]: token["id"] for token in content["added_tokens"]}


def _with_new_ids(part, new_ids: dict[int, int]):
    """A post-processor with new ids of its special tokens; `BertProcessing` has pairs, templates have lists."""
    if isinstance(part, list):
        return [_with_new_ids(item, new_ids) for item in part]
    if not isinstance(part, dict):
        return part
    renewed = {}
    for name, value in part.items():
        if name in ("sep", "cls") and isinstance(value, list):
            renewed[name] = [value[0], new_ids[value[1]]]
        elif name == "ids":
            renewed[name] = [new_ids[index] for index in value]
        else:
            renewed[name] = _with_new_ids(value, new_ids)
    return renewed
