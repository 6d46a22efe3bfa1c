"use strict";
/**
 * Show the test rows of the report: confusion matrix, map, bins, groups and tiles share one selection.
 * The selection is kept in the address.
 *
 * @typedef {NamedHead & {p: Float64Array}} ShownHead  a head whose probabilities the page carries
 * @typedef {{px: number, columns: number, place: string, jpeg: string}} Sheet  thumbnails of tiles
 * @typedef {{id: string[], y: string, group: string[] | null, k: number, of_tile: string, cosine: string,
 *   thumbnails: Sheet | null}} Neighbours  training tiles; `of_tile`: k of them for each test tile, the nearest first
 * @typedef {{classes: string[], groups: string[], tiles: {id: string[], path: string[]}, n: number, y: string, tile: string,
 *   group: string, fold: string, seed: string, unit: string, unit_name: string, n_units: number, edges: number[],
 *   heads: (Omit<NamedHead, "predicted" | "p"> & {predicted: string, p: string | null})[], printed: Printed[],
 *   draws: string | null, verdict: VerdictFacts, map: {tile: string, xy: string} | null, thumbnails: Sheet | null,
 *   neighbours: Neighbours | null, findings: Record<string, string[]>}} Payload  as explorer/pack.py writes it
 * @typedef {{a: string | null, b: string | null, colour: string, true: number | null, predicted: number | null,
 *   group: number | null, bin: number | null, lasso: [number, number][] | null, without: number[],
 *   withoutClasses: number[], margin: number | null, level: number | null, open: number | null}} State
 *   the reader's choices; null chooses nothing, or what the report has. `without`: groups that are left out
 */
