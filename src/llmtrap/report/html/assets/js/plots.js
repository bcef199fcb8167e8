// A matrix's two spectra, drawn by Plotly: as stored, and with its entries shuffled.

/** Start Plotly when the first plot is wanted, so that the map and the table need not wait for its megabyte. */
function startPlotly() {
  if (window.Plotly) return;
  const script = document.createElement("script");
  // The same text as in the page, so that its hash passes the content security policy.
  script.textContent = document.getElementById("plotly").textContent;
  document.head.append(script);
}

/** A colour of the style sheet in the scheme that is on. */
function ink(name) {
  const probe = make("span", { className: "offscreen" });
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const colour = getComputedStyle(probe).color;
  probe.remove();
  return colour;
}

/** The bins of a stored histogram, or null: `{edges, counts}`. */
function histogram(stored, index) {
  const counts = stored.counts[index];
  if (!counts) return null;
  if (stored.edges[index]) return { edges: stored.edges[index], counts };
  const first = stored.first[index];
  const step = Math.log(stored.last[index] / first) / counts.length;
  return { edges: Array.from({ length: counts.length + 1 }, (_, k) => first * Math.exp(k * step)), counts };
}

/** Height of each bin as a staircase: shares of all eigenvalues over `width(left, right)`; empty bins stand at `floor`. */
function staircase({ edges, counts }, width, floor) {
  const sum = counts.reduce((a, b) => a + b, 0);
  const heights = counts.map((count, k) => (count ? count / sum / width(edges[k], edges[k + 1]) : floor));
  return { x: edges, y: [...heights, heights.at(-1)], heights };
}

/**
 * Marchenko and Pastur's law for the shuffled matrix, over ln λ, so that equal areas are equal shares.
 *
 * With s² the variance of the bulk, N rows, M columns and c = M/N ≤ 1, x = λ/(s²N) has the density
 * √((x₊ − x)(x − x₋)) / (2πc x) between x± = (1 ± √c)².
 */
function marchenkoPastur(variance, small, large) {
  const c = small / large;
  const scale = variance * large;
  const low = (1 - Math.sqrt(c)) ** 2;
  const high = (1 + Math.sqrt(c)) ** 2;
  const from = Math.max(low, high * 1e-4);
  const x = [];
  const y = [];
  for (let k = 0; k <= 240; k++) {
    // Closer steps at both ends, where the curve is steep.
    const share = (1 - Math.cos((Math.PI * k) / 240)) / 2;
    const at = from * (high / from) ** share;
    x.push(at * scale);
    y.push(Math.sqrt(Math.max(0, (high - at) * (at - low))) / (2 * Math.PI * c));
  }
  return { x, y };
}

/** Johnstone's centre and scale of the largest eigenvalue of a matrix without traps. */
function edgeLaw(variance, small, large) {
  const root = Math.sqrt(large - 1) + Math.sqrt(small);
  return {
    centre: variance * root ** 2,
    scale: variance * root * (1 / Math.sqrt(large - 1) + 1 / Math.sqrt(small)) ** (1 / 3),
  };
}

function frame(xTitle, yTitle) {
  const axis = {
    gridcolor: ink("rule"),
    linecolor: ink("rule-strong"),
    zeroline: false,
    ticks: "outside",
    ticklen: 4,
    tickcolor: ink("rule-strong"),
    tickfont: { size: 11 },
    exponentformat: "power",
  };
  return {
    modebar: { bgcolor: "rgba(0,0,0,0)", color: ink("ink-2"), activecolor: ink("ink") },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, color: ink("ink-2"), size: 12 },
    margin: { l: 62, r: 16, t: 12, b: 46 },
    hovermode: "closest",
    showlegend: true,
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: { size: 11 }, bgcolor: "rgba(0,0,0,0)" },
    xaxis: { ...axis, type: "log", title: { text: xTitle, font: { size: 12 } } },
    yaxis: { ...axis, title: { text: yTitle, font: { size: 12 } } },
    shapes: [],
    annotations: [],
  };
}

