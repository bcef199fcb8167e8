// The report's numbers, as columns, and how people read them.

const data = JSON.parse(document.getElementById("data").textContent);
const total = data.matrices;

const COLLATOR = new Intl.Collator("en", { numeric: true });

/** A column by name: an array with one element a matrix. Coded columns are spelled out once. */
const columns = new Map();
function column(name) {
  if (!columns.has(name)) columns.set(name, decoded(data.columns[name]));
  return columns.get(name);
}

function decoded(stored) {
  return Array.isArray(stored) ? stored : stored.index.map((place) => stored.values[place]);
}

/** A column of the comparison with the base; only where there is one. */
function against(name) {
  const key = `against.${name}`;
  if (!columns.has(key)) columns.set(key, decoded(data.against[name]));
  return columns.get(key);
}

/** `3`, `3.11`, `0.0031`, `2.1e+9`: so many significant digits; an en dash for nothing. */
function number(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text =
    size >= 1e-4 && size < 1e6
      ? Number(value.toPrecision(digits)).toLocaleString("en-US", { maximumFractionDigits: 10 })
      : value.toExponential(digits - 1);
  return text.replace("-", "−");
}

function fixed(value, decimals = 2) {
  if (value === null || value === undefined) return "–";
  const text = value.toFixed(decimals);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
}

function matrices(count) {
  return `${count.toLocaleString("en-US")} ${count === 1 ? "matrix" : "matrices"}`;
}

/** Which of the texts (`data.texts`) explains a label. */
const TEXT_OF = {
  "α": "alpha", "α against its role": "reference", Traps: "trap", "Strongest trap": "strength", "× edge": "strength", "Stable rank": "stable_rank",
  Kurtosis: "kurtosis", "Kurtosis, κ": "kurtosis", "Max, s.d.": "max_sigmas", How: "certificate", Fit: "x_min", "Spectral norm": "spectral_norm",
  "Frobenius norm": "frobenius_norm", Entropy: "entropy", "α · log₁₀ λ₁": "alpha_weighted", "Largest entry": "max_sigmas", "Largest entry, e": "max_sigmas",
  "Mean, d": "mean_shift", "Top of the shuffle": "edge", "Top of any shuffle": "edge", "Shuffled bulk": "ks", "Among its peers": "peers", "α, interval": "alpha_interval", "α of noise": "alpha_noise", "σ₁": "spectral_norm",
};

/** The worst of some matrices, in the order of the whole report. */
function worstOf(indices) {
  const among = new Set(indices);
  return data.worst.find((index) => among.has(index));
}

/** The smaller and the larger side of a matrix. */
function sides(index) {
  const rows = column("rows")[index];
  const wide = column("columns")[index];
  return [Math.min(rows, wide), Math.max(rows, wide)];
}

/** α with its mark: below 2, above 6, or unreliable; never by colour alone. */
function alphaText(index) {
  const value = column("alpha")[index];
  if (value === null) return "–";
  if (!column("reliable")[index]) return `${fixed(value)} ?`;
  return fixed(value) + ({ over: " <2", under: " >6", random: " noise" }[column("band")[index]] ?? "");
}

/** Centred traps, mean shifts beside them: `2`, `0–1` at the edge, `1 +1 m`, `?` undecided. */
function trapsText(index) {
  const method = column("method")[index];
  if (method === null) return "–";
  if (method === "undecided") return "?";
  const low = column("low")[index];
  const high = column("high")[index];
  let text = column("atEdge")[index] && low < high ? `${low}–${high}` : String(column("centred")[index]);
  if (column("meanShift")[index]) text += ` +${column("meanShift")[index]} m`;
  return column("trusted")[index] ? text : `${text} ?`;
}

const STATES = {
  non_finite: "NaN or infinite values",
  trapped: "traps",
  edge: "at the edge",
  unreliable: "too small to trust",
  undecided: "not decided",
  mean_shift: "mean shift only",
  free: "no traps",
  none: "traps not looked for",
};
const METHODS = { certified: "certified", predicted: "predicted", measured: "shuffled", undecided: "not decided" };

/** One matrix in a line: what a reader wants to know before opening it. */
function summaryOf(index) {
  const parts = [column("id")[index]];
  const state = column("state")[index];
  const centred = column("centred")[index];
  parts.push(state === "trapped" ? `${centred} ${centred === 1 ? "trap" : "traps"}, strongest ${number(column("strength")[index])} × the edge` : STATES[state]);
  if (column("why")[index]) parts.push(column("why")[index]);
  if (column("alpha")[index] !== null) parts.push(`α ${alphaText(index)}`);
  if (data.against && against("change")[index] !== "same") {
    const why = against("why")[index];
    parts.push(against("words")[index] + (why ? `: ${why}` : ""));
  }
  return parts.join(" · ");
}

/** An element with text and attributes; text is never parsed as HTML. */
function make(tag, { text, className, ...attributes } = {}, children = []) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}
