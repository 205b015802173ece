"""`gemoclap compress`: what a smaller copy keeps, what it says, and what is refused."""

import json
import re
import string
from itertools import product

import pytest
import torch
import yaml
from conftest import AUDIO, ROOT, TONES, audio_config, text_config, tone
from safetensors.torch import load_file
from transformers import AutoModel, AutoProcessor, BertTokenizerFast, pipeline

from modeling_gemoclap import GEmoClapConfig, GEmoClapForAudioClassification, GEmoClapModel, GEmoClapProcessor
from modeling_gemoclap.compression import checkpoint
from modeling_gemoclap.compression.command import main
from modeling_gemoclap.compression.word_pieces import _with_new_ids, listed_words, needed_texts
from modeling_gemoclap.prompts_gemoclap import EMOTION_WORDS, words_in
from modeling_gemoclap.publishing.card import write_card
from modeling_gemoclap.publishing.facts import CardFacts, load_facts, save_facts
from modeling_gemoclap.training.history import stamp_weights

CHARACTERS = string.ascii_lowercase + string.digits + string.punctuation
FREQUENT = ["the", "of", "##ing", "##ed"] + ["".join(letters) for letters in product("bdf", "aeiou", "xzq")]
RARE = ["zeppelin", "giraffe", "1990", "naïf"]
COUNT = "1160"  # word pieces: all that are necessary, and some of the frequent ones
FIELDS = {"emotions": list(TONES), "emotion_synonyms": {"angry": ["lurid"]}, "projection_dim": 12}
DATA = [{"corpus": "tones", "speakers": ["01"], "manifest_sha256": "0", "num_clips": 1}]
FACTS = CardFacts(title="SL", parameters=9999, trained_parameters=7, notes="UAR 0.5", commands=["python train.py"])


