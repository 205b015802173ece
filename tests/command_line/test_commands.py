"""The commands that the scripts start too, and the configurations that are included in the package."""

import runpy
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, load_script

from modeling_gemoclap import cli
from modeling_gemoclap.command_line import shipped
from modeling_gemoclap.command_line.commands import command_words, publishable_command, typed_command, typed_words
from modeling_gemoclap.command_line.shipped import shipped_config
from modeling_gemoclap.evaluation import command
from modeling_gemoclap.runs.recipe import parse_recipe

MODULE = str(ROOT / "modeling_gemoclap/__main__.py")


@pytest.mark.parametrize("name", ["compact", "compact.yaml", "configs/compact.yaml"])
def test_included_configuration_is_found_from_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shipped_config(name) == str(ROOT / "configs/compact.yaml")
    values = yaml.safe_load((ROOT / "configs/compact.yaml").read_text())
    recipe = parse_recipe(["--config", name, "--use_cpu", "true", "--output_dir", "run"])
    assert recipe.options.projection_dim == values["projection_dim"]
    assert recipe.training.warmup_steps == values["warmup_steps"]


@pytest.mark.parametrize("name", ["compact", "compact.yaml", "configs/compact.yaml"])
def test_file_precedes_included_configuration(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / name).write_text("projection_dim: 7\n")
    assert shipped_config(name) == name
    recipe = parse_recipe(["--config", name, "--use_cpu", "true", "--output_dir", "run"])
    assert recipe.options.projection_dim == 7


def test_folder_is_not_a_configuration(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "compact").mkdir()
    assert shipped_config("compact") == str(ROOT / "configs/compact.yaml")


def test_installed_configurations_precede_those_of_the_repository(tmp_path, monkeypatch):
    folders = (tmp_path / "package/configs", tmp_path / "configs")
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "compact.yaml").write_text("projection_dim: 7\n")
    monkeypatch.setattr(shipped, "FOLDERS", folders)
    assert shipped_config("compact") == str(folders[0] / "compact.yaml")


