// α by depth, a small chart for each role, with the band that published models have in it.

const MOST_DEPTH_CHARTS = 12;

/** The kinds with three reliable fits or more inside the layers, as a layer runs: `[kind, indices]`. */
function kindsByDepth() {
  const kinds = new Map();
  for (let index = 0; index < total; index++) {
    if (column("layer")[index] === null || column("expert")[index] !== null || column("alpha")[index] === null) continue;
    const kind = column("kind")[index];
    if (!kinds.has(kind)) kinds.set(kind, []);
    kinds.get(kind).push(index);
  }
  for (const [kind, held] of kinds) if (held.length < 3) kinds.delete(kind);
  return inOrder(kinds.keys()).slice(0, MOST_DEPTH_CHARTS).map((kind) => [kind, kinds.get(kind)]);
}

function drawDepth(host, kind, indices) {
  const layers = column("layer");
  const alphas = column("alpha");
  const fits = column("reliable");
  const ordered = [...indices].sort((a, b) => layers[a] - layers[b]);
  const band = bandOf(indices[0]);
  const ends = [layers[ordered[0]] - 0.5, layers[ordered.at(-1)] + 0.5];
  const plan = frame("layer", "α");
  plan.margin = { l: 44, r: 8, t: 8, b: 38 };
  plan.showlegend = false;
  plan.xaxis.type = "linear";
  plan.xaxis.range = ends;
  plan.yaxis.rangemode = "tozero";
  if (band) {
    plan.shapes.push(
      { type: "rect", x0: ends[0], x1: ends[1], y0: band[0], y1: band[2], fillcolor: ink("plot-band"), line: { width: 0 }, layer: "below" },
      { type: "line", x0: ends[0], x1: ends[1], y0: band[1], y1: band[1], line: { color: ink("plot-edge"), width: 1, dash: "dot" }, layer: "below" },
    );
  }
  const trapped = (index) => column("state")[index] === "trapped";
  const trace = {
    x: ordered.map((index) => layers[index]),
    y: ordered.map((index) => alphas[index]),
    type: "scatter",
    mode: "lines+markers",
    line: { color: ink("plot-bulk-line"), width: 1 },
    marker: {
      size: 7,
      symbol: ordered.map((index) => (trapped(index) ? "diamond" : fits[index] ? "circle" : "circle-open")),
      color: ordered.map((index) => (trapped(index) ? ink("plot-trap") : ink("plot-law"))),
    },
    text: ordered.map((index) => `${column("id")[index]}: α ${alphaText(index)}`),
    hoverinfo: "text",
  };
  Plotly.newPlot(host, [trace], plan, { ...PLOT_SETTINGS, displayModeBar: false }).then(() => {
    host.on("plotly_click", ({ points }) => openMatrix(ordered[points[0].pointNumber]));
  });
}

/** The charts, drawn when they come into view: the plot library is large. */
function startDepth() {
  const section = document.getElementById("depth");
  const kinds = kindsByDepth();
  section.hidden = !kinds.length;
  if (!kinds.length) return;
  const place = document.getElementById("depth-charts");
  const hosts = kinds.map(([kind]) => {
    const host = make("div", { className: "depth-plot" });
    place.append(make("figure", {}, [make("figcaption", { text: kind }), host]));
    return host;
  });
  const draw = () => {
    startPlotly();
    kinds.forEach(([kind, indices], k) => drawDepth(hosts[k], kind, indices));
  };
  redrawDepth = () => hosts[0].childElementCount && draw();
  new IntersectionObserver((entries, watcher) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    watcher.disconnect();
    draw();
  }).observe(place);
}

let redrawDepth = () => {};
