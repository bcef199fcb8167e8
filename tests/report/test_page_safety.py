"""The page against hostile names and against the network, by its text and in headless Chromium."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from html.parser import HTMLParser
from typing import Any

import pytest
from tests.support import documents

from llmtrap.report.html import to_html
from llmtrap.report.html.payload import payload, script_json


class Tags(HTMLParser):
    """Every element of a page, and the text of its scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        self._inside = tag == "script"
        if self._inside:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "script"

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.scripts[-1] += data


@pytest.fixture(scope="module")
def hostile_page() -> str:
    return to_html(documents.hostile())


def test_no_name_becomes_an_element(hostile_page: str) -> None:
    hostile, clean = Tags(), Tags()
    hostile.feed(hostile_page)
    clean.feed(to_html(documents.trapped()))
    assert {tag for tag, _ in hostile.seen} <= {tag for tag, _ in clean.seen}
    assert len(hostile.scripts) == len(clean.scripts) == 4
    assert not any(name.startswith("on") for _, attributes in hostile.seen for name in attributes)
    assert not any("src" in attributes for _, attributes in hostile.seen)


def test_no_name_is_read_as_a_template_or_leaves_its_data(hostile_page: str) -> None:
    assert "{{ 7 * 7 }} {% raw %}" in hostile_page
    tags = Tags()
    tags.feed(hostile_page)
    data = json.loads(tags.scripts[1])
    assert data == json.loads(json.dumps(payload(documents.hostile())))
    assert not re.search(r"[<>&]", tags.scripts[1])


def test_script_json_is_the_same_json() -> None:
    value = {"</script>": ["<!--", "&amp;", "\u2028", "\ud800"]}
    text = script_json(value)
    assert text.isascii()
    assert not re.search(r"[<>&]", text)
    assert json.loads(text) == value


def test_the_policy_lets_only_the_page_s_own_scripts_run(hostile_page: str) -> None:
    tags = Tags()
    tags.feed(hostile_page)
    policy = next(
        a["content"] for t, a in tags.seen if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    allowed = set(re.findall(r"'(sha256-[^']+)'", policy))
    run = [tags.scripts[0], *tags.scripts[2:]]  # all but the data
    digests = {"sha256-" + base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in run}
    assert allowed == digests
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "http" not in policy
    assert "unsafe-eval" not in policy


@pytest.mark.browser
def test_hostile_names_stay_text(open_report: Any) -> None:
    page = open_report(documents.hostile())
    assert "owned" in page.title()
    assert page.title() != "owned"
    assert page.locator("img").count() == 0
    shown = page.locator("#table-body tr[data-place] td:first-child").all_inner_texts()
    assert "</script><script>document.title='owned'</script>" in shown
    assert "layers.0.\\u202egnp.exe\\u202c.attention" in shown
    for row in range(len(shown)):
        page.locator("#table-body tr[data-place]").nth(row).click()
        page.wait_for_selector("#plot-shuffled .scatterlayer .trace")
        assert page.locator("#matrix-name").inner_text() == shown[row]
        page.keyboard.press("Escape")
    page.locator("#map-outside td").first.hover()
    assert page.locator("img").count() == 0
    assert page.title() != "owned"


@pytest.mark.browser
def test_the_policy_stops_what_a_script_might_fetch(chromium: Any, tmp_path: Any) -> None:
    path = tmp_path / "report.html"
    path.write_text(to_html(documents.clean()), encoding="utf-8")
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def listen() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    asked.append(connection.recv(100))

        threading.Thread(target=listen, daemon=True).start()
        page = chromium.new_page()
        page.goto(path.as_uri())
        outcome = page.evaluate(
            """async (address) => {
                const tried = { fetch: "blocked", script: "blocked", image: "blocked" };
                try { await fetch(address); tried.fetch = "sent"; } catch {}
                const script = document.createElement("script");
                script.textContent = "window.injected = true";
                document.body.append(script);
                if (window.injected) tried.script = "ran";
                const image = new Image();
                await new Promise((done) => {
                    image.onload = image.onerror = done;
                    image.src = address;
                });
                if (image.naturalWidth) tried.image = "sent";
                return tried;
            }""",
            f"http://127.0.0.1:{port}/",
        )
        page.close()
        server.shutdown(socket.SHUT_RDWR)
    assert outcome == {"fetch": "blocked", "script": "blocked", "image": "blocked"}
    assert asked == []
