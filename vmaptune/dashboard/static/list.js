// The list of runs: search, sort, and choose some to compare.

import { address, ago, ask, badge, element, keepLooking, number, progress } from "./common.js";

const table = document.getElementById("runs");
const body = table.tBodies[0];
const search = document.getElementById("search");
const compare = document.getElementById("compare");
const count = document.getElementById("count");
const chosen = new Set();
let runs = [];
let order = { key: "created", descending: true };

const SVG = "http://www.w3.org/2000/svg";

/** Best fitness by generation as a small line. */
function sparkline(values) {
  const known = values.filter((value) => typeof value === "number");
  if (known.length < 2) return "";
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const points = known.map((value, i) => {
    const x = 1 + (i / (known.length - 1)) * 98;
    const y = 21 - (high > low ? (value - low) / (high - low) : 0.5) * 18;
    return `${x.toFixed(1)},${y.toFixed(1)}`;
  });
  const drawing = document.createElementNS(SVG, "svg");
  const line = document.createElementNS(SVG, "polyline");
  for (const [name, value] of Object.entries({ viewBox: "0 0 100 24", class: "spark", role: "img", preserveAspectRatio: "none" })) {
    drawing.setAttribute(name, value);
  }
  drawing.setAttribute("aria-label", `best fitness by generation: from ${number(known[0])} to ${number(known.at(-1))}`);
  line.setAttribute("points", points.join(" "));
  drawing.append(line);
  return drawing;
}

function choice(line) {
  const box = element("input", { type: "checkbox", checked: chosen.has(line.run), "aria-label": `compare ${line.run}` });
  box.addEventListener("change", () => {
    if (box.checked) chosen.add(line.run);
    else chosen.delete(line.run);
    offer();
  });
  return box;
}

/** The link to a comparison, once there are two to compare. */
function offer() {
  const ready = chosen.size >= 2;
  compare.textContent = chosen.size ? `Compare ${chosen.size} runs` : "Compare";
  compare.setAttribute("aria-disabled", String(!ready));
  if (ready) compare.href = address("/compare", { run: [...chosen] });
  else compare.removeAttribute("href");
}

function row(line) {
  const cell = (name, ...children) => element("td", { className: name }, ...children);
  if (line.status === "unreadable") {
    const problem = element("td", { className: "problem", colSpan: 8 }, line.problem);
    return element("tr", {}, cell("choose"), element("th", { scope: "row" }, line.run), cell("status-cell", badge(line.status)), problem);
  }
  const name = element("th", { scope: "row" }, element("a", { href: address("/run", { run: line.run }) }, line.run));
  return element(
    "tr",
    {},
    cell("choose", choice(line)),
    name,
    cell("status-cell", badge(line.status)),
    cell("progress-cell", progress(line)),
    cell("task", line.task),
    cell("right best", number(line.validation), element("small", {}, ` ${line.metric}`)),
    cell("spark-cell", sparkline(line.spark)),
    cell("right test", number(line.test)),
    cell("right population", number(line.population)),
    cell("right throughput", number(line.throughput && Math.round(line.throughput))),
    cell("created", ago(line.created)),
  );
}

const VALUES = { progress: (line) => line.generation / line.generations };

/** Runs in the chosen order; those without a value last. */
function sorted(lines) {
  const value = VALUES[order.key] ?? ((line) => line[order.key]);
  const known = (line) => value(line) !== null && value(line) !== undefined;
  const sign = order.descending ? -1 : 1;
  return [...lines].sort((a, b) => {
    if (!known(a) || !known(b)) return known(b) - known(a);
    return sign * (value(a) > value(b) ? 1 : value(a) < value(b) ? -1 : 0);
  });
}

function show() {
  const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const found = runs.filter((line) => {
    const text = `${line.run} ${line.status} ${line.task ?? ""} ${line.metric ?? ""}`.toLowerCase();
    return wanted.every((word) => text.includes(word));
  });
  const focused = document.activeElement?.closest?.("#runs tbody") ? document.activeElement.getAttribute("aria-label") ?? document.activeElement.textContent : null;
  body.replaceChildren(...sorted(found).map(row));
  if (focused !== null) {
    [...body.querySelectorAll("a, input")].find((one) => (one.getAttribute("aria-label") ?? one.textContent) === focused)?.focus();
  }
  const going = runs.filter((line) => line.status === "running").length;
  count.textContent = `${found.length === runs.length ? "" : `${found.length} of `}${runs.length} ${runs.length === 1 ? "run" : "runs"}, ${going} running`;
  document.getElementById("empty").hidden = runs.length > 0;
  table.hidden = runs.length === 0;
}

for (const heading of table.tHead.querySelectorAll("th[data-key]")) {
  heading.querySelector("button").addEventListener("click", () => {
    const key = heading.dataset.key;
    order = { key, descending: order.key === key ? !order.descending : !["run", "status", "task"].includes(key) };
    for (const other of table.tHead.querySelectorAll("th[data-key]")) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", order.descending ? "descending" : "ascending");
    show();
  });
}

search.addEventListener("input", show);
offer();
let shown = "";
keepLooking(async () => {
  const answer = await ask("/api/runs");
  const seen = JSON.stringify(answer);
  if (seen === shown) return; // nothing new: leave focus and selection alone
  shown = seen;
  runs = answer.runs;
  show();
});
