"use strict";
// A click on the head of a column sorts the table by it. Without this script tables stay as they are.
const key = (row, place) => {
  const cell = row.cells[place];
  const number = parseFloat(cell.dataset.key ?? cell.textContent.replace(/,/g, "").replace("\u2212", "-"));
  return isNaN(number) ? cell.textContent : number;
};
const compare = (a, b) => {
  if (typeof a === typeof b) return typeof a === "number" ? a - b : a.localeCompare(b);
  return typeof a === "number" ? -1 : 1;
};
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  table.querySelectorAll("thead th").forEach((head, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.title = "Sort by this column";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      table.querySelectorAll("thead th").forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...body.rows].sort((a, b) => compare(key(a, place), key(b, place)));
      body.append(...(up ? rows : rows.reverse()));
    });
  });
}
// Paper shows what a reader would open, but not pages of a long table.
addEventListener("beforeprint", () => {
  document.querySelectorAll("details:not(.long)").forEach((each) => { each.open = true; });
});