@pytest.mark.parametrize(
    ("name", "question"),
    [
        ("compcat", r"; did you mean compact\?"),
        ("configs/compcat.yaml", r"; did you mean compact\?"),
        ("runs/compact.yaml", r"; did you mean compact\?"),
        ("0123456789", r"\."),
        ("../configs/compact", r"\."),
        ("accelerate/cpu", r"\."),
    ],
)
def test_unknown_configuration_is_reported_with_the_existing_ones(name, question, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ", ".join(sorted(path.stem for path in (ROOT / "configs").glob("*.yaml")))
    message = f"^--config {name}: no such file{question} The package has {names}$"
    with pytest.raises(ValueError, match=message):
        shipped_config(name)
    with pytest.raises(ValueError, match=message):
        parse_recipe(["--config", name])
    with pytest.raises(ValueError, match=message):
        load_script("grid").parse(["--config", name, "--data_dir", "x", "--output_dir", "y"])


def test_grid_starts_commands_as_it_was_started(tmp_path, monkeypatch):
    """The installed package has no train.py."""
    grid, started = load_script("grid"), []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(grid, "run", lambda command: started.append(command))
    monkeypatch.setattr(grid, "as_table", lambda cells, folders: "table")
    words = ["--config", "grid.yaml", "--data_dir", "x", "--output_dir", "runs", "--launcher", "launch"]
    (tmp_path / "grid.yaml").write_text("base: compact\nprotocol: p\ncells: [{name: one}]")
    (tmp_path / "runs").mkdir()
    for program, wanted in (("grid.py", [["train.py"], ["evaluate.py"]]), (MODULE, None)):
        monkeypatch.setattr(sys, "argv", [program])
        grid.main([*words, "--", "--use_cpu", "true"])
        wanted = wanted or [["-m", "modeling_gemoclap", name] for name in ("train", "evaluate")]
        train, evaluate = started[-2:]
        assert train[: 1 + len(wanted[0])] == ["launch", *wanted[0]] and "compact" in train
        assert evaluate[: 1 + len(wanted[1])] == [sys.executable, *wanted[1]]
        command = " ".join(["python", *command_words("grid"), "--config"])
        assert command in (tmp_path / "runs/table.md").read_text()


@pytest.mark.parametrize(
    ("words", "published"),
    [
        (["--hub_token", "hf_SECRET", "--seed", "1"], "--seed 1"),
        (["--hub-token=hf_SECRET", "--seed", "1"], "--seed 1"),
        (["--seed", "1", "--push_to_hub_token", "hf_SECRET"], "--seed 1"),
        (["--average_tokens_across_devices", "true"], "--average_tokens_across_devices true"),
        (["--data_dir", "/home/me/emodb", "~/ravdess/", "corpora/nemo"], "--data_dir emodb ravdess corpora/nemo"),
        (["--data_dir=/home/me/emodb", "--output_dir=runs/a"], "--data_dir=emodb --output_dir=runs/a"),
        (["--data_dir", r"C:\Users\me\emodb", r"\\server\me\nemo"], "--data_dir emodb nemo"),
        (["--data_dir=D:/me/emodb"], "--data_dir=emodb"),
        (["--fsdp_config", '{"a": 1, "token": "hf_SECRET"}'], """--fsdp_config '{"a": 1}'"""),
        (['--x={"a": [{"hub_token": "hf_SECRET", "b": "c"}]}'], """'--x={"a": [{"b": "c"}]}'"""),
        (["--x", '{"a": "{\\"api_key\\": \\"hf_SECRET\\"}"}'], """--x '{"a": "{}"}'"""),
        (["--optim_args", "a=1,token=hf_SECRET,b=2"], "--optim_args a=1,token=...,b=2"),
        (["--x", "['hf_SECRETSECRETSECRET']"], """--x '['"'"'...'"'"']'"""),
        (["--x", "https://me:hf_SECRET@host/a/b"], "--x https://host/a/b"),
        (
            ["--x", '{"a": ["/home/me/b", {"c": "~/d/e"}], "/home/f": "g/h"}'],
            """--x '{"a": ["b", {"c": "e"}], "f": "g/h"}'""",
        ),
        (["--x", '{"pad_token_id": 0}', "happy / sad / x"], """--x '{"pad_token_id": 0}' 'happy / sad / x'"""),
        (["--x", r'["C:\\Users\\me\\b"]'], """--x '["b"]'"""),
        (["--optim_args", "a=/home/John Smith/b,c=1"], "--optim_args a=b,c=1"),
        (["--x", "{'a': '/home/me/b'}", "file:///home/me/b"], """--x '{'"'"'a'"'"': '"'"'b'"'"'}' b"""),
        (["--x", '{"a":1}', "{} and/or / sad", "https://a/b"], """--x '{"a":1}' '{} and/or / sad' https://a/b"""),
    ],
)
def test_a_published_command_has_no_token_and_no_absolute_path(words, published, monkeypatch):
    assert publishable_command(["train.py", *words]) == f"python train.py {published}"
    monkeypatch.setattr(sys, "argv", ["/home/me/train.py", *words])
    assert typed_command() == f"python train.py {published}"
    assert "hf_SECRET" not in " ".join(typed_words()), "run.json has these"


def test_the_command_in_results_has_no_absolute_path(monkeypatch, tmp_path):
    from modeling_gemoclap.evaluation import actions, command

    given = []
    monkeypatch.setattr(actions, "check_environment", lambda arguments: None)
    monkeypatch.setattr(actions, "evaluate_clusters", lambda arguments, command: given.append(command))
    monkeypatch.setattr(sys, "argv", ["evaluate.py"])
    command.main(["--cluster_analysis", "--data_dir", str(tmp_path / "emodb"), "--speaker_clusters", "2"])
    assert given == ["python evaluate.py --cluster_analysis --data_dir emodb --speaker_clusters 2"]


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_of_a_command_is_that_of_its_parser(name, capsys):
    with pytest.raises(SystemExit) as error:
        cli.main([name, "--help"])
    captured = capsys.readouterr()
    assert error.value.code == 0 and "--" in captured.out and "Next:" not in captured.err


def test_a_command_names_the_next_one_with_its_own_folders(monkeypatch, capsys):
    monkeypatch.setattr(load_script("train"), "main", lambda argv: None)
    with pytest.raises(SystemExit):
        cli.main(["train", "--config", "compact", "--data_dir", "tones", "--output_dir", "runs/one"])
    assert (
        capsys.readouterr().err == "Next: gemoclap evaluate --model runs/one --data_dir tones --speakers SPEAKER...\n"
    )
    with pytest.raises(SystemExit):
        cli.main(["train", "--data_dir", "t", "--exclude_speakers", "eva", "x y", "--output_dir", "r"])
    assert capsys.readouterr().err == "Next: gemoclap evaluate --model r --data_dir t --speakers eva 'x y'\n"
    for results, hint in (
        (Path("a b/results.json"), "Next: gemoclap card r --results 'a b/results.json'\n"),
        (None, ""),
    ):
        monkeypatch.setattr(command, "main", lambda argv, results=results: results)
        with pytest.raises(SystemExit):
            cli.main(["evaluate", "--model", "r", "--data_dir", "t"])
        assert capsys.readouterr().err == hint


@pytest.mark.parametrize("probe", ["true", "false"])
def test_grid_leaves_out_the_gender_probe_on_request(probe, tmp_path):
    (tmp_path / "grid.yaml").write_text("base: compact\nprotocol: p\ncells: [{name: one}]")
    words = ["--config", str(tmp_path / "grid.yaml"), "--data_dir", "x", "--output_dir", "y", "--gender_probe", probe]
    grid = load_script("grid")
    content, [cell] = grid.cells_of(str(tmp_path / "grid.yaml"))
    _, train, evaluate = grid.commands_of(cell, content, grid.parse(words))
    assert "--gender_probe" not in train and ("--gender_probe" in evaluate) == (probe == "false")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train", "--config", "compcat"), "gemoclap train: --config compcat: no such file; did you mean compact?"),
        (("evaluate", "--data_dir", "x"), "gemoclap evaluate: give --model"),
        (("grid", "--data_dir", "x"), "gemoclap grid: the following arguments are required: --config"),
        (("pretrained", "whisper-bass"), "gemoclap pretrained: no encoder whisper-bass; did you mean whisper-base?"),
        (("compress", "run", "copy"), "gemoclap compress: give --half_precision, --word_pieces N, or both"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")  # imported by conftest
def test_module_reports_failures_in_one_sentence(words, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [MODULE, *words])
    with pytest.raises(SystemExit) as error:
        runpy.run_module("modeling_gemoclap", run_name="__main__")
    output = capsys.readouterr().err
    assert error.value.code == 1 and output.startswith(message) and len(output.splitlines()) == 1


@pytest.mark.parametrize("name", cli.SCRIPTS)
def test_scripts_run_the_same_code(name, monkeypatch):
    calls = []
    monkeypatch.setattr(load_script(name), "main", calls.append)
    runpy.run_path(str(ROOT / f"{name}.py"))["main"](["--option"])
    with pytest.raises(SystemExit):
        cli.main([name, "--option"])
    assert calls == [["--option"], ["--option"]]
