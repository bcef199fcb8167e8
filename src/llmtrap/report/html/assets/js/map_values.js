// What a cell of the map can show: its class (colour), its sign (never colour alone) and its words.

const WORST_FIRST = ["non_finite", "trapped", "edge", "unreliable", "undecided", "mean_shift", "free", "none"];
const SIGNS = { non_finite: "!", edge: "≈", undecided: "?", mean_shift: "m", free: "·", none: "–" };

function least(values) {
  return values.length ? values.reduce((a, b) => (b < a ? b : a)) : null;
}
function greatest(values) {
  return values.length ? values.reduce((a, b) => (b > a ? b : a)) : null;
}
function known(indices, name) {
  const values = column(name);
  return indices.map((index) => values[index]).filter((value) => value !== null);
}

function worstState(indices) {
  const states = column("state");
  const present = new Set(indices.map((index) => states[index]));
  return WORST_FIRST.find((state) => present.has(state));
}

/** Numbers in narrow cells: at most three characters and a point. */
function brief(value) {
  const size = Math.abs(value);
  if (size >= 9950) return `${Math.round(value / 1000)}k`;
  if (size >= 995) return `${(value / 1000).toFixed(1)}k`;
  return (size >= 9.95 ? value.toFixed(0) : value.toFixed(1)).replace("-", "−");
}

function stepOf(value, limits) {
  const step = limits.findIndex((limit) => value < limit);
  return step < 0 ? limits.length : step;
}

function stateCell(state, indices) {
  if (state === "unreliable") {
    const count = indices.reduce((sum, index) => sum + (column("centred")[index] ?? 0), 0);
    return { className: "c-unreliable", text: `(${count})` };
  }
  return { className: `c-${state.replace("_", "-")}`, text: SIGNS[state] };
}

const STATE_LEGEND = [
  ["c-free", "·", "no traps"],
  ["c-mean-shift", "m", "mean shift only"],
  ["c-edge", "≈", "at the edge: the shuffle decides"],
  ["c-unreliable", "(1)", "too small to trust"],
  ["c-undecided", "?", "not decided"],
  ["c-non-finite", "!", "NaN or infinite"],
  ["c-none", "–", "not looked for"],
];

function stateLegend() {
  const present = new Set(column("state").map((state) => `c-${state.replace("_", "-")}`));
  return STATE_LEGEND.filter(([className]) => present.has(className));
}

const TRAP_COUNT = {
  key: "traps",
  label: "Traps",
  note: "How many traps each matrix has; a mean shift is marked apart. A cell of many experts shows their sum.",
  cell(indices) {
    const state = worstState(indices);
    if (state !== "trapped") return stateCell(state, indices);
    const states = column("state");
    const count = indices.reduce((sum, i) => sum + (states[i] === "trapped" ? column("centred")[i] : 0), 0);
    return { className: `c-trap-${count > 3 ? 3 : count > 1 ? 2 : 1}`, text: String(count) };
  },
  legend: () => [["c-trap-1", "1", "1 trap"], ["c-trap-2", "2", "2 or 3"], ["c-trap-3", "4", "4 or more"], ...stateLegend()],
};

const STRENGTHS = [1.1, 1.5, 2, 4, 8];
const STRENGTH = {
  key: "strength",
  label: "Strongest trap",
  note: "The strongest trap's eigenvalue over the random edge. A cell of many experts shows the greatest.",
  cell(indices) {
    const state = worstState(indices);
    if (state !== "trapped") return stateCell(state, indices);
    const states = column("state");
    const value = greatest(known(indices.filter((index) => states[index] === "trapped"), "strength"));
    if (value === null) return { className: "c-hot-0", text: "≥1" };
    return { className: `c-hot-${stepOf(value, STRENGTHS)}`, text: brief(value) };
  },
  legend: () => [...stepLegend("c-hot", STRENGTHS, "×"), ...stateLegend()],
};

function stepLegend(prefix, limits, unit = "") {
  const names = [`< ${brief(limits[0])}${unit}`];
  for (let i = 1; i < limits.length; i++) names.push(`${brief(limits[i - 1])}–${brief(limits[i])}${unit}`);
  names.push(`≥ ${brief(limits.at(-1))}${unit}`);
  return names.map((name, step) => [`${prefix}-${step}`, "", name]);
}

/** The matrices whose α says something: a reliable fit that noise does not explain. */
function withAlpha(indices) {
  const [fits, bands, alphas] = [column("reliable"), column("band"), column("alpha")];
  return indices.filter((index) => fits[index] && bands[index] !== "random" && alphas[index] !== null);
}

/** The cell where no α says anything: like noise, unreliable or not fitted. */
function withoutAlpha(indices) {
  if (indices.some((index) => column("band")[index] === "random")) return { className: "c-random", text: "~" };
  return known(indices, "alpha").length ? { className: "c-unreliable", text: "?" } : { className: "c-none", text: "–" };
}

const LIKE_NOISE = ["c-random", "~", "like noise"];

const ALPHA = {
  key: "alpha",
  label: "α",
  note: "The power-law exponent: below 2 a heavy tail, above 6 a light one. A cell of many experts shows the lowest reliable α.",
  cell(indices) {
    const value = least(known(withAlpha(indices), "alpha"));
    if (value === null) return withoutAlpha(indices);
    const name = value < 2 ? "over" : value > 6 ? "under" : value < 3 ? "well-0" : value < 4.5 ? "well-1" : "well-2";
    return { className: `c-${name}`, text: brief(value) };
  },
  legend: () => [
    ["c-over", "1.8", "below 2: heavy tail"],
    ["c-well-0", "2.5", "2–3"],
    ["c-well-1", "3.5", "3–4.5"],
    ["c-well-2", "5.0", "4.5–6"],
    ["c-under", "7.0", "above 6: light tail"],
    LIKE_NOISE,
    ["c-unreliable", "?", "unreliable fit"],
    ["c-none", "–", "no fit"],
  ],
};

