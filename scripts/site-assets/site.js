// Replaces each figure's static picture by the interactive one, when it comes into view.
"use strict";

(() => {
  function show(figure) {
    const picture = figure.querySelector("img");
    const block = document.getElementById(figure.dataset.spec);
    if (!globalThis.Plotly || picture === null || block === null) return;
    const { data, layout } = JSON.parse(block.textContent);
    const width = layout.width || 720;
    // The page has the title as text; its place holds the tool bar. Narrow screens get the space.
    delete layout.title;
    delete layout.width;
    const annotated = (layout.annotations || []).length > 0;
    layout.autosize = true;
    const div = document.createElement("div");
    div.setAttribute("role", "img");
    div.setAttribute("aria-label", picture.alt);
    div.style.maxWidth = `${width}px`;
    div.style.minWidth = annotated ? `${width}px` : "320px"; // panels scroll
    div.style.height = `${layout.height || 440}px`;
    picture.before(div);
    globalThis.Plotly.newPlot(div, data, layout, {
      responsive: true,
      displaylogo: false,
      modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
    }).then(() => picture.remove(), (error) => {
      div.remove(); // the picture stays
      console.error(error);
    });
  }

  const figures = document.querySelectorAll("figure[data-spec]");
  if (!("IntersectionObserver" in globalThis)) {
    figures.forEach(show);
    return;
  }
  const observer = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      observer.unobserve(entry.target);
      show(entry.target);
    }
  }, { rootMargin: "400px" });
  figures.forEach((figure) => observer.observe(figure));
})();
