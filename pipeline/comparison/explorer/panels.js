"use strict";
/**
 * Show how the test rows are distributed: confusion matrix, bins of confidence, groups and map. A click selects rows.
 *
 * @typedef {{matrix: string, bins: string, bins_right: string, groups_right: string}} PackedCounts
 * @typedef {{rows: Rows & {n: number}, classes: string[], groups: string[], group: Int32Array, kept: number[], head: ShownHead,
 *   sample: {groups: string, heads: Record<string, PackedCounts>} | null, state: State, change: (part: Partial<State>) => void}} Panel
 *   `kept`: rows that the reader did not leave out; `sample` has the counts of all test rows where the page carries few
 */
const panels = (() => {
  const { decode, make, text, button, table, line, scroller } = page;
  const COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#8c6d1f", "#7f7f7f", "#332288", "#aa4499"];
  const LEGEND = 24, SIZE = 480, PAD = 8, SCALE = SIZE - 2 * PAD;

  /** @param {NamedHead} head @param {Rows} rows @param {number} i */
  const isWrong = (head, rows, i) => head.predicted[i] !== rows.y[i];
  /** @param {ShownHead} head @param {Rows} rows @param {number} i */
  const confidence = (head, rows, i) => head.p[i * rows.nClasses + scores.topClass(head.p, i, rows.nClasses)];

  /** Return the counts of all test rows for the chosen head; null where the page carries all rows. @param {Panel} panel */
  function ofSample({ sample, head }) {
    if (!sample) return null;
    const packed = sample.heads[head.name];
    /** @param {string} values */
    const ints = (values) => decode(values, Int32Array);
    return { groups: ints(sample.groups), matrix: ints(packed.matrix), bins: ints(packed.bins), binsRight: ints(packed.bins_right), groupsRight: ints(packed.groups_right) };
  }

  /** @param {Panel} panel */
  function countMatrix(panel) {
    const whole = ofSample(panel), { rows, kept, head } = panel, k = rows.nClasses;
    if (whole) return whole.matrix;
    const counts = new Int32Array(k * k);
    for (const i of kept) counts[rows.y[i] * k + head.predicted[i]] += 1;
    return counts;
  }

  /** @param {Panel} panel */
  function matrix(panel) {
    const { classes, head, state, change } = panel, counts = countMatrix(panel), k = classes.length;
    const grid = make("table", { class: "matrix" }, make("caption", {}, `${head.title}: rows are true classes, columns predicted classes`));
    grid.append(make("tr", {}, make("td"), ...classes.map((name, c) =>
      make("th", { scope: "col" }, button(make("span", {}, name), state.predicted === c && state.true === null, () => change({ true: null, predicted: c }), { title: name, "aria-label": `predicted as ${name}` })))));
    classes.forEach((name, t) => {
      const row = make("tr", {}, make("th", { scope: "row", class: "words" },
        button(name, state.true === t && state.predicted === null, () => change({ true: t, predicted: null }), { title: name, "aria-label": `true class ${name}` })));
      const support = counts.slice(t * k, t * k + k).reduce((sum, n) => sum + n, 0);
      classes.forEach((_, p) => {
        const n = counts[t * k + p], share = support ? n / support : 0;
        const cell = button(String(n), state.true === t && state.predicted === p, () => change({ true: t, predicted: p }),
          { "aria-label": `${name} predicted as ${classes[p]}: ${n}`, "data-cell": `${t}-${p}` });
        cell.style.setProperty("--share", String(share));
        row.append(make("td", { class: t === p ? "right" : "" }, cell));
      });
      grid.append(row);
    });
    return scroller("Confusion matrix", grid);
  }

  /** @param {Panel} panel */
  function countBins(panel) {
    const whole = ofSample(panel), { rows, kept, head } = panel, n = rows.edges.length + 1;
    if (whole) return { count: whole.bins, right: whole.binsRight };
    const count = new Int32Array(n), right = new Int32Array(n);
    for (const i of kept) {
      const bin = scores.binOf(confidence(head, rows, i), rows.edges);
      count[bin] += 1;
      right[bin] += Number(!isWrong(head, rows, i));
    }
    return { count, right };
  }

  /** @param {Panel} panel */
  function bins(panel) {
    const { rows, head, state, change } = panel, { count, right } = countBins(panel);
    const lines = [...rows.edges, 1].flatMap((edge, b) => {
      if (!count[b]) return [];
      const label = button(text(edge, 2), state.bin === b, () => change({ bin: state.bin === b ? null : b }), { "aria-label": `confidence up to ${text(edge, 2)}` });
      return [line(label, String(count[b]), text(right[b] / count[b], 2))];
    });
    return scroller("Bins of confidence", table(["confidence up to", "tiles", "share correct"], lines, `Confidence of ${head.title}`));
  }

  /** @param {Panel} panel */
  function countGroups(panel) {
    const whole = ofSample(panel), { rows, group, groups, head } = panel;
    if (whole) return { count: whole.groups, right: whole.groupsRight };
    const count = new Int32Array(groups.length), right = new Int32Array(groups.length);
    for (let i = 0; i < rows.n; i++) {
      count[group[i]] += 1;
      right[group[i]] += Number(!isWrong(head, rows, i));
    }
    return { count, right };
  }

  /** @param {Panel} panel */
  function groups(panel) {
    const { state, change } = panel;
    if (!panel.groups.length) return "";
    const { count, right } = countGroups(panel), canLeaveOut = !panel.sample;
    const lines = panel.groups.flatMap((name, g) => {
      if (!count[g]) return [];
      const isOut = state.without.includes(g);
      const label = button(name, state.group === g, () => change({ group: state.group === g ? null : g }), { disabled: isOut, "aria-label": `group ${name}` });
      const box = make("input", { type: "checkbox", checked: isOut, "aria-label": `leave out ${name}`,
        onchange: () => change({ without: isOut ? state.without.filter((other) => other !== g) : [...state.without, g], group: null }) });
      return [line(label, String(count[g]), text(right[g] / count[g], 2), ...(canLeaveOut ? [box] : []))];
    });
    const columns = ["group", "tiles", "share correct", ...(canLeaveOut ? ["leave out"] : [])];
    return scroller("Groups", table(columns, lines, "Groups (slides, patients or sources)"), "scroll");
  }

  /** @param {Panel} panel @param {number} i */
  function colourOf({ rows, head, state, group }, i) {
    if (state.colour === "class") return COLOURS[rows.y[i] % COLOURS.length];
    if (state.colour === "predicted") return COLOURS[head.predicted[i] % COLOURS.length];
    if (state.colour === "group") return COLOURS[group[i] % COLOURS.length];
    if (state.colour === "wrong") return isWrong(head, rows, i) ? "#d55e00" : "#56b4e9";
    const shade = Math.round(220 - 200 * confidence(head, rows, i));
    return `rgb(${shade}, ${shade}, ${Math.round(235 - 60 * confidence(head, rows, i))})`;
  }

  /**
   * Return the map of the embeddings.
   * @param {Panel} panel @param {{row: Int32Array, xy: Float64Array}} points row of each point, and x and y in 0..1
   * @param {(row: number) => boolean} isSelected
   */
  function map(panel, points, isSelected) {
    const { state, change } = panel;
    const canvas = make("canvas", { width: SIZE, height: SIZE, role: "img", "aria-label": "Map of the test tiles. Draw around points to select them; the lists next to it select by keyboard." });
    const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    /** @param {number} x @param {number} y @returns {[number, number]} */
    const place = (x, y) => [PAD + SCALE * x, PAD + SCALE * (1 - y)];
    for (const strong of [false, true]) {
      points.row.forEach((row, i) => {
        if (isSelected(row) !== strong) return;
        const [x, y] = place(points.xy[2 * i], points.xy[2 * i + 1]);
        pen.globalAlpha = strong ? 0.9 : 0.15;
        pen.fillStyle = colourOf(panel, row);
        pen.fillRect(x - 2, y - 2, 4, 4);
      });
    }
    pen.globalAlpha = 1;
    pen.strokeStyle = "#d55e00";
    /** @param {[number, number][]} line */
    const stroke = (line) => {
      pen.beginPath();
      line.forEach(([x, y]) => pen.lineTo(...place(x, y)));
      pen.stroke();
    };
    if (state.lasso) stroke([...state.lasso, state.lasso[0]]);
    /** @type {[number, number][]} */
    let path = [];
    /** @type {(event: PointerEvent) => [number, number]} */
    const at = (event) => {
      const box = canvas.getBoundingClientRect();
      return [(((event.clientX - box.left) / box.width) * SIZE - PAD) / SCALE, 1 - (((event.clientY - box.top) / box.height) * SIZE - PAD) / SCALE];
    };
    canvas.addEventListener("pointerdown", (event) => {
      path = [at(event)];
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!path.length) return;
      path.push(at(event));
      stroke(path.slice(-2));
    });
    canvas.addEventListener("pointerup", () => {
      const lasso = path.map(([x, y]) => /** @type {[number, number]} */ ([Number(x.toFixed(4)), Number(y.toFixed(4))]));
      path = [];
      change({ lasso: lasso.length > 2 ? lasso : null });
    });
    const names = state.colour === "group" ? panel.groups : ["class", "predicted"].includes(state.colour) ? panel.classes : [];
    const legend = make("ul", { class: "legend" });
    names.slice(0, LEGEND).forEach((name, i) => {
      const spot = make("span", { class: "spot" });
      spot.style.background = COLOURS[i % COLOURS.length];
      legend.append(make("li", {}, spot, ` ${name}`));
    });
    return make("div", {}, canvas, legend);
  }

  return { matrix, bins, groups, map, isWrong, confidence };
})();
