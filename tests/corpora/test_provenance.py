"""Records of training data: how training writes them, and how the speakers of a corpus are searched in them."""

import json
import shutil
from dataclasses import replace

import pyarrow as pa
import pytest
import torch
from conftest import ROOT, TONES, load_script, run_script, write_corpus
from trees import emodb_tree, ravdess_tree

from modeling_gemoclap import GEmoClapConfig, GEmoClapModel, GEmoClapTrainer
from modeling_gemoclap.corpora.manifest import Corpus, load_corpus, mix
from modeling_gemoclap.corpora.provenance import NO_RECORD, Heard, heard_speakers, merged, training_records
from modeling_gemoclap.objectives.gemo_clap.collator import GEmoClapCollator
from modeling_gemoclap.runs.calibration import fit_temperature
from modeling_gemoclap.training.arguments import GEmoClapTrainingArguments
from modeling_gemoclap.training.clips import ClipDataset, read_clips
from modeling_gemoclap.training.history import HISTORY, history_of, history_of_checkpoint, records_of


def renamed_speakers(corpus: Corpus, start: str) -> Corpus:
    """The same recordings in another manifest, with a prefix before every speaker id."""
    speakers = [start + speaker for speaker in corpus.column("speaker_id").to_pylist()]
    corpus = corpus.with_column("speaker_id", pa.array(speakers))
    return replace(corpus, manifest_sha256="1" * 64, unlabelled_sha256="2" * 64)


# ---- the three answers ----------------------------------------------------------------------------------------------
def test_without_a_record_the_answer_is_unknown(tones):
    heard = heard_speakers(load_corpus(tones), None)
    assert heard == Heard(unknown=[NO_RECORD]) and heard.answer == "unknown"
    assert heard_speakers(load_corpus(tones), []).answer == "not heard", "an empty record means no training data"


def test_the_same_manifest_under_any_name(tones):
    corpus = load_corpus(tones)
    records = training_records(corpus.of_speakers(["01", "02"]))
    assert records[0]["num_clips"] == 24
    for copy in (corpus, Corpus("copy", corpus.manifest_sha256, corpus.clips)):
        assert heard_speakers(copy, records) == Heard(["01", "02"])
    assert heard_speakers(corpus.of_speakers(["03"]), records).answer == "not heard"


def test_labels_do_not_change_the_answer(tones, tmp_path):
    corpus, unlabelled = load_corpus(tones), load_corpus(tones, unlabelled=True)
    [record] = training_records(unlabelled.of_speakers(["01"]))
    assert record["unlabelled"] and record["manifest_sha256"] == corpus.unlabelled_sha256 != corpus.manifest_sha256
    assert heard_speakers(load_corpus(tones, "renamed"), [record]) == Heard(["01"])
    [labelled] = training_records(corpus.of_speakers(["02"]))
    assert heard_speakers(load_corpus(tones, "renamed", unlabelled=True), [labelled]) == Heard(["02"])
    other = write_corpus(tmp_path / "other", salt="o")
    mixed = [mix([load_corpus(tones, unlabelled=bare), load_corpus(other, unlabelled=bare)]) for bare in (False, True)]
    assert mixed[0].unlabelled_sha256 == mixed[1].manifest_sha256


def test_renamed_recordings_are_identified_by_content(tones, tmp_path):
    """The folder, the files and the speakers are renamed. Speakers without recorded recordings are unknown."""
    corpus, copy = load_corpus(tones), tmp_path / "copy"
    (copy / "wav").mkdir(parents=True)
    lines = ["file_name,emotion,gender,speaker_id"]
    for number, clip in enumerate(corpus.clips):
        shutil.copy(clip["path"], copy / f"wav/{number}.wav")
        lines.append(f"wav/{number}.wav,{clip['emotion']},{clip['gender']},person{int(clip['speaker_id'])}")
    (copy / "metadata.csv").write_text("\n".join(lines) + "\n")
    records = training_records(corpus.of_speakers(exclude=["04"]))
    heard = heard_speakers(load_corpus(copy), records)
    assert heard.speakers == ["person1", "person2", "person3"] and heard.answer == "heard"
    heard = heard_speakers(load_corpus(copy).of_speakers(["person4"]), records)
    assert heard.answer == "unknown" and "it was trained on tones" in heard.unknown[0]
    other = load_corpus(write_corpus(tmp_path / "other", salt="o"))
    assert heard_speakers(other, records).answer == "unknown", "nothing shows that these are other people"


