"""A web page for single recordings, made with Gradio (extra `page`). docs/page.md explains it."""
