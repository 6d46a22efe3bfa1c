"use strict";
/**
 * Recompute every printed test score, and name those that differ.
 *
 * @typedef {[string, string, number | null, number | null, number | null]} Printed  head, metric, value, low, high
 */
const recompute = (() => {
  const TOLERANCE = 1e-9, SHOWN = 50;
  const { make, button } = page;

  /**
   * Return what was compared and what differs.
   * @param {Rows} rows @param {NamedHead[]} heads @param {string[]} classes @param {Printed[]} printed
   * @param {Uint8Array | null} draws @param {number | null} tail
   */
  function compareAll(rows, heads, classes, printed, draws, tail) {
    const all = Array.from(rows.y.keys()), found = { compared: 0, skipped: 0, differ: /** @type {string[]} */ ([]) };
    const computed = new Map(heads.map((head) => {
      const values = scores.ofRows(rows, head, all);
      if (head.p) values.auroc_ovr = scores.auroc(rows, head.p, all);
      const inDraws = draws && tail !== null ? scores.inDraws(rows, head, all, draws) : {};
      const bounds = Object.fromEntries(Object.entries(inDraws).map(([name, drawn]) => [name, scores.interval(drawn, tail || 0)]));
      return [head.name, { values, bounds, byClass: scores.ofClasses(rows, head, all) }];
    }));
    /** @param {string} name @param {number | null} stated @param {number} value */
    const compare = (name, stated, value) => {
      found.compared += 1;
      const isEqual = stated === null ? !Number.isFinite(value) : Math.abs(stated - value) <= TOLERANCE;
      if (!isEqual) found.differ.push(`${name}: ${stated} here, ${value} recomputed`);
    };
    for (const [head, metric, value, low, high] of printed) {
      const of = computed.get(head), ofClass = /^(precision|recall|f1)\[(.*)\]$/s.exec(metric);
      if (!of) throw new Error(`no rows of ${head}`);
      if (ofClass) compare(`${head} ${metric}`, value, of.byClass[/** @type {"f1"} */ (ofClass[1])][classes.indexOf(ofClass[2])]);
      else if (metric in of.values) compare(`${head} ${metric}`, value, of.values[metric]);
      else found.skipped += 1;
      if (low === null) continue;
      if (metric in of.bounds) {
        compare(`${head} ${metric}, lower bound`, low, of.bounds[metric][0]);
        compare(`${head} ${metric}, upper bound`, high, of.bounds[metric][1]);
      } else found.skipped += 2;
    }
    return found;
  }

  /**
   * Return the part of the page with the button.
   * @param {() => ReturnType<typeof compareAll>} compute
   */
  function part(compute) {
    const result = make("div", { "aria-live": "polite", id: "recomputed" });
    const press = () => {
      const found = compute();
      const skipped = found.skipped ? ` ${found.skipped} were not recomputed: the page is too small for their draws or probabilities.` : "";
      result.replaceChildren(make("p", { class: "note" }, `${found.compared - found.differ.length} of ${found.compared} numbers agree within ${TOLERANCE}.${skipped}`),
        make("ul", {}, ...found.differ.slice(0, SHOWN).map((each) => make("li", {}, each))));
    };
    return make("div", {}, make("p", {}, "Every printed score of the test rows can be computed again here, from the rows that this page carries. ",
      button("Recompute", false, press, { id: "recompute" })), result);
  }

  return { compareAll, part };
})();
