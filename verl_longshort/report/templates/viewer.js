"use strict";
for (const root of document.querySelectorAll(".viewer[data-source]")) (() => {
  const { evaluations, problems, rows, first } = JSON.parse(document.getElementById(root.dataset.source).textContent);
  const form = root.querySelector("form");
  const list = root.querySelector(".list");
  const count = root.querySelector(".count");
  const chosen = root.querySelector(".chosen-problem");
  const [back, forward] = root.querySelectorAll("[data-step]");
  const PAGE = 20;
  const ROLES = { long: "long", short: "short" };
  let found = rows;
  let page = 0;
  let problem = null;

  for (const row of rows) row.tokens = row.turns.reduce((sum, turn) => sum + turn[2], 0);

  // All text goes in as text: nothing a model wrote is ever read as HTML.
  function make(tag, className, ...children) {
    const node = document.createElement(tag);
    if (className) node.className = className;
    node.append(...children);
    return node;
  }

  function haystack(row) {
    row.text ??= [problems[row.p], ...row.turns.map((turn) => turn[1])].join("\n").toLowerCase();
    return row.text;
  }

  function fits(row, wanted, words) {
    return (problem === null || row.p === problem)
      && (!wanted.evaluation || row.e === Number(wanted.evaluation))
      && (!wanted.verdict || row.right === (wanted.verdict === "right"))
      && (!wanted.stop || row.stop === wanted.stop)
      && (!wanted.turns || row.turns.length === Number(wanted.turns))
      && (!words || haystack(row).includes(words));
  }

  function apply() {
    const wanted = Object.fromEntries(new FormData(form));
    const words = wanted.text.trim().toLowerCase();
    found = rows.filter((row) => fits(row, wanted, words));
    if (wanted.order) {
      const sign = wanted.order === "long" ? -1 : 1;
      found.sort((one, other) => sign * (one.tokens - other.tokens));
    }
    page = 0;
    show();
  }

  function show() {
    const first = page * PAGE;
    const part = found.slice(first, first + PAGE);
    const right = found.filter((row) => row.right).length;
    count.textContent = found.length
      ? `${first + 1}–${first + part.length} of ${found.length} · ${(100 * right / found.length).toFixed(1)} % correct`
      : "No trajectory fits.";
    back.disabled = page === 0;
    forward.disabled = first + PAGE >= found.length;
    chosen.hidden = problem === null;
    if (problem !== null) chosen.replaceChildren(problemNote());
    list.replaceChildren(...part.map(entry));
  }

  function problemNote() {
    const all = make("button", "button", "Show all problems");
    all.type = "button";
    all.addEventListener("click", () => { problem = null; apply(); });
    return make("span", "", "Answers to one problem: ", make("code", "", problems[problem]), " ", all);
  }

  function entry(row) {
    const verdict = make("span", row.right ? "mark right" : "mark wrong", row.right ? "✓" : "✗");
    verdict.setAttribute("aria-label", row.right ? "correct" : "incorrect");
    verdict.setAttribute("role", "img");
    const facts = `${row.turns.length} turn${row.turns.length === 1 ? "" : "s"} · ${row.tokens} tokens`;
    const summary = make("summary", "",
      verdict,
      make("span", "name", evaluations[row.e]),
      make("span", "problem mono", problems[row.p]),
      make("span", "about", facts),
      make("span", row.stop === "answered" ? "tag stop" : "tag stop odd", row.stop.replaceAll("_", " ")));
    const details = make("details", "entry", summary);
    details.addEventListener("toggle", () => {
      if (details.open && details.childElementCount === 1) details.append(body(row));
    });
    return details;
  }

  function body(row) {
    const same = make("button", "button", "All answers to this problem");
    same.type = "button";
    same.addEventListener("click", () => {
      form.reset();
      setTimeout(() => { problem = row.p; apply(); root.scrollIntoView(); });
    });
    const terms = Object.entries(row.terms).map(([name, value]) =>
      make("span", "term", `${name} `, make("b", "", String(value).replace("-", "−"))));
    return make("div", "body",
      make("p", "asked", make("b", "", "Problem "), make("span", "mono", problems[row.p])),
      ...row.turns.map(turn),
      make("div", "foot",
        make("span", "term", "true answer ", make("b", "mono", String(row.truth))), ...terms, same));
  }

  function turn([role, text, tokens, fault], index) {
    const known = ROLES[role] ?? "alone";
    const head = make("div", "head",
      make("span", `tag ${known}`, role), ` turn ${index + 1} · ${tokens} tokens`);
    if (fault) head.append(" ", make("span", "tag odd", fault.replaceAll("_", " ")));
    const node = make("pre", "");
    // The protocol's tags are dimmed, the boxed answer stands out.
    for (const piece of text.split(/(<\/?think>|<\/?answer>|<\/rethink>|\\boxed\s*\{[^{}]*\})/)) {
      if (!piece) continue;
      const special = piece.startsWith("\\boxed") ? "boxed" : /^<\/?(think|answer|rethink)>$/.test(piece) ? "protocol" : "";
      node.append(special ? make("span", special, piece) : piece);
    }
    return make("div", `turn ${known}`, head, node);
  }

  let waiting = 0;
  form.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(apply, 120); });
  form.addEventListener("submit", (event) => { event.preventDefault(); apply(); });
  form.addEventListener("reset", () => { problem = null; setTimeout(apply); });
  for (const button of [back, forward]) {
    button.addEventListener("click", () => { page += Number(button.dataset.step); show(); });
  }
  form.elements.evaluation.value = first ?? "";
  apply();
})();
