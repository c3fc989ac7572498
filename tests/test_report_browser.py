"""The report in a browser: no network, no error, sorting, filters, keys, dialog, widths, print.

Chromium is driven over its DevTools protocol; without it, or without a WebSocket client, skipped.
"""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path

import pytest
from browser_driver import CHROMIUM, Browser, connect

from pcsim.experiment import Run
from pcsim.experiment_battery import describe
from pcsim.hypothesis import Control, Hypothesis, Reference
from pcsim.provenance import provenance
from pcsim.report import write_report
from pcsim.storage import write_json
from pcsim.verdict import Outcome, Verdict, to_csv

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
    pytest.mark.skipif(connect is None, reason="needs the package websockets"),
]

NASTY = "</script><script>window.hurt = 1</script><img src=x onerror='window.hurt = 1'>"
MODELS = ["RB", "LN", 'a "quoted" <b>', *(f"M{k}" for k in range(17))]
RANK = ["SUPPORTED", "QUALITATIVE", "NON-SPECIFIC", "INCONCLUSIVE", "REFUTED", "N/A"]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    one = Browser(tmp_path_factory.mktemp("chromium"))
    yield one
    one.close()


def claim(number: int) -> Hypothesis:
    return Hypothesis(
        id=f"H{number:02d}",
        name=f"Name {number} {NASTY if number == 2 else ''}",
        claim=NASTY,
        family=("V1", "retina")[number % 2],
        protocol=f"Protocol {number}.",
        statistic="A share.",
        signal="error units",
        falsified_if="It is absent.",
        observe=lambda *a, **k: None,
        variables=("share",),
        controls=(Control(name="flat", statement="None.", variant="LCA"),),
        reference=Reference(value=0.5, interval=(0.4, 0.6), status="read", source=NASTY),
        rope=(-0.05, 0.05),
    )


def verdict(hypothesis: Hypothesis, model: str, place: int) -> Verdict:
    shared = {
        "hypothesis": hypothesis.id, "version": 1, "family": hypothesis.family, "model": model,
    }  # fmt: skip
    outcome = Outcome(RANK[place % 6])
    if outcome == Outcome.NA:
        return Verdict(**shared, verdict=outcome, reason=f"No signal. {NASTY}", expectation="-")
    value = 0.1 * place - 0.5
    return Verdict(
        **shared, verdict=outcome, effect=value, low=value - 0.1, high=value + 0.1, control="flat",
        control_effect=0.0, control_low=-0.1, control_high=0.1, difference_low=0.0,
        difference_high=0.2, p=0.01, p_holm=0.02, n_replicas=3, n_included=9, n_total=10,
        reference_low=0.4, reference_high=0.6, reference_status="read",
        expectation="+-?"[place % 3], reason="Because.", seeds=(0, 1, 2),
        replicas=(value - 0.05, value, value + 0.05), control_replicas=(-0.05, 0.0, 0.05),
        itself=model == "LN",
    )  # fmt: skip


CLAIMS = [claim(number) for number in range(1, 9)]
VERDICTS = [
    verdict(one, model, 5 * i + 7 * j)
    for i, one in enumerate(CLAIMS)
    for j, model in enumerate(MODELS)
]


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    settings = {"models": tuple(MODELS), "seeds": (0, 1, 2), "scale": "quick"}
    Run(folder, "correspondence", "Which findings?", "quick", settings, {}).save()
    to_csv(VERDICTS, folder / "verdicts.csv")
    write_json(folder / "hypotheses.json", [describe(one) for one in CLAIMS])
    write_json(folder / "provenance.json", provenance(settings, [0, 1, 2]))
    write_report([folder], folder / "report.html")
    return folder / "report.html"


def rows(browser: Browser) -> list[str]:
    return browser.js(
        "[...document.querySelectorAll('.matrix tbody tr')].filter(r => !r.hidden)"
        ".map(r => r.querySelector('b').textContent)"
    )


def click(browser: Browser, selector: str) -> None:
    browser.js(f"document.querySelector({json.dumps(selector)}).click()")


def test_it_loads_alone_and_without_a_word(browser, page):
    browser.open(page)
    assert [url for url in browser.asked() if not url.startswith("data:")] == [page.as_uri()]
    assert browser.complaints() == []
    assert browser.js("window.hurt === undefined")
    assert browser.js("document.querySelectorAll('script').length") == 1
    assert NASTY in browser.js("document.querySelector('.statement').textContent")


def test_its_policy_stops_any_other_script(browser, page):
    browser.open(page)
    browser.js(
        "(() => { const one = document.createElement('script'); one.textContent = 'hurt = 2';"
        " document.body.append(one); })()"
    )
    assert browser.js("window.hurt === undefined")
    assert any("Content Security Policy" in text for text in browser.complaints())


