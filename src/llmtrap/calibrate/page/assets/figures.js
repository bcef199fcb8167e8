"use strict";
// Draws the figures that Python described, each when it first comes into view, and all before they are printed.
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const boxes = [...document.querySelectorAll("[data-figure]")];
  const draw = (box) => {
    const { data, layout } = figures[box.dataset.figure];
    layout.font.family = getComputedStyle(document.body).fontFamily;
    Plotly.react(box, data, layout, { responsive: true, displayModeBar: false });
    box.dataset.drawn = "true";
  };
  const seen = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) if (isIntersecting && !target.dataset.drawn) draw(target);
  }, { rootMargin: "600px" });
  boxes.forEach((box) => seen.observe(box));
  window.addEventListener("beforeprint", () => {
    document.querySelectorAll("details").forEach((it) => { it.open = true; });
    boxes.forEach(draw);
  });
  document.getElementById("theme").addEventListener("click", () => {
    const { dataset } = document.documentElement;
    dataset.theme = dataset.theme === "dark" ? "light" : "dark";
    try {
      localStorage.setItem("llmtrap-theme", dataset.theme);
    } catch {
      // Storage may be closed to pages from disk; the choice then lasts as long as the page.
    }
  });
})();
