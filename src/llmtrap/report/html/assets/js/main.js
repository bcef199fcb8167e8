// Starts the page.

function startTheme() {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const name = () => {
    button.setAttribute("aria-label", root.dataset.theme === "dark" ? "Use the light scheme" : "Use the dark scheme");
  };
  button.addEventListener("click", () => {
    root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
    try {
      localStorage.setItem("llmtrap-theme", root.dataset.theme);
    } catch {
      // The choice holds for this page only.
    }
    name();
    if (shownMatrix !== null) drawPlots(shownMatrix);
    redrawDepth();
  });
  name();
}


/** On paper the scheme is light, and so must the plots be. */
function startPrinting() {
  const root = document.documentElement;
  let before = null;
  addEventListener("beforeprint", () => {
    if (root.dataset.theme === "light") return;
    before = root.dataset.theme;
    root.dataset.theme = "light";
    if (shownMatrix !== null) drawPlots(shownMatrix);
    redrawDepth();
  });
  addEventListener("afterprint", () => {
    if (before === null) return;
    root.dataset.theme = before;
    before = null;
    if (shownMatrix !== null) drawPlots(shownMatrix);
    redrawDepth();
  });
}

startTheme();
startPrinting();
if (total > 0) {
  startTable();
  startMatrix();
  startExperts();
  pageMap = startMap();
  startDepth();
  openFromAddress();
  addEventListener("hashchange", openFromAddress);
}
document.documentElement.dataset.ready = "yes";
