"use strict";
(() => {
  const at = (id) => document.getElementById(`reader-${id}`);
  const root = document.getElementById("reader");
  const { lowest, highest, chains } = JSON.parse(at("data").textContent);
  let shown = [];
  let chain = null;
  let here = 0;

  const make = (name, text, style) => {
    const element = document.createElement(name);
    if (text !== undefined) element.textContent = text;
    if (style) element.className = style;
    return element;
  };
  const draw = (name, attributes, style) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (style) element.setAttribute("class", style);
    return element;
  };
  const signed = (value) => (value < 0 ? "\u2212" : "+") + Math.abs(value).toFixed(2);
  const percent = (value) => `${Math.round(100 * value)} %`;
  const plural = (count, name) => `${count} ${name}${count === 1 ? "" : "s"}`;
  const kept = (one) => one.thoughts.filter((thought) => thought.keep).length;

  function fact(name, value, more) {
    const element = make("span", `${name} `);
    element.append(make("b", value));
    if (more) element.append(make("span", ` ${more}`, "range"));
    return element;
  }

  function facts(thought, index) {
    const row = make("div", undefined, "reader-facts");
    row.append(
      make("b", `${index + 1}`),
      thought.keep ? make("span", "long", "tag long") : make("span", "compressed", "tag"),
      make("span", [...new Set([thought.kind, thought.label])].filter(Boolean).join(" / ")),
      fact("M", signed(thought.m), `bound ${thought.bound.toFixed(2)}`),
      fact("p̂", percent(thought.p),
        `[${percent(thought.p_low)} – ${percent(thought.p_high)}], ${thought.right} of ${thought.samples}`),
      fact("δ", thought.delta.toFixed(2)),
      fact("flip", percent(thought.flip)),
      fact("tokens", `${thought.tokens}`),
    );
    if (thought.surprise !== null) row.append(fact("surprise", thought.surprise.toFixed(2), "nats"));
    return row;
  }

  function item(thought, index) {
    const element = make("li", undefined, thought.keep ? "keep" : "compress");
    const text = make("p", thought.text, "reader-text");
    const side = thought.m < 0 ? "short" : "long";
    const share = Math.min(1, thought.m < 0 ? thought.m / lowest : thought.m / highest);
    text.style.setProperty("--hue", `var(--${side})`);
    text.style.setProperty("--tint", `calc(${share.toFixed(3)} * var(--tint-${side}))`);
    element.append(facts(thought, index), text);
    element.addEventListener("click", () => go(index, false));
    return element;
  }

  function map(one) {
    const zero = 100 * highest / (highest - lowest);
    const count = one.thoughts.length;
    const picture = at("map");
    picture.setAttribute("viewBox", `0 0 ${count} 100`);
    const bars = one.thoughts.map((thought, index) => {
      const height = Math.max(1.5, 100 * Math.abs(thought.m) / (highest - lowest));
      const box = { x: index + 0.1, width: 0.8, y: thought.m < 0 ? zero : zero - height, height };
      return draw("rect", box, `${thought.m < 0 ? "short" : "long"} ${thought.keep ? "" : "compressed"}`);
    });
    const points = [one.start, ...one.thoughts.map((thought) => thought.p)];
    picture.replaceChildren(
      draw("rect", { x: 0, y: 0, width: 1, height: 100 }, "here"),
      ...bars,
      draw("line", { x1: 0, x2: count, y1: zero, y2: zero }),
      draw("polyline", { points: points.map((p, index) => `${index},${96 - 92 * p}`).join(" ") }),
    );
  }

  function go(index, scroll = true) {
    const items = at("thoughts").children;
    if (!items.length) return;
    items[here]?.removeAttribute("aria-current");
    here = Math.max(0, Math.min(index, items.length - 1));
    items[here].setAttribute("aria-current", "step");
    at("map").querySelector(".here").setAttribute("x", here);
    if (scroll) items[here].scrollIntoView({ block: "nearest", behavior: "instant" });
  }

  function open(one) {
    chain = one;
    here = 0;
    const { thoughts } = one;
    at("problem").textContent = one.problem;
    at("about").textContent = `answer ${one.answer} · ${plural(thoughts.length, "thought")}, ` +
      `${kept(one)} long · ${one.tokens} tokens · accuracy ${percent(one.start)} without thoughts, ` +
      `${percent(thoughts[thoughts.length - 1].p)} with all · ${one.id}`;
    map(one);
    at("thoughts").replaceChildren(...thoughts.map(item));
    at("thoughts").scrollTop = 0;
    go(0, false);
    for (const button of at("list").querySelectorAll("button")) {
      const current = shown[button.dataset.place] === one;
      button.toggleAttribute("aria-current", current);
      if (current) bring(button);
    }
    at("previous").disabled = shown.indexOf(one) <= 0;
    at("next").disabled = shown.indexOf(one) >= shown.length - 1;
  }

  // scrolls the list alone: scrollIntoView would move the page too
  function bring(button) {
    const list = at("list");
    const top = button.offsetTop;
    if (top < list.scrollTop || top + button.offsetHeight > list.scrollTop + list.clientHeight) list.scrollTop = top;
  }

  function turn(by) {
    const place = shown.indexOf(chain) + by;
    if (!shown[place]) return;
    open(shown[place]);
    if (at("head").getBoundingClientRect().top < 0) at("head").scrollIntoView({ block: "start" });
  }

  function entry(one, place) {
    const button = make("button");
    button.type = "button";
    button.dataset.place = place;
    button.append(make("span", one.problem), make("small",
      `${plural(one.thoughts.length, "thought")} · ${kept(one)} long · ${one.right ? "correct" : "incorrect"}`));
    button.addEventListener("click", () => open(one));
    const element = make("li");
    element.append(button);
    return element;
  }

  function filter() {
    const words = at("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const end = at("end").value;
    const least = Number(at("least").value) || 1;
    const most = Number(at("most").value) || Infinity;
    shown = chains.filter((one) =>
      words.every((word) => one.problem.toLowerCase().includes(word)) &&
      (!end || one.right === (end === "right")) &&
      one.thoughts.length >= least && one.thoughts.length <= most);
    at("count").textContent = `${shown.length} of ${plural(chains.length, "chain")}`;
    at("list").replaceChildren(...shown.map(entry));
    if (shown.length) open(shown.includes(chain) ? chain : shown[0]);
  }

  const keys = {
    j: () => go(here + 1), ArrowDown: () => go(here + 1), k: () => go(here - 1), ArrowUp: () => go(here - 1),
    n: () => turn(1), ArrowRight: () => turn(1), p: () => turn(-1), ArrowLeft: () => turn(-1),
    Home: () => go(0), End: () => go(Infinity), "/": () => at("search").focus(),
  };

  function pressed(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || event.target.closest("input, select, textarea")) return;
    const arrows = event.key.length > 1;
    // letters work wherever the reader is in view; keys that scroll a page only while the focus is in it
    const mine = root.contains(document.activeElement) || (!arrows && inView());
    if (!mine || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  }

  function inView() {
    const box = root.getBoundingClientRect();
    return document.activeElement === document.body && box.top < innerHeight / 2 && box.bottom > innerHeight / 2;
  }

  root.hidden = false;
  root.style.setProperty("--zero", `${(100 * -lowest / (highest - lowest)).toFixed(1)}%`);
  for (const id of ["search", "end", "least", "most"]) at(id).addEventListener("input", filter);
  at("previous").addEventListener("click", () => turn(-1));
  at("next").addEventListener("click", () => turn(1));
  at("map").addEventListener("click", (event) => {
    const box = at("map").getBoundingClientRect();
    go(Math.floor((event.clientX - box.left) / box.width * chain.thoughts.length));
  });
  document.addEventListener("keydown", pressed);
  filter();
})();
