"""Load checkpoints in every way, run each model once, and print the started processes and the opened files.

    python hostile_worker.py trusted|untrusted FORBIDDEN_FOLDER HARMLESS CHECKPOINT...

The harmless checkpoint is loaded first, without reports, so that lazy imports are done. FORBIDDEN_FOLDER stands for a
folder that a hostile file names: no file in it may be opened.
"""

import json
import sys
from pathlib import Path

TRUSTED, FORBIDDEN, HARMLESS = sys.argv[1] == "trusted", sys.argv[2], sys.argv[3]
STARTED = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.startfile")
CONNECTED = ("socket.connect", "socket.getaddrinfo", "socket.sendto")
watched, events = None, []


def hook(event, arguments):
    if watched is None:
        return
    if event in STARTED or event in CONNECTED:
        events.append(f"{event} {arguments[:2]!r}")
    elif event == "exec":
        file = getattr(arguments[0], "co_filename", "")
        is_untrusted = "transformers_modules" in file and (not TRUSTED or "payload" in file)
        if is_untrusted or file.startswith((watched, FORBIDDEN)):
            events.append(f"exec {file}")
    elif event == "open" and str(arguments[0]).startswith(FORBIDDEN):
        events.append(f"open {arguments[0]}")


if TRUSTED:
    sys.modules["modeling_gemoclap"] = None
import torch  # noqa: E402
import transformers  # noqa: E402

transformers.logging.set_verbosity_error()
task, trust = "zero-shot-emotion-recognition", {"trust_remote_code": True} if TRUSTED else {}
ways = {
    name: lambda folder, name=name: getattr(transformers, name).from_pretrained(folder, **trust)
    for name in ("AutoConfig", "AutoModel", "AutoProcessor", "AutoFeatureExtractor")
}
ways["pipeline"] = lambda folder: transformers.pipeline(task, model=folder, **trust)
if not TRUSTED:
    import modeling_gemoclap
    from modeling_gemoclap.evaluation.layers import starting_point
    from modeling_gemoclap.inference.loading import load_pipeline

    for name in ("GEmoClapConfig", "GEmoClapModel", "GEmoClapProcessor", "GEmoClapFeatureExtractor"):
        ways[name] = getattr(modeling_gemoclap, name).from_pretrained
    ways["load_pipeline"] = lambda folder: load_pipeline(folder, "cpu")
    ways["starting_point"] = lambda folder: starting_point(
        modeling_gemoclap.GEmoClapConfig.from_pretrained(folder), None
    )
    ways["from_audio_pretrained"] = modeling_gemoclap.GEmoClapFeatureExtractor.from_audio_pretrained
    ways["load_tokenizer"] = modeling_gemoclap.GEmoClapProcessor.load_tokenizer


@torch.no_grad()
def run_once(loaded):
    """Run the loaded model once, because some code is fetched or compiled only in the forward pass."""
    model = getattr(loaded, "model", loaded)
    if hasattr(model, "get_text_features"):
        model.get_text_features(torch.tensor([[5, 6, 7]]))
        model.get_audio_features(**{model.main_input_name: torch.zeros(1, 40, model.config.audio_config.num_mel_bins)})


sys.addaudithook(hook)
report = {}
for folder in [HARMLESS, *sys.argv[4:]]:
    for way, load in ways.items():
        watched, events = None if folder == HARMLESS else str(Path(folder).resolve()), []
        try:
            run_once(load(folder))
            outcome = "loaded"
        except BaseException as error:
            outcome = f"{type(error).__name__}: {error}"
        watched = None
        report.setdefault(Path(folder).name, {})[way] = [outcome, events]
print("\n" + json.dumps(report))  # transformers asked for consent on the line before
