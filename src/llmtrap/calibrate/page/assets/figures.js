"use strict";
// Draws the figures that Python described, in the colours of the page's theme, each when it first comes into view.
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const style = () => getComputedStyle(document.documentElement);
  const paint = (layout) => {
    const ink = style().getPropertyValue("--ink").trim();
    const grid = style().getPropertyValue("--line").trim();
    layout.font = { ...layout.font, color: ink, family: style().getPropertyValue("--font").trim() };
    for (const key of Object.keys(layout)) {
      if (/^[xy]axis/.test(key)) {
        layout[key] = { gridcolor: grid, linecolor: grid, zeroline: false, ...layout[key] };
        layout[key].gridcolor = grid;
      }
    }
    return layout;
  };
  const draw = (box) => {
    const figure = figures[box.dataset.figure];
    Plotly.react(box, figure.data, paint({ ...figure.layout }), { responsive: true, displayModeBar: false });
    box.dataset.drawn = "true";
  };
  const boxes = [...document.querySelectorAll("[data-figure]")];
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting && !entry.target.dataset.drawn) draw(entry.target);
    }
  }, { rootMargin: "600px" });
  boxes.forEach((box) => seen.observe(box));
  window.addEventListener("beforeprint", () => {
    document.querySelectorAll("details").forEach((it) => { it.open = true; });
    boxes.forEach(draw);
  });
  document.getElementById("theme").addEventListener("click", () => {
    const root = document.documentElement;
    root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
    try {
      localStorage.setItem("llmtrap-theme", root.dataset.theme);
    } catch {
      // Storage may be closed to pages from disk; the choice then lasts as long as the page.
    }
    boxes.filter((box) => box.dataset.drawn).forEach(draw);
  });
})();
