// One matrix: its two spectra, its traps with their causes, and its numbers.

let shownMatrix = null;

/** The most kurtosis that the certificate allows at this shape: by all entries together, and by uneven columns. */
function kurtosisLimit(index) {
  const [small, large] = sides(index);
  return Math.min(data.certificate.kurtosisFactor * (small * large) ** (1 / 6), 1 + (data.certificate.columnNorm * small) / (2 * Math.log(small)));
}

function facts(rows) {
  return make("dl", { className: "facts" }, rows.filter(([, value]) => value !== null && value !== undefined && value !== "").flatMap(([name, value, note]) => [
    make("dt", { text: name, title: data.texts[TEXT_OF[name]] }),
    make("dd", {}, [make("span", { text: value }), ...(note ? [make("small", { text: note })] : [])]),
  ]));
}

function heading(text) {
  return make("h3", { text });
}

/** Traps of the same cause and words together, in order: `{first, last, words, kind, traps}`. */
function groupedTraps(traps) {
  const groups = [];
  traps.forEach((trap, place) => {
    const group = groups.at(-1);
    if (group && group.words === trap[4]) {
      group.last = place + 1;
      group.traps.push(trap);
    } else {
      groups.push({ first: place + 1, last: place + 1, words: trap[4], kind: trap[3], traps: [trap] });
    }
  });
  return groups;
}

/** `3.08`, or `1.05 to 1.31` over several traps. */
function span(traps, place, digits = 3) {
  const values = traps.map((trap) => trap[place]);
  const [low, high] = [number(least(values), digits), number(greatest(values), digits)];
  return low === high ? low : `${low} to ${high}`;
}

/** `, p = 3e-12 were entries light-tailed`: of the least extreme of some traps; empty where it is not known. */
function chanceOf(traps) {
  const chances = traps.map((trap) => trap[5]);
  if (chances.includes(null)) return "";
  const most = greatest(chances);
  return `; p ${most > 0 ? `= ${number(most, 2)}` : "< 1e−300"} in one shuffle, were entries light-tailed`;
}

/** The traps, numbered as in the plot, each with its cause in words. */
function trapList(index) {
  const traps = data.traps[index] ?? [];
  const state = column("state")[index];
  const method = column("method")[index];
  if (traps.length) {
    const strongest = traps.length < column("low")[index];
    return [
      heading(traps.length === 1 ? "One trap, and its cause" : `${strongest ? `The ${traps.length} strongest` : traps.length} traps, and their causes`),
      make("ol", { className: "trap-list" }, groupedTraps(traps).map((group) =>
        make("li", { className: group.kind === "mean_shift" ? "shift" : "" }, [
          make("b", { text: group.first === group.last ? group.first : `${group.first}–${group.last}`, className: "trap-number" }),
          make("strong", { text: group.words }),
          make("span", { text: `λ = ${span(group.traps, 0, 4)}: ${span(group.traps, 2)} times the random edge, ${span(group.traps, 1)} Tracy–Widom units beyond its centre${chanceOf(group.traps)}.` }),
        ]))),
      ...(column("shuffles")[index] > 1 && traps.length !== column("centred")[index] + column("meanShift")[index]
        ? [make("p", { className: "quiet", text: `These are ${strongest ? "of" : "the traps of"} the first shuffle. In the median of ${column("shuffles")[index]} shuffles ${column("centred")[index]} are centred and ${column("meanShift")[index]} from the mean.` })]
        : []),
      ...(method === "predicted" ? [make("p", { className: "quiet", text: predictedWords(traps.length) })] : []),
      ...(column("atEdge")[index] ? [make("p", { className: "doubt-note", text: edgeWords(index) })] : []),
    ];
  }
  const words = {
    edge: edgeWords(index),
    undecided: "Not decided: the sizes of the entries leave a trap possible, and the audit made no shuffle. Audit again with --traps auto.",
    none: "Traps were not looked for.",
    non_finite: data.broken[index],
    trapped: "Traps in the median of the shuffles, but none in the first, where causes are sought.",
    unreliable: "A trap in the median of the shuffles, but none in the first; the matrix is too small to trust the count.",
  }[state] ?? (method === "certified"
    ? "None. The sizes of the entries alone rule a trap out, so no shuffle was needed."
    : "None: the largest eigenvalue of the shuffled matrix lies within what chance gives.");
  return [heading("Traps"), make("p", { text: words })];
}

