"""Each format: a real file is made, and read as a corpus."""

from __future__ import annotations

import io
import json
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from retrieval.chunking import ChunkingSettings, chunk
from retrieval.corpus import ReadingSettings, read_documents
from retrieval.documents.reading import parse
from retrieval.errors import CorpusError
from retrieval.types import Document


def read(folder: Path, name: str, content: str | bytes, **settings: Any) -> Document:
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    (document,) = read_documents(folder / name, ReadingSettings(base_url="https://e.org", **settings))
    for passage in chunk(document, ChunkingSettings(24, 6)):
        assert document.text[passage.start : passage.end] == passage.text
    assert list(document.anchors) == sorted(document.anchors, key=lambda anchor: anchor.start)
    return document


def refusal(folder: Path, name: str, content: str | bytes, **settings: Any) -> str:
    with pytest.raises(CorpusError) as caught:
        read(folder, name, content, **settings)
    message = str(caught.value)
    assert message.startswith(f"{name}: ")
    assert "\n" not in message
    return message


def opens(document: Document) -> dict[str, str]:
    """What stands at each anchor, to the end of its line."""
    return {anchor.fragment: document.text[anchor.start :].split("\n", 1)[0] for anchor in document.anchors}


def pdf(*pages: str, password: str = "", title: str = "") -> bytes:
    from pypdf import PdfWriter
    from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

    writer = PdfWriter()
    name = NameObject
    font = DictionaryObject(
        {
            name("/Type"): name("/Font"),
            name("/Subtype"): name("/Type1"),
            name("/BaseFont"): name("/Helvetica"),
        }
    )
    for words in pages:
        page = writer.add_blank_page(300, 300)
        page[name("/Resources")] = DictionaryObject({name("/Font"): DictionaryObject({name("/F1"): font})})
        stream = DecodedStreamObject()
        lines = " ".join(f"({line}) Tj T*" for line in words.split("\n"))
        stream.set_data(f"BT /F1 12 Tf 14 TL 20 200 Td {lines} ET".encode())
        page[name("/Contents")] = writer._add_object(stream.flate_encode())
    writer.add_metadata({"/Title": title, "/CreationDate": "D:20240506000000Z"})
    if password:
        writer.encrypt(password, algorithm="RC4-128")
    written = io.BytesIO()
    writer.write(written)
    return written.getvalue()


def docx(build: Any) -> bytes:
    import docx

    document = docx.Document()
    build(document)
    written = io.BytesIO()
    document.save(written)
    return written.getvalue()


MDX = """---
title: Deploy
---
import Tabs from '@theme/Tabs';
import {
  A,
  B,
} from './parts';

export const meta = {
  x: 1,
};

# Deploying {/* #deploy */}

{/* a note
for writers */}
<Tabs defaultValue="a" render={() => <b>x > y</b>}>
<TabItem value="a" label="Laptop">

Run `citeqa <index>` first, where a < b.

```jsx
import X from 'y';
<Tabs>
```

</TabItem>
</Tabs>

<a id="later"></a>
import is a word, too.
"""


def test_mdx_is_markdown_without_its_code(tmp_path: Path) -> None:
    document = read(tmp_path, "a.mdx", MDX)
    assert (document.title, document.doc_uri) == ("Deploy", "https://e.org/a")
    words = " ".join(document.text.split())
    assert words == (
        "# Deploying {/* #deploy */} Laptop Run `citeqa <index>` first, where a < b. ```jsx import X from 'y'; "
        '<Tabs> ``` <a id="later"></a> import is a word, too.'
    )
    assert opens(document) == {"deploy": "# Deploying {/* #deploy */}", "later": '<a id="later"></a>'}


RST = """
.. _top-label:

=========
The title
=========

:Date: 2024-05-06

See :ref:`the guide <guide>`, :func:`~pkg.mod.run` and ``x = 1`` for |version|.

.. contents::

.. include:: /etc/passwd

.. raw:: html

   <b>secret</b>

.. csv-table::
   :file: /etc/passwd

Using it
--------

- one
- two

  1. deep

.. code-block:: python
   :emphasize-lines: 1

   # not a heading
   print(1)

.. note:: Mind the *gap*.

.. versionadded:: 2.0
   The option.

.. py:function:: run(path, *, k=5)

   Runs it.

.. unheard-of:: words
   :option: x

   Its content.

使い方
------

======  =====
name    value
======  =====
a       1
======  =====

term
  What it means. [1]_

.. [1] A footnote.
"""