const PLOT_SETTINGS = {
  displaylogo: false,
  responsive: true,
  modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]],
  toImageButtonOptions: { format: "svg", filename: "llmtrap-spectrum" },
};

/** Ticks of a log axis at readable places: 1, 2, 5 over few decades, else every decade or every few. */
function logTicks(axis, [low, high]) {
  const decades = high - low;
  const marks = decades < 2.2 ? [1, 2, 5] : [1];
  const every = Math.max(1, Math.ceil(decades / 7));
  const values = [];
  for (let power = Math.floor(low); power <= Math.ceil(high); power++) {
    if (power % every === 0) for (const mark of marks) values.push(mark * 10 ** power);
  }
  axis.range = [low, high];
  axis.tickvals = values;
  axis.ticktext = values.map((value) => (value >= 1e-3 && value < 1e5 ? number(value, 1) : `10<sup>${Math.round(Math.log10(value))}</sup>`));
}

/** A vertical line at x with its words beside it. */
function upright(x, words, colour, dash, side = "left", height = 0.96) {
  return {
    shape: { type: "line", x0: x, x1: x, y0: 0, y1: 1, yref: "paper", line: { color: colour, width: 1.5, dash } },
    annotation: {
      x: Math.log10(x), y: height, yref: "paper", text: words, showarrow: false, font: { size: 11, color: colour },
      xanchor: side === "left" ? "right" : "left", yanchor: "top", xshift: side === "left" ? -5 : 5, align: side === "left" ? "right" : "left",
    },
  };
}

/** The ESD on log-log axes, with the power law from x_min. */
function drawEsd(host, index) {
  const bins = histogram(data.esd, index);
  if (!bins) return null;
  const positive = bins.edges[0] > 0 ? bins : { edges: bins.edges.slice(1), counts: bins.counts.slice(1) };
  const bars = staircase(positive, (left, right) => right - left, null);
  const shown = bars.heights.filter((height) => height !== null);
  const floor = least(shown) / 4;
  const layout = frame("eigenvalue λ of WᵀW", "density");
  layout.yaxis.type = "log";
  logTicks(layout.yaxis, [Math.log10(floor), Math.log10(greatest(shown) * 3)]);
  logTicks(layout.xaxis, [Math.log10(bars.x[0] / 1.15), Math.log10(bars.x.at(-1) * 1.15)]);
  const traces = [
    {
      x: bars.x, y: bars.y.map((height) => height ?? floor), type: "scatter", mode: "lines", name: "eigenvalues",
      line: { shape: "hv", width: 1.25, color: ink("plot-bulk-line") }, fill: "tozeroy", fillcolor: ink("plot-bulk"), hoverinfo: "x+y",
    },
  ];
  const base = data.against && histogram(data.against.esd, index);
  if (base) {
    const was = staircase(base.edges[0] > 0 ? base : { edges: base.edges.slice(1), counts: base.counts.slice(1) }, (left, right) => right - left, null);
    traces.push({
      x: was.x, y: was.y.map((height) => height ?? floor), type: "scatter", mode: "lines", name: "of the base",
      line: { shape: "hv", width: 1.5, color: ink("plot-shift"), dash: "dot" }, hoverinfo: "x+y",
    });
  }
  const alpha = column("alpha")[index];
  const xmin = column("xmin")[index];
  if (alpha !== null && xmin) {
    const last = bars.x.at(-1);
    const share = column("tail")[index] / bins.counts.reduce((a, b) => a + b, 0);
    const at = Array.from({ length: 40 }, (_, k) => xmin * (last / xmin) ** (k / 39));
    traces.push({
      x: at, y: at.map((x) => (share * (alpha - 1) * (x / xmin) ** -alpha) / xmin), type: "scatter", mode: "lines",
      name: `power law, α = ${fixed(alpha)}${column("reliable")[index] ? "" : " (unreliable)"}`,
      line: { color: ink("plot-fit"), width: 2.5, dash: column("reliable")[index] ? "solid" : "dash" }, hoverinfo: "name",
    });
    const mark = upright(xmin, "x<sub>min</sub>", ink("plot-fit"), "dot");
    layout.shapes.push(mark.shape);
    layout.annotations.push(mark.annotation);
  }
  return Plotly.newPlot(host, traces, layout, PLOT_SETTINGS);
}