def test_the_dialog_of_every_judged_cell_has_a_figure_with_its_model(browser, page):
    browser.open(page)
    look = (
        "f => [f.querySelectorAll('circle.m').length, f.querySelectorAll('path.r.m').length,"
        "f.querySelectorAll('svg').length, f.querySelector('figcaption').textContent]"
    )
    cells = browser.js(
        "[...document.querySelectorAll('.matrix td a')].map(a => { a.click();"
        f"return [...document.querySelectorAll('dialog figure.strip')].map({look}); }})"
    )
    for one, found in zip(VERDICTS, cells, strict=True):
        if one.verdict == Outcome.NA:
            assert found == []
            continue
        ((discs, dots, drawings, words),) = found
        assert (discs, dots, drawings) == (1, 1, 2)
        assert f"effect of {one.model} with" in words
        assert "its 3 replicas" in words
    assert browser.complaints() == []


@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits(browser, page, width):
    browser.open(page, width)
    assert browser.js("document.documentElement.scrollWidth") <= width
    click(browser, ".matrix td a")
    assert browser.js("document.documentElement.scrollWidth") <= width
    box = browser.js(
        "(r => [r.left, r.right])(document.querySelector('dialog').getBoundingClientRect())"
    )
    assert 0 <= box[0] < box[1] <= width
    assert browser.js("(d => d.scrollWidth - d.clientWidth)(document.querySelector('dialog'))") <= 0


def test_columns_sort_by_verdict_and_back(browser, page):
    browser.open(page)
    found = {one.hypothesis: RANK.index(str(one.verdict)) for one in VERDICTS if one.model == "LN"}
    original = [one.id for one in CLAIMS]
    heading = ".matrix th[data-model=LN]"
    click(browser, f"{heading} button")
    assert browser.js(f"document.querySelector('{heading}').ariaSort") == "ascending"
    ranks = [found[key] for key in rows(browser)]
    assert ranks == sorted(ranks)
    assert len(set(ranks)) > 2
    assert "Sorted by LN, ascending." in browser.js("document.querySelector('.state').textContent")
    click(browser, f"{heading} button")
    assert [found[key] for key in rows(browser)] == sorted(ranks, reverse=True)
    click(browser, ".matrix .corner button")
    assert browser.js(f"document.querySelector('{heading}').ariaSort") is None
    click(browser, ".matrix .corner button")
    assert rows(browser) == original[::-1]
    click(browser, ".matrix .corner button")
    assert rows(browser) == original


def test_numbers_sort_as_numbers(browser, page):
    browser.open(page)
    column = "#h01 .numbers tbody td[data-label=Effect]"
    click(browser, "#h01 .numbers th:nth-child(5) button")
    values = browser.js(f"[...document.querySelectorAll('{column}')].map(c => +c.dataset.value)")
    wanted = sorted(v.effect for v in VERDICTS if v.hypothesis == "H01" and v.effect is not None)
    assert values == pytest.approx(wanted)
    assert min(wanted) < 0 < 1 < max(wanted)


def choose(browser: Browser, name: str, value: str) -> None:
    """Set a field of the filters, as typing or choosing would."""
    browser.js(
        f"(f => {{ f.value = {json.dumps(value)}; f.dispatchEvent(new Event('input', "
        f"{{bubbles: true}})) }})(document.querySelector('[name={name}]'))"
    )


def show_all(browser: Browser) -> None:
    click(browser, "button[type=reset]")
    browser.js("new Promise(done => setTimeout(done, 20))")


def state(browser: Browser) -> str:
    return browser.js("document.querySelector('.state').textContent")


def test_filters_by_family_verdict_model_words_and_expectation(browser, page):
    browser.open(page)
    assert state(browser).startswith("8 of 8 hypotheses, 20 of 20 models, 160 cells.")
    click(browser, "input[name=family][value=V1]")
    assert rows(browser) == [one.id for one in CLAIMS if one.family == "retina"]
    assert browser.js("getComputedStyle(document.querySelector('#h02')).display") == "none"
    show_all(browser)
    for name in RANK[1:]:
        click(browser, f"input[name=verdict][value='{name}']")
    n = sum(one.verdict == Outcome.SUPPORTED for one in VERDICTS)
    assert f"{n} cells" in state(browser)
    shown = browser.js(
        "[...document.querySelectorAll('.matrix td')].filter(c => c.checkVisibility() &&"
        " !c.classList.contains('off')).map(c => c.dataset.verdict)"
    )
    assert shown == ["SUPPORTED"] * n
    show_all(browser)
    click(browser, "[data-models=none]")
    assert rows(browser) == []
    click(browser, "input[name=model][value=RB]")
    assert "1 of 20 models, 8 cells" in state(browser)
    click(browser, "[data-models=all]")
    choose(browser, "find", "h03")
    assert rows(browser) == ["H03"]
    show_all(browser)
    choose(browser, "kept", "against")
    against = [
        one
        for one in VERDICTS
        if (one.expectation, str(one.verdict))
        in {("+", "REFUTED"), ("+", "NON-SPECIFIC"), ("-", "SUPPORTED"), ("-", "QUALITATIVE")}
    ]
    assert f"{len(against)} cells" in state(browser)


