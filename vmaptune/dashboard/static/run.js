// The page of one run.

import { address, ago, ask, badge, element, keepLooking, number, progress } from "./common.js";
import { figures } from "./figures.js";
import { members } from "./members.js";

const { run } = document.getElementById("main").dataset;
const refresh = figures({ run });
const table = members(run);
const findings = document.getElementById("findings");

/** A key figure. */
function card(name, value, note = "") {
  return element("li", {}, element("span", {}, name), element("strong", {}, value), element("small", {}, note));
}

function head(line) {
  document.getElementById("state").replaceChildren(progress(line), badge(line.status));
  document.getElementById("cards").replaceChildren(
    card(`validation ${line.metric}`, number(line.validation), line.direction === "max" ? "more is better" : "less is better"),
    card(`test ${line.metric}`, number(line.test), line.test === null ? "unread" : ""),
    card("generations", `${line.generation} of ${line.generations}`),
    card("members", number(line.population)),
    card("member-steps a second", number(line.throughput && Math.round(line.throughput)), "newest generations"),
    card("started", ago(line.created)),
  );
  const links = line.files.map((file) => element("a", { href: address("/download", { run, file }), download: "" }, file));
  document.getElementById("files").replaceChildren(...links);
}

/** The verdicts, as the report has them. True once they are of that version. */
async function judge(version) {
  const made = await ask("/api/figure", { run, name: "findings" });
  if (made === null) return false;
  const about = findings.querySelector(".nothing");
  const list = made.figure?.findings ?? [];
  about.textContent = made.figure?.problem ?? "There is no sound member yet, so there is nothing to judge.";
  about.hidden = list.length > 0;
  findings.querySelector("ul").replaceChildren(
    ...list.map(({ sentence, advice }) => {
      const item = element("li", { className: advice ? "worry" : "" }, `${sentence}.`);
      if (advice) item.append(element("small", {}, `What to try: ${advice}.`));
      return item;
    }),
  );
  return made.version === version;
}

let shown = "";
let judged = null;
keepLooking(async () => {
  const line = await ask("/api/run", { run });
  if (line.status === "unreadable") throw new Error(line.problem);
  if (judged !== line.version && (await judge(line.version))) judged = line.version;
  const seen = JSON.stringify(line);
  if (seen === shown) return;
  shown = seen;
  head(line);
  refresh(line.version);
  await table();
});