def test_restructured_text_becomes_text_with_headings_and_the_anchors_of_sphinx(tmp_path: Path) -> None:
    document = read(tmp_path, "a.rst", RST)
    assert document.title == "The title"
    assert document.metadata == {"date": "2024-05-06"}
    for words in (
        "# The title",
        "See the guide, `run` and `x = 1` for version.",
        "## Using it\n\n- one\n- two\n  1. deep",
        "```\n# not a heading\nprint(1)\n```",
        "**Note**\n\nMind the gap.",
        "New in version 2.0",
        "The option.",
        "`run(path, *, k=5)`\n\nRuns it.",
        "words\n\nIts content.",
        "## 使い方",
        "| name | value |\n| a | 1 |",
        "term\n\nWhat it means.",
        "[1] A footnote.",
    ):
        assert words in document.text
    for words in ("root:", "secret", "contents"):
        assert words not in document.text
    found = opens(document)
    assert found["using-it"] == "## Using it"
    assert "## 使い方" in found.values()
    assert found["the-title"] == "# The title"


def test_a_broken_directive_does_not_end_the_reading(tmp_path: Path) -> None:
    text = (
        "Title\n=====\n\n.. figure::\n\n.. image:: x\n   :width: very\n\n:role:`\n\n.. toctree::\n   :bad\n\n"
    )
    document = read(tmp_path, "a.rst", f"{text}The end.\n")
    assert document.text.startswith("# Title")
    assert document.text.endswith("The end.")


def test_a_notebook_is_its_markdown_its_code_and_little_of_what_it_printed(tmp_path: Path) -> None:
    cells = [
        {
            "cell_type": "markdown",
            "source": ["# My *first* notebook\n", "Text ![x](data:image/png;base64,", "A" * 99, ")"],
        },
        {
            "cell_type": "code",
            "source": "print('# no heading')\nx",
            "outputs": [
                {"output_type": "stream", "text": [f"line {n}\n" for n in range(500)]},
                {
                    "output_type": "display_data",
                    "data": {"image/png": "A" * 5000, "text/plain": ["<Figure>"]},
                },
            ],
        },
        {"cell_type": "raw", "source": "raw"},
        {"cell_type": "markdown", "source": "## 結果 の表\n終わり"},
    ]
    notebook = {"cells": cells, "metadata": {"kernelspec": {"language": "python"}}, "nbformat": 4}
    document = read(tmp_path, "a.ipynb", json.dumps(notebook))
    assert document.title == "My *first* notebook"
    assert "```python\nprint('# no heading')\nx\n```\n\n```text\nline 0\n" in document.text
    assert "…" in document.text
    assert "<Figure>" in document.text
    assert "AAAA" not in document.text
    assert len(document.text) < 600
    assert opens(document) == {"My-first-notebook": "# My *first* notebook", "結果-の表": "## 結果 の表"}


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"cells": [{}]}', '{"cells": [1]}', "[" * 99_999])
def test_what_is_no_notebook_is_refused(tmp_path: Path, content: str) -> None:
    assert "not a Jupyter notebook" in refusal(tmp_path, "a.ipynb", content)


def test_the_pages_of_a_pdf_are_part_of_its_link(tmp_path: Path) -> None:
    document = read(
        tmp_path, "a b.pdf", pdf("First page with words", "", "On the third the an-\nswer", title="Manual")
    )
    assert (document.doc_uri, document.title) == ("https://e.org/a%20b.pdf", "Manual")
    assert document.metadata == {"date": "2024-05-06"}
    assert document.text == "First page with words\n\nOn the third the answer"
    assert opens(document) == {"page=1": "First page with words", "page=3": "On the third the answer"}
    passages = chunk(document, ChunkingSettings(8, 0))
    assert passages[0].url == "https://e.org/a%20b.pdf#page=1"
    assert passages[-1].url == "https://e.org/a%20b.pdf#page=3"