def test_models_can_be_ordered_by_what_they_passed(browser, page):
    browser.open(page)
    choose(browser, "order", "passed")
    passed = {
        model: sum(v.verdict in ("SUPPORTED", "QUALITATIVE") for v in VERDICTS if v.model == model)
        for model in MODELS
    }
    heads = (
        "[...document.querySelectorAll('.matrix thead th[data-model]')].map(h => h.dataset.model)"
    )
    counts = [passed[name] for name in browser.js(heads)]
    assert counts == sorted(counts, reverse=True)
    assert len(set(counts)) > 1
    assert browser.js(
        "[...document.querySelectorAll('.matrix tbody tr')].every(r => [...r.cells].slice(1)"
        ".every((c, k) => c.dataset.model === document.querySelectorAll('.matrix thead"
        " th[data-model]')[k].dataset.model))"
    )


def test_keys_alone_reach_every_cell_and_open_it(browser, page):
    browser.open(page)
    stops = (
        "[...document.querySelectorAll('.matrix a, .matrix button')].filter(e => e.tabIndex === 0)"
    )
    assert browser.js(f"{stops}.length") == 1
    browser.press("Tab", 9)
    assert browser.js("document.activeElement.className") == "skip"
    browser.js(f"{stops}[0].focus()")
    for key, code in (("ArrowDown", 40), ("ArrowRight", 39), ("ArrowRight", 39), ("ArrowDown", 40)):
        browser.press(key, code)
    title = browser.js("document.activeElement.title")
    assert title.startswith("H02, LN: ")
    assert browser.js(f"{stops}.length") == 1
    browser.press("Enter", 13)
    assert browser.js("document.querySelector('dialog').open")
    assert browser.js("document.querySelector('dialog').contains(document.activeElement)")
    text = browser.js("document.querySelector('dialog').textContent")
    one = next(v for v in VERDICTS if (v.hypothesis, v.model) == ("H02", "LN"))
    for words in (f"LN: {one.verdict}", "Protocol 2.", "It is absent.", "0.5 [0.4, 0.6]", "flat"):
        assert words in " ".join(text.split())
    assert browser.js("window.hurt === undefined")
    ids = "[...document.querySelectorAll('[id]')].map(e => e.id)"
    assert browser.js(f"new Set({ids}).size === {ids}.length")
    click(browser, "[data-do=next]")
    assert browser.js("document.querySelector('#cell-title').textContent").startswith(MODELS[2])
    browser.press("Escape", 27)
    assert not browser.js("document.querySelector('dialog').open")
    # The event that gives the focus back comes after the dialog has closed.
    for _ in range(100):
        if browser.js("document.activeElement.title").startswith(f"H02, {MODELS[2]}: "):
            return
        time.sleep(0.02)
    raise AssertionError(browser.js("document.activeElement.title"))


def test_a_screen_reader_hears_names_for_everything_that_acts(browser, page):
    browser.open(page)
    nodes = browser("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "checkbox", "searchbox", "combobox", "link", "grid", "region", "form"}
    acting = [n for n in nodes if n.get("role", {}).get("value") in roles and not n.get("ignored")]
    assert len(acting) > 150
    assert [n for n in acting if not n.get("name", {}).get("value", "").strip()] == []
    cell = next(
        n["name"]["value"] for n in acting
        if n["role"]["value"] == "link" and "expected" in n.get("name", {}).get("value", "")
    )  # fmt: skip
    assert any(word.lower() in cell.lower() for word in RANK)


def test_without_scripts_everything_is_there(browser, page):
    browser("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(page)
        found = browser(
            "DOM.getOuterHTML", nodeId=browser("DOM.getDocument", depth=-1)["root"]["nodeId"]
        )
        assert found["outerHTML"].count('class="cell"') == len(VERDICTS)
        assert browser.js("document.querySelector('form.filters').hidden")
    finally:
        browser("Emulation.setScriptExecutionDisabled", value=False)


def test_it_prints(browser, page, tmp_path):
    browser.open(page)
    data = browser("Page.printToPDF", printBackground=True, preferCSSPageSize=True)["data"]
    pdf = base64.b64decode(data)
    assert pdf.startswith(b"%PDF")
    # At most a page or two a hypothesis, not one a cell.
    assert (
        len(CLAIMS) <= pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") <= 4 * len(CLAIMS)
    )
    browser("Emulation.setEmulatedMedia", media="print")
    try:
        assert browser.js("getComputedStyle(document.querySelector('.filters')).display") == "none"
    finally:
        browser("Emulation.setEmulatedMedia", media="")
