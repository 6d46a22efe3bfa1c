"use strict";
/**
 * Show the maps of a slide over its thumbnail, all heads side by side or one, with what each head predicts for a cell.
 * The address keeps head, layer, opacity and the selected cell.
 *
 * @typedef {{title: string, code: string, uncertainty: string, p: string | null}} MapHead
 *   code int16 (-1 not mapped, -2 could not be read, -3 rejected), uncertainty and p uint8 of 0..1, cell after cell; p null where the page leaves it out
 * @typedef {{classes: string[], colours: [number, number, number][], heads: MapHead[], rows: number, columns: number,
 *   left: number, top: number, side: number, width: number, height: number, mpp: number, thumbnail: string | null}} MapPayload
 *   lengths in px of level 0, as pipeline/maps/html_page.py writes it
 */
(() => {
  const source = document.getElementById("slide-map-data"), root = document.getElementById("slide-map");
  if (!source || !root) return;
  const { decode, make, text, picker, table, line, scroller, readState, keepState } = page;
  /** @type {MapPayload} */
  const data = JSON.parse(source.textContent || "");
  const heads = data.heads.map((head) => ({ title: head.title, code: decode(head.code, Int16Array),
    uncertainty: decode(head.uncertainty, Uint8Array), p: head.p === null ? null : decode(head.p, Uint8Array) }));
  const k = data.classes.length, nCells = data.rows * data.columns, hasP = heads.every((head) => head.p);
  const LONGEST = 560, MOST_LINES = 10, LEAST_SHOWN = 3;
  /** @type {[number, number, number]} */
  const GREY = [89, 89, 89];
  /** @type {[number, number, number]} */
  const LIGHT = [179, 179, 179];
  /** @type {[number, number, number]} */
  const DARK = [84, 39, 136];
  const scale = LONGEST / Math.max(data.width, data.height);
  const size = { width: Math.max(1, Math.round(data.width * scale)), height: Math.max(1, Math.round(data.height * scale)) };
  /** Number of a head or -1 for all; class, uncertainty or the number of a class; 0 to 1; number of the selected cell or -1. */
  const first = { head: -1, layer: "class", opacity: 0.75, cell: -1 };
  let state = { ...first }, pointed = -1, described = NaN;
  const picture = new Image();

  /**
   * Return a colour between white and another.
   * @type {(colour: [number, number, number], share: number) => [number, number, number]}
   */
  const mix = ([red, green, blue], share) => [255 + (red - 255) * share, 255 + (green - 255) * share, 255 + (blue - 255) * share];

  /**
   * Return the colour of a cell; null where there is none.
   * @param {typeof heads[number]} head @param {number} i
   */
  function colourOf(head, i) {
    const code = head.code[i];
    if (code === -1) return null;
    if (code < 0) return code === -3 ? LIGHT : GREY;
    if (state.layer === "class") return data.colours[code];
    if (state.layer === "uncertainty" || !head.p) return mix(DARK, head.uncertainty[i] / 255);
    const c = Number(state.layer);
    return mix(data.colours[c], head.p[i * k + c] / 255);
  }

  /** Return the cell to describe: the one under the pointer, else the selected one. */
  const shown = () => (pointed < 0 ? state.cell : pointed);

  /** @param {typeof heads[number]} head @param {HTMLCanvasElement} canvas */
  function paint(head, canvas) {
    const cells = make("canvas", { width: data.columns, height: data.rows });
    const ink = /** @type {CanvasRenderingContext2D} */ (cells.getContext("2d")), image = ink.createImageData(data.columns, data.rows);
    for (let i = 0; i < nCells; i++) {
      const colour = colourOf(head, i);
      if (colour) image.data.set([...colour, 255], 4 * i);
    }
    ink.putImageData(image, 0, 0);
    const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, size.width, size.height);
    if (picture.complete && picture.naturalWidth) pen.drawImage(picture, 0, 0, size.width, size.height);
    pen.imageSmoothingEnabled = false;
    pen.globalAlpha = state.opacity;
    const side = data.side * scale;
    pen.drawImage(cells, data.left * scale, data.top * scale, data.columns * side, data.rows * side);
    pen.globalAlpha = 1;
    if (shown() < 0) return;
    const column = shown() % data.columns, row = Math.floor(shown() / data.columns);
    const box = /** @type {[number, number, number, number]} */ ([data.left * scale + column * side, data.top * scale + row * side, Math.max(4, side), Math.max(4, side)]);
    for (const [width, style] of /** @type {[number, string][]} */ ([[4, "#000"], [2, "#fff"]])) {
      pen.lineWidth = width;
      pen.strokeStyle = style;
      pen.strokeRect(...box);
    }
  }

  /** @param {number} i */
  function describe(i) {
    const words = heads.map((head) => (head.code[i] < 0 ? ["not mapped", "could not be read", "rejected"][-1 - head.code[i]] : data.classes[head.code[i]]));
    const row = Math.floor(i / data.columns), column = i % data.columns, mm = data.mpp / 1000;
    const lines = [line("class", ...words), line("uncertainty", ...heads.map((head) => (head.code[i] < 0 ? "n/a" : text(head.uncertainty[i] / 255, 2))))];
    if (hasP && heads[0].code[i] >= 0) {
      /** @param {number} c */
      const highest = (c) => Math.max(...heads.map((head) => (head.p ? head.p[i * k + c] : 0)));
      const order = data.classes.map((_, c) => c).sort((a, b) => highest(b) - highest(a)).slice(0, MOST_LINES);
      for (const c of order.filter((each, n) => n < LEAST_SHOWN || highest(each) > 2)) {
        lines.push(line(`p of ${data.classes[c]}`, ...heads.map((head) => text((head.p ? head.p[i * k + c] : NaN) / 255, 2))));
      }
    }
    const place = `Row ${row + 1}, column ${column + 1}: ${text((data.left + column * data.side) * mm, 2)} mm from the left, ${text((data.top + row * data.side) * mm, 2)} mm from the top.`;
    return scroller("The cell", table(["", ...heads.map((head) => head.title)], lines, place));
  }

  const cell = make("div", { id: "cell", "aria-live": "polite" });
  const canvases = heads.map((head) => make("canvas", { ...size, tabindex: 0, role: "img", "aria-label": `Map by ${head.title}: the arrow keys move from cell to cell` }));
  const figures = heads.map((head, h) => make("figure", {}, canvases[h], make("figcaption", {}, head.title)));

  function redraw() {
    heads.forEach((head, h) => {
      figures[h].hidden = state.head >= 0 && state.head !== h;
      if (!figures[h].hidden) paint(head, canvases[h]);
    });
    if (shown() === described) return;
    described = shown();
    cell.replaceChildren(described < 0 ? make("p", {}, "Point at a cell; click to select it. Or focus a map and use the arrow keys.") : describe(described));
  }

  /** @param {Partial<typeof state>} part */
  function change(part) {
    state = { ...state, ...part };
    keepState("slide-map", state, first);
    redraw();
  }

  /** Return the number of the cell in a row and column, -1 outside of the map. @param {number} row @param {number} column */
  const cellAt = (row, column) => (row < 0 || column < 0 || row >= data.rows || column >= data.columns ? -1 : row * data.columns + column);

  /** @param {HTMLCanvasElement} canvas @param {PointerEvent | MouseEvent} event */
  function cellUnder(canvas, event) {
    const box = canvas.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * data.width, y = ((event.clientY - box.top) / box.height) * data.height;
    return cellAt(Math.floor((y - data.top) / data.side), Math.floor((x - data.left) / data.side));
  }
  /** @param {number} i */
  function point(i) {
    if (i === pointed) return;
    pointed = i;
    redraw();
  }
  /** @type {Record<string, [number, number]>} */
  const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  for (const canvas of canvases) {
    canvas.addEventListener("pointermove", (event) => point(cellUnder(canvas, event)));
    canvas.addEventListener("pointerleave", () => point(state.cell < 0 ? pointed : -1));
    canvas.addEventListener("click", (event) => {
      const i = cellUnder(canvas, event);
      change({ cell: i === state.cell ? -1 : i });
    });
    canvas.addEventListener("keydown", (event) => {
      const step = STEPS[event.key], from = shown();
      if (!step) return;
      event.preventDefault();
      const to = from < 0 ? 0 : cellAt(Math.floor(from / data.columns) + step[0], (from % data.columns) + step[1]);
      if (to >= 0) point(to);
    });
    canvas.addEventListener("keyup", (event) => {
      if (!STEPS[event.key]) return;
      const to = shown();
      pointed = -1;
      change({ cell: to });
    });
  }

  /** @param {Event} event */
  const follow = (event) => {
    state.opacity = Number(slider.value) / 100;
    if (event.type === "change") change({});
    else redraw();
  };
  const slider = make("input", { type: "range", id: "opacity", min: 0, max: 100, "aria-label": "Opacity of the map", oninput: follow, onchange: follow });
  /** @type {[string, string][]} */
  const layers = [["class", "class"], ["uncertainty", "uncertainty"], ...(hasP ? data.classes.map((name, c) => /** @type {[string, string]} */ ([String(c), `probability of ${name}`])) : [])];
  /** @type {[string, string][]} */
  const choices = [["-1", "all heads"], ...heads.map((head, h) => /** @type {[string, string]} */ ([String(h), head.title]))];
  const controls = make("p", { class: "controls" });
  const used = new Set(heads.flatMap((head) => Array.from(new Set(head.code))));
  const legend = make("ul", { class: "legend" }, ...data.classes.flatMap((name, c) => {
    if (!used.has(c)) return [];
    const spot = make("span", { class: "spot" });
    spot.style.background = `rgb(${data.colours[c].join(", ")})`;
    return [make("li", {}, spot, ` ${name}`)];
  }));

  /** Take the state from the address; parts that do not fit this page are ignored. */
  function readAddress() {
    const found = readState("slide-map", {
      head: (v) => Number.isInteger(v) && v >= 0 && v < heads.length, layer: (v) => layers.some(([name]) => name === v),
      opacity: (v) => Number.isFinite(v) && v >= 0 && v <= 1, cell: (v) => Number.isInteger(v) && v >= 0 && v < nCells,
    });
    if (found) state = { ...first, ...found };
    slider.value = String(100 * state.opacity);
    controls.replaceChildren(
      ...(heads.length > 1 ? [picker("Head", String(state.head), choices, (head) => change({ head: Number(head) }))] : []),
      picker("Show", state.layer, layers, (layer) => change({ layer })), make("label", {}, "Opacity ", slider));
    redraw();
  }

  root.append(controls, make("div", { class: "panels" }, ...figures), legend,
    make("p", {}, "Uncertainty and probabilities: white is 0, the full colour 1. Dark grey cells could not be read, light grey ones are rejected as outliers."), cell);
  if (data.thumbnail) {
    picture.addEventListener("load", redraw);
    picture.src = `data:image/jpeg;base64,${data.thumbnail}`;
  }
  window.addEventListener("hashchange", readAddress);
  readAddress();
})();
