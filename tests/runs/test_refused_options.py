"""Options that are refused, since they would have no effect or cause an error that names no option."""

import json
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT, TINY, load_script
from transformers.utils.versions import require_version

from modeling_gemoclap.command_line.failures import failure_message
from modeling_gemoclap.command_line.parser import words_of
from modeling_gemoclap.runs.folder import resume_point
from modeling_gemoclap.runs.recipe import parse_recipe
from modeling_gemoclap.training.arguments import GEmoClapTrainingArguments
from modeling_gemoclap.training.trainer_options import refuse_options


def arguments(tmp_path, **options):
    return GEmoClapTrainingArguments(str(tmp_path), use_cpu=True, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr_scheduler_type": "warmup_stable_decay"}, "the schedule needs num_decay_steps in --lr_scheduler_kwargs"),
        ({"lr_scheduler_kwargs": {"a": 1}}, "--lr_scheduler_type linear .*the schedule has no a; it has no fields"),
        ({"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycle": 1}}, "no num_cycle; it has num_cycles"),
        ({"lr_scheduler_type": "constant", "lr_scheduler_kwargs": {"power": 2}}, "no power"),
        ({"lr_scheduler_type": "cosine_with_min_lr"}, "the schedule cannot be created"),
        (
            {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycles": "x"}},
            "the schedule cannot be created",
        ),
        (
            {"load_best_model_at_end": True, "save_strategy": "no"},
            "--load_best_model_at_end true: training has no evaluation",
        ),
        ({"save_strategy": "best"}, "--save_strategy best: training has no evaluation"),
    ],
)
def test_invalid_schedules_and_selections(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        refuse_options(arguments(tmp_path, **options))


def test_valid_schedules(tmp_path):
    for name, fields in (
        ("linear", None),
        ("constant", None),
        ("inverse_sqrt", {"timescale": 10}),
        ("polynomial", {"power": 2.0}),
        ("warmup_stable_decay", {"num_decay_steps": 10}),
        ("cosine_with_min_lr", {"min_lr": 1e-5}),
    ):
        refuse_options(arguments(tmp_path, lr_scheduler_type=name, lr_scheduler_kwargs=fields))
    plateau = {"lr_scheduler_type": "reduce_lr_on_plateau", "lr_scheduler_kwargs": {"mode": "max", "patience": 2}}
    refuse_options(arguments(tmp_path, eval_strategy="epoch", **plateau))
    chosen = {"load_best_model_at_end": True, "save_strategy": "epoch", "eval_strategy": "epoch"}
    refuse_options(arguments(tmp_path, **chosen))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--torch_compile_backend", "x"), "--torch_compile_backend x: unknown backend; give one of .*inductor"),
        (("--fp16", "true"), "--fp16 true: it has no effect on a CPU"),
        (("--deepspeed", "nowhere/zero.json"), "--deepspeed nowhere/zero.json: no such file"),
        (("--fsdp_config", "nowhere.json"), "--fsdp_config nowhere.json: no such file"),
    ],
)
def test_options_that_are_refused_by_the_parser(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        parse_recipe(["--use_cpu", "true", "--output_dir", str(tmp_path), *options])


def test_bf16_is_accepted_on_a_cpu(tmp_path):
    assert arguments(tmp_path, bf16=True).bf16


def test_a_missing_checkpoint_to_resume_from(tmp_path):
    for folder in (tmp_path / "none/checkpoint-1", tmp_path / "none"):
        with pytest.raises(ValueError, match=f"--resume_from_checkpoint {folder}: no such folder"):
            resume_point(arguments(tmp_path / "out", resume_from_checkpoint=str(folder)))


def test_a_missing_requirement_names_the_package():
    with pytest.raises(ImportError) as error:
        require_version("no-such-package>=0")
    assert failure_message(error.value) == "no-such-package is not installed: pip install no-such-package"


@pytest.mark.parametrize("items", [["04", "--seed", "7"], ["--seed=7"], ["--no-bf16"]])
def test_items_of_a_list_are_not_read_as_options(items, tmp_path):
    path = tmp_path / "options.yaml"
    path.write_text(f"exclude_speakers: {json.dumps(items)}\n")
    with pytest.raises(
        ValueError, match=r"options.yaml: exclude_speakers: the item '--.*' would be parsed as an option"
    ):
        parse_recipe(["--config", str(path), "--use_cpu", "true"])
    with pytest.raises(ValueError, match="would be parsed as an option"):
        words_of("exclude_speakers", items)
    assert words_of("lr_milestones", ["-1", "a-b"]) == ["--lr_milestones", "-1", "a-b"]


@pytest.mark.parametrize("script", ["train", "evaluate", "grid"])
def test_an_interrupt_while_libraries_are_imported(script, tmp_path):
    """The package raises an interrupt during its import, like Ctrl-C at that time."""
    (tmp_path / "modeling_gemoclap").mkdir()
    (tmp_path / "modeling_gemoclap/__init__.py").write_text("raise KeyboardInterrupt\n")
    (tmp_path / f"{script}.py").write_text((ROOT / f"{script}.py").read_text())
    done = subprocess.run(
        [sys.executable, str(tmp_path / f"{script}.py")], cwd=tmp_path, env={}, capture_output=True, text=True
    )
    assert done.returncode == 130 and done.stderr == f"{script}.py: interrupted before it began\n"


def test_ctrl_c_in_the_first_second():
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *TINY],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in stderr and "train.py: interrupted" in stderr


def test_scripts_have_a_main_function():
    assert all(callable(load_script(name).main) for name in ("train", "evaluate", "grid"))
