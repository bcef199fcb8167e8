"use strict";
// Makes a plain table sortable by its columns. Without this script the table is whole, in the order it was written in.
// Cells are compared by their data-value where they have one, else by their text; a cell with an empty value comes last.
(() => {
  const valueOf = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.value ?? cell.innerText.trim();
  };

  const compare = (numeric, sign) => (a, b) => {
    if (a.value === "" || b.value === "") return (a.value === "") - (b.value === "") || a.place - b.place;
    const order = numeric ? Number(a.value) - Number(b.value) : a.value.localeCompare(b.value);
    return sign * order || a.place - b.place;
  };

  for (const table of document.querySelectorAll("table[data-sortable]")) {
    const heads = [...table.tHead.rows[0].cells];
    const body = table.tBodies[0];
    heads.forEach((head, column) => {
      if (head.dataset.unsorted !== undefined) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        // The first click shows what is largest, or latest; of names the first.
        const numeric = head.classList.contains("num");
        const first = numeric || head.dataset.first === "last" ? "descending" : "ascending";
        const other = first === "ascending" ? "descending" : "ascending";
        const direction = head.getAttribute("aria-sort") === first ? other : first;
        for (const one of heads) one.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", direction);
        const rows = [...body.rows].map((row, place) => ({ row, place, value: valueOf(row, column) }));
        rows.sort(compare(numeric, direction === "ascending" ? 1 : -1));
        body.append(...rows.map((item) => item.row));
      });
    });
  }
})();
