// Draws the report's figures as they come into view, and again when the run has gone on; zoom and choices stay.

import { ask } from "./common.js";
import { colours, dressed, onTheme } from "./theme.js";

const AGAIN = 700; // milliseconds until a figure that is still being made is asked for again
const CONFIG = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };

/**
 * Keeps the figures of a page up to date.
 *
 * @param query Of which runs they are.
 * @returns A function to call with the version that there is now.
 */
export function figures(query) {
  let version = null;
  const seen = new Set();
  const shown = new Map();
  const busy = new Set();

  async function draw(section) {
    if (busy.has(section) || shown.get(section)?.version === version) return;
    busy.add(section);
    let made = null;
    try {
      made = await ask("/api/figure", { ...query, name: section.dataset.name });
      if (made !== null && made.version !== shown.get(section)?.version) await show(section, made);
    } catch (error) {
      tell(section, error.message);
    } finally {
      busy.delete(section);
    }
    if (made?.version !== version) setTimeout(() => seen.has(section) && draw(section), AGAIN);
  }

  async function show(section, made) {
    shown.set(section, made);
    const { figure } = made;
    if (figure === null || figure.problem) {
      tell(section, figure?.problem ?? section.dataset.nothing);
      return;
    }
    tell(section, "");
    const plot = section.querySelector(".plot");
    const axes = Object.keys(figure.layout).filter((name) => name.startsWith("xaxis"));
    plot.classList.toggle("wide", axes.length > 2 || section.dataset.name === "parallel");
    await Plotly.react(plot, figure.data, dressed(figure.layout), CONFIG);
    section.dataset.state = "drawn";
  }

  /** Says why there is no figure; nothing, if there is one. */
  function tell(section, sentence) {
    section.querySelector(".nothing").textContent = sentence;
    section.querySelector(".nothing").hidden = sentence === "";
    section.querySelector(".plot").hidden = sentence !== "";
    if (sentence) section.dataset.state = "empty";
  }

  const observer = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        if (isIntersecting) seen.add(target);
        else seen.delete(target);
        if (isIntersecting && version !== null) draw(target);
      }
    },
    { rootMargin: "300px" },
  );
  const sections = document.querySelectorAll("section[data-name]");
  for (const section of sections) observer.observe(section);
  onTheme(() => {
    for (const section of sections) {
      if (section.dataset.state === "drawn") Plotly.relayout(section.querySelector(".plot"), colours());
    }
  });
  return (now) => {
    version = now;
    for (const section of seen) draw(section);
  };
}
