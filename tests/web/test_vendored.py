"""The static files that others wrote are those of the table, and the templates keep to the content security policy."""

import hashlib
import re
import zlib
from pathlib import Path

import pytest

import atoll.web
from atoll.web.pages.settings import vendored
from atoll.web.site import PAGES, STATIC
from atoll.web.words import LANGUAGES, words_of

TEMPLATES = sorted((Path(atoll.web.__file__).parent / "templates").glob("*.html"))


def test_every_vendored_file_is_in_the_table_with_its_hash_and_licence():
    rows = {row["file"]: row for row in vendored()}
    vendor = STATIC / "vendor"
    files = {path.name for path in vendor.iterdir() if path.suffix in {".js", ".css"}}
    assert files == set(rows)
    for name, row in rows.items():
        assert hashlib.sha256((vendor / name).read_bytes()).hexdigest() == row["sha256"], name
        assert (vendor / row["licence_file"]).is_file()


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_a_template_needs_neither_inline_code_nor_eval(template):
    text = template.read_text(encoding="utf-8")
    assert not re.search(r"\sstyle=|\son[a-z]+=|hx-on|js:|javascript:", text)
    for tag in re.findall(r"<script\b[^>]*>", text):
        assert "src=" in tag or "application/json" in tag


@pytest.mark.parametrize("page", PAGES)
def test_every_sentence_is_there_in_both_languages(page):
    words = {lang: words_of(page, lang) for lang in LANGUAGES}
    assert set(words["en"]) == set(words["ko"])
    assert all(text.strip() for one in words.values() for text in one.values())


def test_the_wheel_stays_small():
    """Each file as a wheel packs it, with its place in the list: 1.14 MB when a wheel was last built beside it."""
    package = Path(atoll.web.__file__).parents[1]
    files = [path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    packed = sum(len(zlib.compress(path.read_bytes())) + 2 * (len(str(path)) + 76) for path in files)
    assert 0.5e6 < packed < 2.5e6
