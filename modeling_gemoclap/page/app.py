"""The page: its parts put together, and its server."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..command_line.memory import limit_arenas, return_free_memory

if TYPE_CHECKING:
    from gradio import Blocks

FOLDER = Path(__file__).parent
MODEL_VARIABLE = "GEMOCLAP_MODEL"
KEPT_MINUTES = 10
EXAMPLES = "examples"  # the subfolder that is kept
WAITING = 20  # visitors in the queue
# Colours of Gradio's theme whose contrast is below 4.5 to 1: hints, the selected tab, and buttons.
COLOURS = {
    "body_text_color_subdued": "*neutral_600",
    "body_text_color_subdued_dark": "*neutral_300",
    "block_info_text_color": "*neutral_600",
    "block_info_text_color_dark": "*neutral_300",
    "block_label_text_color": "*neutral_700",
    "block_label_text_color_dark": "*neutral_200",
    "block_title_text_color": "*neutral_800",
    "block_title_text_color_dark": "*neutral_100",
    "color_accent": "*primary_700",
    "button_primary_background_fill": "*primary_600",
    "button_primary_background_fill_dark": "*primary_700",
    "button_primary_background_fill_hover": "*primary_700",
    "button_primary_background_fill_hover_dark": "*primary_700",
}


@dataclass(frozen=True)
class PageOptions:
    """How the page is served.

    Args:
        model: See `load_pipeline`; None: the environment variable `GEMOCLAP_MODEL`, else `base`.
        device: See `load_pipeline`.
        revision: See `load_pipeline`.
        host: Address that the server listens on; None: the environment variable `GRADIO_SERVER_NAME`, which Hugging
            Face Spaces set, else 127.0.0.1, which only this computer reaches.
        port: None: the environment variable `GRADIO_SERVER_PORT`, else the first free port from 7860.
        kept_minutes: Age at which recordings are deleted from the server.
        index: A file of `gemoclap index` of the same model, whose recordings can be searched; None: no search.

    Raises:
        ValueError: If `kept_minutes` is not positive.
    """

    model: str | None = None
    device: str | None = None
    revision: str | None = None
    host: str | None = None
    port: int | None = None
    kept_minutes: float = KEPT_MINUTES
    index: str | None = None

    def __post_init__(self):
        if not self.kept_minutes > 0:
            raise ValueError(f"kept_minutes={self.kept_minutes} must be positive")


@contextmanager
def private_folder() -> Iterator[Path]:
    """A temporary folder for the recordings, readable by this user only, that is deleted at the end.

    Gradio reads its place from the environment when it is imported, so this precedes the import. The variables also
    turn off its analytics and the telemetry of the Hub's client, and let its queue keep the times of 100 events: by
    default it keeps 10,000, and the memory of the page grows until then.
    """
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False", GRADIO_ANALYTICS_MAX_EVENTS="100")
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    with tempfile.TemporaryDirectory(prefix="gemoclap-page-", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        yield Path(folder)


def delete_old_files(folder: Path, seconds: float) -> None:
    """Delete recordings that were uploaded long ago, also incomplete ones, which Gradio does not delete.

    Args:
        folder: From `private_folder`.
        seconds: The age from which files are deleted. The examples are kept.
    """
    for path in sorted(folder.rglob("*"), reverse=True):  # the content of a folder before the folder
        if path.relative_to(folder).parts[0] == EXAMPLES:
            continue
        try:
            if time.time() - path.stat().st_mtime > seconds:
                path.rmdir() if path.is_dir() else path.unlink()
        except OSError:
            pass  # in use, or not empty: the next pass


def build_page(options: PageOptions, folder: Path) -> Blocks:
    """Load the model and build the page.

    Args:
        options: How the page is served.
        folder: From `private_folder`; the examples are written there.

    Raises:
        ValueError: As for `load_pipeline`.
        ImportError: If Gradio is not installed.
    """
    import gradio as gr

    from ..inference.loading import load_pipeline
    from .analysis import PageModel
    from .examples import write_examples
    from .search import PageIndex
    from .tabs import TABS, PageContext
    from .texts import CONSENT, INTRODUCTION, LIMITS, TITLE

    name = options.model or os.environ.get(MODEL_VARIABLE) or "base"
    model = PageModel(load_pipeline(name, options.device, options.revision))
    examples = folder / EXAMPLES
    examples.mkdir()
    index = PageIndex(options.index, model) if options.index else None
    context = PageContext(model, write_examples(examples), index)
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        gr.Markdown(INTRODUCTION)
        gr.Markdown(CONSENT.format(minutes=f"{options.kept_minutes:g}"), elem_classes="ge-consent")
        with gr.Tabs():
            for tab in TABS:
                tab(context)
        gr.Markdown(LIMITS.format(minutes=f"{options.kept_minutes:g}"), elem_classes="ge-limits")
    return page.queue(max_size=WAITING, default_concurrency_limit=1, api_open=False)


def serve_page(options: PageOptions) -> None:
    """Serve the page until an interrupt or SIGTERM. Recordings are deleted then.

    Args:
        options: How the page is served.

    Raises:
        ValueError: As for `load_pipeline`.
        OSError: If the port is taken.
        ImportError: If Gradio is not installed.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    limit_arenas()  # before the threads of the server have their own
    with private_folder() as folder:
        page = build_page(options, folder)
        seconds = 60 * options.kept_minutes
        try:
            page.launch(**_launch_options(options), prevent_thread_lock=True)
            print(f"Page: {page.local_url} (Ctrl-C stops it)", flush=True)
            while True:
                time.sleep(min(30, seconds / 4))
                delete_old_files(folder, seconds)
                return_free_memory()
        except KeyboardInterrupt:
            pass  # the usual end
        finally:
            page.close(verbose=False)


def _launch_options(options: PageOptions) -> dict:
    """Everything that the environment or a default of Gradio could open or store is set to be closed."""
    import gradio as gr
    from starlette.middleware import Middleware

    from .analysis import MAX_FILE_MEGABYTES
    from .security import SecurityHeaders

    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}  # no font is loaded
    return {
        "server_name": options.host,
        "server_port": options.port,
        "share": False,
        "ssr_mode": False,
        "pwa": False,
        "mcp_server": False,
        "enable_monitoring": False,
        "run_history": False,  # Gradio would store the runs of a visitor in the browser
        "footer_links": [],
        "quiet": True,  # no advice to share the page publicly
        "show_error": False,
        "max_file_size": MAX_FILE_MEGABYTES * 2**20,
        "max_threads": 8,
        "state_session_capacity": 100,
        "app_kwargs": {"middleware": [Middleware(SecurityHeaders)], "docs_url": None, "redoc_url": None},
        "theme": gr.themes.Base(primary_hue="blue", neutral_hue="gray", **fonts).set(**COLOURS),
        "css_paths": FOLDER / "page.css",
        "js": (FOLDER / "page.js").read_text(encoding="utf-8"),
        "favicon_path": None,
    }
