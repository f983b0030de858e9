"""The review is a pure function of the run directory, and every figure in it leads to the event it rests on."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from review_runs import change, judged, make

from stormdrill.errors import Refused
from stormdrill.model import event as ev
from stormdrill.model.experiment import Phases
from stormdrill.review import render
from stormdrill.review.lint import lint
from synthetic_run import SUCCESS_98, change_journal, make_run, objective, read_events

VOID = {"meta", "link", "br", "input", "hr", "img"}
HOSTILE = '<script>alert("1")</script> | `x` ]]> & "q" [a](javascript:b)'


class Page(HTMLParser):
    """What the laws below ask of a page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.ids: list[str] = []
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.headings: list[int] = []
        self.open: list[str] = []
        self.unbalanced: list[str] = []
        self.styled: list[str] = []
        self.tables: list[set[str]] = []
        self.scoped: list[bool] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag not in VOID:
            self.open.append(tag)
        if "id" in values:
            self.ids.append(values["id"])
        if "style" in values or any(name.startswith("on") for name in values):
            self.styled.append(tag)
        if tag == "a":
            self.links.append(values.get("href", ""))
        elif values.get("src") or (tag == "link" and values.get("href", "").partition(":")[0] != "data"):
            self.fetched.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "table":
            self.tables.append(set())
        if tag == "caption":
            self.tables[-1].add("caption")
        if tag == "th":
            self.scoped.append("scope" in values)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)


def page_of(run_dir: Path) -> Page:
    return Page(render(run_dir).html.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def passing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("review") / "run")


def contents(run_dir: Path) -> dict[str, bytes]:
    found = [*run_dir.glob("review.*"), *(run_dir / "pictures").iterdir(), *(run_dir / "templates").iterdir()]
    return {path.relative_to(run_dir).as_posix(): path.read_bytes() for path in found}


# --- the same bytes --------------------------------------------------------------------------------------


def test_a_review_is_the_same_to_the_byte_when_rendered_again(passing: Path) -> None:
    render(passing)
    first = contents(passing)
    render(passing)
    assert contents(passing) == first


def test_a_review_is_the_same_in_another_process_another_place_and_with_other_hashes(
    passing: Path, tmp_path: Path
) -> None:
    render(passing)
    moved = tmp_path / "elsewhere"
    shutil.copytree(passing, moved)
    for path in moved.glob("review.*"):
        path.unlink()
    code = "import sys; from pathlib import Path; from stormdrill.review import render; render(Path(sys.argv[1]))"
    environment = {**os.environ, "PYTHONHASHSEED": "4242", "TZ": "Asia/Kathmandu", "LC_ALL": "C"}
    subprocess.run([sys.executable, "-c", code, str(moved)], check=True, env=environment, timeout=60)
    assert contents(moved) == contents(passing)


def test_the_run_directorys_own_templates_win_over_newer_ones(passing: Path, tmp_path: Path) -> None:
    run, theirs = tmp_path / "run", tmp_path / "theirs"
    shutil.copytree(passing, run)
    shutil.rmtree(run / "templates", ignore_errors=True)
    theirs.mkdir()
    (theirs / "review.md.j2").write_text("# Ours: {{ review.title }}\n", encoding="utf-8")
    first = render(run, theirs).markdown.read_bytes()
    assert first.startswith(b"# Ours: Tier 1")
    (theirs / "review.md.j2").write_text("changed\n", encoding="utf-8")
    assert render(run, theirs).markdown.read_bytes() == first
    assert render(run).markdown.read_bytes() == first


@pytest.mark.parametrize(
    "template",
    ["{{ review.nothing }}", "{{ ''.__class__.__mro__[1].__subclasses__() }}", "{% if %}", "{% include 'no' %}"],
)
def test_a_template_that_is_wrong_or_reaches_out_is_refused_with_its_place(
    passing: Path, tmp_path: Path, template: str
) -> None:
    run, theirs = tmp_path / "run", tmp_path / "theirs"
    shutil.copytree(passing, run)
    shutil.rmtree(run / "templates", ignore_errors=True)
    theirs.mkdir()
    (theirs / "review.md.j2").write_text(template, encoding="utf-8")
    with pytest.raises(Refused, match="template"):
        render(run, theirs)


