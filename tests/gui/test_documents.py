"""What the documents say is there, is there: links, pictures, modules, tests, words."""

import ast
import re
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
DOCUMENTS: Final = sorted(path.name for path in ROOT.glob("*.md"))
PICTURES: Final = sorted(
    path.name for path in (ROOT / "resources" / "screenshots").glob("*.png")
)
MAX_PICTURE_BYTES: Final = 150 * 1024
PACKAGES: Final = ("sleap_rtc_plugin", "worker", "signaling")


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text_of(document))
    missing = [link for link in links if not (ROOT / link).exists()]
    assert not missing


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_shown_and_small(name: str) -> None:
    path = ROOT / "resources" / "screenshots" / name
    assert f"resources/screenshots/{name}" in text_of("README.md")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size < MAX_PICTURE_BYTES


def test_every_module_has_its_line_in_the_architecture() -> None:
    described = set(re.findall(r"[\w/]+", text_of("ARCHITECTURE.md")))
    described |= {word.rpartition("/")[2] for word in described}
    modules = [
        path
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if path.stem != "__init__"
        # One line for the folder says what these are.
        and path.parent.name not in ("errors", "pages", "bench", "stores")
    ]
    assert modules
    missing = [path.stem for path in modules if path.stem not in described]
    assert not missing


def test_tests_that_the_security_document_names_exist() -> None:
    text = text_of("SECURITY.md")
    files = re.findall(r"`((?:unit|property|integration|gui|e2e)/[\w/]+\.py)`", text)
    assert files
    assert not [name for name in files if not (ROOT / "tests" / name).is_file()]
    sources = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")
    )
    functions = re.findall(r"`(test_\w+)`", text)
    assert not [name for name in functions if f"def {name}(" not in sources]


@cache
def spoken() -> str:
    """Every text of the desktop side, its parts joined as Python joins them."""
    texts = [
        node.value
        for path in (ROOT / "sleap_rtc_plugin").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    return "\n".join(texts)


def sentences() -> list[str]:
    """The first column of the README's table of what SLEAP says."""
    table = text_of("README.md").partition("\nIn SLEAP:\n")[2]
    table = table.partition("\nOn the command line:\n")[0]
    rows = [line.split("|")[1].strip() for line in table.splitlines() if "|" in line]
    return [row for row in rows[2:] if row != "there is no menu Remote Train"]


def test_sentences_of_the_readme_are_spoken() -> None:
    assert sentences()
    for sentence in sentences():
        for part in re.split(r"\.\.\.|; | 1\.6$", sentence):
            assert part.strip(" ,") in spoken(), sentence
