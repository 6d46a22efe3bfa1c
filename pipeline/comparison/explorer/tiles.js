"use strict";
/**
 * Show test tiles: thumbnails, and one tile with the probabilities of every head and the nearest training tiles.
 *
 * @typedef {{px: number, columns: number, place: string, jpeg: string}} Sheet  thumbnails of tiles
 * @typedef {{id: string[], y: string, group: string[] | null, k: number, of_tile: string, cosine: string,
 *   thumbnails: Sheet | null}} Neighbours  training tiles; `of_tile`: k of them for each test tile, the nearest first
 */
const tileView = (() => {
  const { decode, make, text, button, table, line, scroller } = page;

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
   * Return the probability of every class by every head for a row, the class with the highest probability first.
   * @param {Rows} rows @param {string[]} classes @param {ShownHead[]} heads @param {number} i
   */
  function probabilities(rows, classes, heads, i) {
    const k = rows.nClasses;
    /** @param {number} c */
    const highest = (c) => Math.max(...heads.map((head) => head.p[i * k + c]));
    const order = classes.map((_, c) => c).sort((a, b) => highest(b) - highest(a) || a - b);
    const lines = order.map((c) => {
      const found = line(`${classes[c]}${c === rows.y[i] ? " (true class)" : ""}`, ...heads.map((head) => text(head.p[i * k + c])));
      heads.forEach((head, h) => {
        const cell = found.cells[h + 1];
        cell.className = head.predicted[i] === c ? "bar predicted" : "bar";
        cell.style.setProperty("--p", String(head.p[i * k + c]));
      });
      return found;
    });
    const columns = heads.map((head) => `${head.predicted[i] === rows.y[i] ? "✓" : "✗"} ${head.title}`);
    return scroller("Probabilities of all classes", table(["class", ...columns], lines, "Probability of each class; in bold the class that a head predicts"), "scroll");
  }

  /**
   * Return the training tiles that are nearest to a test tile.
   * @param {Neighbours} near @param {string[]} classes @param {number} t
   */
  function neighbours(near, classes, t) {
    const sheet = near.thumbnails, places = sheet && decode(sheet.place, Int32Array), y = decode(near.y, Int32Array), { group } = near;
    const found = decode(near.of_tile, Int32Array).subarray(t * near.k, (t + 1) * near.k), cosine = decode(near.cosine, Float64Array);
    const items = Array.from(found, (n, j) => make("li", { "data-neighbour": near.id[n] },
      sheet && places ? thumbnail(sheet, places[n], 2 * sheet.px, "trained") : "",
      `${classes[y[n]]}${group ? `, group ${group[n]}` : ""}, cosine ${text(cosine[t * near.k + j])}: `, make("code", {}, near.id[n])));
    return make("div", {}, make("p", {}, "Nearest training tiles by their embeddings"), make("ol", { class: "neighbours" }, ...items));
  }

  /**
   * Return an open tile.
   * @param {{rows: Rows, classes: string[], heads: NamedHead[], shown: ShownHead[], row: number, name: string, facts: string[],
   *   thumbnail: Node | string, near: Node | string, close: () => void}} tile
   */
  function detail(tile) {
    const { rows, classes, row, name, shown } = tile, lacking = tile.heads.filter((head) => !head.p);
    const copy = button("Copy name", false, () => navigator.clipboard && navigator.clipboard.writeText(name));
    const others = lacking.map((head) => `${head.title} ${head.predicted[row] === rows.y[row] ? "✓" : "✗"} ${classes[head.predicted[row]]}`);
    return make("div", { class: "detail", role: "group", "aria-label": `Tile ${name}` },
      make("div", { class: "panels" }, tile.thumbnail,
        make("div", {}, make("p", {}, make("code", {}, name), " ", copy, " ", button("Close", false, tile.close)), make("p", {}, tile.facts.join(", ")))),
      probabilities(rows, classes, shown, row), others.length ? make("p", {}, `Predicted by the others: ${others.join(", ")}.`) : "", tile.near);
  }

  return { thumbnail, neighbours, detail };
})();