def word_piece_tokenizer(folder, config):
    """A tokenizer whose rarest pieces are the words of the prompts and some others."""
    folder.mkdir()
    words = [word for word in words_in(needed_texts(config)) if len(word) > 1]
    vocabulary = ["[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *CHARACTERS]
    vocabulary += [*(f"##{character}" for character in CHARACTERS), "東", *FREQUENT, *words, *RARE]
    vocabulary = list(dict.fromkeys(vocabulary))
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    return BertTokenizerFast.from_pretrained(folder, model_max_length=64)


@pytest.fixture
def model_folder(tmp_path):
    """A recorded, calibrated checkpoint with a WordPiece tokenizer, its card and a licence."""
    torch.manual_seed(0)
    config = GEmoClapConfig(audio_config("compact"), text_config("bert"), text_pooling="mean", **FIELDS)
    tokenizer = word_piece_tokenizer(tmp_path / "tokenizer", config)
    config.text_config.vocab_size = len(tokenizer) + 5  # as some encoders, it has rows without a piece
    config.calibration_temperature, config.training_data = 0.7, DATA
    model = GEmoClapModel(config).eval()
    stamp_weights(model, complete=True)
    folder = tmp_path / "runs/model"
    model.save_pretrained(folder)
    GEmoClapProcessor(AUDIO["compact"].small_extractor(tmp_path / "extractor"), tokenizer).save_pretrained(folder)
    save_facts(folder, FACTS)
    write_card(folder)
    (folder / "LICENSE").write_text("free")
    (folder / "results.json").write_text("{}")
    return folder


def embeddings(folder, texts):
    """Of both modalities, by code of the package."""
    model, processor = GEmoClapModel.from_pretrained(folder), GEmoClapProcessor.from_pretrained(folder)
    with torch.no_grad():
        return model(**processor(audio=tone("sad", 0), sampling_rate=16000, text=texts))


def test_half_precision_is_stored_and_float32_is_loaded(model_folder, tmp_path, capsys):
    output = tmp_path / "runs/half"
    output.mkdir()
    main([str(model_folder), str(output), "--half_precision"])
    before, after = (load_file(folder / "model.safetensors") for folder in (model_folder, output))
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert after[name].dtype == (torch.float16 if value.is_floating_point() else value.dtype)
        assert torch.equal(after[name], value.half() if value.is_floating_point() else value)
    assert any((before[name] != after[name].float()).any() for name in before)
    config = json.loads((output / "config.json").read_text())
    assert {part["dtype"] for part in (config, config["audio_config"], config["text_config"])} == {"float32"}
    models = [AutoModel.from_pretrained(output, trust_remote_code=True), GEmoClapModel.from_pretrained(output)]
    models += [pipeline("zero-shot-emotion-recognition", model=str(output), trust_remote_code=True, device=-1).model]
    for model in models:
        assert {value.dtype for value in model.state_dict().values() if value.is_floating_point()} == {torch.float32}
        model.check_history()
        assert model.config.training_data == DATA and model.config.calibration_temperature == 0.7
    original = json.loads((model_folder / "config.json").read_text())
    assert config["weights_sha256"] not in (None, original["weights_sha256"])
    files = {path.name for path in output.iterdir()}
    assert files == {path.name for path in model_folder.iterdir()} - {"results.json"}
    told = capsys.readouterr().out
    sizes = [f"{(folder / 'model.safetensors').stat().st_size / 1e6:.1f}" for folder in (output, model_folder)]
    assert f"weights {sizes[0]} MB instead of {sizes[1]} MB" in told and "word pieces" not in told


def test_texts_whose_pieces_are_left_keep_their_embeddings(model_folder, tmp_path, capsys):
    output = tmp_path / "copies/cut"
    main([str(model_folder), str(output), "--word_pieces", COUNT])
    before, after = (GEmoClapProcessor.from_pretrained(folder).tokenizer for folder in (model_folder, output))
    assert len(after) == int(COUNT) < len(before)
    config = GEmoClapConfig.from_pretrained(output)
    assert config.text_config.vocab_size == int(COUNT)
    assert config.text_config.pad_token_id == after.pad_token_id == after.get_vocab()["[PAD]"]
    rows = load_file(output / "model.safetensors")["text_model.embeddings.word_embeddings.weight"]
    assert len(rows) == int(COUNT)
    assert after.get_vocab()["[CLS]"] < before.get_vocab()["[CLS]"], "unused pieces precede it"
    dropped = before.get_vocab().keys() - after.get_vocab().keys()
    assert {"[unused0]", "東", "zeppelin", "giraffe", "1990"} < dropped
    order = [piece for piece in FREQUENT if piece in after.get_vocab()]
    assert order == FREQUENT[: len(order)] and 0 < len(order) < len(FREQUENT), "the first ones"
    kept = [*needed_texts(config), "of the", "zyx #42 w0w", "(a) [b]"]
    for text in kept:
        assert before.tokenize(text) == after.tokenize(text)
        assert after.decode(after(text)["input_ids"]) == before.decode(before(text)["input_ids"])
    wanted, found = (embeddings(folder, kept) for folder in (model_folder, output))
    for name in ("text_embeds", "audio_embeds", "logits_per_audio"):
        assert torch.equal(getattr(wanted, name), getattr(found, name)), name
    sentence = "Zeppelin, giraffe; quick JUMPING foxes (of 1990)?"
    assert "[UNK]" not in after.tokenize(sentence) and after.tokenize(sentence) != before.tokenize(sentence)
    assert after("東")["input_ids"][1] == after.unk_token_id
    words = sum(map(len, listed_words().values()))
    assert f"and of {words} English words for emotions and manners of speaking" in capsys.readouterr().out


def test_both_at_once_and_for_users_of_transformers_alone(model_folder, tmp_path):
    half, both = tmp_path / "half", tmp_path / "both"
    main([str(model_folder), str(half), "--half_precision"])
    main([str(model_folder), str(both), "--half_precision", "--word_pieces", COUNT])
    assert {value.dtype for value in load_file(both / "model.safetensors").values()} == {torch.float16}
    answers = [
        pipeline("zero-shot-emotion-recognition", model=str(folder), trust_remote_code=True, device=-1)(
            {"array": tone("angry", 1), "sampling_rate": 16000}, candidate_labels=["lurid", "sad", "joy"]
        )
        for folder in (half, both)
    ]
    assert answers[0] == answers[1]
    processor = AutoProcessor.from_pretrained(both, trust_remote_code=True)
    model = AutoModel.from_pretrained(both, trust_remote_code=True)
    tokens = processor(text=["this person is feeling angry", "sad"])
    assert tokens["input_ids"].max() < int(COUNT) and tokens["input_ids"][1, -1] == processor.tokenizer.pad_token_id
    assert model.get_text_features(**tokens).shape == (2, 12)
    model.check_history()
    assert model.config.training_data == DATA and model.config.calibration_temperature == 0.7


def test_the_card_says_what_was_changed(model_folder, tmp_path):
    main([str(model_folder), str(tmp_path / "small"), "--half_precision", "--word_pieces", COUNT])
    card = (tmp_path / "small/README.md").read_text()
    assert "\n# small: speech emotion recognition by SL\n" in card and 'model="small"' in card
    parameters = sum(value.numel() for value in GEmoClapModel.from_pretrained(tmp_path / "small").parameters())
    before = sum(value.numel() for value in GEmoClapModel.from_pretrained(model_folder).parameters())
    assert f"| parameters | {parameters:,} after compression; before: {before:,}, of which 7 were" in card
    section = card[card.index("## Compression") : card.index("## Results")]
    assert "a smaller copy of `model`" in section and "calibration temperature is that of the original" in section
    assert re.search(r"^- 1,160 of the [\d,]+ word pieces", section, re.M)
    assert "Not evaluated" in card and "UAR 0.5" not in card, "the original's results are not those of the copy"
    assert load_facts(tmp_path / "small").commands == FACTS.commands
    for name in ("README.md", "card.json"):
        (model_folder / name).unlink()
    main([str(model_folder), str(tmp_path / "bare"), "--half_precision"])
    card = (tmp_path / "bare/README.md").read_text()
    assert "## Compression\n\nThis is a smaller copy" in card and "an unknown number was learnt in training" in card
    assert "Length of the training: unknown." in card and "The commands that made the checkpoint: unknown." in card


def test_changed_weights_are_not_given_a_history(model_folder, tmp_path):
    config = json.loads((model_folder / "config.json").read_text())
    (model_folder / "config.json").write_text(json.dumps(config | {"weights_sha256": "0" * 64}))
    main([str(model_folder), str(tmp_path / "copy"), "--half_precision"])
    copy = json.loads((tmp_path / "copy/config.json").read_text())
    assert copy["training_data"][:1] == DATA and "unknown" in copy["training_data"][1]
    assert copy["weights_sha256"] is copy["calibration_temperature"] is None


def test_a_classifier_is_rounded(make_model, tmp_path):
    model = make_model(model_class=GEmoClapForAudioClassification)
    model.save_pretrained(tmp_path / "model")
    AUDIO["compact"].small_extractor(tmp_path / "extractor").save_pretrained(tmp_path / "model")
    main([str(tmp_path / "model"), str(tmp_path / "copy"), "--half_precision"])
    loaded = GEmoClapForAudioClassification.from_pretrained(tmp_path / "copy")
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value.half().float())
    with pytest.raises(ValueError, match="--word_pieces: .* has no text encoder"):
        main([str(tmp_path / "model"), str(tmp_path / "other"), "--word_pieces", COUNT])


