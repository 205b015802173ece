"""Warnings about a recording, collected instead of logged."""

import logging
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from transformers.utils import logging as transformers_logging

from modeling_gemoclap.inference.remarks import collect_remarks

logger = transformers_logging.get_logger("modeling_gemoclap.example")


def test_warnings_of_one_recording_are_collected_each_time(caplog):
    for _ in range(2):
        remarks = []
        with collect_remarks("a.wav", remarks):
            logger.warning_once("a.wav: too loud")
            logger.warning("a.wav: too loud")
            logger.warning("a.wav: 50 % is noise")
        assert remarks == ["too loud", "50 % is noise"] and not caplog.messages


def test_other_messages_are_logged(caplog):
    remarks = []
    with collect_remarks("a.wav", remarks):
        logger.warning("b.wav: too loud")
        logging.getLogger("another").warning("a.wav: too loud")
    logger.warning("a.wav: too late")
    assert not remarks and caplog.messages == ["b.wav: too loud", "a.wav: too loud", "a.wav: too late"]


def test_threads_do_not_mix(caplog):
    together = Barrier(4)

    def read(name):
        remarks = []
        with collect_remarks(name, remarks):
            together.wait(10)
            logger.warning_once(f"{name}: too loud")
            together.wait(10)
        return remarks

    with ThreadPoolExecutor(4) as threads:
        assert [*threads.map(read, "abcd")] == [["too loud"]] * 4
    assert not caplog.messages
