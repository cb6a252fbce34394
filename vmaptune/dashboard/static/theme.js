// Light or dark: as the system has it, until the button says otherwise; and a figure in the page's colours.

const KEY = "vmaptune-theme";
const page = document.documentElement;
const system = matchMedia("(prefers-color-scheme: dark)");
const listeners = [];

function set(theme) {
  if (theme) page.dataset.theme = theme;
  for (const listener of listeners) listener();
}

/** Calls a function whenever the page turns light or dark. */
export function onTheme(listener) {
  listeners.push(listener);
}

/** What a figure takes from the page, as plotly's `relayout` has it; its background is transparent. */
export function colours() {
  const style = getComputedStyle(page);
  const of = (name) => style.getPropertyValue(name).trim();
  return { "font.color": of("--text"), "hoverlabel.bgcolor": of("--card"), "hoverlabel.bordercolor": of("--line"), "hoverlabel.font.color": of("--text") };
}

/** A figure's layout in those colours. */
export function dressed(layout) {
  const c = colours();
  const label = { ...layout.hoverlabel, bgcolor: c["hoverlabel.bgcolor"], bordercolor: c["hoverlabel.bordercolor"] };
  label.font = { ...layout.hoverlabel?.font, color: c["hoverlabel.font.color"] };
  return { ...layout, font: { ...layout.font, color: c["font.color"] }, hoverlabel: label };
}

set(localStorage.getItem(KEY));
system.addEventListener("change", () => set());
document.getElementById("theme").addEventListener("click", () => {
  const dark = (page.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  localStorage.setItem(KEY, dark ? "light" : "dark");
  set(dark ? "light" : "dark");
});
