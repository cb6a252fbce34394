// Draws the figures one after another, and gives them the colour of the page's text.

(() => {
  const page = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const config = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };
  const plots = [...document.querySelectorAll(".plot")];
  const drawn = new Set();

  function colours() {
    const style = getComputedStyle(page);
    const of = (name) => style.getPropertyValue(name).trim();
    return { "font.color": of("--text"), "hoverlabel.bgcolor": of("--card"), "hoverlabel.bordercolor": of("--line"), "hoverlabel.font.color": of("--text") };
  }

  function draw(plot) {
    const figure = JSON.parse(document.getElementById(`${plot.id}-data`).textContent);
    const c = colours();
    figure.layout.font.color = c["font.color"];
    figure.layout.hoverlabel = { ...figure.layout.hoverlabel, bgcolor: c["hoverlabel.bgcolor"], bordercolor: c["hoverlabel.bordercolor"] };
    figure.layout.hoverlabel.font = { ...figure.layout.hoverlabel.font, color: c["hoverlabel.font.color"] };
    drawn.add(plot);
    return Plotly.newPlot(plot, figure.data, figure.layout, config);
  }

  async function drawAll() {
    for (const plot of plots) {
      if (!drawn.has(plot)) await draw(plot);
      await new Promise((next) => setTimeout(next));
    }
    page.dataset.ready = "yes";
  }

  function recolour() {
    for (const plot of drawn) Plotly.relayout(plot, colours());
  }

  system.addEventListener("change", recolour);
  document.getElementById("theme").addEventListener("click", () => {
    const dark = (page.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
    page.dataset.theme = dark ? "light" : "dark";
    recolour();
  });
  for (const button of document.querySelectorAll("button[data-copy]")) {
    button.addEventListener("click", async () => {
      const text = document.getElementById(button.dataset.copy);
      try {
        await navigator.clipboard.writeText(text.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(text); // where the browser does not let a file copy: it is selected
      }
    });
  }
  drawAll();
})();
