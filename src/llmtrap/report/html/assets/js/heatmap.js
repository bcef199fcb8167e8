// A map of cells that can be walked with the arrow keys, and the map of the whole checkpoint.

/**
 * Draw a grid of cells.
 *
 * @param {HTMLElement} host where to; emptied first
 * @param {{name: string, corner: string, rows: string[], columns: (string|number)[], cells: (number[]|null)[][],
 *          open: (indices: number[], row: number, column: number) => void, readout: HTMLElement, beside?: string[]}} plan
 *        `beside`: row labels of a grid that stands under this one, so that their columns line up
 * @returns {{paint: (value: object) => void, focus: (row: number, column: number) => void}}
 */
function drawGrid(host, plan) {
  const every = plan.columns.length > 48 ? 8 : plan.columns.length > 24 ? 4 : 1;
  const head = make("tr", {}, [make("th", { text: plan.corner, scope: "col", className: "corner" })]);
  plan.columns.forEach((label, place) => {
    head.append(make("th", { scope: "col", text: place % every ? "" : String(label), "aria-label": String(label) }));
  });
  const body = make("tbody");
  const drawn = plan.rows.map((label, r) => {
    const row = make("tr", {}, [make("th", { scope: "row", text: label, title: label })]);
    const cells = plan.cells[r].map((indices, c) => {
      const cell = make("td", indices ? { tabindex: "-1", "data-row": r, "data-column": c } : { className: "blank" });
      if (indices && indices.length > 1) cell.classList.add("many");
      row.append(cell);
      return cell;
    });
    body.append(row);
    return cells;
  });
  const size = plan.columns.length > 96 ? "tiny" : plan.columns.length > 40 ? "small" : "";
  const table = make("table", { className: `map ${size}`, role: "grid", "aria-label": plan.name }, [
    make("thead", {}, [head]),
    body,
  ]);
  table.style.setProperty("--columns", plan.columns.length);
  table.style.setProperty("--longest", longestOf([plan.corner, ...plan.rows, ...(plan.beside ?? [])]));
  host.replaceChildren(table);

  let active = null;
  function activate(cell, focus) {
    if (active) active.tabIndex = -1;
    active = cell;
    active.tabIndex = 0;
    if (focus) active.focus();
  }
  function place(cell) {
    return [Number(cell.dataset.row), Number(cell.dataset.column)];
  }
  function step(cell, down, right) {
    let [r, c] = place(cell);
    for (;;) {
      r += down;
      c += right;
      if (!plan.cells[r] || c < 0 || c >= plan.columns.length) return null;
      if (plan.cells[r][c]) return drawn[r][c];
    }
  }
  function endOf(cell, right) {
    let last = cell;
    for (let next = cell; next; next = step(next, 0, right)) last = next;
    return last;
  }
  const KEYS = {
    ArrowUp: (cell) => step(cell, -1, 0),
    ArrowDown: (cell) => step(cell, 1, 0),
    ArrowLeft: (cell) => step(cell, 0, -1),
    ArrowRight: (cell) => step(cell, 0, 1),
    Home: (cell) => endOf(cell, -1),
    End: (cell) => endOf(cell, 1),
  };
  function open(cell) {
    const [r, c] = place(cell);
    activate(cell, true);
    plan.open(plan.cells[r][c], r, c);
  }
  table.addEventListener("keydown", (event) => {
    const cell = event.target.closest("td");
    if (!cell) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      open(cell);
    } else if (KEYS[event.key]) {
      event.preventDefault();
      const next = KEYS[event.key](cell);
      if (next) activate(next, true);
    }
  });
  table.addEventListener("click", (event) => {
    const cell = event.target.closest("td[data-row]");
    if (cell) open(cell);
  });
  function tell(event) {
    const cell = event.target.closest("td[data-row]");
    if (!cell) return;
    const [r, c] = place(cell);
    plan.readout.textContent = cellWords(plan.cells[r][c]);
    plan.readout.classList.add("told");
  }
  table.addEventListener("mouseover", tell);
  table.addEventListener("focusin", tell);

  const first = drawn.flat().find((cell) => cell.dataset.row);
  if (first) activate(first, false);
  return {
    paint(value) {
      drawn.forEach((cells, r) =>
        cells.forEach((cell, c) => {
          const indices = plan.cells[r][c];
          if (!indices) return;
          const shown = value.cell(indices);
          cell.className = shown.className + (indices.length > 1 ? " many" : "");
          cell.textContent = shown.text;
          const place = `${plan.rows[r]}, ${plan.corner} ${plan.columns[c]}`;
          cell.setAttribute("aria-label", `${place}: ${value.label} ${shown.text}. ${cellWords(indices)}`);
        }),
      );
    },
    focus(r, c) {
      if (drawn[r]?.[c]) activate(drawn[r][c], true);
    },
  };
}