function predictedWords(count) {
  return `No shuffle was needed: the entries alone make ${count === 1 ? "this trap" : "these traps"} in every order. ${count === 1 ? "Its" : "Their"} numbers are predicted.`;
}

function edgeWords(index) {
  const [low, high] = [column("low")[index], column("high")[index]];
  if (low < high) return `At the edge: between ${low} and ${high} traps, depending on the shuffle.`;
  return "At the edge: the largest eigenvalue of a shuffle lies near it, so that another seed might count otherwise.";
}

function certificate(index) {
  if (column("entryRatio")[index] === null) return [];
  const rows = [
    ["Largest entry, e", column("entryRatio")[index], data.certificate.entryRatio, "over 1, one entry makes a trap by itself"],
    ["Mean, d", column("meanRatio")[index], data.certificate.meanRatio, "over 1, the mean makes a trap by itself"],
    ["Kurtosis, κ", column("kurtosis")[index], kurtosisLimit(index), "many large entries can do together what none does alone"],
  ];
  const body = rows.map(([name, value, limit, note]) => {
    const passed = value !== null && value < limit;
    return make("tr", {}, [
      make("th", { scope: "row" }, [name, make("small", { text: note })]),
      make("td", { text: number(value) }),
      make("td", { text: `< ${number(limit)}` }),
      make("td", { text: passed ? "✓ passed" : "✗ not passed", className: passed ? "" : "doubt" }),
    ]);
  });
  return [
    heading("What the entries alone say"),
    make("table", { className: "plain" }, [
      make("thead", {}, [make("tr", {}, ["Measure", "Value", "Free of traps if", ""].map((text) => make("th", { scope: "col", text })))]),
      make("tbody", {}, body),
    ]),
  ];
}

function numbers(index) {
  const of = (name) => column(name)[index];
  const predicted = of("method") === "predicted";
  const sure = of("alphaLow") !== null && of("alphaHigh") !== null;
  const sigma = sure || of("sigma") === null ? "" : ` ± ${fixed(of("sigma"))}`;
  const alpha = of("alpha") === null ? "none" : `${fixed(of("alpha"))}${sigma}`;
  const band = { over: "heavy tail", well: "typical", under: "light tail", random: "like noise" }[of("band")] ?? of("reason");
  const rows = [
    ["α", alpha, band],
    ["α, interval", sure ? `${fixed(of("alphaLow"))} to ${fixed(of("alphaHigh"))}` : null, "fits as well, with the traps and without"],
    ["α of noise", of("noiseLow") === null ? null : `${fixed(of("noiseLow"))} to ${fixed(of("noiseHigh"))}`, "nine in ten random matrices of this shape"],
    ["Fit", of("xmin") === null ? null : `x_min ${number(of("xmin"))}, ${of("tail").toLocaleString("en-US")} eigenvalues`, of("ks") === null ? "" : `Kolmogorov–Smirnov distance ${number(of("ks"))}`],
    ["Spectral norm", number(of("spectralNorm"), 4)],
    ["Frobenius norm", number(of("frobeniusNorm"), 4)],
    ["Stable rank", number(of("stableRank"), 4), of("hardRank") === null ? "" : `hard rank ${of("hardRank").toLocaleString("en-US")}`],
    ["Entropy", number(of("entropy"), 4)],
    ["α · log₁₀ λ₁", number(of("alphaWeighted"), 4)],
    ["Largest entry", of("maxSigmas") === null ? null : `${number(of("maxSigmas"))} standard deviations from the mean`],
    [predicted ? "Top of any shuffle" : "Top of the shuffle", of("topZ") === null ? null : `z = ${number(of("topZ"))}`, predicted ? "predicted; no shuffle was made" : of("topZLow") === null || of("shuffles") < 2 ? "" : `${number(of("topZLow"))} to ${number(of("topZHigh"))} in ${of("shuffles")} shuffles`],
    ["Shuffled bulk", of("shuffledKs") === null ? null : `KS ${number(of("shuffledKs"))}, p = ${number(of("shuffledP"))}`, "against Marchenko–Pastur"],
  ];
  if (data.against) {
    rows.unshift(["Against the base", against("words")[index], [against("why")[index], against("alphaWords")[index] && `α ${against("alphaWords")[index]}${against("moved")[index] ? ", beyond its error" : ""}`].filter(Boolean).join("; ")]);
  }
  return [heading("In numbers"), facts(rows)];
}

