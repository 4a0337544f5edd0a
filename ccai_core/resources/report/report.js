"use strict";
// Sorts a table by a column. The buttons are made here, so that a page without scripts has no
// button that does nothing.
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const order = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      sort(table.tBodies[0], column, head.dataset.sort === "number", order === "descending");
    });
  });
}

function sort(body, column, numeric, descending) {
  const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
  const compare = (a, b) => {
    const [x, y] = [value(a), value(b)];
    // What has no value stays at the end, in either order.
    if (x === "" || y === "") return (x === "") - (y === "");
    const difference = numeric ? Number(x) - Number(y) : x.localeCompare(y);
    return descending ? -difference : difference;
  };
  body.append(...[...body.rows].sort(compare));
}

// Paper cannot be unfolded: settings are printed, example texts stay closed unless opened.
addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details[data-print]")) part.open = true;
});
