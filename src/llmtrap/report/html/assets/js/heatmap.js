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

const PARTS = ["attention", "cross_attention", "linear_attention", "ssm", "convolution", "mlp", "router", "experts", "shared_experts"];
const ROLES = ["q", "q_a", "q_b", "k", "v", "kv_a", "kv_b", "qkv", "o", "in", "x", "dt", "out", "gate", "up", "gate_up", "down"];

/** Module kinds in the order in which a layer runs; unknown ones after the known, by name. */
function inOrder(kinds, label = (kind) => kind) {
  const rank = (list, name) => (list.includes(name) ? list.indexOf(name) : list.length);
  const key = (kind) => {
    const parts = label(kind).split(".");
    const role = parts.length > 1 ? parts.pop() : "";
    return [rank(PARTS, parts.join(".")), rank(ROLES, role)];
  };
  return [...kinds].sort((a, b) => key(a)[0] - key(b)[0] || key(a)[1] - key(b)[1] || COLLATOR.compare(a, b));
}

/** The matrices inside the layers, block by block (a part of the model, or a tower of one), and those outside. */
function layout() {
  const layers = column("layer");
  const kinds = column("kind");
  const owners = column("block");
  const blocks = new Map();
  const outside = new Map();
  for (let index = 0; index < total; index++) {
    if (layers[index] === null) {
      if (!outside.has(kinds[index])) outside.set(kinds[index], []);
      outside.get(kinds[index]).push(index);
      continue;
    }
    if (!blocks.has(owners[index])) blocks.set(owners[index], { numbers: new Set(), members: [] });
    blocks.get(owners[index]).numbers.add(layers[index]);
    blocks.get(owners[index]).members.push(index);
  }
  for (const block of blocks.values()) {
    block.numbers = [...block.numbers].sort((a, b) => a - b);
    const places = new Map(block.numbers.map((layer, place) => [layer, place]));
    block.rows = new Map();
    for (const index of block.members) {
      if (!block.rows.has(kinds[index])) block.rows.set(kinds[index], block.numbers.map(() => null));
      (block.rows.get(kinds[index])[places.get(layers[index])] ??= []).push(index);
    }
  }
  const sizes = new Map([...blocks].map(([name, block]) => [name, block.members.length]));
  return { blocks: [...blocks].sort(([a], [b]) => (b === "text") - (a === "text") || sizes.get(b) - sizes.get(a)), outside };
}

/** A kind without the words that name its block, which stand over the grid. */
function withoutBlock(kind, block) {
  for (const begin of [`${block}.layers.`, `${block}.`, `${block}/layers.`]) if (kind.startsWith(begin)) return kind.slice(begin.length);
  return kind;
}

/** The map of the checkpoint, the choice of its value, and the way into a cell. */
function startMap() {
  const host = document.getElementById("map");
  const { blocks, outside } = layout();
  const readout = document.getElementById("map-readout");
  const grids = [];
  const open = (indices, kind, layer) => (indices.length === 1 ? openMatrix(indices[0]) : openExperts(kind, layer));
  const labels = blocks.flatMap(([block, { rows }]) => [...rows.keys()].map((kind) => withoutBlock(kind, block)));
  for (const [block, { numbers, rows }] of blocks) {
    const names = inOrder(rows.keys(), (kind) => withoutBlock(kind, block));
    const place = make("div");
    if (blocks.length > 1) host.append(make("h3", { className: "map-block", text: block }));
    host.append(place);
    grids.push(
      drawGrid(place, {
        name: blocks.length > 1 ? `Layers of ${block} by module kind` : "Layers by module kind",
        corner: "layer",
        rows: names.map((name) => withoutBlock(name, block)),
        columns: numbers,
        cells: names.map((name) => rows.get(name)),
        beside: [...outside.keys(), ...labels],
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
        beside: labels,
        open: (indices, r) => open(indices, names[r], null),
        readout,
      }),
    );
  }
  const control = document.getElementById("map-value");
  const fitting = MAP_VALUES.filter((value) => !["alpha", "alphaOfRole"].includes(value.key) || column("alpha").some((alpha) => alpha !== null));
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
    const button = make("button", { type: "button", text: value.label, "data-key": value.key, title: data.texts[TEXT_OF[value.label]] });
    button.addEventListener("click", () => choose(value));
    control.append(button);
  }
  const trapped = column("state").some((state) => ["trapped", "edge", "non_finite", "undecided"].includes(state));
  const changed = data.against && against("change").some((change) => ["new", "stronger", "gone"].includes(change));
  const wanted = changed ? CHANGE : data.bands ? ALPHA_OF_ROLE : trapped ? TRAP_COUNT : ALPHA;
  choose(fitting.includes(wanted) ? wanted : fitting[0]);
  return { value: () => chosen };
}
