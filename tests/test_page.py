"""The page of a run: whatever stands in the data, it is text there, and the page stays small."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import example_runs as pages
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelbeam.report.page import draw
from modelbeam.report.page.limits import LARGEST
from modelbeam.report.page.values import said, share

VOID = {"meta"}
TAGS = {
    *("html", "head", "title", "style", "body", "header", "h1", "h2", "h3"),
    *("h4", "p", "div", "span", "b", "i", "a", "nav", "main"),
    *("section", "article", "footer", "figure", "figcaption", "table", "caption", "thead", "tbody"),
    *("tr", "th", "td", "ul", "ol", "li", "details", "summary", "pre"),
    *("code", "bdi", "button", "svg", "path", "script", "meta"),
}
PHRASING = {"span", "b", "i", "a", "code", "bdi", "svg", "path", "button"}
PHRASE = PHRASING | {"p", "h1", "h2", "h3", "h4", "pre", "summary", "title"}
"""What holds only phrasing: anything else would close it."""
UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)


class Page(HTMLParser):
    """A page that was read: strictly, every element closed where it must be.

    Attributes:
        tags: all elements with their attributes.
        text: all that is shown, without the style sheet and the script.
        by_tag: the texts right within the elements of a kind.
    """

    def __init__(self, content: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.by_tag: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(content)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS, tag
        assert tag in PHRASING or not PHRASE.intersection(self._open), (tag, self._open)
        assert len(dict(attrs)) == len(attrs)
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID and tag != "path":
            self._open.append(tag)
            self.by_tag.setdefault(tag, []).append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag == "path", tag
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open:
            self.by_tag[self._open[-1]][-1] += data
            if self._open[-1] not in ("style", "script"):
                self.text += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)

    def with_(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of all elements of a kind."""
        return [attributes for name, attributes in self.tags if name == tag]