def test_another_version_of_a_corpus_of_the_same_name(tones, tmp_path):
    corpus = load_corpus(tones)
    records = training_records(corpus.of_speakers(["01"]))
    changed = replace(corpus, manifest_sha256="1" * 64, unlabelled_sha256="2" * 64)
    assert heard_speakers(changed.of_speakers(["01"]), records).speakers == ["01"]
    heard = heard_speakers(changed.of_speakers(["02"]), records)
    assert heard.answer == "unknown" and "another version of it" in heard.unknown[0]


@pytest.mark.parametrize("tree", [emodb_tree, ravdess_tree])
def test_a_published_corpus_in_another_spelling(tree, tmp_path):
    corpus = load_corpus(tree(tmp_path / "corpus"))
    first, second = corpus.speakers[:2]
    records = training_records(corpus.of_speakers([first]))
    assert records[0]["published"] == {corpus.known.name: [first]}
    spelled = renamed_speakers(corpus, "Actor_")
    assert heard_speakers(spelled, records) == Heard([f"Actor_{first}"])
    assert heard_speakers(spelled.of_speakers([f"Actor_{second}"]), records).answer == "not heard"
    # the reverse: trained on the other spelling, or recorded without the ids of the published corpus
    records = training_records(spelled.of_speakers([f"Actor_{first}"]))
    assert heard_speakers(corpus, records) == Heard([first])
    old = [{name: value for name, value in records[0].items() if name not in ("published", "recordings")}]
    heard = heard_speakers(corpus.of_speakers([second]), old)
    assert heard.answer == "unknown" and "speakers otherwise than the corpus does (Actor_" in heard.unknown[0]
    old[0] |= {"speakers": [first], "manifest_sha256": "3" * 64, "unlabelled_sha256": "4" * 64}
    assert heard_speakers(spelled, old) == Heard([f"Actor_{first}"])


def test_a_few_published_recordings_in_another_corpus(tmp_path):
    """They do not identify the corpus, but their speakers are recorded by their published ids."""
    folder = write_corpus(tmp_path / "own")
    emodb = load_corpus(emodb_tree(tmp_path / "emodb"))
    rows = []
    for clip in emodb.clips:
        if clip["speaker_id"] in ("03", "08"):
            shutil.copy(clip["path"], folder / "audio")
            name = clip["file_name"].removeprefix("wav/")
            rows.append(f"audio/{name},{clip['emotion']},{clip['gender']},actor-{clip['speaker_id']}")
    rows = [row for row in rows if row.split(",")[1] in TONES]
    with open(folder / "metadata.csv", "a") as file:
        file.write("\n".join(rows) + "\n")
    corpus = load_corpus(folder)
    assert corpus.known is None
    records = training_records(corpus.of_speakers(exclude=["actor-08"]))
    assert records[0]["published"] == {"emodb": ["03"]}
    heard = heard_speakers(emodb, records)
    assert heard.speakers == ["03"] and heard.unknown, "the other speakers of that corpus are not known"
    records = training_records(emodb.of_speakers(["08"]))
    heard = heard_speakers(corpus, records)
    assert "actor-08" in heard.speakers and "actor-03" not in heard.speakers


def test_two_published_corpora_share_no_speaker(tmp_path):
    first, second = load_corpus(emodb_tree(tmp_path / "a")), load_corpus(ravdess_tree(tmp_path / "b"))
    mixture = mix([first, second])
    records = training_records(mixture.of_speakers(["emodb/03", "ravdess/03", "ravdess/04"]))
    assert heard_speakers(first, records).speakers == ["03"] and heard_speakers(second, records).speakers == [
        "03",
        "04",
    ]
    assert heard_speakers(mixture, records).speakers == ["emodb/03", "ravdess/03", "ravdess/04"]
    assert heard_speakers(first.of_speakers(["08"]), records).answer == "not heard"


def test_pretrained_encoders_are_listed_in_the_answer(tones):
    heard = heard_speakers(load_corpus(tones), [{"encoder": "wavlm-base"}])
    assert heard.answer == "not heard" and heard.encoders == ["wavlm-base"]
    both = merged([heard, Heard(["01"], ["a reason"])])
    assert both == Heard(["01"], ["a reason"], ["wavlm-base"]) and Heard.from_dict(both.to_dict()) == both


