"use strict";
/**
 * Show the test rows of the report: confusion matrix, map, bins, groups and tiles share one selection.
 * The selection is kept in the address.
 *
 * @typedef {NamedHead & {p: Float64Array}} ShownHead  a head whose probabilities the page carries
 * @typedef {{classes: string[], groups: string[], tiles: {id: string[], path: string[]}, n: number, y: string, tile: string,
 *   sample: {n: number, groups: string, heads: Record<string, PackedCounts>} | null,
 *   group: string, fold: string, seed: string, unit: string, unit_name: string, n_units: number, edges: number[],
 *   heads: (Omit<NamedHead, "predicted" | "p"> & {predicted: string, p: string | null})[], printed: Printed[],
 *   draws: string | null, verdict: VerdictFacts, map: {tile: string, xy: string} | null, thumbnails: Sheet | null,
 *   neighbours: Neighbours | null, findings: Record<string, string[]>}} Payload  as explorer/pack.py writes it;
 *   `sample` has the counts of all test rows where the page carries only some
 * @typedef {{a: string | null, b: string | null, colour: string, true: number | null, predicted: number | null,
 *   group: number | null, bin: number | null, lasso: [number, number][] | null, without: number[],
 *   withoutClasses: number[], margin: number | null, level: number | null, open: number | null}} State
 *   the reader's choices; null chooses nothing, or what the report has. `without`: groups that are left out
 */
