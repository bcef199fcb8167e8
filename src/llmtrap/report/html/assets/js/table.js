// The table of every matrix: filtered, sorted, and drawn only where it is in view.

const ROW_HEIGHT = 34;

const byColumn = (name) => (index) => column(name)[index];
const HEADINGS = [
  { key: "id", label: "Matrix", get: byColumn("id"), text: byColumn("id"), className: "t-id" },
  { key: "shape", label: "Shape", get: (i) => column("rows")[i] * column("columns")[i], text: (i) => `${column("rows")[i]} × ${column("columns")[i]}`, className: "t-num t-shape" },
  { key: "alpha", label: "α", get: byColumn("alpha"), text: alphaText, className: "t-num t-alpha", tone: alphaTone },
  { key: "traps", label: "Traps", get: byColumn("centred"), text: trapsText, className: "t-num", tone: stateTone },
  { key: "strength", label: "× edge", get: byColumn("strength"), text: (i) => number(column("strength")[i]), className: "t-num" },
  { key: "why", label: "Why", get: byColumn("why"), text: byColumn("why"), className: "t-why" },
  { key: "stableRank", label: "Stable rank", get: byColumn("stableRank"), text: (i) => number(column("stableRank")[i]), className: "t-num" },
  { key: "kurtosis", label: "Kurtosis", get: byColumn("kurtosis"), text: (i) => number(column("kurtosis")[i]), className: "t-num" },
  { key: "maxSigmas", label: "Max, s.d.", get: byColumn("maxSigmas"), text: (i) => number(column("maxSigmas")[i]), className: "t-num" },
  { key: "method", label: "How", get: byColumn("method"), text: (i) => METHODS[column("method")[i]] ?? "–", className: "t-how" },
];
if (data.against) {
  HEADINGS.splice(2, 0,
    { key: "change", label: "Change", get: (i) => CHANGES.indexOf(against("change")[i]), text: (i) => against("words")[i], className: "t-change", tone: (i) => (["new", "stronger"].includes(against("change")[i]) ? "bad" : "") });
  HEADINGS.splice(4, 0,
    { key: "alphaShift", label: "Δα", get: (i) => against("alphaShift")[i], text: (i) => fixed(against("alphaShift")[i]) + (against("moved")[i] ? " *" : ""), className: "t-num" });
}

function alphaTone(index) {
  return { over: "told", under: "cold" }[column("band")[index]] ?? "";
}
/** Red is for what is rare or broken: a trap that published models have too is told in bold. */
function stateTone(index) {
  return { trapped: column("grave")[index] ? "bad" : "told", non_finite: "bad", edge: "doubt", unreliable: "doubt", undecided: "doubt" }[column("state")[index]] ?? "";
}

const is = (name, value) => (index) => column(name)[index] === value;
const CHOICES = [
  { label: "All", test: () => true },
  { label: "New traps", test: (i) => data.against && ["new", "stronger"].includes(against("change")[i]) },
  { label: "Broken values", test: is("state", "non_finite") },
  { label: "With traps", test: is("state", "trapped") },
  { label: "In doubt", test: (i) => column("atEdge")[i] || ["unreliable", "undecided"].includes(column("state")[i]) },
  { label: "Mean shifts", test: (i) => column("meanShift")[i] > 0 },
  { label: "α below 2", test: is("band", "over") },
  { label: "α above 6", test: is("band", "under") },
  { label: "α like noise", test: is("band", "random") },
  { label: "α unreliable", test: is("reliable", 0) },
];

/** The filter is in the address, so that a view can be sent to others. */
function keepInAddress(text) {
  if (text === (filterOfAddress() ?? "")) return;
  history.replaceState(null, "", text ? `#filter=${encodeURIComponent(text)}` : location.pathname + location.search);
}

function filterOfAddress() {
  const named = /^#filter=(.*)$/.exec(location.hash);
  if (!named) return null;
  try {
    return decodeURIComponent(named[1]).slice(0, 400);
  } catch {
    return null;
  }
}

const table = { view: [], sort: { key: "worst", down: false }, choice: CHOICES[0], active: 0 };

