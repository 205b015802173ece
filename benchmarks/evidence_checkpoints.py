"""Train, compress, evaluate and describe a checkpoint of the plan, and copy it to `checkpoints/` if it is shipped."""

from __future__ import annotations

import shutil
from pathlib import Path

import words
from evidence_cards import describe, store_results
from evidence_folds import option_of
from evidence_plan import CHECKPOINTS_FOLDER, MAX_BYTES, PLAN
from evidence_record import cost_of, record_of, table_record
from evidence_runs import Runner
from harness import EVIDENCE, ROOT

from modeling_gemoclap.configuration_gemoclap import SENTENCE_TRANSFORMERS_FILES
from modeling_gemoclap.evaluation.prediction_files import load_predictions
from modeling_gemoclap.fingerprint import TRAINING_CLIPS
from modeling_gemoclap.publishing.facts import CARD_FACTS
from modeling_gemoclap.runs.training_clips import recorded_training_clips, write_training_clips

CODE = sorted(path.name for path in (ROOT / "modeling_gemoclap").glob("*_gemoclap.py"))
FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "processor_config.json")
FILES += tuple(SENTENCE_TRANSFORMERS_FILES)


def rerun_checkpoint(entry: dict, run: Runner) -> dict:
    """Make a checkpoint, ship it, and evaluate it in its folder; a compressed one also before compression.

    Args:
        entry: Its entry in evidence.yaml.
        run: The runner. The checkpoint is written to `RUN/NAME`, and before compression to `RUN/NAME-full`.

    Raises:
        ValueError: If the shipped files are larger than `evidence_plan.MAX_BYTES`, or if a template of the plan was
            used in training.
    """
    name = run.folder.name
    folder = run.folder / name
    trained = run.folder / f"{name}-full" if "compress" in entry else folder
    command = ["train.py", *entry["train"], "--output_dir", trained, "--overwrite_output", "true"]
    run(*command, skip=(trained / "README.md").is_file())
    if "compress" in entry:
        command = ["-m", "modeling_gemoclap", "compress", trained, folder, *entry["compress"]]
        run(*command, skip=(folder / "README.md").is_file())
        _evaluate(trained, trained / "results", entry["judge"], run)
        store_training_clips(folder, entry, run)
    describe(folder, name)
    place = ship(folder, name) if entry.get("shipped", True) else folder
    results = [folder / "results", folder / "results_zeroshot"]
    for output, judge in zip(results, (entry["judge"], entry["zeroshot"]), strict=True):
        _evaluate(place, output, judge, run)
    store_results(name, results, run)
    predictions = EVIDENCE / f"{run.system}/{name}_predictions.csv"
    predictions.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / "results/predictions.csv", predictions)
    record = record_of([folder]) | cost_of([trained]) | {"bytes": size_of(place)}
    record["words"] = _words(place, entry, run)
    if "compress" in entry:
        record["before"] = _before(trained, folder) | compare_words(_words(trained, entry, run), record["words"])
    return record


def store_training_clips(folder: Path, entry: dict, run: Runner) -> None:
    """Write the sample of training clips of a compressed checkpoint, whose weights are not those of its training."""
    data = option_of(entry["train"], "--data_dir")
    corpora = [
        str(each).replace("CORPORA/", f"{run.corpora}/", 1) for each in ([data] if isinstance(data, str) else data)
    ]
    write_training_clips(folder, recorded_training_clips(str(folder), corpora))


def _evaluate(model: Path, results: Path, judge: list, run: Runner) -> None:
    place = model.relative_to(ROOT) if model.is_relative_to(ROOT / "checkpoints") else model
    run("evaluate.py", "--model", place, *judge, "--output_dir", results, "--overwrite_output")


def _words(model: Path, entry: dict, run: Runner) -> dict:
    corpus = Path(str(option_of(entry["judge"], "--data_dir")).replace("CORPORA/", f"{run.corpora}/", 1))
    return words.measure_words(model, corpus, option_of(entry["judge"], "--speakers"), entry["words"])


def _before(trained: Path, folder: Path) -> dict:
    """The figures before compression, and on how many clips the predicted emotion differs."""
    [before], [after] = load_predictions(trained), load_predictions(folder)
    assert list(before.files) == list(after.files)
    record = table_record(record_of([trained]))
    changed = int((before.predicted != after.predicted).sum())
    return record | {"bytes": size_of(trained), "changed_clips": changed}


def compare_words(before: dict, after: dict) -> dict:
    """Compare the records of `words.measure_words` of a checkpoint before and after compression, without the control.

    Returns:
        `changed_words`, those whose nearest emotion differs, and `largest_uar_difference` of a word.
    """
    pairs = zip(before["words"], after["words"], strict=True)
    pairs = [pair for pair in pairs if pair[0]["word"] != PLAN["words"]["unknown"]]  # its pieces are not kept
    return {
        "changed_words": [new["word"] for old, new in pairs if old["nearest"] != new["nearest"]],
        "largest_uar_difference": max(abs(old["uar"] - new["uar"]) for old, new in pairs),
    }


def ship(folder: Path, name: str) -> Path:
    """Copy a checkpoint to `checkpoints/`, with links to the project's code in place of its code.

    Raises:
        ValueError: If its files are larger than `evidence_plan.MAX_BYTES`.
    """
    place = CHECKPOINTS_FOLDER / name
    if (size := size_of(folder)) > MAX_BYTES:
        raise ValueError(f"{folder}: {size:,} bytes, of {MAX_BYTES:,} at most: keep fewer word pieces (evidence.yaml)")
    place.mkdir(parents=True, exist_ok=True)
    for path in files_of(folder):
        shutil.copyfile(path, place / path.name)
    for file in CODE:  # links: a copy could differ from the project's code
        (place / file).unlink(missing_ok=True)
        (place / file).symlink_to(Path("../..", "modeling_gemoclap", file))
    return place


def files_of(folder: Path) -> list[Path]:
    """The weights, tokenizer, configurations, card with its facts, sample of training clips, and licences."""
    names = (*FILES, "README.md", CARD_FACTS)
    return [folder / name for name in names] + sorted([*folder.glob("LICENSE*"), *folder.glob(TRAINING_CLIPS)])


def size_of(folder: Path) -> int:
    """Bytes of `files_of` a checkpoint."""
    return sum(path.stat().st_size for path in files_of(folder))
