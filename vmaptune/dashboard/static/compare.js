// Several runs side by side.

import { address, ask, badge, element, keepLooking, number } from "./common.js";
import { figures } from "./figures.js";

const runs = JSON.parse(document.getElementById("main").dataset.runs);
const refresh = figures({ run: runs });
const differences = document.getElementById("differences");

function fill(table, head, rows) {
  table.tHead.replaceChildren(element("tr", {}, ...head.map((name) => element("th", { scope: "col" }, name))));
  table.tBodies[0].replaceChildren(
    ...rows.map(([first, ...cells]) => {
      const made = cells.map((cell) => element("td", { className: "number" }, cell));
      return element("tr", {}, element("th", { scope: "row" }, first), ...made);
    }),
  );
}

function score(line) {
  const name = element("a", { href: address("/run", { run: line.run }) }, line.run);
  if (line.status === "unreadable") return [line.run, badge(line.status), line.problem, "", "", "", ""];
  const steps = number(line.throughput && Math.round(line.throughput));
  const done = `${line.generation} of ${line.generations}`;
  return [name, badge(line.status), line.metric, number(line.validation), number(line.test), done, steps];
}

async function differ(version) {
  const made = await ask("/api/figure", { run: runs, name: "differences" });
  if (made === null) return false;
  const rows = made.figure.differences ?? [];
  differences.querySelector(".nothing").textContent = made.figure.problem ?? "All settings are the same.";
  differences.querySelector(".nothing").hidden = rows.length > 0;
  fill(document.getElementById("differences-table"), rows.length ? ["setting", ...runs] : [], rows);
  return made.version === version;
}

let shown = "";
let compared = null;
keepLooking(async () => {
  const lines = await Promise.all(runs.map((run) => ask("/api/run", { run })));
  const head = ["run", "status", "metric", "validation", "test", "generations", "member-steps/s"];
  const seen = JSON.stringify(lines);
  if (seen !== shown) fill(document.getElementById("scores-table"), head, lines.map(score));
  shown = seen;
  const version = lines.map((line) => line.version).join("\n");
  if (compared !== version && (await differ(version))) compared = version;
  refresh(version);
});