function longestOf(labels) {
  return greatest(labels.map((label) => label.length));
}

/** What each colour and sign of a value means. */
function drawLegend(host, value) {
  host.replaceChildren(
    ...value.legend().map(([className, sign, words]) =>
      make("li", {}, [make("span", { className: `swatch ${className}`, text: sign, "aria-hidden": "true" }), words]),
    ),
  );
}

const PARTS = ["attention", "self_attention", "cross_attention", "mlp", "router", "experts", "shared_experts"];
const ROLES = ["q", "k", "v", "qkv", "o", "gate", "up", "gate_up", "fc1", "down", "fc2"];

/** Module kinds in the order in which a layer runs; unknown ones after the known, by name. */
function inOrder(kinds) {
  const rank = (list, name) => (list.includes(name) ? list.indexOf(name) : list.length);
  const key = (kind) => {
    const parts = kind.split(".");
    const role = parts.length > 1 ? parts.pop() : "";
    return [rank(PARTS, parts.join(".")), rank(ROLES, role)];
  };
  return [...kinds].sort((a, b) => key(a)[0] - key(b)[0] || key(a)[1] - key(b)[1] || COLLATOR.compare(a, b));
}

/** The matrices inside the layers by kind and layer, and those outside. */
function layout() {
  const layers = column("layer");
  const kinds = column("kind");
  const numbers = [...new Set(layers.filter((layer) => layer !== null))].sort((a, b) => a - b);
  const places = new Map(numbers.map((layer, place) => [layer, place]));
  const rows = new Map();
  const outside = new Map();
  for (let index = 0; index < total; index++) {
    const layer = layers[index];
    if (layer === null) {
      if (!outside.has(kinds[index])) outside.set(kinds[index], []);
      outside.get(kinds[index]).push(index);
      continue;
    }
    if (!rows.has(kinds[index])) rows.set(kinds[index], numbers.map(() => null));
    (rows.get(kinds[index])[places.get(layer)] ??= []).push(index);
  }
  return { numbers, rows, outside };
}

/** The map of the checkpoint, the choice of its value, and the way into a cell. */
function startMap() {
  const host = document.getElementById("map");
  const { numbers, rows, outside } = layout();
  const readout = document.getElementById("map-readout");
  const grids = [];
  const open = (indices, kind, layer) => (indices.length === 1 ? openMatrix(indices[0]) : openExperts(kind, layer));
  if (rows.size) {
    const names = inOrder(rows.keys());
    grids.push(
      drawGrid(host, {
        name: "Layers by module kind",
        corner: "layer",
        rows: names,
        columns: numbers,
        cells: names.map((name) => rows.get(name)),
        beside: [...outside.keys()],
        open: (indices, r, c) => open(indices, names[r], numbers[c]),
        readout,
      }),
    );
  }
  if (outside.size) {
    const names = [...outside.keys()];
    const beside = document.getElementById("map-outside");
    document.getElementById("map-outside-block").hidden = false;
    grids.push(
      drawGrid(beside, {
        name: "Outside the layers",
        corner: "layer",
        rows: names,
        columns: [""],
        cells: names.map((name) => [outside.get(name)]),
        beside: [...rows.keys()],
        open: (indices, r) => open(indices, names[r], null),
        readout,
      }),
    );
  }
  const control = document.getElementById("map-value");
  const fitting = MAP_VALUES.filter((value) => value.key !== "alpha" || column("alpha").some((alpha) => alpha !== null));
  let chosen = null;
  function choose(value) {
    chosen = value;
    for (const button of control.children) button.setAttribute("aria-pressed", String(button.dataset.key === value.key));
    document.getElementById("map-note").textContent = value.note;
    drawLegend(document.getElementById("map-legend"), value);
    grids.forEach((grid) => grid.paint(value));
    if (expertGrid) repaintExperts(value);
  }
  for (const value of fitting) {
    const button = make("button", { type: "button", text: value.label, "data-key": value.key });
    button.addEventListener("click", () => choose(value));
    control.append(button);
  }
  const trapped = column("state").some((state) => ["trapped", "edge", "non_finite", "undecided"].includes(state));
  const changed = data.against && against("change").some((change) => ["new", "worse", "gone"].includes(change));
  const wanted = changed ? CHANGE : trapped ? TRAP_COUNT : ALPHA;
  choose(fitting.includes(wanted) ? wanted : fitting[0]);
  return { value: () => chosen };
}
