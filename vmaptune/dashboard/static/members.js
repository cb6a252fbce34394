// The members of the newest generation as a table; the server sorts it and cuts it into pages.

import { ask, element, number } from "./common.js";

/** Prepares the table; returns a function that shows it as it is now. */
export function members(run) {
  const table = document.getElementById("members");
  const about = document.getElementById("members-about");
  const back = document.getElementById("members-back");
  const on = document.getElementById("members-on");
  const query = { run, sort: "fitness", order: "descending", page: 0 };

  function heading(column) {
    const button = element("button", { type: "button" }, column);
    button.addEventListener("click", () => {
      query.order = query.sort === column && query.order === "descending" ? "ascending" : "descending";
      Object.assign(query, { sort: column, page: 0 });
      show();
    });
    const made = element("th", { scope: "col" }, button);
    if (query.sort === column) made.setAttribute("aria-sort", query.order);
    return made;
  }

  async function show() {
    const answer = await ask("/api/members", query);
    const focused = table.contains(document.activeElement) ? document.activeElement.textContent : null;
    table.tHead.replaceChildren(element("tr", {}, ...answer.columns.map(heading)));
    table.tBodies[0].replaceChildren(
      ...answer.rows.map((row) => element("tr", {}, ...row.map((value) => element("td", { className: "number right" }, number(value))))),
    );
    if (focused !== null) [...table.tHead.querySelectorAll("button")].find((one) => one.textContent === focused)?.focus();
    const first = answer.page * 100 + 1;
    about.textContent = answer.total
      ? `Generation ${answer.generation + 1}: members ${number(first)} to ${number(first + answer.rows.length - 1)} of ${number(answer.total)}`
      : "No generation is finished yet.";
    query.page = answer.page;
    back.disabled = answer.page === 0;
    on.disabled = answer.page + 1 >= answer.pages;
    document.getElementById("members-pages").hidden = answer.pages === 1;
  }

  back.addEventListener("click", () => {
    query.page -= 1;
    show();
  });
  on.addEventListener("click", () => {
    query.page += 1;
    show();
  });
  return show;
}
