"""Launch configurations: those for CPUs are run, the others are parsed by accelerate."""

import json
import os
import socket
import subprocess
import sys

import pytest
from conftest import ROOT, TINY, run_script

LAUNCH = ("-m", "accelerate.commands.launch", "--config_file")
FOLDER = ROOT / "configs/accelerate"
# accelerate supports DeepSpeed on GPUs only; DeepSpeed itself runs on CPUs.
DEEPSPEED_ON_CPU = """
import os, runpy, sys
sys.path.insert(0, os.getcwd())
from accelerate.state import DistributedType, PartialState
PartialState._prepare_backend = lambda self, *args, **kwargs: ("gloo", DistributedType.MULTI_CPU)
sys.argv = ["train.py", *sys.argv[1:]]
runpy.run_path("train.py", run_name="__main__")
"""


def options_for(tones, folder):
    return ("--data_dir", tones, "--output_dir", folder, "--num_train_epochs", "1")


def steps(folder):
    return json.loads((folder / "trainer_state.json").read_text())["global_step"]


def development_uar(folder):
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [entry["eval_uar"] for entry in history if "eval_uar" in entry]


def test_all_configurations_are_parsed_by_accelerate():
    from accelerate.commands.config.config_args import load_config_from_file

    kinds = {}
    for path in FOLDER.glob("*.yaml"):
        config = load_config_from_file(str(path))
        kinds[path.stem] = (str(config.distributed_type).rpartition(".")[2], config.num_machines)
        assert config.num_processes % config.num_machines == 0
        assert f"configs/accelerate/{path.name}" in path.read_text(), "the file has its command"
    assert kinds == {
        "cpu": ("MULTI_GPU", 1),
        "fsdp": ("FSDP", 1),
        "one_gpu": ("NO", 1),
        "several_gpus": ("MULTI_GPU", 1),
        "several_nodes": ("MULTI_GPU", 2),
        "zero2": ("DEEPSPEED", 1),
        "zero3": ("DEEPSPEED", 1),
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "processes"),
    [("one_gpu", ("--bf16", "true"), 1), ("cpu", (), 2), ("several_gpus", ("--bf16", "true"), 2)],
)
def test_one_machine(tones, tmp_path, name, options, processes):
    """48 clips, 12 for each process and step. Without GPUs, the same files start CPU processes."""
    launcher = (*LAUNCH, FOLDER / f"{name}.yaml", "--num_processes", processes)
    done = run_script("train.py", *TINY, *options_for(tones, tmp_path / "run"), *options, launcher=launcher)
    assert done.stdout.count("Trained on 48 clips") == 1
    assert steps(tmp_path / "run") == 48 // (12 * processes)


@pytest.mark.slow
def test_two_nodes(tones, tmp_path):
    """Two launches of one process each on one machine, which connect by address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    nodes = []
    for rank in (0, 1):
        command = [sys.executable, *LAUNCH, FOLDER / "several_nodes.yaml", "--num_processes", 2]
        command += ["--machine_rank", rank, "--main_process_port", port, "train.py", *TINY]
        command = [str(part) for part in [*command, *options_for(tones, tmp_path / "run")]]
        nodes.append(subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
    outputs = [node.communicate(timeout=120)[0].decode() for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], "\n".join(outputs)[-3000:]
    assert "Trained on 48 clips" in outputs[0] and "Trained on" not in outputs[1]
    assert steps(tmp_path / "run") == 2


@pytest.mark.slow
def test_processes_without_a_process_group_are_refused(tones, tmp_path):
    launcher = (*LAUNCH, FOLDER / "cpu.yaml")
    options = (*TINY, *options_for(tones, tmp_path / "run"), "--use_cpu", "false")
    done = run_script("train.py", *options, launcher=launcher, check=False, env={"CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode != 0 and "2 processes were started, but each would train alone" in done.stderr
    assert not (tmp_path / "run").exists()


def test_several_devices_in_one_process_are_refused(make_model, tmp_path):
    from types import SimpleNamespace

    from modeling_gemoclap import GEmoClapTrainer

    with pytest.raises(ValueError, match="4 devices .* accelerate launch .*configs/accelerate"):
        GEmoClapTrainer(make_model(), SimpleNamespace(n_gpu=4))


@pytest.mark.parametrize("family", ["compact", "wavlm-base", "hubert-large", "data2vec-base"])
def test_fsdp_wraps_each_layer_of_both_towers(make_model, family, monkeypatch):
    """With the file, accelerate wraps each Transformer layer separately."""
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.utils import FullyShardedDataParallelPlugin
    from accelerate.utils.fsdp_utils import fsdp2_prepare_auto_wrap_policy

    for name, value in load_config_from_file(str(FOLDER / "fsdp.yaml")).fsdp_config.items():
        monkeypatch.setenv(name.upper(), str(value))
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    plugin, model = FullyShardedDataParallelPlugin(), make_model(family)
    assert plugin.fsdp_version == 2 and plugin.reshard_after_forward
    plugin.set_auto_wrap_policy(model)
    policy = fsdp2_prepare_auto_wrap_policy(plugin, model)
    wrapped = [name for name, module in model.named_modules() if policy(module)]
    layers = model.config.audio_config.num_hidden_layers
    assert sum(name.startswith("audio_model.") for name in wrapped) >= layers
    assert sum(name.startswith("text_model.") for name in wrapped) >= model.config.text_config.num_hidden_layers


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [None, 5])
@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_trains_the_same(tones, tmp_path, stage, chunk):
    """DeepSpeed (`nox -s deepspeed`) gives the same weights as training without it, also in chunks."""
    pytest.importorskip("deepspeed", reason="DeepSpeed is not installed; nox -s deepspeed")
    from modeling_gemoclap import GEmoClapModel

    (tmp_path / "train_on_cpu.py").write_text(DEEPSPEED_ON_CPU)
    audio = {"num_mel_bins": 16, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    audio |= {"conv_channels": [8, 8], "conv_dropout": 0, "hidden_dropout": 0, "apply_spec_augment": False}
    options = ("--audio_config", json.dumps(audio), "--optimizer", "optim", "--optim", "sgd", "--learning_rate", 0.1)
    options += ("--eval_strategy", "epoch", "--dev_speakers", "04")
    plain, sharded = options_for(tones, tmp_path / "plain"), options_for(tones, tmp_path / "sharded")
    run_script("train.py", *TINY, *plain, *options, launcher=(*LAUNCH, FOLDER / "cpu.yaml"))
    more = ("--use_cpu", "false", *(("--contrastive_chunk_size", chunk) if chunk else ()))
    launcher = (*LAUNCH, FOLDER / f"zero{stage}.yaml", "--mixed_precision", "no", "--num_processes", 2)
    script = (tmp_path / "train_on_cpu.py", *TINY, *sharded, *options, *more)
    run_script(*script, launcher=launcher, env={"DS_ACCELERATOR": "cpu", "PYTHONPATH": str(ROOT)})
    first, second = (GEmoClapModel.from_pretrained(tmp_path / run).state_dict() for run in ("plain", "sharded"))
    assert max((first[name] - second[name]).abs().max().item() for name in first) < 1e-6
    plain_uar, sharded_uar = (development_uar(tmp_path / run) for run in ("plain", "sharded"))
    assert plain_uar == sharded_uar and len(plain_uar) == 1