# ---- recorded by training itself ------------------------------------------------------------------------------------
@pytest.fixture
def python_training(make_model, make_processor, tones, tmp_path):
    """A training in Python as documented, with a model, a collator and clips."""

    def make(speakers, model=None, folder="run", wrap=lambda clips: clips, **options):
        model = model or make_model()
        processor = make_processor(model)
        corpus, _ = read_clips(load_corpus(tones).of_speakers(speakers), processor.feature_extractor)
        clips = wrap(ClipDataset(corpus, processor.feature_extractor, model.config))
        fields = {"use_cpu": True, "max_steps": 2, "disable_tqdm": True, "save_strategy": "no"}
        arguments = GEmoClapTrainingArguments(str(tmp_path / folder), **{**fields, **options})
        collator = GEmoClapCollator(processor, model.config)
        trainer = GEmoClapTrainer(model, arguments, collator, clips, processing_class=processor)
        return trainer, tmp_path / folder

    return make


def test_training_in_python_adds_a_record(python_training, tones):
    trainer, folder = python_training(["01", "02"])
    trainer.train()
    trainer.save_model()
    records = GEmoClapConfig.from_pretrained(folder).training_data
    assert [record["speakers"] for record in records] == [["01", "02"]]
    corpus = load_corpus(tones)
    assert heard_speakers(corpus, records).speakers == ["01", "02"]
    assert heard_speakers(corpus.of_speakers(["03"]), records).answer == "not heard"


def test_a_record_is_appended_and_a_stale_temperature_removed(python_training):
    trainer, folder = python_training(["01"])
    trainer.train()
    trainer.model.config.calibration_temperature = 0.5
    trainer.save_model()
    model = GEmoClapModel.from_pretrained(folder)
    assert not model.weights_are_new and model.config.calibration_temperature == 0.5
    trainer, _ = python_training(["02"], model=model)
    trainer.train()
    assert [record["speakers"] for record in model.config.training_data] == [["01"], ["02"]]
    assert model.config.calibration_temperature is None and model.config.calibrated_on is None


def test_weights_without_a_record_stay_unknown(python_training, make_model, tones, tmp_path):
    make_model().save_pretrained(tmp_path / "null")
    for model in (GEmoClapModel.from_pretrained(tmp_path / "null"), make_model()):
        model.load_state_dict({name: value + 1e-3 for name, value in make_model().state_dict().items()})
        trainer, _ = python_training(["01"], model=model)
        trainer.train()
        heard = heard_speakers(load_corpus(tones).of_speakers(["03"]), model.config.training_data)
        assert heard.answer == "unknown" and "outside of recorded training" in heard.unknown[0]


def test_clips_that_do_not_name_their_speakers(python_training, tones):
    half = lambda clips: torch.utils.data.Subset(clips, range(6))  # noqa: E731
    trainer, _ = python_training(["01"], wrap=half, dataloader_drop_last=True, per_device_train_batch_size=2)
    assert records_of(trainer.train_dataset)[0]["speakers"] == ["01"]
    plain = lambda clips: [clips[index] for index in range(6)]  # noqa: E731
    trainer, _ = python_training(["01"], wrap=plain, dataloader_drop_last=True, per_device_train_batch_size=2)
    trainer.train()
    heard = heard_speakers(load_corpus(tones).of_speakers(["03"]), trainer.model.config.training_data)
    assert heard.answer == "unknown" and "list of clips that does not name their speakers" in heard.unknown[0]


def test_a_resumed_training_keeps_the_records_of_its_checkpoint(python_training):
    trainer, folder = python_training(["01", "02"], save_strategy="steps", save_steps=1)
    trainer.train()
    checkpoint = folder / "checkpoint-1"
    assert json.loads((checkpoint / HISTORY).read_text()) == trainer.model.config.training_data
    resumed, _ = python_training(["01"], folder="other", max_steps=3)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert [record["speakers"] for record in resumed.model.config.training_data] == [["01", "02"], ["01"]]
    again, _ = python_training(["01", "02"], folder="third", max_steps=3)
    again.train(resume_from_checkpoint=str(checkpoint))
    assert len(again.model.config.training_data) == 1, "the same training continues"
    for name in (HISTORY, "config.json"):
        (checkpoint / name).unlink()
    assert "no record" in history_of_checkpoint(checkpoint)[0]["unknown"]


def test_a_pretrained_encoder_is_recorded(make_model, tmp_path):
    make_model("wav2vec2-base").audio_model.save_pretrained(tmp_path / "encoder")
    from modeling_gemoclap import GEmoClapForAudioClassification

    model = GEmoClapForAudioClassification.from_audio_pretrained(str(tmp_path / "encoder"), emotions=list(TONES))
    assert not model.weights_are_new and history_of(model) == [{"encoder": "encoder"}]
    assert make_model().weights_are_new and history_of(make_model()) == []


# ---- weights that a record is not about -----------------------------------------------------------------------------
def answer_of(model, tones, speaker):
    return heard_speakers(load_corpus(tones).of_speakers([speaker]), model.config.training_data).answer


