/**
 * Figures as static SVG without a browser: plotly in jsdom. With figure.ts, the only file that names
 * plotly.
 *
 * jsdom has no layout: every box is empty, so legends and margins would come out wrong. Plotly
 * only ever asks for the boxes of texts, and those are computed here from the advance widths of
 * Helvetica, so that the picture does not depend on the fonts of the machine that draws it. Its
 * ids are random; here its random numbers come from a hash of the figure, so that the same figure
 * gives the same bytes and two figures on one page do not share ids.
 *
 * Scope: what plotly draws as SVG or on a 2-D canvas; no WebGL traces (they never finish here).
 */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import type { FigureSpec } from "./runs.ts";

/** Fonts of equal widths on the three systems. */
export const FONT_FAMILY = "Arial, Helvetica, Liberation Sans, sans-serif";

/**
 * Advance widths of ' ' .. '~' in thousandths of the font size: Helvetica, Adobe Core 14 AFM files
 * (Arial and Liberation Sans have the same widths).
 */
const ADVANCES = [
  ...[278, 278, 355, 556, 556, 889, 667, 191, 333, 333, 389, 584, 278, 333],
  ...[278, 278, 556, 556, 556, 556, 556, 556, 556, 556, 556, 556, 278, 278],
  ...[584, 584, 584, 556, 1015, 667, 667, 722, 722, 667, 611, 778, 722, 278],
  ...[500, 667, 556, 833, 722, 778, 667, 778, 722, 667, 611, 722, 667, 944],
  ...[667, 667, 611, 278, 278, 278, 469, 556, 333, 556, 556, 500, 556, 556],
  ...[278, 556, 556, 222, 222, 500, 222, 833, 556, 556, 556, 556, 333, 500],
  ...[278, 556, 500, 722, 500, 500, 500, 334, 260, 334, 584],
];

/**
 * Where none of those fonts is installed, the browser takes a wider one: DejaVu Sans and Verdana need
 * up to 18 % more. Boxes are computed for those, so that no text is cut.
 */
const WIDEST = 1.18;

/** Height above and below the base line, in font sizes (Arial). */
const ASCENT = 0.905;
const DESCENT = 0.212;

/** Room for a line of text in font sizes. */
export function textEms(text: string): number {
  let thousandths = 0;
  for (const character of text) {
    const code = character.codePointAt(0) as number;
    const advance = ADVANCES[code - 32];
    // Beyond ASCII: 600 suits Latin, Greek and symbols, ideographs are square.
    thousandths += advance ?? (code > 0x2e80 ? 1000 : 600);
  }
  return WIDEST * thousandths / 1000;
}

/** A box in the user units of the SVG. */
interface Box {
  left: number;
  top: number;
  right: number;
  bottom: number;
}

function union(a: Box | null, b: Box | null): Box | null {
  if (a === null || b === null) return a ?? b;
  return {
    left: Math.min(a.left, b.left),
    top: Math.min(a.top, b.top),
    right: Math.max(a.right, b.right),
    bottom: Math.max(a.bottom, b.bottom),
  };
}

function fontSizeOf(element: Element | null): number {
  if (element === null) return 12;
  const style = element.getAttribute("style") ?? "";
  const size = /font-size:\s*([\d.]+)px/.exec(style)?.[1] ??
    element.getAttribute("font-size");
  return size ? parseFloat(size) : fontSizeOf(element.parentElement);
}

function textBox(text: Element): Box | null {
  const lines = [...text.children].filter((child) =>
    child.getAttribute("class") === "line"
  );
  const anchor = text.getAttribute("text-anchor") ??
    /text-anchor:\s*(\w+)/.exec(text.getAttribute("style") ?? "")?.[1];
  const size = fontSizeOf(text);
  let box: Box | null = null;
  for (const line of lines.length > 0 ? lines : [text]) {
    const number = (name: string) =>
      parseFloat(line.getAttribute(name) ?? text.getAttribute(name) ?? "0") ||
      0;
    const width = textEms(line.textContent ?? "") * size;
    const x = number("x");
    const dy = line === text ? 0 : parseFloat(line.getAttribute("dy") ?? "0");
    const y = number("y") + dy * size;
    const left = anchor === "middle"
      ? x - width / 2
      : anchor === "end"
      ? x - width
      : x;
    box = union(box, {
      left,
      top: y - ASCENT * size,
      right: left + width,
      bottom: y + DESCENT * size,
    });
  }
  return box;
}

