"use strict";
// Draws the run by step: the whole, each kind of matrix, each matrix; in the colours of the page's theme.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  // Okabe and Ito's colours, which the common kinds of colour blindness keep apart; dashes tell further lines apart.
  const COLOURS = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#7a7f87"];
  const DASHES = ["solid", "dash", "dot", "dashdot"];
  const PANELS = [["alpha", "α"], ["traps", "traps"], ["norm", "spectral norm"], ["rank", "stable rank"]];
  const TITLES = {
    alpha: "α", traps: "traps", strength: "strongest trap, × edge", norm: "spectral norm",
    frobenius: "Frobenius norm", rank: "stable rank",
  };
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const hover = (name) => data.labels.map((label) => `${name}<br>${label}`);

  const axis = (extra) => ({ gridcolor: css("--rule"), linecolor: css("--rule-strong"), zeroline: false, ...extra });
  const layout = (extra) => ({
    margin: { l: 58, r: 16, t: 34, b: 44 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { size: 12, color: css("--ink"), family: getComputedStyle(document.body).fontFamily },
    ...extra,
  });
  const steps = (extra) => axis({
    title: { text: data.byStep ? "step" : "checkpoint" },
    ...(data.byStep ? {} : { tickvals: data.x, ticktext: data.labels }),
    ...extra,
  });
  const line = (name, values, k, extra) => ({
    type: "scatter",
    mode: "lines+markers",
    x: data.x,
    y: values,
    name,
    text: hover(name),
    hovertemplate: "%{text}: %{y:.4g}<extra></extra>",
    line: { color: COLOURS[k % COLOURS.length], dash: DASHES[Math.floor(k / COLOURS.length) % DASHES.length], width: 2 },
    marker: { size: 5 },
    ...extra,
  });
  const draw = (id, traces, made) => {
    const box = document.getElementById(id);
    if (box) Plotly.react(box, traces, made, { responsive: true, displayModeBar: false });
  };

  const drawWhole = () => draw(
    "whole",
    [
      line("traps", data.points.traps, 3),
      { ...line("matrices with a new trap", data.points.newTraps, 1), type: "bar", marker: { color: COLOURS[1] }, mode: undefined, textposition: "none" },
      line("median α", data.points.alpha, 0, { yaxis: "y2" }),
    ],
    layout({
      height: 320,
      xaxis: steps(),
      yaxis: axis({ title: { text: "traps" }, rangemode: "tozero" }),
      yaxis2: { title: { text: "median α" }, overlaying: "y", side: "right", showgrid: false, zeroline: false },
      margin: { l: 58, r: 58, t: 34, b: 44 },
      legend: { orientation: "h", y: 1.16 },
    }),
  );

  // Four panels in a square, one quantity each; a line an item, one legend for all.
  const drawPanels = (id, table, places) => {
    const traces = [];
    const made = layout({ height: 640, grid: { rows: 2, columns: 2, pattern: "independent", ygap: 0.24 }, annotations: [] });
    PANELS.forEach(([key, title], p) => {
      const n = p === 0 ? "" : p + 1;
      places.forEach((place, k) => {
        traces.push(line(table.names[place], table[key][place], k, {
          xaxis: `x${n}`, yaxis: `y${n}`, legendgroup: `${place}`, showlegend: p === 0 && places.length > 1,
        }));
      });
      made[`xaxis${n}`] = steps(p < 2 ? { title: undefined } : {});
      made[`yaxis${n}`] = axis({ title: { text: title }, ...(key === "traps" ? { rangemode: "tozero" } : {}) });
    });
    made.legend = { orientation: "h", y: 1.1 };
    draw(id, traces, made);
  };
  const drawKinds = () => drawPanels("kinds", data.kinds, data.kinds.names.map((_, place) => place));

  const one = document.getElementById("matrix");
  const quantity = document.getElementById("quantity");
  const drawMatrix = () => drawPanels("matrix-plot", data.matrices, [Number(one.value)]);
  const drawMap = () => {
    const key = quantity.value;
    const { names } = data.matrices;
    draw(
      "map",
      [{
        type: "heatmap",
        x: data.x.map((_, place) => place),
        y: names.map((_, place) => place),
        z: data.matrices[key],
        text: names.map((name) => hover(name)),
        hovertemplate: "%{text}: %{z:.4g}<extra></extra>",
        colorscale: "Viridis",
        reversescale: key === "alpha",
        colorbar: { title: { text: TITLES[key] } },
        hoverongaps: false,
      }],
      layout({
        height: Math.min(1100, Math.max(320, 14 * names.length + 90)),
        margin: { l: 200, r: 16, t: 16, b: 56 },
        xaxis: axis({ tickvals: data.x.map((_, place) => place), ticktext: data.labels, showgrid: false, nticks: 20 }),
        yaxis: axis({
          autorange: "reversed", showgrid: false,
          ...(names.length <= 70 ? { tickvals: names.map((_, place) => place), ticktext: names.map((name) => name.slice(-34)) } : { showticklabels: false }),
        }),
      }),
    );
  };

  if (one) {
    data.matrices.names.forEach((name, place) => one.add(new Option(name, String(place))));
    const named = new Map(data.matrices.names.map((name, place) => [name, place]));
    one.value = String(named.get(one.dataset.first) ?? 0);
    one.addEventListener("change", drawMatrix);
    quantity.addEventListener("change", drawMap);
    document.querySelectorAll("[data-matrix]").forEach((link) => link.addEventListener("click", () => {
      const place = named.get(link.dataset.matrix);
      if (place === undefined) return;
      one.value = String(place);
      drawMatrix();
    }));
  }
  const drawAll = () => {
    drawWhole();
    drawKinds();
    if (one) {
      drawMatrix();
      drawMap();
    }
  };
  drawAll();
  document.getElementById("theme").addEventListener("click", () => {
    const root = document.documentElement;
    root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
    try {
      localStorage.setItem("llmtrap-theme", root.dataset.theme);
    } catch {
      // Storage may be closed to pages from disk; the choice then lasts as long as the page.
    }
    drawAll();
  });
})();