function startTable() {
  const port = document.getElementById("table-port");
  const body = document.getElementById("table-body");
  const input = document.getElementById("table-filter");
  const rankOf = new Int32Array(total);
  data.worst.forEach((index, place) => (rankOf[index] = place));
  const words = Array.from({ length: total }, (_, i) => [column("id")[i], column("tensor")[i], column("why")[i], column("encoding")[i]].join(" ").toLowerCase());

  const head = document.getElementById("table-head");
  for (const heading of HEADINGS) {
    const button = make("button", { type: "button", text: heading.label, title: data.texts[TEXT_OF[heading.label]] });
    button.addEventListener("click", () => sortBy(heading));
    head.append(make("th", { scope: "col", className: heading.className, "data-key": heading.key }, [button]));
  }
  document.getElementById("table").setAttribute("aria-colcount", HEADINGS.length);
  document.getElementById("table").classList.toggle("against", data.against !== null);

  const chips = document.getElementById("table-choices");
  for (const choice of CHOICES) {
    let count = 0;
    for (let index = 0; index < total; index++) if (choice.test(index)) count++;
    if (count === 0 && choice !== CHOICES[0]) continue;
    const chip = make("button", { type: "button", "aria-pressed": String(choice === table.choice) }, [
      choice.label, " ", make("span", { text: count.toLocaleString("en-US"), className: "chip-count" }),
    ]);
    chip.addEventListener("click", () => {
      table.choice = choice;
      for (const other of chips.children) other.setAttribute("aria-pressed", String(other === chip));
      refresh();
    });
    chips.append(chip);
  }

  function sortBy(heading) {
    const same = table.sort.key === heading.key;
    // Numbers start with the greatest, names with the first; a third click goes back to worst first.
    const first = !["id", "why", "method", "change"].includes(heading.key);
    if (same && table.sort.down !== first) table.sort = { key: "worst", down: false };
    else table.sort = { key: heading.key, down: same ? !table.sort.down : first };
    refresh();
  }

  /** What one word of the filter fits: a glob the whole id, any other word a part of the name, cause or encoding. */
  function matcher(word) {
    if (!/[*?]/.test(word)) return (index) => words[index].includes(word);
    const pattern = word.replace(/[.+^${}()|[\]\\]/g, "\\$&").replaceAll("*", ".*").replaceAll("?", ".");
    const whole = new RegExp(`^${pattern}$`);
    return (index) => whole.test(column("id")[index].toLowerCase());
  }

  function refresh() {
    const sought = input.value.toLowerCase().split(/\s+/).filter(Boolean).map(matcher);
    keepInAddress(input.value);
    const view = [];
    for (let index = 0; index < total; index++) {
      if (table.choice.test(index) && sought.every((fits) => fits(index))) view.push(index);
    }
    const heading = HEADINGS.find((one) => one.key === table.sort.key);
    view.sort((a, b) => (heading ? compare(heading.get(a), heading.get(b)) : 0) || rankOf[a] - rankOf[b]);
    table.view = view;
    table.active = 0;
    for (const cell of head.children) {
      const now = cell.dataset.key === table.sort.key;
      if (now) cell.setAttribute("aria-sort", table.sort.down ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    }
    document.getElementById("table").setAttribute("aria-rowcount", view.length + 1);
    document.getElementById("table-count").textContent = view.length === total ? matrices(total) : `${view.length.toLocaleString("en-US")} of ${matrices(total)}`;
    document.getElementById("table-order").textContent = heading ? "" : data.against ? "· new, stronger and gone traps first, then worst first" : "· worst first";
    port.scrollTop = 0;
    draw();
  }

  function compare(a, b) {
    if (a === b) return 0;
    if (a === null || a === "") return 1;
    if (b === null || b === "") return -1;
    const order = typeof a === "string" ? COLLATOR.compare(a, b) : a - b;
    return table.sort.down ? -order : order;
  }

  function draw() {
    const held = body.contains(document.activeElement);
    const first = Math.max(0, Math.floor(port.scrollTop / ROW_HEIGHT) - 6);
    const last = Math.min(table.view.length, first + Math.ceil(port.clientHeight / ROW_HEIGHT) + 12);
    const rows = [spacer(first * ROW_HEIGHT)];
    for (let place = first; place < last; place++) rows.push(row(place));
    rows.push(spacer((table.view.length - last) * ROW_HEIGHT));
    body.replaceChildren(...rows);
    if (!table.view.length) body.append(make("tr", { className: "none" }, [make("td", { colspan: HEADINGS.length, text: "No matrix fits this filter." })]));
    if (held) body.querySelector('tr[tabindex="0"]')?.focus({ preventScroll: true });
  }

  function spacer(height) {
    const gap = make("tr", { className: "gap", "aria-hidden": "true" });
    gap.style.height = `${height}px`;
    return gap;
  }

  function row(place) {
    const index = table.view[place];
    const cells = HEADINGS.map((heading) => {
      const text = heading.text(index);
      const tone = heading.tone?.(index);
      return make("td", { text, className: tone ? `${heading.className} ${tone}` : heading.className, title: text.length > 24 ? text : null });
    });
    return make("tr", { tabindex: place === table.active ? "0" : "-1", "aria-rowindex": place + 2, "data-place": place }, cells);
  }

  function go(place) {
    table.active = Math.max(0, Math.min(table.view.length - 1, place));
    const top = table.active * ROW_HEIGHT;
    const room = port.clientHeight - head.offsetHeight - ROW_HEIGHT;
    if (top < port.scrollTop) port.scrollTop = top;
    else if (top > port.scrollTop + room) port.scrollTop = top - room;
    draw();
    body.querySelector('tr[tabindex="0"]')?.focus({ preventScroll: true });
  }

  const page = () => Math.max(1, Math.floor(port.clientHeight / ROW_HEIGHT) - 2);
  const KEYS = {
    ArrowDown: () => table.active + 1,
    ArrowUp: () => table.active - 1,
    PageDown: () => table.active + page(),
    PageUp: () => table.active - page(),
    Home: () => 0,
    End: () => table.view.length - 1,
  };
  body.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      openMatrix(table.view[table.active]);
    } else if (KEYS[event.key]) {
      event.preventDefault();
      go(KEYS[event.key]());
    }
  });
  body.addEventListener("focusin", (event) => {
    const place = event.target.closest("tr[data-place]")?.dataset.place;
    if (place !== undefined) table.active = Number(place);
  });
  body.addEventListener("click", (event) => {
    const place = event.target.closest("tr[data-place]")?.dataset.place;
    if (place === undefined) return;
    table.active = Number(place);
    openMatrix(table.view[table.active]);
  });
  let waiting = false;
  port.addEventListener("scroll", () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      draw();
    });
  });
  addEventListener("resize", draw);
  input.addEventListener("input", refresh);
  input.value = filterOfAddress() ?? "";

  const told = document.getElementById("table-told");
  document.getElementById("csv-copy").addEventListener("click", async () => {
    const done = await copyText(toCsv(table.view));
    told.textContent = done ? `Copied ${matrices(table.view.length)}.` : "The browser did not allow copying; save the file instead.";
  });
  document.getElementById("csv-save").addEventListener("click", () => {
    saveText(toCsv(table.view), "llmtrap-matrices.csv");
    told.textContent = `Saved ${matrices(table.view.length)}.`;
  });
  refresh();
}
