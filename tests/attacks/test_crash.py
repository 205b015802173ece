"""The attack on training finds what it looks for: other files, and a process killed at a certain operation."""

import errno
import json
import os
import signal
import sys

import pytest
from conftest import ROOT

sys.path[:0] = [str(ROOT / "attacks")]
import crash_content  # noqa: E402
import crash_faults  # noqa: E402


@pytest.fixture
def place(tmp_path):
    """A folder that a training left."""
    run = tmp_path / "run"
    (run / "checkpoint-2").mkdir(parents=True)
    (run / "model.safetensors").write_bytes(b"weights")
    (run / "README.md").write_text("train.py --seed 3 --resume_from_checkpoint true\n")
    history = [{"loss": 1.0}, {"train_runtime": 3.0}]
    (run / "trainer_state.json").write_text(json.dumps({"log_history": history}))
    return tmp_path


def test_times_and_the_option_of_a_resumption_are_no_difference(place):
    whole = crash_content.content_of(place)
    (place / "run/trainer_state.json").write_text('{"log_history": [{"loss": 1.0}, {"train_runtime": 4.0}]}')
    (place / "run/README.md").write_text("train.py --seed 3\n")
    crash_content.refuse_difference(place, whole)


@pytest.mark.parametrize("name", ["model.safetensors", "trainer_state.json", ".run.lock", "checkpoint-2/left"])
def test_other_and_additional_files_are_a_difference(place, name):
    whole = crash_content.content_of(place)
    (place / "run" / name).write_text('{"log_history": [{"loss": 2.0}]}')
    with pytest.raises(AssertionError, match=f"these files differ .*{name}"):
        crash_content.refuse_difference(place, whole)


def status_of(work) -> int:
    pid = os.fork()
    if not pid:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_process_is_killed_within_the_writing_of_a_file(tmp_path):
    def work():
        crash_faults.kill_at([tmp_path], 2, 0.5)
        for name in ("first", "second", "third"):
            (tmp_path / name).write_bytes(b"12345678")

    assert status_of(work) == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == ["first"] and (tmp_path / "first").read_bytes() == b"1234"


def test_operations_fail_from_a_certain_one_on(tmp_path):
    failed = []

    def work():
        crash_faults.fail_at([tmp_path], 2, errno.ENOSPC)
        (tmp_path / "first").write_bytes(b"1")
        for name in ("second", "third"):
            try:
                (tmp_path / name).write_bytes(b"1")
            except OSError as error:
                failed.append(error.errno)
        os._exit(len(failed) + 10 * (set(failed) == {errno.ENOSPC}))

    assert status_of(work) == 12 and [path.name for path in tmp_path.iterdir()] == ["first"]