/**
 * The Kolmogorov–Smirnov distance D of a power law that starts at each bin's edge, from the histogram: `{x, y}`.
 *
 * The tail's count and its distribution at the edges are exact; ln λ within a bin is taken to be its middle.
 */
function distancesByStart({ edges, counts }, leastTail = 8) {
  const logs = edges.map(Math.log);
  const x = [];
  const y = [];
  for (let start = 0; start < counts.length - 1; start++) {
    let size = 0;
    let excess = 0;
    for (let k = start; k < counts.length; k++) {
      size += counts[k];
      excess += counts[k] * ((logs[k] + logs[k + 1]) / 2 - logs[start]);
    }
    if (size < leastTail || !(excess > 0)) continue;
    const power = size / excess; // α − 1
    let below = 0;
    let distance = 0;
    for (let k = start; k < counts.length - 1; k++) {
      below += counts[k];
      distance = Math.max(distance, Math.abs(1 - Math.exp(-power * (logs[k + 1] - logs[start])) - below / size));
    }
    x.push(edges[start]);
    y.push(distance);
  }
  return { x, y };
}

/** D against x_min, with the x_min that was chosen. */
function drawDistances(host, index) {
  const bins = histogram(data.esd, index);
  const [xmin, ks] = [column("xmin")[index], column("ks")[index]];
  if (!bins || !xmin || ks === null) return null;
  const curve = distancesByStart(bins.edges[0] > 0 ? bins : { edges: bins.edges.slice(1), counts: bins.counts.slice(1) });
  const layout = frame("x<sub>min</sub>: the eigenvalue where the tail starts", "D");
  const ends = [...curve.x, xmin];
  logTicks(layout.xaxis, [Math.log10(least(ends) / 1.15), Math.log10(greatest(ends) * 1.15)]);
  layout.yaxis.rangemode = "tozero";
  layout.shapes.push({ type: "line", x0: 0, x1: 1, xref: "paper", y0: 0.15, y1: 0.15, line: { color: ink("plot-edge"), width: 1, dash: "dash" } });
  const traces = [
    { x: curve.x, y: curve.y, type: "scatter", mode: "lines", name: "D, from the histogram", line: { width: 2, color: ink("plot-law") }, hoverinfo: "x+y" },
    {
      x: [xmin], y: [ks], type: "scatter", mode: "markers", name: "the fit", hoverinfo: "x+y",
      marker: { symbol: "circle-open", size: 12, color: ink("plot-fit"), line: { width: 2.5, color: ink("plot-fit") } },
    },
  ];
  return Plotly.newPlot(host, traces, layout, PLOT_SETTINGS);
}

const CAUSES = { entry: "entry", heavy_tail: "heavy tail", mean_shift: "mean shift" };

