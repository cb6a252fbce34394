// What every page shares: asking the server again and again, and making elements. Text is only ever set as text.

const EVERY = 2000; // milliseconds between two questions

/** Makes an element. Values in `properties` are set as properties or, with a dash in the name, as attributes. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role" || name === "scope") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}

/** An address of this server. Values that are lists are repeated. */
export function address(path, query = {}) {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) [value].flat().forEach((one) => search.append(name, one));
  return `${path}?${search}`;
}

/** What the server knows, as JSON; null while it is still being made. */
export async function ask(path, query = {}) {
  const answer = await fetch(address(path, query));
  if (answer.status === 202) return null;
  const value = await answer.json();
  if (!answer.ok) throw new Error(value.problem);
  return value;
}

/** Calls `look` now and every two seconds while the page is seen; says so when the server is gone. */
export function keepLooking(look) {
  const notice = document.getElementById("notice");
  let busy = false;
  const turn = async () => {
    if (busy || document.hidden) return;
    busy = true;
    try {
      await look();
      notice.hidden = true;
    } catch (error) {
      notice.textContent = error instanceof TypeError ? "The dashboard does not answer; this page is as it was last." : error.message;
      notice.hidden = false;
    } finally {
      busy = false;
    }
  };
  document.addEventListener("visibilitychange", turn);
  setInterval(turn, EVERY);
  return turn();
}

/** A number as people read it: four significant digits, groups of three. */
export function number(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value)) return value.toLocaleString("en");
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) return value.toExponential(2);
  return size >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(4)));
}

/** How long ago, in words; the time itself is the element's title. */
export function ago(time) {
  const seconds = Math.max(0, (Date.now() - Date.parse(time)) / 1000);
  const units = [["day", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const [unit, size] = units.find(([, length]) => seconds >= length) ?? ["s", 1];
  const count = Math.floor(seconds / size);
  const words = `${count} ${unit}${unit === "day" && count !== 1 ? "s" : ""} ago`;
  return element("time", { dateTime: time, title: new Date(time).toLocaleString() }, words);
}

/** The state of a run: its word, and a colour by class. */
export function badge(status) {
  return element("span", { className: `status ${status}` }, status);
}

/** How far a run is, as a bar and in words. */
export function progress(line) {
  const words = `${line.generation} / ${line.generations}`;
  const bar = element("progress", { max: Math.max(1, line.generations), value: line.generation, "aria-label": `generation ${words}` });
  return element("span", { className: "progress" }, bar, element("span", {}, words));
}