@pytest.mark.parametrize("how", ["load_state_dict", "submodule", "tower"])
def test_weights_copied_into_a_new_model_make_the_answer_unknown(python_training, make_model, tones, how):
    trainer, _ = python_training(["04"])
    trainer.train()
    old, fresh = trainer.model, make_model()
    if how == "load_state_dict":
        fresh.load_state_dict(old.state_dict())
    elif how == "submodule":
        fresh.audio_model.load_state_dict(old.audio_model.state_dict())
    else:
        fresh.audio_model = old.audio_model
    trainer, _ = python_training(["01"], model=fresh, folder="new")
    trainer.train()
    assert answer_of(fresh, tones, "04") == "unknown" and answer_of(fresh, tones, "01") == "heard"


def test_weights_changed_outside_recorded_training_make_the_answer_unknown(python_training, tones, tmp_path):
    """Evaluation detects by the hash of the weights that the record does not describe them."""
    trainer, folder = python_training(["01"])
    trainer.train()
    trainer.model.config.calibration_temperature = 0.5
    trainer.save_model()
    same = GEmoClapModel.from_pretrained(folder)
    same.check_history()
    assert answer_of(same, tones, "02") == "not heard" and same.config.calibration_temperature == 0.5
    half = GEmoClapModel.from_pretrained(folder, dtype=torch.bfloat16)
    half.save_pretrained(tmp_path / "half")
    half = GEmoClapModel.from_pretrained(tmp_path / "half", dtype=torch.float32)
    half.check_history()
    assert answer_of(half, tones, "02") == "unknown", "rounded weights are other weights"
    with torch.no_grad():
        same.text_projection.linear1.bias.add_(0.01)
    same.save_pretrained(tmp_path / "changed")
    changed = GEmoClapModel.from_pretrained(tmp_path / "changed")
    changed.check_history()
    assert answer_of(changed, tones, "02") == "unknown" and changed.config.calibration_temperature is None
    trainer, _ = python_training(["03"], model=GEmoClapModel.from_pretrained(tmp_path / "changed"), folder="more")
    trainer.train()
    assert answer_of(trainer.model, tones, "02") == "unknown"


def test_a_second_training_adds_a_record(python_training, tones):
    trainer, _ = python_training(["01"])
    trainer.train()
    again, _ = python_training(["02"], model=trainer.model, folder="again")
    again.train()
    assert [record.get("speakers") for record in again.model.config.training_data] == [["01"], ["02"]]
    assert answer_of(again.model, tones, "03") == "not heard"


def test_the_record_of_a_tower(python_training, make_model, tones, tmp_path):
    """A tower that is saved alone keeps its record, or is unknown."""
    from modeling_gemoclap import GEmoClapForAudioClassification, GEmoClapForXVector

    trainer, _ = python_training(["01"])
    trainer.train()
    tower = trainer.model.audio_model
    tower.save_pretrained(tmp_path / "alone")
    model = GEmoClapForXVector.from_audio_pretrained(str(tmp_path / "alone"), emotions=list(TONES))
    assert "has no record" in history_of(model)[0]["unknown"]
    tower.config.training_data = trainer.model.config.training_data
    tower.save_pretrained(tmp_path / "recorded")
    model = GEmoClapForAudioClassification.from_audio_pretrained(str(tmp_path / "recorded"), emotions=list(TONES))
    assert history_of(model)[0]["speakers"] == ["01"]
    assert not hasattr(model.audio_model.config, "training_data")
    config = GEmoClapConfig(audio_config=tower.config, emotions=list(TONES))
    built = GEmoClapForAudioClassification(config, tower)
    assert "unknown" in history_of(built)[0], "a tower from memory has no record"


def test_development_speakers_of_several_sets_and_of_a_calibration(python_training, tones):
    trainer, _ = python_training(["01"])
    extractor = trainer.processing_class.feature_extractor
    sets = {}
    for speaker in ("02", "03", "04"):
        clips, _ = read_clips(load_corpus(tones).of_speakers([speaker]), extractor)
        sets[speaker] = ClipDataset(clips, extractor, trainer.model.config)
    trainer.eval_dataset = {"a": sets["02"], "b": sets["03"]}
    trainer.train()
    [record] = trainer.model.config.training_data
    assert record["speakers"] == ["01"] and record["dev_speakers"] == ["02", "03"]
    assert answer_of(trainer.model, tones, "04") == "not heard"
    trainer.eval_dataset = sets["04"]
    fit_temperature(trainer)
    assert answer_of(trainer.model, tones, "04") == "heard"