/** The spectrum of the shuffled matrix: bulk, edge, the band in which chance plays, and the traps, found or predicted. */
function drawShuffled(host, index) {
  const variance = column("variance")[index];
  if (!variance) return null;
  const [small, large] = sides(index);
  const law = marchenkoPastur(variance, small, large);
  const { centre, scale } = edgeLaw(variance, small, large);
  const edge = column("edge")[index] ?? centre;
  const traps = data.traps[index] ?? [];
  const trapWord = column("method")[index] === "predicted" ? "predicted trap" : "trap";
  const bins = histogram(data.shuffled, index);
  const layout = frame("eigenvalue λ of RᵀR, R = W with its entries shuffled", "share per unit of ln λ");
  const traces = [];
  let top = greatest(law.y);
  if (bins) {
    const bars = staircase(bins, (left, right) => Math.log(right / left), 0);
    top = Math.max(top, ...bars.heights);
    traces.push({
      x: bars.x, y: bars.y, type: "scatter", mode: "lines", name: "shuffled matrix",
      line: { shape: "hv", width: 1, color: ink("plot-bulk-line") }, fill: "tozeroy", fillcolor: ink("plot-bulk"), hoverinfo: "x+y",
    });
  }
  const stored = histogram(data.esd, index);
  if (stored) {
    const positive = stored.edges[0] > 0 ? stored : { edges: stored.edges.slice(1), counts: stored.counts.slice(1) };
    const bars = staircase(positive, (left, right) => Math.log(right / left), 0);
    top = Math.max(top, ...bars.heights);
    traces.push({
      x: bars.x, y: bars.y, type: "scatter", mode: "lines", name: "as stored", line: { shape: "hv", width: 1.5, color: ink("plot-fit") }, hoverinfo: "x+y",
    });
  }
  traces.push({
    x: law.x, y: law.y, type: "scatter", mode: "lines", name: "by chance (Marchenko–Pastur)",
    line: { color: ink("plot-law"), width: 2 }, hoverinfo: "name",
  });
  const start = centre - 4 * scale;
  layout.shapes.push({
    type: "rect", x0: start, x1: edge, y0: 0, y1: 1, yref: "paper", fillcolor: ink("plot-band"), line: { width: 0 }, layer: "below",
  });
  const mark = upright(edge, traps.length ? "edge" : "edge:<br>a trap<br>would lie<br>beyond", ink("plot-edge"), "dash", traps.length ? "left" : "right");
  layout.shapes.push(mark.shape);
  layout.annotations.push(mark.annotation);
  const ordered = traps.map((trap, place) => [...trap.slice(0, 5), place + 1]);
  for (const [kind, symbol] of [["entry", "diamond"], ["heavy_tail", "triangle-up"], ["mean_shift", "circle-open"]]) {
    const chosen = ordered.filter((trap) => trap[3] === kind);
    if (!chosen.length) continue;
    const colour = ink(kind === "mean_shift" ? "plot-shift" : "plot-trap");
    traces.push({
      x: chosen.flatMap(([value]) => [value, value, null]), y: chosen.flatMap(() => [0, top * 0.34, null]), type: "scatter", mode: "lines",
      line: { color: colour, width: 2 }, showlegend: false, hoverinfo: "skip",
    });
    traces.push({
      x: chosen.map(([value]) => value), y: chosen.map(() => top * 0.34), type: "scatter", mode: "markers+text", name: `${trapWord}: ${CAUSES[kind]}`,
      text: chosen.length > 5 ? chosen.map((trap, place) => (place ? "" : `${trap[5]}–${chosen.at(-1)[5]}`)) : chosen.map((trap) => String(trap[5])), textposition: "top center", textfont: { size: 12, color: colour },
      marker: { symbol, size: chosen.length > 5 ? 8 : 11, color: colour, line: { color: colour, width: 2 } },
      hovertext: chosen.map((trap) => `${trapWord} ${trap[5]}: ${number(trap[2])} × the edge, z = ${number(trap[1])}`), hoverinfo: "text",
    });
  }
  const reach = greatest([edge, ...traps.map(([value]) => value), bins ? bins.edges.at(-1) : 0]);
  logTicks(layout.xaxis, [Math.log10(Math.max(law.x[0], centre * 1e-3) / 1.1), Math.log10(reach * (traps.length ? 1.35 : 2.6))]);
  layout.yaxis.range = [0, top * 1.12];
  return Plotly.newPlot(host, traces, layout, PLOT_SETTINGS);
}
