"""The files that the dashboard serves: ours, and two of others, whole and named."""

import re
from pathlib import Path

import sleap_rtc_signaling.dashboard as dashboard
from sleap_rtc_signaling.dashboard.assets import Assets

STATIC = Path(dashboard.__file__).with_name("static")
TEMPLATES = Path(dashboard.__file__).with_name("templates")


def test_what_others_made_is_named_with_its_version_and_licence() -> None:
    notice = (STATIC / "NOTICE").read_text()
    version = re.search(r"htmx\.org (\d+\.\d+\.\d+)", notice)
    assert version
    assert version[1].startswith("2.")
    assert f'version:"{version[1]}"' in (STATIC / "htmx.min.js").read_text()
    for licence in re.findall(r"[\w.-]+\.LICENSE", notice):
        assert "any purpose" in " ".join((STATIC / licence).read_text().split())


def test_an_address_changes_with_what_the_file_holds(tmp_path: Path) -> None:
    seen = set()
    for content in ("a", "b"):
        (tmp_path / "x.css").write_text(content)
        seen.add(Assets(tmp_path).path("x.css"))
    assert len(seen) == 2


def test_no_template_holds_a_style_or_a_script_of_its_own() -> None:
    paths = list(TEMPLATES.rglob("*.html"))
    assert len(paths) > 10
    for path in paths:
        text = path.read_text()
        assert not re.search(r"<style|\sstyle=|<script>|\son[a-z]+=|javascript:", text)
        assert not re.search(r'(src|href)="https?:', text)
        assert "hx-on" not in text
