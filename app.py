"""Serve the web page: record or upload speech, choose labels, see scores and a timeline.

    python app.py --model base

`gemoclap page` is the same. Hugging Face Spaces start this file; docs/page.md tells how to make one.
"""

from modeling_gemoclap.cli import main

if __name__ == "__main__":
    import sys

    main(["page", *sys.argv[1:]])
