"""The tabs of the page: their fields, buttons and results."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from html import escape

import gradio as gr

from ..recordings_gemoclap import AudioError
from .analysis import MAX_FILE_MEGABYTES, PageModel, parse_labels
from .drawing import draw_analysis, draw_comparison, draw_message
from .search import HELP, MAX_TEXT, PageIndex, draw_hits
from .texts import AUDIO_HELP, FIXED_LABELS_HELP, LABELS_HELP

logger = logging.getLogger(__name__)
# One recording at a time goes through the model, whatever the tab; other visitors wait in the queue. No event has a
# name in the API.
EVENT = {"concurrency_limit": 1, "concurrency_id": "model", "api_visibility": "private", "show_progress": "minimal"}
EVENT |= {"scroll_to_output": True}  # on a phone, the result is below the button
NO_RECORDING = "There is no recording yet, or its upload is not finished: record or upload one, then try again."


@dataclass(frozen=True)
class PageContext:
    """What the tabs need.

    Args:
        model: The model.
        examples: The path of each example by its title.
        index: The index that is searched; None: there is no tab for search.
        thread: The thread that runs the model. In several threads of the server, each would keep working memory.
    """

    model: PageModel
    examples: dict[str, str]
    index: PageIndex | None = None
    thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "model"))


def recording_tab(context: PageContext) -> None:
    """One recording: scores, and the timeline over waveform, pitch and loudness."""
    with gr.Tab("One recording"), gr.Row(equal_height=False, elem_classes="ge-tab"):
        with gr.Column(scale=2, min_width=300):
            audio = _audio("Recording")
            _example_buttons(context, audio)
            labels, gender = _options(context)
            button = gr.Button("Analyse", variant="primary", elem_id="ge-analyse")
        with gr.Column(scale=3, min_width=300):
            result = _result("ge-result", "The result of the analysis appears here.")

    def analyse(path, text, with_gender):
        words = parse_labels(text)
        return draw_analysis(context.model.analyse(_required(path, NO_RECORDING), words, with_gender), words)

    button.click(_with_messages(context, analyse), [audio, labels, gender], result, **EVENT)


def comparison_tab(context: PageContext) -> None:
    """Two recordings side by side."""
    with gr.Tab("Compare two"):
        with gr.Row():
            recordings = []
            for name in ("Recording A", "Recording B"):
                with gr.Column(min_width=300):
                    recordings.append(_audio(name))
                    _example_buttons(context, recordings[-1], name)
        labels, gender = _options(context)
        button = gr.Button("Compare", variant="primary", elem_id="ge-compare")
        result = _result("ge-comparison", "The comparison appears here.")

    def compare(first, second, text, with_gender):
        words = parse_labels(text)
        paths = [_required(first, "Recording A is missing."), _required(second, "Recording B is missing.")]
        analyses = []
        for name, path in zip("AB", paths, strict=True):
            try:
                analyses.append(context.model.analyse(path, words, with_gender))
            except AudioError as error:
                raise AudioError(f"Recording {name}: {error}") from None
        return draw_comparison(*analyses, words)

    button.click(_with_messages(context, compare), [*recordings, labels, gender], result, **EVENT)


def search_tab(context: PageContext) -> None:
    """Search in an index by text, by a recording, or by both."""
    index = context.index
    if index is None:
        return
    with gr.Tab("Search"), gr.Row(equal_height=False, elem_classes="ge-tab"):
        with gr.Column(scale=2, min_width=300):
            text = gr.Textbox(
                label="Text",
                info=HELP if context.model.has_prompts else "This checkpoint has no text encoder: give a recording.",
                max_length=MAX_TEXT,
                interactive=context.model.has_prompts,
            )
            audio = _audio("Like this recording")
            button = gr.Button(f"Search {len(index):,} recordings", variant="primary", elem_id="ge-search")
        with gr.Column(scale=3, min_width=300):
            result = _result("ge-hits", "The recordings that were found appear here.")

    def find(words, path):
        return draw_hits(index, index.find(words, path))

    button.click(_with_messages(context, find), [text, audio], result, **EVENT)
    text.submit(_with_messages(context, find), [text, audio], result, **EVENT)


TABS: tuple[Callable[[PageContext], None], ...] = (
    recording_tab,
    comparison_tab,
    search_tab,
)  # in their order on the page


def _audio(label: str) -> gr.Audio:
    """A field for a recording. Gradio has no help text for it, and a long label would cover its icon."""
    gr.Markdown(f"{label}: {AUDIO_HELP}", elem_classes="ge-help")
    return gr.Audio(
        label=label,
        sources=["upload", "microphone"],
        type="filepath",
        editable=False,
        buttons=[],
        # the browser's player: the waveform of Gradio has 20 pixels for each second and widens the page
        waveform_options={"show_recording_waveform": False},
    )


def _example_buttons(context: PageContext, audio: gr.Audio, name: str = "") -> None:
    """Buttons that load an example. They read no other file than the examples."""
    gr.Markdown("Examples: computed sounds, no person. Their labels mean nothing.", elem_classes="ge-examples")
    with gr.Row():
        for title, path in context.examples.items():
            button = gr.Button(f"{title}{f' as {name}' if name else ''}", size="sm")
            button.click(lambda path=path: path, None, audio, api_visibility="private", show_progress="hidden")


def _options(context: PageContext) -> tuple[gr.Textbox, gr.Checkbox]:
    """The fields for labels and gender."""
    model, own = context.model, "\n".join(context.model.labels)
    labels = gr.Textbox(
        own,
        label="Labels",
        info=LABELS_HELP if model.has_prompts else FIXED_LABELS_HELP,
        lines=3,
        max_lines=10,
        max_length=5_000,
        interactive=model.has_prompts,
    )
    with gr.Row(elem_classes="ge-options"):
        gender = gr.Checkbox(
            False, label="Also guess the gender", container=False, visible=model.predicts_gender, min_width=180
        )
        reset = gr.Button("Labels of the model", size="sm", visible=model.has_prompts, min_width=140)
    reset.click(lambda: own, None, labels, api_visibility="private", show_progress="hidden")
    return labels, gender


def _result(name: str, placeholder: str) -> gr.HTML:
    """A place for a result; page.js makes it a live region, so that screen readers announce what appears."""
    return gr.HTML(f'<p class="ge-placeholder">{placeholder}</p>', elem_id=name, elem_classes="ge-live")


def _required(path: str | None, message: str) -> str:
    if not path:
        raise ValueError(message)
    return path


def _with_messages(context: PageContext, function: Callable[..., str]) -> Callable[..., str]:
    """Run a function in the thread of the model; show its errors in place of the result and as a warning."""

    def run(*values) -> str:
        try:
            return context.thread.submit(function, *values).result()
        except ValueError as error:  # AudioError is a ValueError
            message = str(error)
        except MemoryError:
            message = f"The recording is too large for the memory: cut it, or give less than {MAX_FILE_MEGABYTES} MB."
        except Exception:
            logger.exception("the analysis failed")
            message = "The analysis failed; the page goes on. The log of the server has the details."
        gr.Warning(escape(message), title="No result", duration=8)
        return draw_message(message)

    return run