@cache
def example(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    return pages.EXAMPLES[name]()


def example_copy(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    return copy.deepcopy(example(name))


def check_harmless(content: str) -> Page:
    """The page holds nothing that was not drawn: no foreign element, script, address or event."""
    content.encode()  # no lone surrogates
    assert not UNSEEN.search(content)
    page = Page(content)
    assert len(page.with_("script")) == len(page.with_("style")) == 1
    assert page.by_tag["script"][0].startswith('"use strict";')
    assert page.tags[0][0] == "html"
    for _, attributes in page.tags:
        assert not {name for name in attributes if name.startswith("on")}
        assert attributes.keys().isdisjoint({"src", "style", "srcdoc", "action", "xlink:href"})
        assert (attributes.get("href") or "#").startswith("#")
    return page


# What it shows


SECTIONS = {
    "small": {"predictions", "inputs", "odd", "time", "provenance"},
    "failing": {"predictions", "inputs", "failures", "time", "provenance"},
    "drift": {"predictions", "inputs", "failures", "odd", "time", "provenance"},
    "compare": {"comparison", "time", "provenance"},
    "streaming": {"streaming", "failures", "provenance"},
}


@pytest.mark.parametrize("name", SECTIONS)
def test_a_page_has_the_sections_of_its_run_and_links_to_each(name):
    page = check_harmless(draw(*example(name)))
    assert {one.get("id") for one in page.with_("section")} - {None} == SECTIONS[name]
    links = {str(one["href"])[1:] for one in page.with_("a")}
    assert links == SECTIONS[name] | {"content"}
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_the_verdict_says_what_there_is_and_whether_it_adds_up():
    run, profile = example_copy("failing")
    page = Page(draw(run, profile))
    assert page.by_tag["h1"] == ["Succeeded; 49,732 of 1,240,000 records failed"]
    assert "do not add up" not in page.text
    run["counts"]["predicted"] -= 1
    page = Page(draw(run, profile))
    assert "the counts do not add up" in page.by_tag["h1"][0]
    assert "defect of modelbeam" in page.text


@pytest.mark.parametrize(
    ("run", "sentence"),
    [
        ({"status": "succeeded", "counts": {"read": 9, "predicted": 9}}, "All 9 records were"),
        ({"status": "failed", "counts": {"read": 9, "failed": 9}}, "not one of 9 records"),
        ({"status": "failed", "counts": {"read": 0}}, "no record was found"),
        ({"status": "running", "counts": {"read": 1, "predicted": 1}}, "Running; 1 record so far"),
        ({}, "Did not finish"),
    ],
)
def test_each_state_of_a_run_has_its_sentence(run, sentence):
    page = check_harmless(draw(run))
    assert sentence in page.by_tag["h1"][0]
    assert sentence in page.by_tag["title"][0]


def test_only_the_page_of_a_run_that_goes_on_is_read_again():
    refreshed = {
        name: any(
            one.get("http-equiv") == "refresh" for one in Page(draw(*example(name))).with_("meta")
        )
        for name in SECTIONS
    }
    assert refreshed == {name: name == "streaming" for name in SECTIONS}


def test_the_three_largest_changes_come_first_and_inputs_are_sorted_by_drift():
    page = draw(*example("drift"))
    head, _, rest = page.partition("<main")
    changed = re.findall(r"<li><b><bdi>(\w+)</bdi></b>.*?PSI ([\d.]+)", head)
    assert changed == [("income", "0.612"), ("energy_class", "0.388"), ("price", "0.344")]
    assert "1 more column that changed not shown" in Page(page).text
    listed = re.search(r'class="columns">.*?</section>', rest, re.DOTALL)
    assert listed is not None
    drifts = [float(one) for one in re.findall(r"PSI ([\d.]+)", listed[0])]
    assert len(drifts) == 7
    assert drifts == sorted(drifts, reverse=True)


def test_a_change_measured_on_too_few_records_says_so_and_is_not_among_the_changes():
    run, profile = example_copy("drift")
    for one in profile["baseline"]["columns"]:
        one |= {"note": "fewer than 200 records", "change": "none"}
    page = Page(draw(run, profile))
    assert "No column changed much" in page.text
    assert "fewer than 200 records" in page.text


def test_an_older_run_without_a_profile_shows_its_failures():
    run = {
        "status": "succeeded",
        "counts": {"read": 11, "predicted": 10, "failed": 1},
        "failures": [
            {"stage": "decode", "type": "JSONDecodeError", "message": "bad (column …)", "count": 1,
             "source": "a.jsonl", "line": 3, "offset": 166, "error": "bad (column 51)",
             "where": "m.py:3 in f", "traceback": "line 3"}
        ],
    }  # fmt: skip
    page = check_harmless(draw(run))
    for said_there in (
        "a.jsonl:3",
        "bad (column 51)",
        "bad (column …)",
        "m.py:3 in f",
        "line 3",
        "MB3",
    ):
        assert said_there in page.text
    assert "no profile of this run" in page.text


def test_a_straggler_is_told_and_equal_splits_are_not():
    run, profile = example_copy("small")
    splits = [
        {"split": i, "worker": f"w{i % 2}", "start": i, "end": i + 1, "read": 5, "failed": 0}
        for i in range(8)
    ]
    profile["time"]["splits"] = splits
    assert "times the middle one" not in Page(draw(run, profile)).text
    splits[5]["end"] = splits[5]["start"] + 4
    assert "split 5 of w1: 4 s, 4.0 times the middle one" in Page(draw(run, profile)).text


def test_splits_are_marked_where_more_fails_than_elsewhere():
    run, profile = example_copy("small")
    splits = [
        {"split": i, "worker": f"w{i}", "start": 0, "end": 1, "read": 50, "failed": 5}
        for i in range(6)
    ]
    profile["time"]["splits"] = splits

    def marked() -> int:
        lanes = re.findall(r'class="lane">(.*?)</svg>', draw(run, profile))
        assert len(lanes) == 6
        return sum('class="failed"' in lane for lane in lanes)

    assert marked() == 0
    splits[2]["failed"] = 40
    assert marked() == 1


def test_numbers_of_people():
    assert [said(x) for x in (0, 1234567, 0.5, 1.0, 12345.678, 1e-9, 3e20, None, True)] == [
        "0", "1,234,567", "0.5", "1", "12,346", "1e-09", "3e+20", "-", "-",
    ]  # fmt: skip
    assert share(1, 10**6) == "< 0.01 %"
    assert share(10**6 - 1, 10**6) == "> 99.99 %"
    assert (share(0, 5), share(5, 5), share(1, 3), share(1, 0)) == ("0 %", "100 %", "33.33 %", "-")


def test_figures_of_a_sample_and_what_is_masked_are_said_to_be_that():
    run, profile = example_copy("drift")
    profile["splits_without"] = 2
    price, band = profile["predictions"][0]["columns"]
    price |= {"sampled": 6144, "records": 1_240_000, "distinct": 5990}
    band |= {"masked": True, "values": None}
    text = Page(draw(run, profile)).text
    for sentence in (
        "records 1,240,000of which looked at 6,144distinct at least 5,990",
        "Its values are masked.",
        "2 splits of an earlier version, or of a run with --no-report, are not in these figures.",
    ):
        assert sentence in text


def test_a_stream_that_has_ended_shows_what_its_description_says():
    run, _ = example_copy("streaming")
    run |= {"status": "succeeded", "lag": 4310, "reloads": [{}, {}], "lost": [{"partition": 3}]}
    page = check_harmless(draw(run))
    text = page.text
    for told in ("lag 4,310", "lanes 4", "latency p99 71.2 ms", "newer models while it ran 2"):
        assert told in text
    assert "Lost before they were read: 1 range" in text
    assert not any(one.get("http-equiv") == "refresh" for one in page.with_("meta"))


# The commands


def commands(content: str) -> list[str]:
    """The commands that a page shows."""
    page = Page(content)
    found = re.findall(r'<code class="command"[^>]*>', content)
    return [text for text in page.by_tag["code"] if text.split(" ")[0] in ("grep", "modelbeam")][
        : len(found)
    ]


@pytest.mark.parametrize("folder", ["out", "an out 'put' $HOME `x`", "-rf"])
def test_the_command_that_shows_failures_prints_exactly_their_lines(tmp_path, folder):
    place = tmp_path / folder
    place.mkdir()
    kind = {"stage": "predict", "type": "ValueError", "message": "m", "count": 2, "examples": []}
    line = '{{"source":"a","line":{},"model":"m","stage":"{}","type":"{}","error":"x"}}\n'
    files = []
    for i in range(2):
        wanted = line.format(i, "predict", "ValueError")
        other = line.format(i, "decode", "ValueError") + line.format(i, "predict", "ValueErrorX")
        file = place / f"errors-0000{i}-of-00002.jsonl"
        file.write_text(other + wanted)
        files.append(f"{folder}/{file.name}")
    run = pages.run_of(9, 2, output=folder, files=files)
    (_, show) = commands(draw(run, {"failures": [kind]}))
    done = subprocess.run(
        show, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "".join(line.format(i, "predict", "ValueError") for i in range(2))


def test_a_retry_is_offered_only_where_there_is_one():
    run, profile = example_copy("failing")
    assert commands(draw(run, profile))[0] == "modelbeam retry out"
    for change in (
        {"models": [*run["models"], *run["models"]]},
        {"request": {**run["request"], "shards": 2}},
        {"request": None},
        {"status": "running"},
        {"comparison": {"models": ["a", "b"]}},
        {"output": "a\u202eb"},
    ):
        shown = commands(draw({**run, **change}, profile))
        assert not [one for one in shown if one.startswith("modelbeam retry")]


# What is hostile


NASTY = [
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "<!-- --> ]]> <![CDATA[ &amp; &#60;script&#62;",
    "</style></title></pre></textarea><iframe src=//evil.example>",
    "javascript:alert(1)",
    "\u202egnp.exe\u2066\u200f\x00\x1b[31m\r\x85\u2028",
    "\udc80\ud800",
    "مرحبا بالعالم שלום",
    "กรุงเทพมหานคร 👩‍👩‍👧‍👦 e\u0301\u0323" + "\u0335" * 40,
    "n" * 5000,
    "\n\t ",
    "",
]
TEXTS = st.sampled_from(NASTY) | st.text(
    st.characters(exclude_categories=()), max_size=30
)  # lone surrogates too


def replaced(value: Any, make: Any) -> Any:
    """The value with every text in it made anew, but for the words that choose how it is drawn."""
    if isinstance(value, str):
        return make(value)
    if isinstance(value, list):
        return [replaced(one, make) for one in value]
    if isinstance(value, dict):
        return {key: replaced(one, make) for key, one in value.items()}
    return value


@pytest.mark.parametrize("name", SECTIONS)
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_texts_of_the_data_are_never_html(name, data):
    some = data.draw(st.lists(TEXTS, min_size=3, max_size=3))
    run, profile = example(name)
    turn = iter(range(10**9))
    run, profile = (
        replaced((run), lambda _: some[next(turn) % 3]),
        replaced(profile, lambda _: some[next(turn) % 3]),
    )
    run["status"] = "succeeded"
    check_harmless(draw(run, profile))


@pytest.mark.parametrize("text", NASTY[:10])
def test_what_is_hostile_is_still_shown_with_what_steers_escaped(text):
    run, profile = example_copy("small")
    profile["inputs"][0]["name"] = text
    profile["predictions"][0]["columns"][0]["values"]["top"][0]["value"] = text
    page = check_harmless(draw(run, profile))
    plain = UNSEEN.sub(lambda m: f"\\x{ord(m[0]):02x}", text).replace("\u2028", "\\x2028")
    plain = plain.encode("utf-8", "backslashreplace").decode()
    assert page.by_tag["bdi"].count(plain[:60] + "…" * (len(text) > 60)) >= 1
    assert page.by_tag["bdi"].count(plain) >= 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.just(10**400) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
)


def places_in(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a value; of lists the first entries."""
    yield at
    if isinstance(value, dict):
        for key, one in value.items():
            yield from places_in(one, (*at, key))
    elif isinstance(value, list):
        for i, one in enumerate(value[:3]):
            yield from places_in(one, (*at, i))


@pytest.mark.parametrize("name", SECTIONS)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_value_of_any_kind_anywhere_is_survived(name, data):
    both = {"run": (pair := example_copy(name))[0], "profile": pair[1]}
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.sampled_from([one for one in places_in(both) if one]))
        holder: Any = both
        for key in at[:-1]:
            holder = holder[key]
        if data.draw(st.booleans()) and isinstance(holder, dict):
            del holder[at[-1]]
        else:
            holder[at[-1]] = data.draw(JSON)
        both.setdefault("run", {})
        both.setdefault("profile", None)
    check_harmless(draw(both["run"], both["profile"]))


# How large it becomes


def many(count: int, long: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A run of as many columns, messages, files … as there are."""
    run, profile = example_copy("drift")
    wide = copy.deepcopy([profile["inputs"][0], profile["inputs"][5]])
    columns = [{**wide[i % 2], "name": f"{long}{i}"} for i in range(count)]
    kind = profile["failures"][0]
    for one in kind["examples"]:
        one |= {"error": long * 30, "record": {long: long * 30}}
    profile |= {
        "inputs": columns,
        "predictions": [{"model": f"{long}{i}", "columns": columns} for i in range(20)],
        "failures": [{**kind, "message": f"{long}{i}"} for i in range(20 * count)],
        "odd": profile["odd"] * count,
    }
    profile["time"]["splits"] = [
        {**one, "worker": f"{long}{i}"} for i, one in enumerate(profile["time"]["splits"] * 200)
    ]
    profile["baseline"]["schema"] = profile["baseline"]["schema"] * count
    profile["baseline"]["columns"] = [
        {"where": "inputs", "name": f"{long}{i}", "psi": 1.0, "js": 1.0, "change": "large",
         "note": None, "was": wide[i % 2]}
        for i in range(count)
    ]  # fmt: skip
    run["notes"] = run["files"] = [f"{long}{i}" for i in range(count)]
    run["job"]["inputs"] = [[f"{long}{i}", 1, 2] for i in range(20 * count)]
    run["job"]["settings"] = run["request"] = run["software"] = {
        f"{long}{i}": long for i in range(count)
    }
    run["models"] = [{**run["models"][0], "name": f"{long}{i}"} for i in range(count)]
    run["counts"]["models"] = {f"{long}{i}": run["counts"] for i in range(2)}
    run["counts"] = {**run["counts"], "models": {str(i): {"read": 0} for i in range(count)}}
    return run, profile


@pytest.mark.parametrize(("count", "long"), [(5000, "c"), (1500, '<b>"&\u202e' * 100)])
def test_a_page_stays_small_whatever_it_is_to_show(count, long):
    run, profile = many(count, long)
    content = draw(run, profile)
    assert len(content.encode()) <= LARGEST
    check_harmless(content)
    assert "not shown" in content


def test_what_is_left_out_is_counted():
    run, profile = example_copy("drift")
    profile |= {"inputs_left_out": 4000, "failures_left_out": 1}
    profile["time"]["splits_left_out"] = 5
    text = Page(draw(run, profile)).text
    for sentence in (
        "4,000 more input columns",
        "1 more kind of failure not shown",
        "5 more splits",
    ):
        assert sentence in text


# What it may do


@pytest.mark.parametrize("name", SECTIONS)
def test_the_page_forbids_itself_all_but_its_own_style_and_script(name):
    content = draw(*example(name))
    page = Page(content)
    (rules,) = [one["content"] for one in page.with_("meta") if "http-equiv" in one][:1]
    allowed = dict(one.split(" ", 1) for one in str(rules).split("; "))
    assert allowed.keys() == {"default-src", "style-src", "script-src", "base-uri", "form-action"}
    assert allowed["default-src"] == "'none'"
    for tag in ("style", "script"):
        (inside,) = page.by_tag[tag]
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert allowed[f"{tag}-src"] == f"'sha256-{digest}'"
        assert "url(" not in inside
        assert "http" not in inside


def test_a_page_can_be_written_and_read_from_json(tmp_path):
    run, profile = example("drift")
    path = Path(tmp_path, "report.html")
    path.write_text(draw(json.loads(json.dumps(run)), json.loads(json.dumps(profile))), "utf-8")
    assert path.read_text("utf-8") == draw(run, profile)
