// The table as comma-separated values, for spreadsheets and scripts.

const CSV_COLUMNS = [
  "id", "tensor", "part", "kind", "layer", "expert", "rows", "columns", "encoding", "state", "method", "alpha", "sigma", "xmin",
  "ks", "tail", "alphaLow", "alphaHigh", "band", "reliable", "centred", "meanShift", "low", "high", "strength", "z", "why", "kurtosis",
  "maxSigmas", "entryRatio", "meanRatio", "topZ", "spectralNorm", "frobeniusNorm", "stableRank", "entropy",
];

/** A field, quoted where it must be; a leading sign that a spreadsheet would run as a formula is held by an apostrophe. */
function csvField(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return String(value);
  const safe = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

/** The chosen matrices, in the order given, one line each. */
function toCsv(indices) {
  const named = CSV_COLUMNS.map((name) => [name, column(name)]);
  if (data.against) {
    for (const name of ["change", "alphaShift", "stableRankShift"]) named.push([`against.${name}`, against(name)]);
  }
  const lines = [named.map(([name]) => name).join(",")];
  for (const index of indices) lines.push(named.map(([, values]) => csvField(values[index])).join(","));
  return `${lines.join("\n")}\n`;
}

async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Some browsers keep the clipboard from pages that were opened from disk; the old way still works there.
    const area = make("textarea", { className: "offscreen", "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

function saveText(text, name) {
  const address = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  const link = make("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}
