"use strict";
/**
 * Show scores, intervals and verdict of the rows, the margin and the level that a reader chooses.
 *
 * @typedef {{rope: number, level: number, few_units: number, exact_units: number, levels: number[], tails: string | null,
 *   known: [string, string, number][]}} VerdictFacts  what the report's verdict was made with; `tails`: share of draws to
 *   cut off for each level and each number of units from 2 on
 */
const ownView = (() => {
  const { decode, make, text, button, picker, table, line, scroller } = page;
  const METRICS = ["accuracy", "balanced_accuracy", "macro_f1", "nll", "brier", "ece"];
  const COLUMNS = ["head", "accuracy", "balanced accuracy", "macro-F1", "NLL", "Brier score", "ECE"];

  /** @param {NamedHead | null} head */
  const titleOf = (head) => (head ? head.title : "none");

  /**
   * Return the sentence for a verdict.
   * @param {Decision} found @param {string} unit
   */
  function sentence(found, unit) {
    const units = `${found.nUnits} ${unit}${found.nUnits === 1 ? "" : "s"}`, use = titleOf(found.recommended);
    const highest = `${found.best.title} has the highest macro-F1`;
    switch (found.code) {
      case "no_head": return "There are only baselines: there is no head to choose.";
      case "one_candidate": return `There is only ${use}: there is nothing to choose.`;
      case "too_few_units": return `No choice can be based on ${units}: ${found.needed} are needed. ${highest}.`;
      case "baseline": return `None of the heads beats ${titleOf(found.baseline)}. Use ${use} (${units}).`;
      case "proven": return `Use ${use}: it beats the best baseline. ${highest}, but is not shown to beat that baseline (${units}).`;
      case "best": return `Use ${use}: it has the highest macro-F1 (${units}).`;
      default: return `Use ${use}: it is the cheapest head that is about as good as the best, ${found.best.title} (${units}).`;
    }
  }

  /**
   * Return the share of draws to cut off at each end; null where the page does not have it.
   * @param {VerdictFacts} facts @param {number} level @param {number} nUnits @param {number} allUnits
   */
  function tailOf(facts, level, nUnits, allUnits) {
    const at = facts.levels.indexOf(level);
    if (!facts.tails || at < 0 || nUnits < 2) return null;
    return decode(facts.tails, Float64Array)[at * (allUnits - 1) + nUnits - 2];
  }

  /**
   * Return a function that returns head -> metric -> its values in the draws; it keeps the last result.
   * @param {Rows} rows @param {NamedHead[]} heads @param {Uint8Array | null} draws
   */
  function keeper(rows, heads, draws) {
    let key = "";
    /** @type {Map<NamedHead, Record<string, Float64Array>>} */
    let found = new Map();
    /** @param {number[]} chosen @param {string} name of the choice */
    return (chosen, name) => {
      if (draws && key !== name) found = new Map(heads.map((head) => [head, scores.inDraws(rows, head, chosen, draws)]));
      key = name;
      return found;
    };
  }

  /**
   * Return the part of the page.
   * @param {{rows: Rows, heads: NamedHead[], facts: VerdictFacts, unit: string, kept: number[], nAll: number, rope: number,
   *   level: number, isOwn: boolean, drawn: Map<NamedHead, Record<string, Float64Array>>}} view
   */
  function results(view) {
    const { rows, heads, facts, kept } = view, isAll = kept.length === view.nAll;
    if (!kept.length) return make("p", { class: "note" }, "No row is left.");
    const nUnits = new Set(kept.map((i) => rows.unit[i])).size, tail = tailOf(facts, view.level, nUnits, rows.nUnits);
    const lines = heads.map((head) => {
      const values = scores.ofRows(rows, head, kept), inDraws = view.drawn.get(head);
      return line(head.title, ...METRICS.map((name) => {
        const bounds = inDraws && inDraws[name] && tail !== null ? scores.interval(inDraws[name], tail) : [];
        const shown = bounds.length ? `${text(values[name])} (${text(bounds[0])} to ${text(bounds[1])})` : text(values[name]);
        return make("span", { "data-score": `${head.name} ${name}`, "data-value": [values[name], ...bounds].join(" ") }, shown);
      }));
    });
    const macro = new Map([...view.drawn].map(([head, values]) => [head, values.macro_f1]));
    const known = isAll ? facts.known.map(([head, reference, p]) => ({ head, reference, p })) : [];
    const rule = { rope: view.rope, level: view.level, tail, fewUnits: facts.few_units, exactUnits: facts.exact_units };
    const found = verdict.judge(rows, heads, kept, macro, rule, known);
    const points = (/** @type {number} */ value) => text(100 * value, 1);
    const pairs = found.pairs.map((pair) => make("li", { "data-pair": `${pair.head.name} ${pair.reference.name}`, "data-outcome": pair.outcome,
      "data-value": [pair.value, pair.low, pair.high, pair.p].join(" ") },
      `${pair.head.title} compared with ${pair.reference.title}: ${pair.outcome}, difference ${points(pair.value)} points of macro-F1 ` +
      `(${points(pair.low)} to ${points(pair.high)}); sign-flip p ${pair.p < 0.001 ? "<0.001" : text(pair.p)} after Holm.`));
    const whose = view.isOwn ? "Your own view, not the report's: " : "As in the report: ";
    return make("div", {},
      make("p", { class: "note", id: "own-verdict", "data-code": found.code, "data-recommended": found.recommended ? found.recommended.name : "" },
        view.drawn.size ? whose + sentence(found, view.unit) : nUnits < 2 ? `There is one ${view.unit}: no interval and no verdict.` : "The page carries no draws for so many units: there is no interval and no verdict here."),
      scroller("Scores of the rows that are left", table(COLUMNS, lines, `${kept.length} of ${view.nAll} test rows, ${nUnits} ${view.unit}s.`)),
      ...(view.drawn.size ? [make("ul", {}, ...pairs)] : []));
  }

  /**
   * Return the controls of margin, level and classes.
   * @param {{classes: string[], withoutClasses: number[], rope: number, level: number, facts: VerdictFacts,
   *   change: (part: {withoutClasses?: number[], margin?: number | null, level?: number | null, without?: number[]}) => void}} view
   */
  function controls(view) {
    const { facts, change, withoutClasses } = view;
    const margin = make("input", { type: "number", id: "margin", "aria-label": "Margin in points of macro-F1", min: 0, max: 50, step: 0.5, value: Number((100 * view.rope).toFixed(6)),
      onchange: () => margin.validity.valid && margin.value !== "" && change({ margin: Number(margin.value) === 100 * facts.rope ? null : Number(margin.value) / 100 }) });
    const boxes = view.classes.map((name, c) => {
      const isOut = withoutClasses.includes(c);
      return make("label", {}, make("input", { type: "checkbox", checked: isOut, "aria-label": `leave out class ${name}`,
        onchange: () => change({ withoutClasses: isOut ? withoutClasses.filter((other) => other !== c) : [...withoutClasses, c] }) }), ` ${name}`);
    });
    /** @type {[string, string][]} */
    const levels = facts.levels.map((level) => [String(level), `${Number((100 * level).toPrecision(6))} %`]);
    return make("div", {},
      make("p", {}, "Leave out groups in the table of groups, or classes here. Differences up to the margin count as practically equal. " +
        "Intervals reuse the report's draws for the units that are left."),
      make("p", { class: "controls" },
        make("label", {}, "Margin in points of macro-F1 ", margin),
        picker("Level of the intervals", String(view.level), levels, (level) => change({ level: Number(level) === facts.level ? null : Number(level) })),
        button("Back to the report's", false, () => change({ without: [], withoutClasses: [], margin: null, level: null }))),
      make("fieldset", {}, make("legend", {}, "Leave out classes"), ...boxes));
  }

  return { results, controls, keeper };
})();