# --- figures and their events ----------------------------------------------------------------------------


def test_every_link_in_the_page_leads_to_a_place_in_it(passing: Path) -> None:
    page = page_of(passing)
    assert page.links
    assert {link for link in page.links if not link.startswith("#")} == set()
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_every_number_that_was_measured_carries_its_event(passing: Path) -> None:
    html = render(passing).html.read_text(encoding="utf-8")
    figures = re.findall(r'<span class="figure">(.*?)</span>\s*(<span class="refs">)?', html, re.DOTALL)
    assert len(figures) > 30
    unlinked = [text for text, refs in figures if not refs and re.search(r"\d", text)]
    declared = [text for text in unlinked if re.search(r"slots|99%|half capacity|#serving", text)]
    assert unlinked == declared  # the plan's and the runbook's own words; nothing measured


def test_every_link_in_the_markdown_leads_to_a_place_or_picture_in_it(passing: Path) -> None:
    text = render(passing).markdown.read_text(encoding="utf-8")
    anchors = set(re.findall(r'<a id="([^"]+)"></a>', text))
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert {link[1:] for link in links if link.startswith("#")} <= anchors
    files = [link for link in links if not link.startswith("#")]
    assert files == ["pictures/story.svg"]
    assert (passing / files[0]).is_file()


def test_the_timeline_starts_before_the_trigger_and_ends_after_it(passing: Path) -> None:
    text = render(passing).markdown.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d\d:\d\d:\d\d\.\d{3}) \| ([−+][\d.]+ s) \|", text, re.MULTILINE)
    assert rows[0][1].startswith("−")
    assert rows[-1][1].startswith("+")
    assert [at for at, _ in rows] == sorted(at for at, _ in rows)


def test_the_verdict_stands_before_everything_and_the_table_before_the_story(passing: Path) -> None:
    text = render(passing).markdown.read_text(encoding="utf-8")
    order = ["**PASS**", "## Asked and measured", "## What happened", "### Timeline", "## Impact", "### Error budget",
             "### Severity", "## Trigger", "## Detection", "## Faults", "## Runbook", "## Load", "## Judgement",
             "## How to reproduce", "## Journal"]  # fmt: skip
    places = [text.index(word) for word in order]
    assert places == sorted(places)


def test_times_taken_unattended_say_that_they_are_machine_times(passing: Path) -> None:
    assert "machine times, unattended" in render(passing).markdown.read_text(encoding="utf-8")


# --- the page --------------------------------------------------------------------------------------------


def test_the_page_fetches_nothing_and_says_so(passing: Path) -> None:
    html = unescape(render(passing).html.read_text(encoding="utf-8"))
    page = Page(render(passing).html.read_text(encoding="utf-8"))
    assert not page.fetched
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", html)
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)
    assert "default-src 'none'" in html
    assert "unsafe-inline" not in html
    assert not page.styled  # the policy would drop them


def test_the_page_is_an_outline_of_balanced_tags(passing: Path) -> None:
    page = page_of(passing)
    assert not page.unbalanced
    assert not page.open
    assert page.headings.count(1) == 1
    assert page.headings[0] == 1
    assert all(deeper - level <= 1 for level, deeper in zip(page.headings, page.headings[1:], strict=False))


def test_every_table_has_a_caption_and_every_heading_cell_a_scope(passing: Path) -> None:
    page = page_of(passing)
    assert page.tables
    assert all("caption" in table for table in page.tables)
    assert all(page.scoped)


def test_the_page_reads_without_its_script(passing: Path) -> None:
    html = render(passing).html.read_text(encoding="utf-8")
    without = re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
    assert "<path" in without
    assert "Alert RegionDown" in without
    assert '<div class="tools" hidden>' in without


