"use strict";
/**
 * Show the test rows of the report: confusion matrix, map, bins, groups and tiles share one selection.
 * The selection is kept in the address. All text enters the page as text, never as HTML.
 */
(() => {
  const source = document.getElementById("explorer-data"), root = document.getElementById("explorer");
  if (!source || !root) return;
  const data = JSON.parse(source.textContent);
  const ints = (text) => scores.decode(text, Int32Array);
  const rows = { y: ints(data.y), unit: ints(data.unit), nClasses: data.classes.length, nUnits: data.n_units, edges: data.edges };
  const tile = ints(data.tile), group = ints(data.group), fold = ints(data.fold), seed = ints(data.seed);
  const heads = data.heads.map((head) => ({ ...head, predicted: ints(head.predicted), p: head.p && scores.decode(head.p, Float64Array) }));
  const shown = heads.filter((head) => head.p);
  const k = rows.nClasses, all = Array.from({ length: data.n }, (_, i) => i);
  const COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#8c6d1f", "#7f7f7f", "#332288", "#aa4499"];
  const SHOWN = 120, TOLERANCE = 1e-9;
  const points = data.map && { tile: ints(data.map.tile), xy: scores.decode(data.map.xy, Float64Array) };
  const firstRow = new Map();
  for (const i of all) if (!firstRow.has(tile[i])) firstRow.set(tile[i], i);

  /** The reader's choices; what is null chooses nothing. `without`: groups that are left out. */
  const empty = { a: null, b: null, colour: "class", true: null, predicted: null, group: null, bin: null, lasso: null, without: [], open: null };
  let state = { ...empty };

  /** Return an element with properties and children; strings become text. */
  function make(name, properties = {}, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(properties)) {
      if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
      else if (key.startsWith("aria-")) element.setAttribute(key, String(value));
      else if (value !== false && value !== null) element.setAttribute(key, value === true ? "" : String(value));
    }
    element.append(...children);
    return element;
  }
  const text = (value, digits = 3) => (Number.isFinite(value) ? value.toFixed(digits) : "n/a");
  const button = (label, pressed, press, properties = {}) =>
    make("button", { type: "button", "aria-pressed": pressed, onclick: press, ...properties }, label);
  const headA = () => shown.find((head) => head.name === state.a) || shown.find((head) => head.main) || shown[0];
  const headB = () => shown.find((head) => head.name === state.b);
  const isWrong = (head, i) => head.predicted[i] !== rows.y[i];
  const confidence = (head, i) => head.p[i * k + scores.topClass(head, i, k)];

  /** Write the state into the address, and draw again. */
  function change(part) {
    state = { ...state, ...part };
    const words = Object.entries(state).filter(([name, value]) => JSON.stringify(value) !== JSON.stringify(empty[name]));
    const address = words.length ? `#explore=${encodeURIComponent(JSON.stringify(Object.fromEntries(words)))}` : "#explorer";
    history.replaceState(null, "", address);
    draw();
  }

  /** Read the state from the address; parts that do not fit this report are ignored. */
  function readAddress() {
    const found = /^#explore=(.*)$/.exec(location.hash);
    if (!found) return;
    try {
      const given = JSON.parse(decodeURIComponent(found[1])), below = (n) => (v) => Number.isInteger(v) && v >= 0 && v < n;
      const fits = {
        a: (v) => shown.some((head) => head.name === v),
        b: (v) => shown.some((head) => head.name === v),
        colour: (v) => ["class", "predicted", "wrong", "group", "confidence"].includes(v),
        true: below(k), predicted: below(k), group: below(data.groups.length), bin: below(rows.edges.length + 1), open: below(data.n),
        lasso: (v) => Array.isArray(v) && v.every((p) => Array.isArray(p) && p.length === 2 && p.every(Number.isFinite)),
        without: (v) => Array.isArray(v) && v.every(below(data.groups.length)),
      };
      state = { ...empty, ...Object.fromEntries(Object.entries(given).filter(([name, value]) => fits[name] && fits[name](value))) };
    } catch (error) {
      if (!(error instanceof SyntaxError || error instanceof URIError)) throw error;
    }
  }

  /** Return whether a point is inside of a polygon (even-odd rule). */
  function inside(polygon, x, y) {
    let odd = false;
    for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i++) {
      const [xi, yi] = polygon[i], [xj, yj] = polygon[j];
      if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) odd = !odd;
    }
    return odd;
  }

  /** Return the rows that the reader did not leave out, and those of them that are selected. */
  function chosen() {
    const kept = all.filter((i) => !state.without.includes(group[i])), a = headA();
    const onMap = state.lasso && points && new Set();
    if (onMap) points.tile.forEach((t, i) => inside(state.lasso, points.xy[2 * i], points.xy[2 * i + 1]) && onMap.add(t));
    const selected = kept.filter(
      (i) =>
        (state.true === null || rows.y[i] === state.true) &&
        (state.predicted === null || a.predicted[i] === state.predicted) &&
        (state.group === null || group[i] === state.group) &&
        (state.bin === null || scores.binOf(confidence(a, i), rows.edges) === state.bin) &&
        (!onMap || onMap.has(tile[i])) &&
        (!headB() || (!isWrong(a, i) && isWrong(headB(), i))),
    );
    return { kept, selected };
  }

  function picker(label, value, choices, pick) {
    const select = make("select", { onchange: (event) => pick(event.target.value) });
    for (const [name, title] of choices) select.append(make("option", { value: name, selected: name === value }, title));
    return make("label", {}, `${label} `, select);
  }

  function controls() {
    const titles = shown.map((head) => [head.name, head.title]);
    return make("p", { class: "controls" },
      picker("Head", headA().name, titles, (a) => change({ a, predicted: null, bin: null })),
      picker("right, and wrong in", state.b || "", [["", "(all tiles)"], ...titles], (b) => change({ b: b || null })),
      picker("Colour of the map", state.colour,
        [["class", "class"], ["predicted", "predicted class"], ["wrong", "right or wrong"], ["group", "group"], ["confidence", "confidence"]],
        (colour) => change({ colour })),
      button("Clear", false, () => change({ ...empty, a: state.a, colour: state.colour })));
  }

  function matrix(kept) {
    const a = headA(), counts = new Int32Array(k * k);
    for (const i of kept) counts[rows.y[i] * k + a.predicted[i]] += 1;
    const table = make("table", { class: "matrix" }, make("caption", {}, `${a.title}: rows are true classes, columns predicted classes`));
    table.append(make("tr", {}, make("td"), ...data.classes.map((name, c) =>
      make("th", { scope: "col" }, button(name, state.predicted === c && state.true === null, () => change({ true: null, predicted: c }))))));
    data.classes.forEach((name, t) => {
      const line = make("tr", {}, make("th", { scope: "row", class: "words" },
        button(name, state.true === t && state.predicted === null, () => change({ true: t, predicted: null }))));
      const support = counts.slice(t * k, t * k + k).reduce((sum, n) => sum + n, 0);
      data.classes.forEach((_, p) => {
        const n = counts[t * k + p], share = support ? n / support : 0;
        const cell = button(String(n), state.true === t && state.predicted === p, () => change({ true: t, predicted: p }),
          { "aria-label": `${name} predicted as ${data.classes[p]}: ${n}`, "data-cell": `${t}-${p}` });
        cell.style.setProperty("--share", String(share));
        line.append(make("td", { class: t === p ? "right" : "" }, cell));
      });
      table.append(line);
    });
    return make("div", { class: "table", tabindex: 0 }, table);
  }

  function colourOf(i) {
    const a = headA();
    if (state.colour === "class") return COLOURS[rows.y[i] % COLOURS.length];
    if (state.colour === "predicted") return COLOURS[a.predicted[i] % COLOURS.length];
    if (state.colour === "group") return COLOURS[group[i] % COLOURS.length];
    if (state.colour === "wrong") return isWrong(a, i) ? "#d55e00" : "#56b4e9";
    const shade = Math.round(220 - 200 * confidence(a, i));
    return `rgb(${shade}, ${shade}, ${Math.round(235 - 60 * confidence(a, i))})`;
  }

  function map(selected) {
    if (!points) return "";
    const size = 480, pad = 8, scale = size - 2 * pad, marked = new Set(selected.map((i) => tile[i]));
    const canvas = make("canvas", { width: size, height: size, role: "img", "aria-label": "Map of the test tiles. Draw around points to select them; the lists next to it select by keyboard." });
    const pen = canvas.getContext("2d");
    for (const strong of [false, true]) {
      points.tile.forEach((t, i) => {
        if (marked.has(t) !== strong || !firstRow.has(t)) return;
        pen.globalAlpha = strong ? 0.9 : 0.15;
        pen.fillStyle = colourOf(firstRow.get(t));
        pen.fillRect(pad + scale * points.xy[2 * i] - 2, pad + scale * (1 - points.xy[2 * i + 1]) - 2, 4, 4);
      });
    }
    pen.globalAlpha = 1;
    let path = null;
    const at = (event) => {
      const box = canvas.getBoundingClientRect();
      return [(((event.clientX - box.left) / box.width) * size - pad) / scale, 1 - (((event.clientY - box.top) / box.height) * size - pad) / scale];
    };
    canvas.addEventListener("pointerdown", (event) => {
      path = [at(event)];
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!path) return;
      const [x, y] = path[path.length - 1], [nx, ny] = at(event);
      path.push([nx, ny]);
      pen.strokeStyle = "#d55e00";
      pen.beginPath();
      pen.moveTo(pad + scale * x, pad + scale * (1 - y));
      pen.lineTo(pad + scale * nx, pad + scale * (1 - ny));
      pen.stroke();
    });
    canvas.addEventListener("pointerup", () => {
      const lasso = path && path.length > 2 ? path.map((p) => p.map((v) => Number(v.toFixed(4)))) : null;
      path = null;
      change({ lasso });
    });
    const names = state.colour === "group" ? data.groups : ["class", "predicted"].includes(state.colour) ? data.classes : [];
    const legend = make("ul", { class: "legend" });
    names.slice(0, 24).forEach((name, i) => {
      const spot = make("span", { class: "spot" });
      spot.style.background = COLOURS[i % COLOURS.length];
      legend.append(make("li", {}, spot, ` ${name}`));
    });
    return make("div", {}, canvas, legend);
  }

  function bins(kept) {
    const a = headA(), n = rows.edges.length + 1, count = new Int32Array(n), right = new Int32Array(n);
    for (const i of kept) {
      const bin = scores.binOf(confidence(a, i), rows.edges);
      count[bin] += 1;
      right[bin] += Number(!isWrong(a, i));
    }
    const table = make("table", {}, make("caption", {}, `Confidence of ${a.title}`),
      make("tr", {}, ...["confidence up to", "tiles", "right"].map((name) => make("th", { scope: "col" }, name))));
    [...rows.edges, 1].forEach((edge, b) => {
      if (!count[b]) return;
      const label = button(text(edge, 2), state.bin === b, () => change({ bin: state.bin === b ? null : b }));
      table.append(make("tr", {}, make("td", {}, label), make("td", {}, String(count[b])), make("td", {}, text(right[b] / count[b], 2))));
    });
    return make("div", { class: "table" }, table);
  }

  function groups() {
    if (!data.groups.length) return "";
    const a = headA(), n = new Int32Array(data.groups.length), right = new Int32Array(data.groups.length);
    for (const i of all) {
      n[group[i]] += 1;
      right[group[i]] += Number(!isWrong(a, i));
    }
    const table = make("table", {}, make("caption", {}, "Groups (slides, patients or sources)"),
      make("tr", {}, ...["group", "tiles", "right", "leave out"].map((name) => make("th", { scope: "col" }, name))));
    data.groups.forEach((name, g) => {
      if (!n[g]) return;
      const out = state.without.includes(g);
      const box = make("input", { type: "checkbox", checked: out, "aria-label": `leave out ${name}`,
        onchange: () => change({ without: out ? state.without.filter((other) => other !== g) : [...state.without, g], group: null }) });
      const label = button(name, state.group === g, () => change({ group: state.group === g ? null : g }), { disabled: out });
      table.append(make("tr", {}, make("td", { class: "words" }, label), make("td", {}, String(n[g])), make("td", {}, text(right[g] / n[g], 2)), make("td", {}, box)));
    });
    return make("div", { class: "table scroll", tabindex: 0 }, table);
  }

  function scoreTable(chosenRows) {
    const table = make("table", {}, make("tr", {}, ...["head", "accuracy", "balanced accuracy", "macro-F1"].map((name) => make("th", { scope: "col" }, name))));
    for (const head of heads) {
      const found = chosenRows.length ? scores.ofRows(rows, head, chosenRows) : {};
      table.append(make("tr", { class: head.main ? "" : "soft" }, make("td", { class: "words" }, head.title),
        ...["accuracy", "balanced_accuracy", "macro_f1"].map((name) => make("td", {}, text(found[name])))));
    }
    return make("div", { class: "table" }, table);
  }

  function thumbnail(i, side) {
    const sheet = data.thumbnails, place = sheet ? sheet.cells[tile[i]] : -1;
    const box = make("span", { class: "thumbnail" }, place < 0 ? "missing" : "");
    box.style.width = box.style.height = `${side}px`;
    if (place >= 0) {
      const zoom = side / sheet.px;
      box.classList.add("shown");
      box.style.backgroundSize = `${sheet.columns * side}px auto`;
      box.style.backgroundPosition = `-${(place % sheet.columns) * sheet.px * zoom}px -${Math.floor(place / sheet.columns) * sheet.px * zoom}px`;
    }
    return box;
  }

  /** Return rows with the surest errors of head A first. */
  function surestErrorsFirst(selected) {
    const a = headA(), worth = (i) => (isWrong(a, i) ? 1 : -1) * a.p[i * k + a.predicted[i]];
    return [...selected].sort((i, j) => worth(j) - worth(i) || i - j);
  }

  function tiles(selected) {
    const a = headA(), list = make("div", { class: "tiles" });
    for (const i of surestErrorsFirst(selected).slice(0, SHOWN)) {
      const label = `${data.tiles.id[tile[i]]}: ${data.classes[rows.y[i]]}, predicted ${data.classes[a.predicted[i]]}`;
      list.append(button(data.thumbnails ? thumbnail(i, data.thumbnails.px) : label, state.open === i, () => change({ open: i }),
        { title: label, "aria-label": label, class: isWrong(a, i) ? "wrong" : "" }));
    }
    return list;
  }

  function detail() {
    if (state.open === null) return "";
    const i = state.open, name = data.tiles.id[tile[i]];
    const facts = [`true class ${data.classes[rows.y[i]]}`];
    if (data.groups.length) facts.push(`group ${data.groups[group[i]]}`);
    facts.push(`fold ${fold[i]}`, `seed ${seed[i]}`, ...(data.findings[name] || []).map((what) => `audit: ${what}`));
    const table = make("table", {}, make("tr", {}, ...["head", "predicted", "probability"].map((word) => make("th", { scope: "col" }, word))));
    for (const head of shown) {
      const c = head.predicted[i], bar = make("meter", { min: 0, max: 1, value: head.p[i * k + c], "aria-label": `probability ${text(head.p[i * k + c])}` });
      table.append(make("tr", {}, make("td", { class: "words" }, head.title), make("td", { class: "words" }, `${isWrong(head, i) ? "✗" : "✓"} ${data.classes[c]}`),
        make("td", {}, bar, ` ${text(head.p[i * k + c])}`)));
    }
    return make("div", { class: "detail", role: "group", "aria-label": `Tile ${name}` },
      data.thumbnails ? thumbnail(i, 3 * data.thumbnails.px) : "",
      make("div", {}, make("p", {}, make("code", {}, name), " ",
        button("Copy name", false, () => navigator.clipboard && navigator.clipboard.writeText(name)),
        button("Close", false, () => change({ open: null }))),
        make("p", {}, facts.join(", ")), make("div", { class: "table" }, table)));
  }

  function save(selected) {
    const quote = (value) => `"${String(value).replaceAll('"', '""')}"`;
    const seen = [...new Set(surestErrorsFirst(selected).map((i) => tile[i]))];
    const lines = ["tile_id,path", ...seen.map((t) => `${quote(data.tiles.id[t])},${quote(data.tiles.path[t])}`)];
    const link = make("a", { download: "selection.csv", href: URL.createObjectURL(new Blob([`${lines.join("\n")}\n`], { type: "text/csv" })) });
    link.click();
    URL.revokeObjectURL(link.href);
  }

  /** Compute every printed test score again; return what was compared and what differs. */
  function recompute() {
    const found = { compared: 0, skipped: 0, differ: [] }, computed = new Map();
    const draws = data.draws && scores.decode(data.draws, Uint8Array);
    for (const head of heads) {
      computed.set(head.name, { values: { ...scores.ofRows(rows, head, all), ...(head.p && { auroc_ovr: scores.auroc(rows, head, all) }) }, bounds: draws ? scores.intervals(rows, head, draws, data.tail) : null });
    }
    const compare = (name, printed, value) => {
      found.compared += 1;
      const equal = printed === null ? !Number.isFinite(value) : Math.abs(printed - value) <= TOLERANCE;
      if (!equal) found.differ.push(`${name}: ${printed} here, ${value} recomputed`);
    };
    for (const [head, metric, value, low, high] of data.printed) {
      const { values, bounds } = computed.get(head), ofClass = /^(precision|recall|f1)\[(.*)\]$/s.exec(metric);
      if (ofClass) compare(`${head} ${metric}`, value, values.classes[ofClass[1]][data.classes.indexOf(ofClass[2])]);
      else if (metric in values) compare(`${head} ${metric}`, value, values[metric]);
      else found.skipped += 1;
      if (low === null) continue;
      if (bounds && bounds[metric]) {
        compare(`${head} ${metric}, lower bound`, low, bounds[metric][0]);
        compare(`${head} ${metric}, upper bound`, high, bounds[metric][1]);
      } else found.skipped += 2;
    }
    return found;
  }

  function recomputePart() {
    const result = make("div", { "aria-live": "polite", id: "recomputed" });
    const press = () => {
      const found = recompute();
      const skipped = found.skipped ? ` ${found.skipped} were not recomputed: the page is too small for their draws or probabilities.` : "";
      result.replaceChildren(make("p", { class: "note" }, `${found.compared - found.differ.length} of ${found.compared} numbers agree within ${TOLERANCE}.${skipped}`),
        make("ul", {}, ...found.differ.slice(0, 50).map((line) => make("li", {}, line))));
    };
    return make("div", {}, make("p", {}, "Every printed score of the test rows can be computed again here, from the rows that this page carries. ",
      button("Recompute", false, press, { id: "recompute" })), result);
  }
  const recomputed = recomputePart();

  function draw() {
    const focused = document.activeElement && document.activeElement.getAttribute("aria-label");
    const { kept, selected } = chosen(), isOwnView = state.without.length > 0;
    const left = kept.length < all.length ? ` ${state.without.length} groups are left out: this is your own view, not the report's.` : "";
    root.replaceChildren(
      controls(),
      make("div", { class: "panels" }, matrix(kept), map(selected), bins(kept), groups()),
      make("p", { class: "note", id: "selected", "aria-live": "polite" }, `${selected.length} of ${all.length} test rows are selected.${left}`),
      make("details", { open: isOwnView || selected.length < all.length }, make("summary", {}, "Scores of the selected rows"), scoreTable(selected)),
      make("p", {}, button("Save the selection as CSV", false, () => save(selected)), selected.length > SHOWN ? ` Shown: ${SHOWN} tiles, the surest errors first.` : ""),
      detail(), tiles(selected), recomputed);
    const again = focused && root.querySelector(`[aria-label="${CSS.escape(focused)}"]`);
    if (again) again.focus();
  }

  if (data.thumbnails) {
    data.thumbnails.cells = ints(data.thumbnails.place);
    document.head.append(make("style", {}, `.thumbnail.shown { background-image: url(data:image/jpeg;base64,${data.thumbnails.jpeg}); }`));
  }
  readAddress();
  window.addEventListener("hashchange", () => {
    readAddress();
    draw();
  });
  draw();
})();
