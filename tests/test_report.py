"""The report: one page that holds everything, says everything, and asks nobody."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import shutil
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from report_cases import Page, claim, verdicts

from pcsim.experiment import Run
from pcsim.experiment_battery import describe
from pcsim.experiment_folder import save_figures
from pcsim.provenance import provenance
from pcsim.report import write_report
from pcsim.stimuli.thumbnails import Thumbnails
from pcsim.stimulus import stimulus_array
from pcsim.storage import write_json
from pcsim.verdict import Outcome, to_csv


@pytest.fixture
def run(tmp_path, monkeypatch) -> Run:
    # The PDF is drawn in tests/test_report_tables.py and tests/test_report_browser.py.
    draw = "pcsim.report_figures.write_pages"
    monkeypatch.setattr(draw, lambda claims, rows, path: path.write_bytes(b"%PDF"))
    folder = tmp_path / "run"
    settings = {"models": ("RB", "RB-cut"), "seeds": (0, 1, 2), "scale": "quick"}
    run = Run(folder, "correspondence", "Which findings?", "quick", settings, {})
    run.save()
    to_csv(verdicts(), folder / "verdicts.csv")
    write_json(folder / "hypotheses.json", [describe(claim("H10")), describe(claim("H11"))])
    write_json(folder / "provenance.json", provenance(settings, [0, 1, 2]))
    save_figures(run, "state", lambda run: {"figures/H10": Figure((2, 1)), "figure": Figure()})
    return run


@pytest.fixture
def page(run, tmp_path) -> Page:
    write_report([run.folder], tmp_path / "report.html")
    return Page((tmp_path / "report.html").read_text(encoding="utf-8"))


def test_it_needs_no_network_and_no_other_file(page, tmp_path):
    for _, attrs in page.tags:
        for name in ("src", "href", "srcset", "data"):
            target = attrs.get(name) or ""
            assert not target or target.startswith(("#", "data:"))
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert page.all("script") == [{}]
    (policy,) = [a["content"] for a in page.all("meta") if "http-equiv" in a]
    script = re.search("<script>(.*?)</script>", text, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    for reaching in ("fetch(", "XMLHttpRequest", "eval(", "innerHTML", "import(", "http"):
        assert reaching not in script[1]


def test_every_link_leads_somewhere_and_ids_are_unique(page):
    ids = [attrs["id"] for _, attrs in page.tags if attrs.get("id")]
    assert len(set(ids)) == len(ids)
    targets = {attrs["href"] for attrs in page.all("a") if "download" not in attrs}
    assert targets
    assert {target[1:] for target in targets} <= set(ids)
    labels = {attrs["aria-labelledby"] for _, attrs in page.tags if attrs.get("aria-labelledby")}
    assert labels <= set(ids)


def test_a_screen_reader_finds_its_way(page):
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("h1")) == 1
    assert len(page.all("caption")) == len(page.all("table"))
    labelled = {attrs["for"] for attrs in page.all("label") if "for" in attrs}
    fields = [*page.all("input"), *page.all("select")]
    assert labelled == {one["id"] for one in fields if "id" in one}
    assert all("id" in one or one["type"] == "checkbox" for one in fields)
    assert all(attrs.get("scope") in ("row", "col") for attrs in page.all("th"))
    assert all(len(attrs["alt"]) > 20 for attrs in page.all("img"))
    assert page.all("a")[0]["class"] == "skip"
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_it_says_all_there_is(page):
    for words in (
        "Which findings?",
        "Cortex <predicts> & subtracts.",
        "Bars of growing length.",
        "error units",
        "Share of end-stopped units.",
        "practically none within [−0.05, 0.05]",
        "0.4 [0.3, 0.7]; remembered",
        "Rao & Ballard 1999",
        "The drop is below 50 %. Noise shows half.",
        "Differs from its source Bars do not drift. Cells are few.",
        "Remembered as well: The length of the bar.",
        "flat (column LCA): No hierarchy.",
        "peak : Peak stays.",
        "0.432 [0.31, 0.5]",
        "−0.0123 [−0.1, 0.08] flat",
        "[0.25, 0.55]",
        "< 0.001",
        "0.042",
        "84 of 96",
        "+ pass",
        "It is there. peak: 0.2 [0.1, 0.3], wanted > 0.",
        "It lacks <error> units :",
        "Machine",
        "Source sha256",
        "0, 1, 2",
    ):
        assert words in page.text, words


def test_the_matrix_has_a_cell_for_each_verdict(page):
    cells = [a for a in page.all("a") if "Expected" in (a.get("title") or "")]
    assert [a["title"] for a in cells] == [
        "H10, RB: QUALITATIVE. Expected: + pass.",
        "H10, RB-cut: N/A. Expected: \N{MINUS SIGN} fail.",
        "H11, RB: REFUTED. Expected: not stated.",
    ]


def drawing(text: str, anchor: str) -> str:
    cell = text[text.index(f'id="{anchor}"') :]
    cell = cell[cell.index('class="drawn"') :]
    return cell[cell.index("<template>") : cell.index("</template>")]


def test_every_judged_cell_has_a_figure_of_its_own(run, tmp_path):
    write_report([run], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    found = drawing(text, "h10-rb")
    # Three replicas of the model and two of the control, each a point; the axis is linear.
    ours = [float(x) for x in re.findall(r"M([\d.]+) 5h0", found)]
    theirs = [float(x) for x in re.findall(r"M([\d.]+) 39h0", found)]
    (effect,) = (float(x) for x in re.findall(r'<circle class="m" cx="([\d.]+)"', found))
    (zero,) = (float(x) for x in re.findall(r'class="null" d="M([\d.]+) ', found))
    scale = (effect - zero) / 0.4321
    assert ours == pytest.approx([zero + scale * v for v in (0.42, 0.43, 0.4463)], abs=0.2)
    assert theirs == pytest.approx([zero + scale * v for v in (-0.05, 0.0131)], abs=0.2)
    # The null at 0 stands on the axis where its tick does.
    assert f'<text x="{zero:g}" y="20">0</text>' in found
    assert "effect of RB with its 95 % interval; dots above: its 3 replicas" in text
    assert "square: strongest control, flat" in text
    assert len(found) < 2000
    # A run of an older version has no replicas, and is still drawn.
    other = drawing(text, "h11-rb")
    assert '<circle class="m"' in other
    assert "h0" not in other


def test_a_drawing_of_many_replicas_stays_small(run, tmp_path):
    one = replace(verdicts()[0], replicas=tuple(np.linspace(0.3, 0.5, 1000)))
    to_csv([one], run.folder / "verdicts.csv")
    write_report([run], tmp_path / "report.html")
    found = drawing((tmp_path / "report.html").read_text(encoding="utf-8"), "h10-rb")
    places = [float(x) for x in re.findall(r"M([\d.]+) 5h0", found)]
    assert len(places) == 40
    assert places == sorted(places)
    assert len(found) < 2000


def test_the_caption_of_a_panel_names_what_it_draws(run, tmp_path, page):
    assert "What the models do" in page.text
    assert "What the models do:" not in page.text
    write_json(run.folder / "panels.json", {"H10": ["RB", "LCA/cut"]})
    write_report([run], tmp_path / "report.html")
    again = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "What the models do: RB, LCA/cut" in again.text
    assert "of RB, LCA/cut" in again.all("img")[0]["alt"]


def test_a_column_that_is_a_control_is_marked(run, tmp_path, page):
    assert "is the control" not in page.text
    rows = verdicts()
    rows[0] = replace(rows[0], verdict=Outcome.NON_SPECIFIC, itself=True)
    to_csv(rows, run.folder / "verdicts.csv")
    write_report([run], tmp_path / "report.html")
    again = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "is the control, effect there" in again.text
    assert ", is a control of the claim, effect present" in again.text
    assert "never evidence for it" in again.text
    (cell,) = [a for tag, a in again.tags if tag == "tbody" and a.get("id") == "h10-rb"]
    assert (cell["data-kept"], cell["data-verdict"]) == ("kept", "NON-SPECIFIC")
    # Six verdicts, then the controls: effect there, open, absent.
    assert "+ pass 0 0 0 0 0 0 1 0 0" in again.text
    marks = [a for _, a in again.tags if a.get("class") == "own-mark"]
    assert len(marks) == 2  # the cell and the legend


def test_the_page_says_which_column_is_the_battery_s(page):
    assert "RB is the battery's RB-sparse" in page.text


def test_the_panel_is_inside(page):
    (image,) = page.all("img")
    assert image["src"].startswith("data:image/svg+xml;base64,")
    assert "H10" in image["alt"]


def test_a_large_svg_gives_way_to_the_png(run, tmp_path):
    svg = run.folder / "figures" / "H10.svg"
    svg.write_bytes(svg.read_bytes() + b" " * 1_600_000)
    write_report([run], tmp_path / "report.html")
    (image,) = Page((tmp_path / "report.html").read_text(encoding="utf-8")).all("img")
    assert image["src"].startswith("data:image/png;base64,")


def test_several_runs_on_one_page(run, tmp_path):
    folder = tmp_path / "whitening"
    other = Run(folder, "whitening", "What does whitening do?", "quick", {"seeds": (0,)}, {})
    other.save()
    save_figures(other, "state", lambda run: {"figure": Figure()})
    write_report([run.folder, folder], tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "What does whitening do?" in page.text
    assert [a["alt"] for a in page.all("img")][-1] == "What does whitening do?"
    ids = [attrs["id"] for _, attrs in page.tags if attrs.get("id")]
    assert len(set(ids)) == len(ids)


def test_runs_of_one_experiment_keep_their_own_files(run, tmp_path):
    other = Run(tmp_path / "other", run.experiment, run.question, "full", run.settings, {})
    other.save()
    to_csv(verdicts()[:1], other.folder / "verdicts.csv")
    for name in ("hypotheses.json", "provenance.json"):
        shutil.copy(run.folder / name, other.folder / name)
    write_report([run.folder, other.folder, run.folder], tmp_path / "report.html")
    effects = [tmp_path / f"report_correspondence{n}_effects.csv" for n in ("", "-2", "-3")]
    sizes = [len(one.read_text(encoding="utf-8").splitlines()) for one in effects]
    assert sizes == [len(verdicts()) + 1, 2, len(verdicts()) + 1]


def test_the_same_run_gives_the_same_bytes(run, tmp_path):
    write_report([run.folder], tmp_path / "a.html")
    write_report([run], tmp_path / "b.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_a_run_of_another_version_is_refused(run, tmp_path):
    texts = describe(claim("H10"))
    del texts["protocol"]
    write_json(run.folder / "hypotheses.json", [texts])
    with pytest.raises(ValueError, match=r"'protocol'.*Run the experiment again"):
        write_report([run], tmp_path / "report.html")


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"without run\.json"):
        write_report([tmp_path], tmp_path / "report.html")
    with pytest.raises(ValueError, match="no runs"):
        write_report([], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_a_page_of_the_largest_battery_stays_small(run, tmp_path):
    keys, models = [f"H{k:02d}" for k in range(35)], [f"MODEL-{k}" for k in range(40)]
    one = verdicts()[0]
    table = [replace(one, hypothesis=key, model=model) for key in keys for model in models]
    to_csv(table, run.folder / "verdicts.csv")
    write_json(run.folder / "hypotheses.json", [describe(claim(key)) for key in keys])
    large = (run.folder / "figures" / "H10.png").read_bytes()
    for key in keys:
        # As large as a figure may be before its PNG is taken, which is smaller still.
        (run.folder / "figures" / f"{key}.svg").write_bytes(b" " * 150_000)
        (run.folder / "figures" / f"{key}.png").write_bytes(large)
    write_report([run], tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size < 15_000_000


def test_it_leaves_the_tables_and_a_pdf_beside_it(run, tmp_path, page):
    names = {path.name for path in tmp_path.glob("report*")}
    tables = {
        f"report_{t}.{s}" for t in ("matrix", "effects", "references") for s in ("csv", "tex")
    }
    assert names == {"report.html", "report.pdf", *tables}
    for attrs in page.all("a"):
        if "download" in attrs:
            data = attrs["href"].split("base64,")[1]
            beside = tmp_path / f"report_{attrs['download']}"
            assert base64.b64decode(data) == beside.read_bytes()


def test_remembered_references_are_listed_and_exclusions_counted(page):
    assert "0 read, 0 computed, 2 remembered." in page.text
    assert "H10 units 12 of 96" in page.text
    assert "RB (12.5 %)" in page.text


def test_expectations_stand_beside_what_came_out(page):
    # RB was expected to pass H10 and is QUALITATIVE.
    assert "+ pass 0 1 0 0 0 0" in page.text
    (cell,) = [a for tag, a in page.tags if tag == "tbody" and a.get("id") == "h10-rb"]
    assert (cell["data-kept"], cell["data-verdict"]) == ("kept", "QUALITATIVE")


def test_stimuli_are_drawn_from_what_the_run_kept(run, tmp_path):
    seen = Thumbnails()
    values = np.random.default_rng(4).uniform(size=(1, 1, 5, 7))
    seen.add(stimulus_array(values, frame_duration=0.3, px_per_deg=16.0, condition="<bar>"))
    (run.folder / "stimuli").mkdir()
    shown = seen.dataset().assign(model="RB")
    shown.to_netcdf(run.folder / "stimuli" / "H10.nc", engine="h5netcdf")
    write_report([run], tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    (image,) = [a for a in page.all("img") if (a["alt"] or "").startswith("Stimulus")]
    data = base64.b64decode((image["src"] or "").split("base64,")[1])
    drawn = np.asarray(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(drawn, (255 * values[0, 0]).round())
    assert "as the protocol gave them to RB" in page.text
    assert "<bar> (0.3 s)" in page.text


def test_a_panel_is_watched_for_what_it_asks_by_name():
    from pcsim.experiment_figures import Asked

    found = Asked({"RB": [1], "LN": [2], "LN/cut": [3]})
    assert not found.get("DN")
    assert list(found.values()) == [[1], [2], [3]]
    assert [name for name, _ in found.items()] == ["RB", "LN", "LN/cut"]
    assert found.names == []
    assert found["LN/cut"] == [3]
    assert found.get("RB") == [1]
    assert found["LN/cut"] == [3]
    assert found.names == ["LN/cut", "RB"]
