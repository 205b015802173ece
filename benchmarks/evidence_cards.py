"""The cards of the checkpoints of the plan, and `model_card.md`, from docs/evidence."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import yaml
from documents import render
from evidence_plan import CHECKPOINTS, record_name, shipped_checkpoints
from evidence_record import load
from evidence_tables import block
from harness import EVIDENCE, ROOT
from huggingface_hub import ModelCardData
from huggingface_hub.repocard_data import eval_results_to_model_index

from modeling_gemoclap.corpora.files import write_json
from modeling_gemoclap.pretrained.build import LICENCES
from modeling_gemoclap.publishing.card import read_checkpoint, write_card
from modeling_gemoclap.publishing.facts import load_facts, save_facts
from modeling_gemoclap.publishing.results import eval_results

MODEL_CARD = ROOT / "model_card.md"


def results_of(name: str) -> list[dict]:
    """The contents of `results.json` of the evaluations of a checkpoint, as they are stored in docs/evidence."""
    path = EVIDENCE / f"{record_name(name)}_results.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def store_results(name: str, folders: list[Path], run) -> None:
    """Store the results of a checkpoint in docs/evidence.

    Args:
        name: The checkpoint.
        folders: Folders of its results.
        run: The runner, whose folders have the names `CORPORA` and `RUN` in the commands.
    """
    results = [json.loads((folder / "results.json").read_text(encoding="utf-8")) for folder in folders]
    for each in results:
        each["command"] = each["command"].replace(f"{run.corpora}/", "CORPORA/").replace(str(run.folder), "RUN")
    path = EVIDENCE / f"{record_name(name)}_results.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, results)


def describe(folder: Path, name: str) -> None:
    """Write the card of a checkpoint with licences, limits and the results in docs/evidence, and licences of encoders.

    Args:
        folder: Folder of the checkpoint.
        name: Its name in the plan.
    """
    texts, record = CHECKPOINTS[name]["card"], load(record_name(name))
    facts = replace(load_facts(folder), **{field: texts[field] for field in ("license", "licences", "limits")})
    if record:
        commands = [command for command in record["commands"] if " evaluate.py " not in command]
        facts = replace(facts, notes=block(f"{name}-notes").strip(), commands=commands)
    save_facts(folder, facts)
    write_card(folder, results_of(name))
    for target, source in texts.get("licence_files", {}).items():
        shutil.copyfile(LICENCES / source, folder / target)


def model_card() -> str:
    """The content of `model_card.md`, which describes all models of the project."""
    data = ModelCardData(
        license="apache-2.0",
        library_name="transformers",
        pipeline_tag="audio-classification",
        tags=["speech-emotion-recognition", "gemo-clap", "zero-shot", "speech"],
    ).to_dict()
    shipped = {name: read_checkpoint(folder) for name, folder in shipped_checkpoints().items()}
    data["model-index"] = [
        model
        for name, checkpoint in shipped.items()
        for model in eval_results_to_model_index(
            name, [entry for record in results_of(name) for entry in eval_results(record, checkpoint.config)]
        )
    ]
    front = yaml.safe_dump(data, sort_keys=False, allow_unicode=True).rstrip()
    return render("model_card", metadata=front, systems=block("systems"), shipped=shipped) + "\n"


def write_cards() -> None:
    """Write the cards of the shipped checkpoints, and `model_card.md`."""
    for name, folder in shipped_checkpoints().items():
        if folder.is_dir():
            describe(folder, name)
    MODEL_CARD.write_text(model_card(), encoding="utf-8")