/** The box of `inner` after the translations and rotations of a transform attribute. */
function transformed(inner: Box, transform: string): Box {
  let corners: [number, number][] = [
    [inner.left, inner.top],
    [inner.right, inner.top],
    [inner.left, inner.bottom],
    [inner.right, inner.bottom],
  ];
  const steps = [...transform.matchAll(/(translate|rotate)\(([^)]*)\)/g)];
  // The last step of the list is applied first.
  for (const [, kind, list] of steps.reverse()) {
    const [a, b = 0, c = 0] = list.split(/[\s,]+/).map(Number);
    corners = corners.map(([x, y]) => {
      if (kind === "translate") return [x + a, y + b];
      const angle = a * Math.PI / 180;
      const [dx, dy] = [x - b, y - c];
      return [
        b + dx * Math.cos(angle) - dy * Math.sin(angle),
        c + dx * Math.sin(angle) + dy * Math.cos(angle),
      ];
    });
  }
  const xs = corners.map(([x]) => x);
  const ys = corners.map(([, y]) => y);
  return {
    left: Math.min(...xs),
    top: Math.min(...ys),
    right: Math.max(...xs),
    bottom: Math.max(...ys),
  };
}

/** What an element covers, as far as plotly asks: texts, groups of texts, rectangles. */
function boxOf(element: Element): Box | null {
  const tag = element.tagName.toLowerCase();
  let box: Box | null = null;
  if (tag === "text") {
    box = textBox(element);
  } else if (tag === "rect") {
    const number = (name: string) =>
      parseFloat(element.getAttribute(name) ?? "0") || 0;
    const [left, top] = [number("x"), number("y")];
    const [width, height] = [number("width"), number("height")];
    box = { left, top, right: left + width, bottom: top + height };
  } else if (tag === "g" || tag === "svg") {
    for (const child of element.children) box = union(box, boxOf(child));
  }
  const transform = element.getAttribute("transform");
  return box !== null && transform !== null ? transformed(box, transform) : box;
}

/** FNV-1a, 32 bits. */
function hash32(text: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) {
    hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  }
  return hash >>> 0;
}

interface Plotly {
  newPlot(
    div: Element,
    data: unknown[],
    layout: unknown,
    config: unknown,
  ): Promise<unknown>;
  purge(div: Element): void;
  Snapshot: { toSVG(div: Element, format: "svg", scale: number): string };
}

type Window = import("jsdom").DOMWindow & {
  Plotly: Plotly;
  Math: { random: () => number };
};

const require = createRequire(import.meta.url);

/** The path of plotly's bundle, for pages that show figures interactively. */
export function plotlyPath(): string {
  return require.resolve("plotly.js-dist");
}

/**
 * What plotly would write into a page's style elements: the text of its rules, and the ids of all its
 * elements. A strict Content-Security-Policy forbids writing styles, so a page links the rules from an
 * element with the id `plotly.js-style-global` and the class `no-inline-styles`, and has some element
 * for every other id: plotly leaves out what it finds.
 */
export function plotlyStyles(): { css: string; ids: string[] } {
  const { document } = plotlyWindow();
  const styles = [...document.head.querySelectorAll("style")];
  const global = styles.find(({ id }) => id === "plotly.js-style-global");
  const rules = [...global?.sheet?.cssRules ?? []];
  return {
    css: rules.map(({ cssText }) => `${cssText}\n`).join(""),
    ids: styles.filter((style) => style !== global).map(({ id }) => id),
  };
}

