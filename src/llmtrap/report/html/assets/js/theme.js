// Sets the colour scheme before the first paint: the reader's last choice, else the system's.
(() => {
  let chosen = null;
  try {
    chosen = localStorage.getItem("llmtrap-theme");
  } catch {
    // Storage may be closed to pages from disk; the system's choice stands.
  }
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  const root = document.documentElement;
  root.dataset.theme = chosen === "dark" || chosen === "light" ? chosen : system;
  root.classList.add("scripted");
})();
