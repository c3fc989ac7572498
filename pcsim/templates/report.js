"use strict";
// Sorting, filters, keys and the cell's dialog. The page is whole without them. Nothing here makes
// markup out of text: nodes are moved, cloned, or filled by textContent.
(() => {
  const RANK = ["SUPPORTED", "QUALITATIVE", "NON-SPECIFIC", "INCONCLUSIVE", "REFUTED", "N/A", ""];
  const all = (selector, root) => [...root.querySelectorAll(selector)];
  const make = (tag, text, name) => {
    const node = document.createElement(tag);
    if (text) node.textContent = text;
    if (name) node.className = name;
    return node;
  };

  // --- sorting -------------------------------------------------------------------------------
  // A heading cycles: ascending, descending, as it was.
  function sortable(heading, say, order) {
    const button = make("button", heading.textContent.trim(), "sort");
    button.type = "button";
    heading.replaceChildren(button);
    button.addEventListener("click", () => {
      const next = { none: "ascending", ascending: "descending", descending: "none" };
      const way = next[heading.getAttribute("aria-sort") || "none"];
      for (const other of heading.parentNode.children) other.removeAttribute("aria-sort");
      if (way !== "none") heading.setAttribute("aria-sort", way);
      order(way);
      say(way === "none" ? "Original order." : `Sorted by ${button.textContent}, ${way}.`);
    });
  }

  function reorder(parent, rows, key, way) {
    const sign = way === "descending" ? -1 : 1;
    const compare = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      return sign * (typeof x === "number" ? x - y : String(x).localeCompare(String(y), "en", { numeric: true }));
    };
    parent.append(...(way === "none" ? rows : [...rows].sort(compare)));
  }

  function valueOf(cell) {
    const text = cell ? cell.dataset.value ?? cell.textContent.trim() : "";
    if (RANK.includes(text) && text) return RANK.indexOf(text);
    return text !== "" && Number.isFinite(Number(text)) ? Number(text) : text;
  }

  function sortTable(table, say) {
    const bodies = [...table.tBodies];
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, place) => {
      if (!("sort" in heading.dataset)) return;
      sortable(heading, say, (way) => reorder(table, bodies, (body) => valueOf(body.rows[0].cells[place]), way));
    });
  }

  // --- the matrix ----------------------------------------------------------------------------
  function matrix(article) {
    const table = article.querySelector("table.matrix");
    const form = article.querySelector("form.filters");
    const state = article.querySelector(".state");
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const heads = all("th[data-model]", table.tHead);
    const names = heads.map((head) => head.dataset.model);
    const cell = (row, name) => all("td", row).find((one) => one.dataset.model === name);
    let sorted = "";
    form.hidden = false;
    for (const note of all(".scripted", table)) note.hidden = false;

    const say = (text) => { sorted = text; apply(); };
    sortable(table.tHead.querySelector(".corner"), say, (way) =>
      reorder(body, rows, (row) => row.cells[0].textContent.trim(), way));
    for (const head of heads) {
      sortable(head, say, (way) =>
        reorder(body, rows, (row) => RANK.indexOf(cell(row, head.dataset.model).dataset.verdict), way));
    }
    for (const other of all("table.numbers, table.sources", article)) sortTable(other, say);

    function orderModels(kind) {
      const passed = (name) => rows.filter((row) => ["SUPPORTED", "QUALITATIVE"].includes(cell(row, name).dataset.verdict)).length;
      const order = [...names];
      if (kind === "name") order.sort((a, b) => a.localeCompare(b, "en"));
      if (kind === "passed") order.sort((a, b) => passed(b) - passed(a));
      for (const row of [table.tHead.rows[0], ...rows]) {
        const cells = new Map([...row.cells].slice(1).map((one) => [one.dataset.model, one]));
        row.append(...order.map((name) => cells.get(name)));
      }
    }

    function wanted() {
      const data = new FormData(form);
      return {
        find: String(data.get("find") || "").trim().toLowerCase(),
        kept: String(data.get("kept") || ""),
        verdicts: new Set(data.getAll("verdict")),
        families: new Set(data.getAll("family")),
        models: new Set(data.getAll("model")),
      };
    }

    const fits = (one, want) =>
      want.models.has(one.dataset.model) && want.verdicts.has(one.dataset.verdict) &&
      (!want.kept || one.dataset.kept === want.kept);
    const asked = (one, want) =>
      want.families.has(one.dataset.family) && one.dataset.text.toLowerCase().includes(want.find);

    function apply() {
      const want = wanted();
      const used = new Set();
      let cells = 0;
      let lines = 0;
      for (const row of rows) {
        let any = false;
        for (const one of all("td", row)) {
          const on = asked(row, want) && fits(one, want);
          one.classList.toggle("off", !on);
          if (on) { any = true; cells += 1; used.add(one.dataset.model); }
        }
        row.hidden = !any;
        lines += any;
      }
      for (const one of all("[data-model]", table)) one.hidden = !used.has(one.dataset.model);
      for (const claim of all("section.claim, table.sources tbody", article)) {
        const inside = all(".cell", claim);
        for (const one of inside) one.hidden = !fits(one, want);
        for (const line of all("ul.absent li", claim)) line.hidden = all(".cell", line).every((one) => one.hidden);
        for (const part of all("ul.absent, h3.absent", claim)) {
          part.hidden = all("ul.absent .cell", claim).every((one) => one.hidden);
        }
        claim.hidden = !asked(claim, want) || (inside.length > 0 && inside.every((one) => one.hidden));
      }
      form.querySelector(".shown").textContent =
        want.models.size === names.length ? `all ${names.length}` : `${want.models.size} of ${names.length}`;
      state.textContent =
        `${lines} of ${rows.length} hypotheses, ${used.size} of ${names.length} models, ${cells} cells. ${sorted}`;
      rove(table, null);
    }

    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", (event) => {
      if (event.target.name === "order") orderModels(event.target.value);
      apply();
    });
    form.addEventListener("reset", () => setTimeout(() => { orderModels(""); sorted = ""; apply(); }));
    for (const button of all("[data-models]", form)) {
      button.addEventListener("click", () => {
        for (const box of all("input[name=model]", form)) box.checked = button.dataset.models === "all";
        apply();
      });
    }
    keys(table);
    apply();
    return table;
  }

  // --- keys: the matrix is one stop of the Tab key ------------------------------------------------
  const target = (one) => one.querySelector("a, button");
  const grid = (table) =>
    [...table.rows].filter((row) => !row.hidden)
      .map((row) => [...row.cells].filter((one) => !one.hidden && !one.classList.contains("off") && target(one)));

  function rove(table, chosen) {
    const cells = grid(table).flat();
    const now = chosen || cells.find((one) => target(one).tabIndex === 0 && target(one) === document.activeElement) || cells[0];
    for (const one of all("a, button", table)) one.tabIndex = -1;
    if (now) target(now).tabIndex = 0;
  }

  function keys(table) {
    table.setAttribute("role", "grid");
    for (const one of all("td", table)) one.setAttribute("role", "gridcell");
    for (const one of all("thead th", table)) one.setAttribute("role", "columnheader");
    for (const one of all("tbody th", table)) one.setAttribute("role", "rowheader");
    for (const one of all("tr", table)) one.setAttribute("role", "row");
    for (const one of all("thead, tbody", table)) one.setAttribute("role", "rowgroup");
    table.addEventListener("focusin", (event) => {
      const one = event.target.closest("td, th");
      if (one && target(one) === event.target) rove(table, one);
    });
    table.addEventListener("keydown", (event) => {
      const here = event.target.closest("td, th");
      const lines = grid(table);
      const y = lines.findIndex((line) => line.includes(here));
      if (y < 0) return;
      const x = lines[y].indexOf(here);
      const nearest = (line) => {
        const place = [...here.parentNode.cells].indexOf(here);
        const far = (one) => Math.abs([...one.parentNode.cells].indexOf(one) - place);
        return [...line].sort((a, b) => far(a) - far(b))[0];
      };
      const step = (dy) => {
        for (let k = y + dy; k >= 0 && k < lines.length; k += dy) if (lines[k].length) return nearest(lines[k]);
        return null;
      };
      const moves = {
        ArrowLeft: () => lines[y][x - 1], ArrowRight: () => lines[y][x + 1],
        ArrowUp: () => step(-1), ArrowDown: () => step(1),
        Home: () => lines[y][0], End: () => lines[y][lines[y].length - 1],
      };
      if (!(event.key in moves) || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      const next = moves[event.key]();
      if (next) target(next).focus();
    });
  }

  // --- the dialog of a cell ------------------------------------------------------------------
  const dialog = document.getElementById("cell");
  const inside = document.getElementById("cell-body");
  const title = document.getElementById("cell-title");
  let open = null;

  const copy = (node) => {
    const clone = node.cloneNode(true);
    for (const one of [clone, ...all("[id]", clone)]) one.removeAttribute("id");
    for (const one of [clone, ...all("[tabindex]", clone)]) one.removeAttribute("tabindex");
    clone.hidden = false;
    return clone;
  };

  function numbers(cell) {
    const list = make("dl", "", "facts");
    for (const one of all("td[data-label]:not(.drawn)", cell)) {
      const line = make("div");
      const value = make("dd");
      value.append(...[...one.firstElementChild.childNodes].map((node) => node.cloneNode(true)));
      line.append(make("dt", one.dataset.label), value);
      list.append(line);
    }
    return list;
  }

  // The cell's own figure: its effect, replicas and control on an axis of their own.
  function strip(cell) {
    const drawn = cell.querySelector("td.drawn");
    const figure = make("figure", "", "strip");
    figure.append(drawn.querySelector("template").content.cloneNode(true));
    figure.append(make("figcaption", drawn.dataset.says));
    return figure;
  }

  function fill(link) {
    const cell = document.getElementById(link.hash.slice(1));
    const claim = cell.closest("section.claim");
    const heading = claim.querySelector("h2").textContent.trim();
    title.textContent = `${cell.dataset.model}: ${cell.dataset.verdict}. ${heading}`;
    const parts = [make("p", claim.querySelector(".statement").textContent, "statement")];
    if (cell.matches("tbody")) {
      parts.push(strip(cell), numbers(cell), make("h3", "Why"));
      for (const why of all(".why td", cell)) {
        const text = make("p");
        text.append(...[...why.childNodes].map((node) => node.cloneNode(true)));
        parts.push(text);
      }
    } else {
      const reason = cell.closest("li").querySelector(".reason").textContent;
      parts.push(make("p", `Not applicable: ${reason}. Expected: ${cell.dataset.expected}.`));
    }
    for (const selector of [".figures", "dl.facts"]) {
      const found = claim.querySelector(selector);
      if (found && found.children.length) parts.push(copy(found));
    }
    inside.replaceChildren(...parts);
    open = link;
  }

  function neighbour(step) {
    const links = grid(open.closest("table")).flat().map(target).filter((one) => one.matches("td a"));
    return links[(links.indexOf(open) + step + links.length) % links.length];
  }

  function show(link) {
    fill(link);
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    title.focus();
  }

  dialog.addEventListener("click", (event) => {
    const what = event.target.dataset.do;
    if (what === "close" || event.target === dialog) dialog.close();
    if (what === "next") show(neighbour(1));
    if (what === "previous") show(neighbour(-1));
  });
  dialog.addEventListener("close", () => { if (open) open.focus(); });

  for (const article of all("article", document)) {
    if (!article.querySelector("table.matrix")) continue;
    matrix(article).addEventListener("click", (event) => {
      const link = event.target.closest("td a");
      if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      show(link);
    });
  }
})();