const PEER_VALUES = {
  alpha: (index) => column("alpha")[index],
  spectral_norm: (index) => column("spectralNorm")[index],
  stable_rank: (index) => {
    const [small, large] = sides(index);
    return column("stableRank")[index] / ((small * large) / (Math.sqrt(small) + Math.sqrt(large)) ** 2);
  },
  max_sigmas: (index) => column("maxSigmas")[index],
  kurtosis: (index) => column("kurtosis")[index],
};

/** Each measure beside what the peers lead one to expect, and how far it lies from that in robust deviations. */
function peers(index) {
  const held = Object.entries(data.peers).filter(([, measure]) => measure.z[index] !== null);
  const head = make("h3", { text: "Among its peers", title: data.texts.peers });
  if (!held.length) return [head, make("p", { className: "quiet", text: "Fewer than six matrices of its role are here, so there is nothing to hold it against." })];
  const rows = held.map(([name, measure]) => {
    const out = measure.out.includes(index);
    return make("tr", {}, [
      make("th", { scope: "row", text: measure.label, title: data.texts[name] }),
      make("td", { text: number(PEER_VALUES[name](index)) }),
      make("td", { text: number(measure.expected[index]) }),
      make("td", { text: `${fixed(measure.z[index], 1)}${out ? " ▲" : ""}`, className: out ? "doubt" : "" }),
    ]);
  });
  const count = greatest(held.map(([, measure]) => measure.peers[index]));
  const any = held.some(([, measure]) => measure.out.includes(index));
  return [
    head,
    make("table", { className: "plain" }, [
      make("thead", {}, [make("tr", {}, ["Measure", "Here", "Expected", "z"].map((text) => make("th", { scope: "col", text })))]),
      make("tbody", {}, rows),
    ]),
    make("p", { className: "quiet", text: `Expected: what the ${count} matrices of its role lead one to expect at this depth. z counts robust deviations from that.${any ? " ▲ stands out: chance among so many comparisons does not explain it." : ""}` }),
  ];
}

function stored(index) {
  const of = (name) => column(name)[index];
  return [
    heading("As stored"),
    facts([
      ["Tensor", of("tensor"), of("expert") === null ? "" : `expert ${of("expert")}`],
      ["Shape", `${of("rows").toLocaleString("en-US")} × ${of("columns").toLocaleString("en-US")}`, of("encoding")],
      ["Also known as", (data.aliases[index] ?? []).join(", ")],
      ["Computed in", of("precision")],
    ]),
  ];
}

function badges(index) {
  const made = [make("span", { className: `badge ${stateTone(index)}`, text: column("state")[index] === "trapped" ? `${column("centred")[index]} ${column("centred")[index] === 1 ? "trap" : "traps"}` : STATES[column("state")[index]] })];
  const band = { over: "heavy tail", well: "typical", under: "light tail", random: "like noise" }[column("band")[index]];
  if (band) made.push(make("span", { className: `badge ${alphaTone(index)}`, text: `α: ${band}` }));
  if (data.against && ["new", "stronger", "gone"].includes(against("change")[index])) made.push(make("span", { className: "badge bad", text: `${against("words")[index]}, against the base` }));
  return made;
}

async function drawPlots(index) {
  startPlotly();
  const jobs = [
    ["esd", drawEsd, "No spectrum was computed of this matrix.", esdWords],
    ["shuffled", drawShuffled, "No entry statistics of this matrix.", shuffledWords],
    ["distances", drawDistances, "No power law was fitted.", distancesWords],
  ];
  for (const [name, draw, nothing, words] of jobs) {
    const host = document.getElementById(`plot-${name}`);
    Plotly.purge(host);
    host.replaceChildren();
    const drawn = await draw(host, index);
    if (!drawn) host.append(make("p", { className: "nothing", text: nothing }));
    document.getElementById(`plot-${name}-words`).textContent = words(index);
  }
}

function esdWords(index) {
  const alpha = column("alpha")[index];
  if (alpha === null) return "No power law was fitted.";
  return `From x_min = ${number(column("xmin")[index])} on, ${column("tail")[index].toLocaleString("en-US")} eigenvalues follow a power law with α = ${fixed(alpha)}: the straight line. A flatter line is a heavier tail.`;
}