(() => {
  const source = document.getElementById("explorer-data"), root = document.getElementById("explorer");
  if (!source || !root) return;
  const { decode, make, text, button, picker, table, line, scroller, readState, keepState } = page;
  const { isWrong, confidence } = panels;
  /** @type {Payload} */
  const data = JSON.parse(source.textContent || "");
  /** @param {string} packed */
  const ints = (packed) => decode(packed, Int32Array);
  const rows = { n: data.n, y: ints(data.y), unit: ints(data.unit), nClasses: data.classes.length, nUnits: data.n_units, edges: data.edges };
  const tile = ints(data.tile), group = ints(data.group), fold = ints(data.fold), seed = ints(data.seed);
  const heads = data.heads.map((head) => ({ ...head, predicted: ints(head.predicted), p: head.p === null ? null : decode(head.p, Float64Array) }));
  const shown = heads.flatMap((head) => (head.p ? [/** @type {ShownHead} */ (head)] : []));
  const draws = data.draws === null ? null : decode(data.draws, Uint8Array);
  const k = rows.nClasses, all = Array.from({ length: data.n }, (_, i) => i), { sample } = data;
  const SHOWN = 120;
  const places = data.thumbnails && ints(data.thumbnails.place);
  /** @type {Map<number, number>} */
  const firstRow = new Map();
  for (const i of all) if (!firstRow.has(tile[i])) firstRow.set(tile[i], i);
  const points = data.map && { row: ints(data.map.tile).map((t) => /** @type {number} */ (firstRow.get(t))), xy: decode(data.map.xy, Float64Array) };

  /** @type {State} */
  const empty = { a: null, b: null, colour: "class", true: null, predicted: null, group: null, bin: null, lasso: null,
    without: [], withoutClasses: [], margin: null, level: null, open: null };
  let state = { ...empty };

  const headA = () => shown.find((head) => head.name === state.a) || shown.find((head) => head.main) || shown[0];
  const headB = () => shown.find((head) => head.name === state.b);
  const isOwnView = () => state.without.length + state.withoutClasses.length > 0 || state.margin !== null || state.level !== null;

  /**
   * Write the state into the address, and draw again.
   * @param {Partial<State>} part
   */
  function change(part) {
    state = { ...state, ...part };
    keepState("explorer", state, empty);
    draw();
  }

  /** Take the state from the address; parts that do not fit this report are ignored. */
  function readAddress() {
    /** @typedef {(value: any) => boolean} Check */
    /** @type {(n: number) => Check} */
    const below = (n) => (v) => Number.isInteger(v) && v >= 0 && v < n;
    /** @type {(check: Check) => Check} */
    const each = (check) => (v) => Array.isArray(v) && v.every(check);
    /** @type {Check} */
    const isHead = (v) => shown.some((head) => head.name === v);
    /** @type {Record<string, Check>} */
    const ofOwnView = {
      without: each(below(data.groups.length)), withoutClasses: each(below(k)),
      margin: (v) => Number.isFinite(v) && v >= 0 && v < 1, level: (v) => data.verdict.levels.includes(v),
    };
    const found = readState("explorer", {
      a: isHead, b: isHead, true: below(k), predicted: below(k), group: below(data.groups.length), bin: below(rows.edges.length + 1), open: below(data.n),
      colour: (v) => ["class", "predicted", "wrong", "group", "confidence"].includes(v),
      lasso: each((p) => Array.isArray(p) && p.length === 2 && p.every(Number.isFinite)),
      ...(sample ? {} : ofOwnView),
    });
    if (found) state = { ...empty, ...found };
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
    const { lasso } = state, { row, xy } = points;
    return new Set(Array.from(row.filter((_, i) => inside(lasso, xy[2 * i], xy[2 * i + 1])), (i) => tile[i]));
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
        (state.bin === null || scores.binOf(confidence(a, rows, i), rows.edges) === state.bin) &&
        (!onMap || onMap.has(tile[i])) &&
        (!b || (!isWrong(a, rows, i) && isWrong(b, rows, i))),
    );
    return { kept, selected };
  }

  function controls() {
    const titles = shown.map((head) => /** @type {[string, string]} */ ([head.name, head.title]));
    return make("p", { class: "controls" },
      picker("Head", headA().name, titles, (a) => change({ a, b: null, predicted: null, bin: null })),
      picker("Tiles", state.b || "", [["", "all"], ...shown.filter((head) => head !== headA()).map((head) =>
        /** @type {[string, string]} */ ([head.name, `correct here, wrong by ${head.title}`]))], (b) => change({ b: b || null })),
      points ? picker("Colour of the map", state.colour,
        [["class", "class"], ["predicted", "predicted class"], ["wrong", "right or wrong"], ["group", "group"], ["confidence", "confidence"]],
        (colour) => change({ colour })) : "",
      button("Clear", false, () => change({ ...empty, a: state.a, colour: state.colour })));
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
   * Return rows with the surest errors of head A first.
   * @param {number[]} selected
   */
  function surestErrorsFirst(selected) {
    const a = headA();
    /** @param {number} i */
    const worth = (i) => (isWrong(a, rows, i) ? 1 : -1) * a.p[i * k + a.predicted[i]];
    return [...selected].sort((i, j) => worth(j) - worth(i) || i - j);
  }

  /** @param {number} i @param {number} times the size of a thumbnail in the list */
  const picture = (i, times) => data.thumbnails && places && tileView.thumbnail(data.thumbnails, places[tile[i]], times * data.thumbnails.px, "tested");

  /** @param {number[]} selected */
  function tiles(selected) {
    const a = headA(), list = make("div", { class: "tiles" });
    for (const i of surestErrorsFirst(selected).slice(0, SHOWN)) {
      const label = `${data.tiles.id[tile[i]]}: ${data.classes[rows.y[i]]}, predicted ${data.classes[a.predicted[i]]}`;
      list.append(button(picture(i, 1) || label, state.open === i, () => change({ open: i }),
        { title: label, "aria-label": label, class: isWrong(a, rows, i) ? "wrong" : "" }));
    }
    return list;
  }

  function detail() {
    if (state.open === null) return "";
    const i = state.open, name = data.tiles.id[tile[i]];
    const facts = [`true class ${data.classes[rows.y[i]]}`];
    if (data.groups.length) facts.push(`group ${data.groups[group[i]]}`);
    facts.push(`fold ${fold[i]}`, `seed ${seed[i]}`, ...(data.findings[name] || []).map((what) => `audit: ${what}`));
    return tileView.detail({ rows, classes: data.classes, heads, shown, row: i, name, facts, thumbnail: picture(i, 3) || "",
      near: data.neighbours ? tileView.neighbours(data.neighbours, data.classes, tile[i]) : "", close: () => change({ open: null }) });
  }

  /** @param {number[]} selected */
  function save(selected) {
    /** Return a cell, with an apostrophe before a text that a spreadsheet would compute. @param {string} value */
    const quote = (value) => `"${/^[=+\-@\t\r]/.test(value) ? "'" : ""}${value.replaceAll('"', '""')}"`;
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
  /** Parts that the reader opened. @type {Set<string>} */
  const opened = new Set();

  /**
   * Return a part that is computed when it is open.
   * @param {string} id @param {string} title @param {boolean} open whatever the reader opened @param {() => HTMLElement} fill
   */
  function folded(id, title, open, fill) {
    open ||= opened.has(id);
    const part = make("details", { id, open }, make("summary", {}, title)), content = make("div");
    part.append(content);
    if (open) content.append(fill());
    part.addEventListener("toggle", () => {
      if (part.open && !content.firstChild) content.append(fill());
      if (part.open) opened.add(id);
      else opened.delete(id);
    });
    return part;
  }

  /** @param {number[]} kept */
  function ownViewPart(kept) {
    const facts = data.verdict, rope = state.margin === null ? facts.rope : state.margin, level = state.level === null ? facts.level : state.level;
    const fill = () => make("div", {}, ownView.controls({ classes: data.classes, withoutClasses: state.withoutClasses, rope, level, facts, change }),
      ownView.results({ rows, heads, facts, unit: data.unit_name, kept, nAll: all.length, rope, level, isOwn: isOwnView(),
        drawn: keep(kept, JSON.stringify([state.without, state.withoutClasses])) }));
    return folded("own-view", "Your own view: leave out groups or classes, change the margin or the level", isOwnView(), fill);
  }

  /** Return what the selected rows have in common. */
  function selection() {
    const a = headA(), b = headB(), parts = [];
    if (state.true !== null) parts.push(`true class ${data.classes[state.true]}`);
    if (state.predicted !== null) parts.push(`predicted as ${data.classes[state.predicted]} by ${a.title}`);
    if (state.group !== null) parts.push(`group ${data.groups[state.group]}`);
    if (state.bin !== null) parts.push(`confidence of ${a.title} up to ${text([...rows.edges, 1][state.bin], 2)}`);
    if (state.lasso) parts.push("inside of the line on the map");
    if (b) parts.push(`correct by ${a.title}, wrong by ${b.title}`);
    return parts.join(", ");
  }

  /** @param {number[]} kept @param {number[]} selected */
  function status(kept, selected) {
    const nLeft = all.length - kept.length, found = selection();
    const left = nLeft ? ` ${nLeft} are left out: this is your own view, not the report's.` : "";
    const start = `${selected.length} of ${all.length} ${sample ? "rows on this page" : "test rows"} are selected${found && `: ${found}`}.`;
    return sample ? `${start} The report has ${sample.n} test rows; this page carries a sample.` : start + left;
  }

  /** @param {number[]} selected */
  function shownTiles(selected) {
    const most = selected.length > SHOWN ? `The first ${SHOWN} tiles are shown. ` : "";
    return `${most}The surest errors of ${headA().title} come first; an orange frame marks an error. Click a tile to open it.`;
  }

  function draw() {
    const focused = document.activeElement && document.activeElement.getAttribute("aria-label");
    const { kept, selected } = chosen(), marked = new Set(selected.map((i) => tile[i]));
    /** @type {Panel} */
    const panel = { rows, classes: data.classes, groups: data.groups, group, kept, head: headA(), sample, state, change };
    /** @type {HTMLElement} */ (root).replaceChildren(
      controls(),
      make("div", { class: "panels" }, panels.matrix(panel), points ? panels.map(panel, points, (row) => marked.has(tile[row])) : ""),
      make("p", { class: "note", id: "selected", "aria-live": "polite" }, status(kept, selected)),
      make("p", {}, button("Save the selection as CSV", false, () => save(selected)), ` ${shownTiles(selected)}`),
      detail(), tiles(selected),
      sample ? "" : folded("selection-scores", "Scores of the selected rows", false, () => scoreTable(selected)),
      make("div", { class: "panels" }, panels.bins(panel), panels.groups(panel)),
      ...(sample ? [make("p", {}, "Scores of a selection, recomputed scores and your own view need all test rows: this page carries a sample.")] : [ownViewPart(kept), recomputed]));
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