/** The version of plotly. */
export function plotlyVersion(): string {
  return require("plotly.js-dist/package.json").version;
}

/** Draws on a real canvas: heatmaps are pictures inside the SVG. */
function addCanvas(window: Window): void {
  const { createCanvas } = require(
    "@napi-rs/canvas",
  ) as typeof import("@napi-rs/canvas");
  const canvases = new WeakMap<object, import("@napi-rs/canvas").Canvas>();
  const canvasOf = (element: HTMLCanvasElement) => {
    const { width, height } = element;
    let canvas = canvases.get(element);
    if (canvas?.width !== width || canvas?.height !== height) {
      canvas = createCanvas(width, height);
      canvases.set(element, canvas);
    }
    return canvas;
  };
  Object.assign(window.HTMLCanvasElement.prototype, {
    getContext(this: HTMLCanvasElement, kind: string) {
      return kind === "2d" ? canvasOf(this).getContext("2d") : null;
    },
    toDataURL(this: HTMLCanvasElement) {
      return canvasOf(this).toDataURL("image/png");
    },
  });
}

/** Gives every element the boxes that a browser would compute. */
function addLayout(window: Window): void {
  function getBoundingClientRect(this: Element) {
    const box = boxOf(this) ?? { left: 0, top: 0, right: 0, bottom: 0 };
    const [width, height] = [box.right - box.left, box.bottom - box.top];
    return { ...box, x: box.left, y: box.top, width, height };
  }
  Object.assign(window.Element.prototype, {
    getBoundingClientRect,
    getBBox: getBoundingClientRect,
    getComputedTextLength(this: Element) {
      return getBoundingClientRect.call(this).width;
    },
  });
}

let shared: Window | null = null;

/** One window for all figures: loading plotly takes a second, drawing a tenth. */
function plotlyWindow(): Window {
  if (shared !== null) return shared;
  const { JSDOM, VirtualConsole } = require("jsdom") as typeof import("jsdom");
  const dom = new JSDOM("<!doctype html><html><body></body></html>", {
    runScripts: "outside-only",
    pretendToBeVisual: false,
    virtualConsole: new VirtualConsole(),
  });
  const window = dom.window as unknown as Window;
  addCanvas(window);
  addLayout(window);
  window.URL.createObjectURL = () => "";
  window.eval(readFileSync(plotlyPath(), "utf8"));
  shared = window;
  return window;
}

/**
 * The figure as SVG text, the same bytes for the same figure.
 *
 * @throws TypeError if plotly draws nothing for it.
 *
 * @example
 * ```ts
 * const svg = toSvg(lineFigure(rows, { id: "loss", title: "Loss", x: "rank", y: "loss" }));
 * svg.startsWith("<svg"); // true
 * ```
 */
export function toSvg({ id, title, data, layout }: FigureSpec): string {
  const window = plotlyWindow();
  // A copy of its own: plotly writes its defaults into what it is given.
  const spec = JSON.stringify({ data, layout });
  let state = hash32(`${id}${spec}`) || 1;
  window.Math.random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0; // Numerical Recipes' LCG
    return state / 2 ** 32;
  };
  const copy = window.JSON.parse(spec);
  const div = window.document.createElement("div");
  window.document.body.appendChild(div);
  try {
    window.Plotly.newPlot(div, copy.data, {
      width: 720,
      height: 440,
      ...copy.layout,
    }, { staticPlot: true }).catch(() => {}); // what fails shows below
    const svg = window.Plotly.Snapshot.toSVG(div, "svg", 1);
    if (
      data.length > 0 &&
      !/class="(trace|points?|hm|bars|sankey|[^"]*trace)/.test(svg)
    ) {
      throw new TypeError(`Cannot draw the figure "${id}": no trace was drawn`);
    }
    const label = title.replace(
      /[&<>"]/g,
      (c) =>
        ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c] ?? c,
    );
    return svg.replace("<svg ", `<svg role="img" aria-label="${label}" `);
  } finally {
    window.Plotly.purge(div);
    div.remove();
  }
}