/** What published models have in the role of a matrix: `[low, middle, high]`, or nothing. */
function bandOf(index) {
  return data.bands?.[column("kind")[index]] ?? null;
}

const ALPHA_OF_ROLE = {
  key: "alphaOfRole",
  label: "α against its role",
  note: "α beside what published models have in the same role: nine tenths of the matrices of every such model lie within the range. A cell of many experts shows the lowest reliable α.",
  cell(indices) {
    const held = withAlpha(indices);
    if (!held.length) return withoutAlpha(indices);
    const index = held.reduce((a, b) => (column("alpha")[b] < column("alpha")[a] ? b : a));
    const value = column("alpha")[index];
    const band = bandOf(index);
    if (!band) return { className: "c-none", text: brief(value) };
    const name = value < band[0] ? "over" : value > band[2] ? "under" : value < band[1] ? "well-0" : "well-1";
    return { className: `c-${name}`, text: brief(value) };
  },
  legend: () => [
    ["c-over", "1.8", "lower: a heavier tail than published models have in the role"],
    ["c-well-0", "2.5", "within, lower half"],
    ["c-well-1", "3.5", "within, upper half"],
    ["c-under", "9.0", "higher: a lighter tail"],
    ["c-none", "3.0", "no reference for the role"],
    LIKE_NOISE,
    ["c-unreliable", "?", "unreliable fit"],
  ],
};

const STABLE_RANK = {
  key: "stableRank",
  label: "Stable rank",
  note: "Σλ / λ₁: how many directions carry the matrix. The steps hold equal numbers of matrices. A cell of many experts shows the lowest.",
  limits() {
    const sorted = known([...column("id").keys()], "stableRank").sort((a, b) => a - b);
    const sixths = [1, 2, 3, 4, 5].map((part) => sorted[Math.floor((sorted.length * part) / 6)] ?? 1);
    // Two steps that read the same would say nothing.
    this.cached ??= sixths.filter((limit, place) => place === 0 || brief(limit) !== brief(sixths[place - 1]));
    return this.cached;
  },
  cell(indices) {
    const value = least(known(indices, "stableRank"));
    if (value === null) return { className: "c-none", text: "–" };
    return { className: `c-cool-${stepOf(value, this.limits())}`, text: brief(value) };
  },
  legend() {
    return stepLegend("c-cool", this.limits());
  },
};

const CHANGES = ["new", "stronger", "gone", "unknown", "added", "weaker", "same"];
const CHANGE_SIGNS = { new: "+", stronger: "↑", gone: "−", unknown: "?", weaker: "↓", added: "◇", same: "·" };
const CHANGE = {
  key: "change",
  label: "New traps",
  note: "Where traps are new, stronger or gone against the base. A cell of many experts shows the gravest change.",
  cell(indices) {
    const changes = against("change");
    const present = new Set(indices.map((index) => changes[index]));
    const change = CHANGES.find((name) => present.has(name));
    return { className: `c-change-${change}`, text: CHANGE_SIGNS[change] };
  },
  legend: () => [
    ["c-change-new", "+", "new trap"],
    ["c-change-stronger", "↑", "stronger"],
    ["c-change-gone", "−", "gone"],
    ["c-change-weaker", "↓", "weaker"],
    ["c-change-same", "·", "as in the base"],
    ["c-change-unknown", "?", "cannot be compared"],
    ["c-change-added", "◇", "not in the base"],
  ],
};

const SHIFTS = [-1, -0.25, 0.25, 1];
const SHIFT_SIGNS = ["c-fall-1", "c-fall-0", "c-still", "c-rise-0", "c-rise-1"];
const ALPHA_SHIFT = {
  key: "alphaShift",
  label: "Shift of α",
  note: "α minus α of the base; a fall means a heavier tail. A cell of many experts shows the farthest.",
  cell(indices) {
    const shifts = against("alphaShift");
    const values = indices.map((index) => shifts[index]).filter((value) => value !== null);
    if (!values.length) return { className: "c-none", text: "–" };
    const value = values.reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a));
    return { className: SHIFT_SIGNS[stepOf(value, SHIFTS)], text: (value > 0 ? "+" : "") + brief(value) };
  },
  legend: () => [
    ["c-fall-1", "−2", "fell by 1 or more"],
    ["c-fall-0", "−.5", "fell by ¼ to 1"],
    ["c-still", "0", "within ¼"],
    ["c-rise-0", "+.5", "rose by ¼ to 1"],
    ["c-rise-1", "+2", "rose by 1 or more"],
    ["c-none", "–", "not compared"],
  ],
};

const MAP_VALUES = [
  ...(data.against ? [CHANGE, ALPHA_SHIFT] : []),
  TRAP_COUNT,
  STRENGTH,
  ...(data.bands ? [ALPHA_OF_ROLE] : []),
  ALPHA,
  STABLE_RANK,
];

/** A cell in words, for its label and the line under the map. */
function cellWords(indices) {
  if (indices.length === 1) return summaryOf(indices[0]);
  const states = column("state");
  const counts = WORST_FIRST.map((state) => [{ trapped: "with traps", free: "without" }[state] ?? STATES[state], indices.filter((index) => states[index] === state).length]);
  const said = counts.filter(([, count]) => count).map(([words, count]) => `${count} ${words}`);
  const fits = column("reliable");
  const alphas = known(indices.filter((index) => fits[index]), "alpha");
  const range = alphas.length ? ` · α ${fixed(least(alphas))} to ${fixed(greatest(alphas))}` : "";
  return `${matrices(indices.length)}: ${said.join(", ")}${range}`;
}
