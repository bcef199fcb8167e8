// Inside a cell of a mixture of experts: its kind, layers by experts.

let pageMap = null;
let expertGrid = null;
let expertReturn = null;

/** Open the experts of one kind, with the layer that was clicked in view. */
function openExperts(kind, layer) {
  const kinds = column("kind");
  const members = [];
  for (let index = 0; index < total; index++) if (kinds[index] === kind) members.push(index);
  const layers = [...new Set(members.map((index) => column("layer")[index]))].sort((a, b) => a - b);
  const byExpert = members.some((index) => column("expert")[index] !== null);
  const across = new Map();
  const rank = new Map();
  for (const index of members) {
    // Matrices that share kind and layer but are no experts stand side by side in their own order.
    const at = column("layer")[index];
    rank.set(at, (rank.get(at) ?? -1) + 1);
    const place = byExpert ? column("expert")[index] : rank.get(at);
    if (!across.has(place)) across.set(place, new Map());
    across.get(place).set(at, [...(across.get(place).get(at) ?? []), index]);
  }
  const numbers = [...across.keys()].sort((a, b) => a - b);
  const panel = document.getElementById("experts");
  expertReturn = document.activeElement;
  panel.hidden = false;
  document.getElementById("experts-title").textContent = `${kind}: ${layers.length} layers × ${numbers.length} experts`;
  expertGrid = drawGrid(document.getElementById("experts-map"), {
    name: `Experts of ${kind}`,
    corner: "expert",
    rows: layers.map((at) => (at === null ? "no layer" : `layer ${at}`)),
    columns: numbers,
    cells: layers.map((at) => numbers.map((place) => across.get(place).get(at) ?? null)),
    open: (indices) => openMatrix(indices[0]),
    readout: document.getElementById("experts-readout"),
  });
  expertGrid.paint(pageMap.value());
  const row = Math.max(0, layers.indexOf(layer));
  const there = members.filter((index) => column("layer")[index] === layer);
  const first = worstOf(there);
  expertGrid.focus(row, Math.max(0, numbers.findIndex((place) => across.get(place).get(layer)?.includes(first))));
  panel.scrollIntoView({ block: "nearest" });
}

function repaintExperts(value) {
  expertGrid?.paint(value);
}

function closeExperts() {
  document.getElementById("experts").hidden = true;
  document.getElementById("experts-map").replaceChildren();
  expertGrid = null;
  expertReturn?.focus();
}

function startExperts() {
  document.getElementById("experts-close").addEventListener("click", closeExperts);
  document.getElementById("experts").addEventListener("keydown", (event) => {
    if (event.key === "Escape") closeExperts();
  });
}