def test_a_pdf_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    whole = pdf("Some words", password="secret")
    assert "opens with a password" in refusal(tmp_path, "a.pdf", whole)
    assert "OCR" in refusal(tmp_path, "b.pdf", pdf(""))
    for content in (b"", b"%PDF-1.7", b"\x00\x01", b"%PDF-1.4\n%%EOF"):
        assert "not a PDF that can be read" in refusal(tmp_path, "a.pdf", content)
    assert "characters of text" in refusal(tmp_path, "c.pdf", pdf("word " * 4000), max_file_mb=0.0018)


@pytest.mark.parametrize("name", ["a.pdf", "a.docx", "a.ipynb", "a.rst", "a.html", "a.mdx"])
def test_damaged_bytes_are_read_or_refused_and_nothing_else(name: str) -> None:
    contents = {
        "a.pdf": pdf("Some words", "and more"),
        "a.docx": docx(lambda document: document.add_paragraph("Words.")),
        "a.ipynb": json.dumps({"cells": [{"cell_type": "code", "source": ["a"], "outputs": []}]}).encode(),
        "a.rst": RST.encode(),
        "a.html": b"<html><main><h1 id=a>Head</h1><p>Text<pre>code</pre></main>",
        "a.mdx": MDX.encode(),
    }
    whole, chance = contents[name], random.Random(7)
    for _ in range(25):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 12)):
            damaged[chance.randrange(len(damaged))] = chance.choice(b"\x00<>/(){}[]`'\"\n 09az\xff")
        cut = chance.choice([len(damaged), chance.randrange(len(damaged))])
        with suppress(CorpusError):
            parse(bytes(damaged[:cut]), name[1:], name, 1_000_000)


def test_a_word_document_has_headings_lists_tables_and_bookmarks(tmp_path: Path) -> None:
    def build(document: Any) -> None:
        document.core_properties.title = "The plan"
        document.add_heading("計画", 0)
        document.add_paragraph("What we do.")
        document.add_heading("Costs", 2)
        document.add_paragraph("one", style="List Bullet")
        document.add_paragraph("two", style="List Number")
        table = document.add_table(2, 2)
        for cell, words in zip(table._cells, ["a", "b", "1", "2"], strict=True):
            cell.text = words
        last = document.add_paragraph("The end.")
        from docx.oxml import OxmlElement
        from docx.oxml.ns import qn

        bookmark = OxmlElement("w:bookmarkStart")
        bookmark.set(qn("w:name"), "end")
        last._p.append(bookmark)

    document = read(tmp_path, "a.docx", docx(build))
    assert (document.doc_uri, document.title, document.lang) == ("https://e.org/a.docx", "The plan", "en")
    assert document.text == (
        "# 計画\n\nWhat we do.\n\n## Costs\n\n- one\n- two\n\n| a | b |\n| 1 | 2 |\n\nThe end."
    )
    assert opens(document) == {"end": "The end."}
    assert list(document.metadata) == ["date"]


def test_a_zip_bomb_and_other_archives_are_no_word_documents(tmp_path: Path) -> None:
    import zipfile

    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", b"0" * 30_000_000)
    assert "unpacks to 30 MB" in refusal(tmp_path, "a.docx", bomb.getvalue(), max_file_mb=1)
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("a.txt", b"x")
    assert "not a Word document" in refusal(tmp_path, "a.docx", other.getvalue())
    assert "not a Word document" in refusal(tmp_path, "a.docx", b"PK\x03\x04 cut off")
    assert "encrypted, or of Word's format before 2007" in refusal(
        tmp_path, "a.docx", b"\xd0\xcf\x11\xe0" + b"x" * 99
    )


def test_entities_in_a_word_document_are_not_expanded(tmp_path: Path) -> None:
    import zipfile

    source = io.BytesIO(docx(lambda document: document.add_paragraph("Words.")))
    target = io.BytesIO()
    laughs = '<!DOCTYPE x [<!ENTITY a "ha">' + "".join(
        f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(9)
    )
    with zipfile.ZipFile(source) as given, zipfile.ZipFile(target, "w") as written:
        for entry in given.infolist():
            data = given.read(entry)
            if entry.filename == "word/document.xml":
                head, mark, rest = data.partition(b"?>")
                data = head + mark + laughs.encode() + b"]>" + rest.replace(b"Words.", b"Words.&j;")
            written.writestr(entry.filename, data)
    try:
        document = read(tmp_path, "a.docx", target.getvalue())
    except CorpusError:
        return
    assert len(document.text) < 1000