@pytest.mark.parametrize("name", ["title", "hypothesis", "owner"])
def test_hostile_words_stay_words(tmp_path: Path, name: str) -> None:
    run = make(tmp_path / "run")
    plan = json.loads((run / "plan.json").read_text(encoding="utf-8"))
    plan["experiment"][name] = HOSTILE
    (run / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    change(run / "verdict.json", sentence=HOSTILE)
    rendered = render(run)
    html = rendered.html.read_text(encoding="utf-8")
    assert "<script>alert" not in html
    assert not Page(html).unbalanced
    markdown = rendered.markdown.read_text(encoding="utf-8")
    assert "<script>" not in markdown
    assert "[a](javascript" not in markdown


def test_hostile_events_stay_words_in_pictures_and_rows(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    events = [
        (at, ev.AlertChanged(HOSTILE, event.firing, {HOSTILE: HOSTILE}, event.source))
        if isinstance(event, ev.AlertChanged)
        else (at, ev.Reading(event.metric, HOSTILE, event.value))
        if isinstance(event, ev.Reading) and event.metric == "queue_depth"
        else (at, event)
        for at, event in read_events(run)
    ]
    change_journal(run, events)
    rendered = render(judged(run))
    for path in (rendered.html, rendered.markdown, *rendered.pictures):
        assert "<script>alert" not in path.read_text(encoding="utf-8")
    for path in rendered.pictures:
        ElementTree.parse(path)  # noqa: S314  # written a moment ago by us


# --- pictures --------------------------------------------------------------------------------------------


def test_every_picture_is_well_formed_and_says_what_it_shows(passing: Path) -> None:
    rendered = render(passing)
    names = {path.stem for path in rendered.pictures}
    assert {"story", "rate", "goodput", "latency", "queue", "success-0", "success-1", "success-2"} == names
    for path in rendered.pictures:
        root = ElementTree.parse(path).getroot()  # noqa: S314  # written a moment ago by us
        title, description = root[0], root[1]
        assert title.tag.endswith("}title")
        assert title.text
        assert description.tag.endswith("}desc")
        assert len(description.text or "") > 60
        assert "http" not in path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")


def test_the_pictures_marks_lead_to_rows_of_the_timeline(passing: Path) -> None:
    html = render(passing).html.read_text(encoding="utf-8")
    marks = set(re.findall(r'<a href="#(t\d+)"><title>', html))
    rows = set(re.findall(r'<tr id="(t\d+)"', html))
    assert len(marks) >= 5
    assert marks <= rows


# --- whatever a run leaves behind ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scenario",
    [
        "fail",
        "few-samples",
        "dropped",
        "lost-jobs",
        "no-ledger",
        "unhealthy-baseline",
        "not-bitten",
        "dirty",
        "unverified",
        "guard",
        "aborted",
        "no-alert",
        "no-runbook-start",
        "runbook-failed",
    ],
)
def test_every_kind_of_run_has_its_review(tmp_path: Path, scenario: str) -> None:
    run = make(tmp_path / "run", scenario)
    page = page_of(run)
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert not page.unbalanced
    markdown = (run / "review.md").read_text(encoding="utf-8")
    assert "None" not in re.sub(r"<!--.*?-->", "", markdown).replace("None: nothing was injected", "")
    assert not lint(markdown)


@pytest.mark.parametrize("file", ["plan.json", "verdict.json", "runbook.md", "load/worker-0.records"])
def test_what_is_missing_is_said_and_the_rest_is_told(passing: Path, tmp_path: Path, file: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(passing, run)
    (run / file).unlink()
    rendered = render(run)
    text = rendered.markdown.read_text(encoding="utf-8")
    assert "### Timeline" in text
    assert not Page(rendered.html.read_text(encoding="utf-8")).unbalanced
    said = {"plan.json": "plan.json is not in", "verdict.json": "NOT JUDGED", "runbook.md": "no criteria",
            "load/worker-0.records": "no requests were recorded"}  # fmt: skip
    assert said[file] in text.replace("\\", "")


def test_a_journal_cut_anywhere_still_has_a_review(passing: Path, tmp_path: Path) -> None:
    whole = (passing / "journal.ndjson").read_bytes()
    lines = whole.splitlines(keepends=True)
    for kept in (1, 3, 25, 60, len(lines) // 2, len(lines) - 3):
        run = tmp_path / f"cut-{kept}"
        shutil.copytree(passing, run)
        (run / "verdict.json").unlink()
        (run / "journal.ndjson").write_bytes(b"".join(lines[:kept]) + lines[kept][:20])
        page = page_of(run)
        assert {link[1:] for link in page.links} <= set(page.ids)
        assert "torn line" in (run / "review.md").read_text(encoding="utf-8")


def test_a_directory_without_a_journal_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="journal"):
        render(tmp_path)


def test_a_wall_clock_that_jumps_moves_no_row_and_is_told_of(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    times = re.compile(r"^\| (\d\d:\d\d:\d\d\.\d{3}) \|", re.MULTILINE)
    before = times.findall(render(run).markdown.read_text(encoding="utf-8"))
    path = run / "journal.ndjson"
    path.write_text(path.read_text(encoding="utf-8").replace("T20:15:", "T23:15:"), encoding="utf-8")
    text = render(run).markdown.read_text(encoding="utf-8")
    assert times.findall(text) == before
    assert "wall clock strayed" in text


def test_a_guard_that_tripped_says_how_soon_the_revert_began(tmp_path: Path) -> None:
    run = make(tmp_path / "run", "guard")
    tripped, reverts = [], []
    for at_ms, event in read_events(run):
        tripped += [at_ms] if isinstance(event, ev.GuardTripped) else []
        reverts += [at_ms] if isinstance(event, ev.RevertStarted) and event.cause == "guard" else []
    text = render(run).markdown.read_text(encoding="utf-8")
    assert re.search(rf"Guard to revert \\| {min(reverts) - tripped[0]:.1f} ms", text)
    assert "Guard to revert" not in render(make(tmp_path / "calm")).markdown.read_text(encoding="utf-8")


def test_a_count_of_some_jobs_is_not_told_as_one_of_all(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    objectives = json.loads((run / "verdict.json").read_bytes())["objectives"]
    for one in objectives:
        one["name"] = one["name"].replace("jobs_doubled", "jobs_doubled{tier=1}")
    change(run / "verdict.json", objectives=objectives)
    review = render(run).markdown.read_text(encoding="utf-8")
    lost, doubled = (
        next(line for line in review.splitlines() if name in line) for name in ("Jobs lost", "Jobs done twice")
    )
    assert "asks about" not in lost
    assert "Of those that jobs_doubled{tier=1} = 0 (whole run) asks about, no others." in doubled.replace("\\", "")


def test_a_review_calls_each_phase_as_people_do(tmp_path: Path) -> None:
    phases = Phases(5.0, 20.0, 30.0, 20.0, 15.0)
    run = make(tmp_path / "run", phases=phases, extra_objectives=(objective("failback", SUCCESS_98),))
    review = render(run)
    text = review.markdown.read_text(encoding="utf-8").partition("## Journal")[0]
    assert "| fail-back |" in text
    assert not re.search(r"failback|warmup", text)
    assert '<span class="window">fail-back</span>' in review.html.read_text(encoding="utf-8")


def test_the_command_that_reproduces_a_run_can_be_typed_as_it_stands(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    events = [
        (
            at_ms,
            dataclasses.replace(event, settings={"region": "eu west"}) if isinstance(event, ev.RunStarted) else event,
        )
        for at_ms, event in read_events(run)
    ]
    change_journal(run, events)
    review = render(judged(run)).markdown.read_text(encoding="utf-8")
    assert "--target process --set 'region=eu west' --seed" in review