def test_recordings_take_precedence_over_the_manifest(tones, tmp_path):
    """The files of a new speaker hold the recordings of a training speaker."""
    corpus = load_corpus(tones)
    records = training_records(corpus.of_speakers(["01"]))
    copy = tmp_path / "tones"
    shutil.copytree(tones, copy)
    for path in (copy / "audio").glob("01_*"):
        shutil.copy(path, copy / "audio" / path.name.replace("01_", "04_"))
    heard = heard_speakers(load_corpus(copy).of_speakers(["04"]), records)
    assert heard.speakers == ["04"]


@pytest.mark.parametrize(
    "records",
    [{}, "all", [{"note": "fine"}], [["01"]], [{"speakers": ["01"]}], [{"corpora": ["tones"]}], [None], [7]],
)
def test_an_invalid_record_makes_the_answer_unknown(tones, records):
    assert heard_speakers(load_corpus(tones), records).answer == "unknown"


# ---- what reports say -----------------------------------------------------------------------------------------------
def judged(model, data_dir, output_dir, *more):
    load_script("evaluate").main(
        ["--model", str(model), "--data_dir", str(data_dir), "--output_dir", str(output_dir), *more]
    )
    return json.loads((output_dir / "results.json").read_text())


def test_reports_give_three_answers(trained, tones, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    results = judged(trained, tones, tmp_path / "a", "--speakers", "04")
    assert results["heard"]["answer"] == "not heard"
    assert "; speaker-independent: the speaker of tones is not in the training record" in results["protocol"]
    results = judged(trained, tones, tmp_path / "b", "--allow_seen_speakers")
    assert "NOT speaker-independent: trained on speakers 01, 02, 03" in results["protocol"]
    assert results["heard"] == {"answer": "heard", "speakers": ["01", "02", "03"], "unknown": []}
    blank = tmp_path / "blank"
    shutil.copytree(trained, blank)
    config = json.loads((blank / "config.json").read_text())
    (blank / "config.json").write_text(json.dumps(config | {"training_data": None}))
    results = judged(blank, tones, tmp_path / "c", "--speakers", "04")
    assert f"UNKNOWN whether speaker-independent: {NO_RECORD}" in results["protocol"]
    page = (tmp_path / "c/report.html").read_text()
    assert "The training data are unknown: the checkpoint has no record of them" in page
    assert "speaker-independent: none of" not in page
    elsewhere = write_corpus(tmp_path / "elsewhere", salt="e")
    results = judged(trained, elsewhere, tmp_path / "d")
    assert results["heard"]["answer"] == "unknown" and "it was trained on tones" in results["protocol"]


def test_initial_weights_without_a_record_make_the_answer_unknown(trained, tones, tmp_path):
    """Every fold of a protocol starts from weights without a record."""
    blank = tmp_path / "blank"
    shutil.copytree(trained, blank)
    config = json.loads((blank / "config.json").read_text())
    (blank / "config.json").write_text(json.dumps(config | {"training_data": None}))
    options = ("--config", "tests/tiny.yaml", "--audio_config", "{}", "--feature_config", "{}", "--data_dir", tones)
    options += ("--num_train_epochs", "1", "--protocol", "2-folds-by-speaker", "--init_from", blank)
    done = run_script("train.py", *options, "--output_dir", tmp_path / "run")
    assert "may have been trained on the true labels" in done.stderr
    card = (tmp_path / "run/fold_0/seed_42/README.md").read_text()
    assert "Not all of it is known: what blank, from which it started, was trained on is not recorded" in card
    results = judged(tmp_path / "run", tones, tmp_path / "results", "--protocol", "2-folds-by-speaker")
    assert "UNKNOWN whether speaker-independent" in results["protocol"] and results["heard"]["answer"] == "unknown"


def test_an_encoder_without_labels_has_no_emotions(make_model, tmp_path):
    """This holds for its configuration and for a model that is built from it."""
    from modeling_gemoclap import GEmoClapForAudioClassification, GEmoClapForXVector

    encoder = make_model(model_class=GEmoClapForXVector, emotions=[])
    encoder.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["emotions"] == [] and not stored.get("id2label")
    config = GEmoClapConfig.from_pretrained(tmp_path)
    assert config.emotions == [] and config.num_labels == 0
    for model_class in (GEmoClapForAudioClassification, GEmoClapModel):
        with pytest.raises(ValueError, match="names no emotions, like that of an encoder .* give emotions="):
            model_class(config)
    head = GEmoClapForAudioClassification.from_pretrained(tmp_path, emotions=list(TONES))
    assert head.config.id2label == dict(enumerate(TONES)) and head.classifier[-1].out_features == 3