def refused(model_folder, output, *options):
    """The message of a refusal, which leaves nothing beside what was there."""
    before = sorted(output.parent.rglob("*"))
    with pytest.raises(ValueError) as error:
        main([str(model_folder), str(output), *options])
    assert sorted(output.parent.rglob("*")) == before
    return str(error.value)


def test_wrong_options_are_refused(model_folder, tmp_path, monkeypatch):
    output = tmp_path / "copy"
    few, many = (refused(model_folder, output, "--word_pieces", count) for count in ("10", "100000"))
    assert few.startswith("--word_pieces 10: give a number from") and few.partition(":")[2] == many.partition(":")[2]
    fewest, most = map(int, re.findall(r"(?:from|to) (\d+)", few))
    main([str(model_folder), str(tmp_path / "fewest"), "--word_pieces", str(fewest)])
    main([str(model_folder), str(tmp_path / "most"), "--word_pieces", str(most)])
    refused(model_folder, output, "--word_pieces", str(fewest - 1))
    refused(model_folder, output, "--word_pieces", str(most + 1))
    half, other = "--half_precision", tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "bert"}')
    assert "copy is not smaller" in refused(model_folder, output)
    assert "is not an empty folder" in refused(model_folder, model_folder, half)
    assert "is not an empty folder" in refused(model_folder, model_folder / "config.json", half)
    assert "no config.json" in refused(tmp_path, output, half)
    assert "not a checkpoint of train.py" in refused(other, output, half)
    answers = iter([torch.zeros(1), torch.ones(1)])
    monkeypatch.setattr(checkpoint, "_class_embeddings", lambda *parts: next(answers))
    assert "has other embeddings of the prompts" in refused(model_folder, output, "--word_pieces", COUNT)
    monkeypatch.undo()
    (model_folder / "adapter_config.json").write_text("{}")
    assert "is a LoRA adapter" in refused(model_folder, output, half)