function distancesWords(index) {
  if (column("xmin")[index] === null) return "";
  return "How far the tail lies from a power law, by where the tail starts. The ring is the fit: the least D of all eigenvalues; the curve has the 64 bins of the histogram only. A flat valley means that other x_min fit as well, and α is unsure. Above the dashed line a fit is called unreliable.";
}

function shuffledWords(index) {
  const traps = data.traps[index]?.length ?? 0;
  const bins = data.shuffled.counts[index];
  const drawn = bins ? "The hill is the shuffled spectrum, the curve what chance gives." : "The curve is what chance gives; the whole shuffled spectrum was not computed.";
  const predicted = column("method")[index] === "predicted";
  const beyond = data.rule === "tracy-widom" ? "only one matrix in a million comes by chance" : "the rule calls an eigenvalue a trap";
  const band = "The shaded band ends at the edge: there the greatest eigenvalue lies when chance alone is at work.";
  if (predicted) return `The curve is what chance gives; no shuffle was made. ${band} Beyond the dashed edge ${beyond}: there every shuffle would show ${traps === 1 ? "the marked trap" : `the ${traps} marked traps`}.`;
  if (traps < column("low")[index]) return `${drawn} ${band} Beyond the dashed edge ${beyond}: there stand at least ${column("low")[index]} traps, of which the ${traps} strongest are marked.`;
  if (traps) return `${drawn} ${band} Beyond the dashed edge ${beyond}: there ${traps === 1 ? "stands 1 trap" : `stand ${traps} traps`}.`;
  if (column("method")[index] === "certified") return "The curve is what chance gives. No shuffle was needed: the sizes of the entries rule a trap out.";
  return `${drawn} ${band}`;
}

function openMatrix(index) {
  shownMatrix = index;
  const dialog = document.getElementById("matrix");
  document.getElementById("matrix-name").textContent = column("id")[index];
  document.getElementById("matrix-badges").replaceChildren(...badges(index));
  document.getElementById("matrix-why").replaceChildren(...trapList(index), ...certificate(index));
  document.getElementById("matrix-peers").replaceChildren(...peers(index));
  document.getElementById("matrix-numbers").replaceChildren(...numbers(index), ...stored(index));
  const place = table.view.indexOf(index);
  document.getElementById("matrix-place").textContent = place < 0 ? "" : `${(place + 1).toLocaleString("en-US")} of ${table.view.length.toLocaleString("en-US")} in the table`;
  document.getElementById("matrix-back").disabled = place <= 0;
  document.getElementById("matrix-next").disabled = place < 0 || place >= table.view.length - 1;
  if (!dialog.open) {
    dialog.showModal();
    document.documentElement.classList.add("held");
  }
  // A button that has just been switched off would keep the focus and swallow the keys.
  if (document.activeElement?.disabled) document.getElementById("matrix-name").focus();
  dialog.scrollTop = 0;
  history.replaceState(null, "", `#matrix=${encodeURIComponent(column("id")[index])}`);
  return drawPlots(index);
}

function stepMatrix(by) {
  const place = table.view.indexOf(shownMatrix);
  const next = table.view[place + by];
  if (place >= 0 && next !== undefined) openMatrix(next);
}

/** Open the matrix that the address names, if it names one. */
function openFromAddress() {
  const named = /^#matrix=(.+)$/.exec(location.hash);
  if (!named) return;
  let wanted;
  try {
    wanted = decodeURIComponent(named[1]);
  } catch {
    return;
  }
  const index = column("id").indexOf(wanted);
  if (index >= 0) openMatrix(index);
}

function startMatrix() {
  const dialog = document.getElementById("matrix");
  document.getElementById("matrix-back").addEventListener("click", () => stepMatrix(-1));
  document.getElementById("matrix-next").addEventListener("click", () => stepMatrix(1));
  document.getElementById("matrix-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.target.closest(".js-plotly-plot, input, textarea")) return;
    if (event.key === "ArrowLeft") stepMatrix(-1);
    if (event.key === "ArrowRight") stepMatrix(1);
  });
  dialog.addEventListener("close", () => {
    shownMatrix = null;
    document.documentElement.classList.remove("held");
    history.replaceState(null, "", location.pathname + location.search);
    keepInAddress(document.getElementById("table-filter").value);
  });
  for (const link of document.querySelectorAll("[data-open]")) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      openMatrix(data.worst[Number(link.dataset.open)]);
    });
  }
}
