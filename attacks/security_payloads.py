"""Texts that try to become markup, code, commands or other rows, and what parsers find in a document."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from markdown_it import MarkdownIt

PAYLOADS = (
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "' onmouseover='alert(1)",
    "</style><iframe src=//host>",
    "</title></head><body onload=alert(1)>",
    "<!-- a comment --> <![CDATA[x]]>",
    "&lt;script&gt; &#60;b&#62; &amp;",
    "javascript:alert(1)",
    "[text](javascript:alert(1)) ![i](http://host/p.png)",
    "`code` ``more`` ```fence```",
    "| cell | another |",
    "\\| \\` \\< \\",
    "# heading",
    "- item",
    "1. item",
    "---\nlicense: mit\n---",
    "x\n\n# heading\n\n- item",
    "x: y, {a: b} [c] & *d !!python/object/apply:os.system [true] %e",
    "'''\"\"\"\nimport os\nos.system('true')\n#",
    '"); __import__("os").system("true") #',
    "{{ 7 * 7 }} {% raw %} {{ cycler.__init__.__globals__.os }}",
    "${7*7} #{7*7} $(true) `true` ; true | true && true",
    "=cmd|' /C calc'!A0",
    '+SUM(1,1) @SUM(1) -1+1 "a","b"',
    "x\r\nSet-Cookie: a=b\r\n\r\nbody",
    "00:00:00.000 --> 00:00:09.000\n\nforged",
    "1\n00:00:00,000 --> 00:00:09,000\nforged\n",
    '" \n        text = "forged',
    "name 1 0.0 9.9 <NA> <NA> forged 1.0 <NA>\nSPEAKER x",
    "\x1b[2J\x1b]0;title\x07\x1b[31m red \x9b31m",
    "\u202egpj.wav \u2066hidden\u2069",
    "a\x00b\x08\x7f\x85\u2028c\u2029d",
    "__emphasis__ ~~gone~~ *more* _under_",
    "www.host.example",
    "é漢字 \u200d \U0001f600",
)
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
PLAIN = "plain"  # a harmless text, with which documents are compared


class Structure(HTMLParser):
    """The tags of a page with the names of their attributes, its text, and the addresses in it."""

    def __init__(self, page: str):
        super().__init__(convert_charrefs=True)
        self.tags, self.text, self.addresses = [], "", []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        """Keep a tag."""
        self.tags.append((tag, *(name for name, _ in attrs)))
        self.addresses += [value for name, value in attrs if name in ("href", "src", "action")]

    def handle_endtag(self, tag):
        """Keep the end of a tag."""
        self.tags.append(f"/{tag}")

    def handle_data(self, data):
        """Keep text."""
        self.text += data

    def handle_comment(self, data):
        """Keep a comment as a tag, since no page has one."""
        self.tags.append("comment")

    handle_decl = handle_pi = unknown_decl = lambda self, data: self.tags.append(data[:8].lower())


def markdown_structure(text: str) -> tuple[list[str], str]:
    """The kinds of elements of a Markdown text with tables, and its text."""
    kinds, words = [], []
    for token in MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(text):
        children = token.children or []
        kinds += [token.type, *(child.type for child in children if child.type not in ("text", "softbreak"))]
        words += [child.content for child in children if child.type in ("text", "code_inline", "text_special")]
        words += [token.content] if token.type in ("fence", "html_block", "code_block") else []
    return [kind for kind in kinds if kind != "text_special"], " ".join("".join(words).split())


def on_one_line(text: str) -> str:
    """A text as a document on one line shows it."""
    return " ".join(text.split())
