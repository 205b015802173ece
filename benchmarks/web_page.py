"""Measure the static page in headless Chromium: what is downloaded, the time to start, and the time of an answer.

    python benchmarks/web_page.py

The pages are served by Python's server of static files on this computer, so the time to start contains no network.
The recording is a synthetic tone of 3 s. Beside the page, onnxruntime in Python runs the same file on one thread.
"""

from __future__ import annotations

import csv
import functools
import http.server
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile
from documents import render, write_section
from harness import RATE, ROOT, measure_in_turn, parser_of
from playwright.sync_api import Browser, sync_playwright

VARIANTS = {name: name.split() for name in ("compact", "compact int8", "base", "base int8")}
SECONDS = 3
LATER = 5  # answers after the first
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files without a log."""

    def log_message(self, *_) -> None:
        """Print nothing."""


def exported(variant: str, folder: Path) -> Path:
    """The ONNX file of a variant: in the folder already, or exported into it."""
    path = folder / f"{variant.replace(' ', '-')}.onnx"
    if not path.is_file():
        model, *precision = VARIANTS[variant]
        command = [sys.executable, "-m", "modeling_gemoclap", "export", model, "--output", path, "--quiet"]
        subprocess.run([*command, *(f"--quantize={each}" for each in precision)], cwd=ROOT, check=True)
    return path


def sizes(page: Path) -> dict[str, float]:
    """The sizes of what a visitor downloads, in MB."""
    parts = {"runtime": page.glob("data/runtime.*"), "model": page.glob("data/model.*"), "page": page.glob("[ip]*.*")}
    found = {name: sum(file.stat().st_size for file in files) / 1e6 for name, files in parts.items()}
    return found | {"total": sum(found.values())}


def visit(browser: Browser, address: str, clip: Path, folder: Path) -> dict[str, float]:
    """Times of one visit in seconds: until the page is ready, of answers, and of the computation within them."""
    context = browser.new_context()  # nothing is cached
    page = context.new_page()
    start = time.perf_counter()
    page.goto(address)
    page.locator("body[data-state=ready]").wait_for()
    times, answers = {"ready": time.perf_counter() - start}, []
    for count in range(LATER + 1):
        start = time.perf_counter()
        page.locator("#files").set_input_files(clip)
        page.locator("article .bars").nth(count).wait_for()
        answers.append(time.perf_counter() - start)
    with page.expect_download() as download:
        page.locator("#download").click()
    download.value.save_as(folder / "emotions.csv")
    context.close()
    with open(folder / "emotions.csv", newline="", encoding="utf-8-sig") as file:
        computed = [float(row["computation"]) for row in csv.DictReader(file)]  # the latest first
    times |= {"first": answers[0], "later": statistics.median(answers[1:])}
    return times | {"computation": statistics.median(computed[:LATER])}


def native(session: onnxruntime.InferenceSession, wave: np.ndarray) -> float:
    """Median time of the same computations in Python, in seconds."""
    inputs, times = {"waveform": wave[None], "lengths": np.array([len(wave)])}, []
    for _ in range(LATER + 1):
        start = time.perf_counter()
        session.run(["scores"], inputs)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def measure(pages: dict[str, Path], models: dict[str, Path], folder: Path, rounds: int) -> dict[str, dict]:
    """Medians of the times of each variant; pages and onnxruntime are measured in turn."""
    wave = (0.3 * np.sin(2 * np.pi * 200 * np.arange(SECONDS * RATE) / RATE)).astype(np.float32)
    soundfile.write(folder / "tone.wav", wave, RATE)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    sessions = {name: onnxruntime.InferenceSession(path, options) for name, path in models.items()}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)

        def both(_: int, name: str) -> dict[str, float]:
            address = f"http://127.0.0.1:{server.server_port}/{pages[name].name}/"
            times = visit(browser, address, folder / "tone.wav", folder)
            return times | {"native": native(sessions[name], wave)}

        measured = measure_in_turn({name: functools.partial(both, name=name) for name in pages}, rounds)
        browser.close()
    server.shutdown()
    return {
        name: {part: statistics.median(each[part] for each in values) for part in values[0]}
        for name, values in measured.items()
    }


def main() -> None:
    """Export, build, measure, and write the section of RESULTS.md."""
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the timing")
    parser.add_argument("--exported", type=Path, help="folder with exported files, such as base-int8.onnx")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        models = {name: exported(name, options.exported or folder) for name in VARIANTS}
        pages = {name: folder / f"page-{name.replace(' ', '-')}" for name in VARIANTS}
        for name, path in models.items():
            build = [sys.executable, ROOT / "web/build.py", path, "--output", pages[name]]
            subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
        megabytes = {name: sizes(page) | {"onnx": models[name].stat().st_size / 1e6} for name, page in pages.items()}
        times = measure(pages, models, folder, options.rounds)
    text = render("web_page", sizes=megabytes, times=times, rounds=options.rounds, seconds=SECONDS, later=LATER)
    write_section("python benchmarks/web_page.py", text)
    print(json.dumps({"sizes": megabytes, "times": times}))


if __name__ == "__main__":
    main()