(() => {
  const source = document.getElementById("explorer-data"), root = document.getElementById("explorer");
  if (!source || !root) return;
  const { decode, make, text, button, picker, table, line, scroller } = page;
  /** @type {Payload} */
  const data = JSON.parse(source.textContent || "");
  /** @param {string} packed */
  const ints = (packed) => decode(packed, Int32Array);
  const rows = { y: ints(data.y), unit: ints(data.unit), nClasses: data.classes.length, nUnits: data.n_units, edges: data.edges };
  const tile = ints(data.tile), group = ints(data.group), fold = ints(data.fold), seed = ints(data.seed);
  const heads = data.heads.map((head) => ({ ...head, predicted: ints(head.predicted), p: head.p === null ? null : decode(head.p, Float64Array) }));
  const shown = heads.flatMap((head) => (head.p ? [/** @type {ShownHead} */ (head)] : []));
  const draws = data.draws === null ? null : decode(data.draws, Uint8Array);
  const k = rows.nClasses, all = Array.from({ length: data.n }, (_, i) => i);
  const COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#8c6d1f", "#7f7f7f", "#332288", "#aa4499"];
  const SHOWN = 120, LEGEND = 24;
  const points = data.map && { tile: ints(data.map.tile), xy: decode(data.map.xy, Float64Array) };
  const places = data.thumbnails && ints(data.thumbnails.place);
  /** @type {Map<number, number>} */
  const firstRow = new Map();
  for (const i of all) if (!firstRow.has(tile[i])) firstRow.set(tile[i], i);

  /** @type {State} */
  const empty = { a: null, b: null, colour: "class", true: null, predicted: null, group: null, bin: null, lasso: null,
    without: [], withoutClasses: [], margin: null, level: null, open: null };
  let state = { ...empty };

  const headA = () => shown.find((head) => head.name === state.a) || shown.find((head) => head.main) || shown[0];
  const headB = () => shown.find((head) => head.name === state.b);
  /** @param {NamedHead} head @param {number} i */
  const isWrong = (head, i) => head.predicted[i] !== rows.y[i];
  /** @param {ShownHead} head @param {number} i */
  const confidence = (head, i) => head.p[i * k + scores.topClass(head.p, i, k)];
  const isOwnView = () => state.without.length + state.withoutClasses.length > 0 || state.margin !== null || state.level !== null;

  /**
   * Write the state into the address, and draw again.
   * @param {Partial<State>} part
   */
  function change(part) {
    state = { ...state, ...part };
    const words = Object.entries(state).filter(([name, value]) => JSON.stringify(value) !== JSON.stringify(empty[/** @type {keyof State} */ (name)]));
    const address = words.length ? `#explore=${encodeURIComponent(JSON.stringify(Object.fromEntries(words)))}` : "#explorer";
    history.replaceState(null, "", address);
    draw();
  }

  /** Read the state from the address; parts that do not fit this report are ignored. */
  function readAddress() {
    const found = /^#explore=(.*)$/.exec(location.hash);
    if (!found) return;
    /** @typedef {(value: any) => boolean} Check */
    /** @type {(n: number) => Check} */
    const below = (n) => (v) => Number.isInteger(v) && v >= 0 && v < n;
    /** @type {(check: Check) => Check} */
    const each = (check) => (v) => Array.isArray(v) && v.every(check);
    /** @type {Check} */
    const isHead = (v) => shown.some((head) => head.name === v);
    /** @type {Record<string, Check>} */
    const fits = {
      a: isHead, b: isHead, true: below(k), predicted: below(k), group: below(data.groups.length), bin: below(rows.edges.length + 1), open: below(data.n),
      colour: (v) => ["class", "predicted", "wrong", "group", "confidence"].includes(v),
      lasso: each((p) => Array.isArray(p) && p.length === 2 && p.every(Number.isFinite)),
      without: each(below(data.groups.length)), withoutClasses: each(below(k)),
      margin: (v) => Number.isFinite(v) && v >= 0 && v < 1, level: (v) => data.verdict.levels.includes(v),
    };
    try {
      const given = Object.entries(JSON.parse(decodeURIComponent(found[1])));
      state = { ...empty, ...Object.fromEntries(given.filter(([name, value]) => name in fits && fits[name](value))) };
    } catch (error) {
      if (!(error instanceof SyntaxError || error instanceof URIError || error instanceof TypeError)) throw error;
    }
  }

  /**
   * Return whether a point is inside of a polygon (even-odd rule).
   * @param {[number, number][]} polygon @param {number} x @param {number} y
   */
  function inside(polygon, x, y) {
    let odd = false;
    for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i++) {
      const [xi, yi] = polygon[i], [xj, yj] = polygon[j];
      if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) odd = !odd;
    }
    return odd;
  }

  /** Return the tiles inside of the drawn line; null without one. */
  function tilesOnMap() {
    if (!state.lasso || !points) return null;
    const { lasso } = state, { xy } = points;
    return new Set(points.tile.filter((_, i) => inside(lasso, xy[2 * i], xy[2 * i + 1])));
  }

  /** Return the rows that the reader did not leave out, and those of them that are selected. */
  function chosen() {
    const kept = all.filter((i) => !state.without.includes(group[i]) && !state.withoutClasses.includes(rows.y[i]));
    const a = headA(), b = headB(), onMap = tilesOnMap();
    const selected = kept.filter(
      (i) =>
        (state.true === null || rows.y[i] === state.true) &&
        (state.predicted === null || a.predicted[i] === state.predicted) &&
        (state.group === null || group[i] === state.group) &&
        (state.bin === null || scores.binOf(confidence(a, i), rows.edges) === state.bin) &&
        (!onMap || onMap.has(tile[i])) &&
        (!b || (!isWrong(a, i) && isWrong(b, i))),
    );
    return { kept, selected };
  }

  function controls() {
    const titles = shown.map((head) => /** @type {[string, string]} */ ([head.name, head.title]));
    return make("p", { class: "controls" },
      picker("Head", headA().name, titles, (a) => change({ a, predicted: null, bin: null })),
      picker("right, and wrong in", state.b || "", [["", "(all tiles)"], ...titles], (b) => change({ b: b || null })),
      picker("Colour of the map", state.colour,
        [["class", "class"], ["predicted", "predicted class"], ["wrong", "right or wrong"], ["group", "group"], ["confidence", "confidence"]],
        (colour) => change({ colour })),
      button("Clear", false, () => change({ ...empty, a: state.a, colour: state.colour })));
  }

  /** @param {number[]} kept */
  function matrix(kept) {
    const a = headA(), counts = new Int32Array(k * k);
    for (const i of kept) counts[rows.y[i] * k + a.predicted[i]] += 1;
    const grid = make("table", { class: "matrix" }, make("caption", {}, `${a.title}: rows are true classes, columns predicted classes`));
    grid.append(make("tr", {}, make("td"), ...data.classes.map((name, c) =>
      make("th", { scope: "col" }, button(name, state.predicted === c && state.true === null, () => change({ true: null, predicted: c }), { "aria-label": `predicted as ${name}` })))));
    data.classes.forEach((name, t) => {
      const row = make("tr", {}, make("th", { scope: "row", class: "words" },
        button(name, state.true === t && state.predicted === null, () => change({ true: t, predicted: null }), { "aria-label": `true class ${name}` })));
      const support = counts.slice(t * k, t * k + k).reduce((sum, n) => sum + n, 0);
      data.classes.forEach((_, p) => {
        const n = counts[t * k + p], share = support ? n / support : 0;
        const cell = button(String(n), state.true === t && state.predicted === p, () => change({ true: t, predicted: p }),
          { "aria-label": `${name} predicted as ${data.classes[p]}: ${n}`, "data-cell": `${t}-${p}` });
        cell.style.setProperty("--share", String(share));
        row.append(make("td", { class: t === p ? "right" : "" }, cell));
      });
      grid.append(row);
    });
    return scroller("Confusion matrix", grid);
  }

  /** @param {number} i */
  function colourOf(i) {
    const a = headA();
    if (state.colour === "class") return COLOURS[rows.y[i] % COLOURS.length];
    if (state.colour === "predicted") return COLOURS[a.predicted[i] % COLOURS.length];
    if (state.colour === "group") return COLOURS[group[i] % COLOURS.length];
    if (state.colour === "wrong") return isWrong(a, i) ? "#d55e00" : "#56b4e9";
    const shade = Math.round(220 - 200 * confidence(a, i));
    return `rgb(${shade}, ${shade}, ${Math.round(235 - 60 * confidence(a, i))})`;
  }

  /** @param {number[]} selected */
  function map(selected) {
    if (!points) return "";
    const size = 480, pad = 8, scale = size - 2 * pad, marked = new Set(selected.map((i) => tile[i]));
    const canvas = make("canvas", { width: size, height: size, role: "img", "aria-label": "Map of the test tiles. Draw around points to select them; the lists next to it select by keyboard." });
    const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    for (const strong of [false, true]) {
      points.tile.forEach((t, i) => {
        const row = firstRow.get(t);
        if (marked.has(t) !== strong || row === undefined) return;
        pen.globalAlpha = strong ? 0.9 : 0.15;
        pen.fillStyle = colourOf(row);
        pen.fillRect(pad + scale * points.xy[2 * i] - 2, pad + scale * (1 - points.xy[2 * i + 1]) - 2, 4, 4);
      });
    }
    pen.globalAlpha = 1;
    /** @type {[number, number][]} */
    let path = [];
    /** @type {(event: PointerEvent) => [number, number]} */
    const at = (event) => {
      const box = canvas.getBoundingClientRect();
      return [(((event.clientX - box.left) / box.width) * size - pad) / scale, 1 - (((event.clientY - box.top) / box.height) * size - pad) / scale];
    };
    canvas.addEventListener("pointerdown", (event) => {
      path = [at(event)];
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!path.length) return;
      const [x, y] = path[path.length - 1], [nx, ny] = at(event);
      path.push([nx, ny]);
      pen.strokeStyle = "#d55e00";
      pen.beginPath();
      pen.moveTo(pad + scale * x, pad + scale * (1 - y));
      pen.lineTo(pad + scale * nx, pad + scale * (1 - ny));
      pen.stroke();
    });
    canvas.addEventListener("pointerup", () => {
      const lasso = path.map(([x, y]) => /** @type {[number, number]} */ ([Number(x.toFixed(4)), Number(y.toFixed(4))]));
      path = [];
      change({ lasso: lasso.length > 2 ? lasso : null });
    });
    const names = state.colour === "group" ? data.groups : ["class", "predicted"].includes(state.colour) ? data.classes : [];
    const legend = make("ul", { class: "legend" });
    names.slice(0, LEGEND).forEach((name, i) => {
      const spot = make("span", { class: "spot" });
      spot.style.background = COLOURS[i % COLOURS.length];
      legend.append(make("li", {}, spot, ` ${name}`));
    });
    return make("div", {}, canvas, legend);
  }

  /** @param {number[]} kept */
  function bins(kept) {
    const a = headA(), n = rows.edges.length + 1, count = new Int32Array(n), right = new Int32Array(n);
    for (const i of kept) {
      const bin = scores.binOf(confidence(a, i), rows.edges);
      count[bin] += 1;
      right[bin] += Number(!isWrong(a, i));
    }
    const lines = [...rows.edges, 1].flatMap((edge, b) => {
      if (!count[b]) return [];
      const label = button(text(edge, 2), state.bin === b, () => change({ bin: state.bin === b ? null : b }), { "aria-label": `confidence up to ${text(edge, 2)}` });
      return [line(label, String(count[b]), text(right[b] / count[b], 2))];
    });
    return scroller("Bins of confidence", table(["confidence up to", "tiles", "right"], lines, `Confidence of ${a.title}`));
  }

  function groups() {
    if (!data.groups.length) return "";
    const a = headA(), n = new Int32Array(data.groups.length), right = new Int32Array(data.groups.length);
    for (const i of all) {
      n[group[i]] += 1;
      right[group[i]] += Number(!isWrong(a, i));
    }
    const lines = data.groups.flatMap((name, g) => {
      if (!n[g]) return [];
      const out = state.without.includes(g);
      const box = make("input", { type: "checkbox", checked: out, "aria-label": `leave out ${name}`,
        onchange: () => change({ without: out ? state.without.filter((other) => other !== g) : [...state.without, g], group: null }) });
      const label = button(name, state.group === g, () => change({ group: state.group === g ? null : g }), { disabled: out, "aria-label": `group ${name}` });
      return [line(label, String(n[g]), text(right[g] / n[g], 2), box)];
    });
    return scroller("Groups", table(["group", "tiles", "right", "leave out"], lines, "Groups (slides, patients or sources)"), "scroll");
  }

  /** @param {number[]} selected */
  function scoreTable(selected) {
    const lines = heads.map((head) => {
      /** @type {Values} */
      const found = selected.length ? scores.ofRows(rows, head, selected) : {};
      return line(head.title, ...["accuracy", "balanced_accuracy", "macro_f1"].map((name) => text(found[name])));
    });
    return scroller("Scores of the selected rows", table(["head", "accuracy", "balanced accuracy", "macro-F1"], lines));
  }

  /**
   * Return the thumbnail of a tile from a sheet.
   * @param {Sheet} sheet @param {number} place -1: the tile could not be read @param {number} side @param {string} name of the sheet
   */
  function thumbnail(sheet, place, side, name) {
    const box = make("span", { class: "thumbnail" }, place < 0 ? "missing" : "");
    box.style.width = box.style.height = `${side}px`;
    if (place >= 0) {
      box.classList.add(name);
      box.style.backgroundSize = `${sheet.columns * side}px auto`;
      box.style.backgroundPosition = `-${(place % sheet.columns) * side}px -${Math.floor(place / sheet.columns) * side}px`;
    }
    return box;
  }

  /**
   * Return rows with the surest errors of head A first.
   * @param {number[]} selected
   */
  function surestErrorsFirst(selected) {
    const a = headA();
    /** @param {number} i */
    const worth = (i) => (isWrong(a, i) ? 1 : -1) * a.p[i * k + a.predicted[i]];
    return [...selected].sort((i, j) => worth(j) - worth(i) || i - j);
  }

  /** @param {number[]} selected */
  function tiles(selected) {
    const a = headA(), list = make("div", { class: "tiles" }), sheet = data.thumbnails;
    for (const i of surestErrorsFirst(selected).slice(0, SHOWN)) {
      const label = `${data.tiles.id[tile[i]]}: ${data.classes[rows.y[i]]}, predicted ${data.classes[a.predicted[i]]}`;
      list.append(button(sheet && places ? thumbnail(sheet, places[tile[i]], sheet.px, "tested") : label, state.open === i, () => change({ open: i }),
        { title: label, "aria-label": label, class: isWrong(a, i) ? "wrong" : "" }));
    }
    return list;
  }

  function detail() {
    if (state.open === null) return "";
    const i = state.open, name = data.tiles.id[tile[i]], sheet = data.thumbnails;
    const facts = [`true class ${data.classes[rows.y[i]]}`];
    if (data.groups.length) facts.push(`group ${data.groups[group[i]]}`);
    facts.push(`fold ${fold[i]}`, `seed ${seed[i]}`, ...(data.findings[name] || []).map((what) => `audit: ${what}`));
    const lines = shown.map((head) => {
      const c = head.predicted[i], p = head.p[i * k + c];
      const bar = make("meter", { min: 0, max: 1, value: p, "aria-label": `probability ${text(p)}` });
      return line(head.title, `${isWrong(head, i) ? "✗" : "✓"} ${data.classes[c]}`, make("span", {}, bar, ` ${text(p)}`));
    });
    return make("div", { class: "detail", role: "group", "aria-label": `Tile ${name}` },
      sheet && places ? thumbnail(sheet, places[tile[i]], 3 * sheet.px, "tested") : "",
      make("div", {}, make("p", {}, make("code", {}, name), " ",
        button("Copy name", false, () => navigator.clipboard && navigator.clipboard.writeText(name)),
        button("Close", false, () => change({ open: null }))),
        make("p", {}, facts.join(", ")), scroller("Predictions for the tile", table(["head", "predicted", "probability"], lines)), neighbours(tile[i])));
  }

  /**
   * Return the training tiles that are nearest to a test tile.
   * @param {number} t
   */
  function neighbours(t) {
    const near = data.neighbours;
    if (!near) return "";
    const sheet = near.thumbnails, cells = sheet && ints(sheet.place), y = ints(near.y), { group: groupOf } = near;
    const found = ints(near.of_tile).subarray(t * near.k, (t + 1) * near.k), cosine = decode(near.cosine, Float64Array);
    const items = Array.from(found, (n, j) => make("li", { "data-neighbour": near.id[n] },
      sheet && cells ? thumbnail(sheet, cells[n], 2 * sheet.px, "trained") : "",
      `${data.classes[y[n]]}${groupOf ? `, group ${groupOf[n]}` : ""}, cosine ${text(cosine[t * near.k + j])}: `, make("code", {}, near.id[n])));
    return make("div", {}, make("p", {}, "Nearest training tiles by their embeddings"), make("ol", { class: "neighbours" }, ...items));
  }

  /** @param {number[]} selected */
  function save(selected) {
    /** @param {string} value */
    const quote = (value) => `"${value.replaceAll('"', '""')}"`;
    const seen = [...new Set(surestErrorsFirst(selected).map((i) => tile[i]))];
    const lines = ["tile_id,path", ...seen.map((t) => `${quote(data.tiles.id[t])},${quote(data.tiles.path[t])}`)];
    const link = make("a", { download: "selection.csv", href: URL.createObjectURL(new Blob([`${lines.join("\n")}\n`], { type: "text/csv" })) });
    link.click();
    URL.revokeObjectURL(link.href);
  }

  const recomputed = recompute.part(() => {
    const { levels, level, tails } = data.verdict, nUnits = rows.nUnits;
    const tail = tails ? decode(tails, Float64Array)[levels.indexOf(level) * (nUnits - 1) + nUnits - 2] : null;
    return recompute.compareAll(rows, heads, data.classes, data.printed, draws, tail);
  });
  const keep = ownView.keeper(rows, heads, draws);
  let isOwnViewOpen = false;

  /** @param {number[]} kept */
  function ownViewPart(kept) {
    const facts = data.verdict, rope = state.margin === null ? facts.rope : state.margin, level = state.level === null ? facts.level : state.level;
    const part = make("details", { id: "own-view", open: isOwnViewOpen || isOwnView() }, make("summary", {}, "Your own view: leave out groups or classes, change the margin or the level"),
      ownView.controls({ classes: data.classes, withoutClasses: state.withoutClasses, rope, level, facts, change }));
    const fill = () => part.append(ownView.results({ rows, heads, facts, unit: data.unit_name, kept, nAll: all.length, rope, level, isOwn: isOwnView(),
      drawn: keep(kept, JSON.stringify([state.without, state.withoutClasses])) }));
    if (part.open) fill();
    part.addEventListener("toggle", () => {
      if (part.open && !part.querySelector("#own-verdict")) fill();
      isOwnViewOpen = part.open;
    });
    return part;
  }

  function draw() {
    const focused = document.activeElement && document.activeElement.getAttribute("aria-label");
    const { kept, selected } = chosen(), nLeft = all.length - kept.length;
    const left = nLeft ? ` ${nLeft} are left out: this is your own view, not the report's.` : "";
    /** @type {HTMLElement} */ (root).replaceChildren(
      controls(),
      make("div", { class: "panels" }, matrix(kept), map(selected), bins(kept), groups()),
      make("p", { class: "note", id: "selected", "aria-live": "polite" }, `${selected.length} of ${all.length} test rows are selected.${left}`),
      make("details", { open: selected.length < all.length }, make("summary", {}, "Scores of the selected rows"), scoreTable(selected)),
      make("p", {}, button("Save the selection as CSV", false, () => save(selected)), selected.length > SHOWN ? ` Shown: ${SHOWN} tiles, the surest errors first.` : ""),
      detail(), tiles(selected), ownViewPart(kept), recomputed);
    const again = focused && /** @type {HTMLElement} */ (root).querySelector(`[aria-label="${CSS.escape(focused)}"]`);
    if (again instanceof HTMLElement) again.focus();
  }

  /** @type {[string, Sheet | null][]} */
  const sheets = [["tested", data.thumbnails], ["trained", data.neighbours && data.neighbours.thumbnails]];
  for (const [name, sheet] of sheets) {
    if (sheet) document.head.append(make("style", {}, `.thumbnail.${name} { background-image: url(data:image/jpeg;base64,${sheet.jpeg}); }`));
  }
  readAddress();
  window.addEventListener("hashchange", () => {
    readAddress();
    draw();
  });
  draw();
})();