def test_byte_level_tokenizers_are_refused(make_model, make_processor, tmp_path):
    model = make_model()
    model.save_pretrained(tmp_path / "model")
    make_processor(model).save_pretrained(tmp_path / "model")
    message = refused(tmp_path / "model", tmp_path / "copy", "--word_pieces", COUNT)
    assert (
        message.startswith("--word_pieces needs a text encoder with a WordPiece tokenizer") and "type BPE" in message
    )


def test_weights_that_float16_cannot_hold_are_refused(model_folder, tmp_path):
    model = GEmoClapModel.from_pretrained(model_folder)
    torch.nn.init.constant_(model.text_model.embeddings.word_embeddings.weight, 7e4)
    model.save_pretrained(model_folder)
    message = refused(model_folder, tmp_path / "copy", "--half_precision")
    assert "text_model.embeddings.word_embeddings.weight has values up to 7e+04" in message


def test_special_tokens_of_both_kinds_of_post_processor_are_renumbered():
    pair = {"type": "BertProcessing", "sep": ["[SEP]", 102], "cls": ["[CLS]", 101]}
    template = {"single": [{"Sequence": {"id": "A", "type_id": 0}}], "special_tokens": {"[CLS]": {"ids": [101]}}}
    sequence = {"type": "Sequence", "processors": [pair, template]}
    found = _with_new_ids(sequence, {101: 2, 102: 3, 0: 9})
    assert found["processors"][0] == {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}
    assert found["processors"][1] == template | {"special_tokens": {"[CLS]": {"ids": [2]}}}
    assert _with_new_ids(None, {}) is None


def test_the_words_of_the_recipes_are_kept():
    for path in (ROOT / "configs").glob("*.yaml"):
        synonyms = yaml.safe_load(path.read_text()).get("emotion_synonyms") or {}
        words = {word for words in synonyms.values() for word in words}
        assert words <= set(needed_texts(GEmoClapConfig(emotions=["angry", "sad"]))), path.name


def test_the_listed_words_are_distinct_and_grouped_by_emotion():
    words = [word for group in listed_words().values() for word in group]
    assert len(words) == len(set(words)) > 900 and all(re.fullmatch("[a-z]+(-[a-z]+)*", word) for word in words)
    assert set(listed_words()) == {*EMOTION_WORDS, "other"}
    for emotion, group in listed_words().items():
        others = {name: {word, *aliases} for name, (word, aliases) in EMOTION_WORDS.items() if name != emotion}
        assert emotion == "other" or not set.union(*others.values()) & set(group), "a word for another emotion"


@pytest.mark.slow
def test_minilm_fits_in_half_precision_with_5500_pieces(pretrained_folder, tmp_path):
    text = pretrained_folder / "all-MiniLM-L6-v2"
    tower = AutoModel.from_pretrained(text, add_pooling_layer=False)
    config = GEmoClapConfig(audio_config("compact"), tower.config, text_pooling="mean", **FIELDS)
    model, folder = GEmoClapModel(config, text_model=tower).eval(), tmp_path / "model"
    model.save_pretrained(folder)
    extractor = AUDIO["compact"].small_extractor(tmp_path / "extractor")
    GEmoClapProcessor(extractor, GEmoClapProcessor.load_tokenizer(str(text))).save_pretrained(folder)
    main([str(folder), str(tmp_path / "half"), "--half_precision"])
    main([str(folder), str(tmp_path / "small"), "--half_precision", "--word_pieces", "5500"])
    sizes = [
        (place / "model.safetensors").stat().st_size / 1e6 for place in (folder, tmp_path / "half", tmp_path / "small")
    ]
    assert sizes[0] > 90 and sizes[2] < 27 and sizes[1] - sizes[2] == pytest.approx(25022 * 384 * 2 / 1e6, abs=0.01)
    texts = [f"this person sounds {word}" for group in listed_words().values() for word in group]
    full, half, small = (
        embeddings(place, texts).text_embeds for place in (folder, tmp_path / "half", tmp_path / "small")
    )
    assert torch.equal(half, small)
    assert (full * half).sum(-1).min() > 0.9999
    after = GEmoClapProcessor.from_pretrained(tmp_path / "small").tokenizer
    letters = " ".join(map("".join, product(string.ascii_letters, repeat=2)))
    assert "[UNK]" not in after.tokenize(f"{letters} {string.printable} Supercalifragilistic")
