"use strict";
/**
 * Decide between heads on some of the test rows by the rule of pipeline/comparison/verdict.py and choice.py.
 *
 * @typedef {Head & {name: string, title: string, main: boolean, untrained: boolean, chance: boolean,
 *   reference: boolean, cost: number}} NamedHead  `cost` is its place in the order of costs
 * @typedef {{head: string, reference: string, p: number}} KnownPair  a pair whose sign-flip p the report has
 * @typedef {{rope: number, level: number, tail: number | null, fewUnits: number, exactUnits: number}} Rule
 *   `tail`: share of draws to cut off at each end; null without an interval
 * @typedef {{head: NamedHead, reference: NamedHead, value: number, low: number, high: number, error: number,
 *   p: number, same: boolean, outcome: "better" | "worse" | "practically equal" | "undecided"}} Judged
 * @typedef {{code: string, recommended: NamedHead | null, best: NamedHead, baseline: NamedHead | null,
 *   pairs: Judged[], nUnits: number, needed: number}} Decision
 */
const verdict = (() => {
  const RANDOM_SWAPS = 20000, TIE = 1e-12;

  /**
   * Return 1 - level without the rounding that would put 0.05 below 1 - 0.95.
   * @param {number} level
   */
  const alphaOf = (level) => Number((1 - level).toFixed(12));

  /**
   * Return a generator of pseudorandom bits (mulberry32), the same ones at every call.
   * @returns {() => boolean}
   */
  function randomBits() {
    let state = 1;
    return () => {
      state = (state + 0x6d2b79f5) | 0;
      let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
      mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
      return ((mixed ^ (mixed >>> 14)) & 0x10000) !== 0;
    };
  }

  /**
   * Return the units in which two heads have other confusion counts: for each the change of predicted and hits of each
   * class, from head a to head b, as [place in the sums, change].
   * @param {Rows} rows @param {Head} a @param {Head} b @param {number[]} chosen
   * @returns {[number, number][][]}
   */
  function changesByUnit(rows, a, b, chosen) {
    const k = rows.nClasses;
    /** @type {Map<number, Map<number, number>>} */
    const cells = new Map();
    for (const i of chosen) {
      if (a.predicted[i] === b.predicted[i]) continue;
      const unit = rows.unit[i], found = cells.get(unit) || new Map();
      cells.set(unit, found);
      for (const [head, sign] of /** @type {[Head, number][]} */ ([[a, -1], [b, 1]])) {
        const cell = rows.y[i] * k + head.predicted[i];
        found.set(cell, (found.get(cell) || 0) + sign);
      }
    }
    /** @type {[number, number][][]} */
    const units = [];
    for (const found of cells.values()) {
      const changes = new Map();
      let differs = false;
      for (const [cell, n] of found) {
        if (!n) continue;
        differs = true;
        const predicted = cell % k, y = Math.floor(cell / k);
        changes.set(k + predicted, (changes.get(k + predicted) || 0) + n);
        if (predicted === y) changes.set(2 * k + y, (changes.get(2 * k + y) || 0) + n);
      }
      if (differs) units.push([...changes].filter(([, n]) => n));
    }
    return units;
  }

  /**
   * Return the two-sided sign-flip p of the macro-F1 of two heads; exact up to `exactUnits` units that differ.
   * @param {Rows} rows @param {Head} a @param {Head} b @param {number[]} chosen @param {number} exactUnits
   */
  function signFlip(rows, a, b, chosen, exactUnits) {
    const k = rows.nClasses, units = changesByUnit(rows, a, b, chosen);
    if (!units.length) return 1;
    const sums = [a, b].map((head) => {
      const found = new Float64Array(3 * k);
      for (const i of chosen) {
        found[rows.y[i]] += 1;
        found[k + head.predicted[i]] += 1;
        if (head.predicted[i] === rows.y[i]) found[2 * k + rows.y[i]] += 1;
      }
      return found;
    });
    const swapped = new Int8Array(units.length);
    /** @param {number} u */
    const swap = (u) => {
      const sign = swapped[u] ? -1 : 1;
      swapped[u] ^= 1;
      for (const [at, n] of units[u]) {
        sums[0][at] += sign * n;
        sums[1][at] -= sign * n;
      }
    };
    const size = () => Math.abs(scores.macroF1(sums[0], k) - scores.macroF1(sums[1], k));
    const threshold = size() - TIE;
    let asExtreme = 0;
    if (units.length <= exactUnits) {
      const tried = 2 ** (units.length - 1); // the last unit stays: the other patterns are mirrors
      for (let pattern = 0; pattern < tried; pattern++) {
        if (pattern) swap(31 - Math.clz32(pattern & -pattern)); // the next pattern of the Gray code
        asExtreme += Number(size() >= threshold);
      }
      return asExtreme / tried;
    }
    const isOne = randomBits();
    for (let n = 0; n < RANDOM_SWAPS; n++) {
      for (let u = 0; u < units.length; u++) if (isOne()) swap(u);
      asExtreme += Number(size() >= threshold);
    }
    return (asExtreme + 1) / (RANDOM_SWAPS + 1);
  }

  /**
   * Return p-values adjusted for their number (Holm 1979).
   * @param {number[]} p
   */
  function holm(p) {
    const order = p.map((_, i) => i).sort((i, j) => p[i] - p[j] || i - j), adjusted = p.slice();
    let largest = 0;
    order.forEach((i, rank) => {
      largest = Math.max(largest, p[i] * (p.length - rank));
      adjusted[i] = Math.min(1, largest);
    });
    return adjusted;
  }

  /**
   * Return the fewest units with which so many pairs can be decided.
   * @param {number} nPairs @param {Rule} rule
   */
  const unitsNeeded = (nPairs, rule) =>
    Math.max(rule.fewUnits, Math.floor(Math.log2(Math.max(1, nPairs) / alphaOf(rule.level))) + 2);

  /**
   * Return the standard error of a difference: the spread of its draws, which vary too little for few units; NaN in a
   * draw is left out.
   * @param {Float64Array} values @param {number} nUnits
   */
  function standardError(values, nUnits) {
    const draws = values.filter((value) => !Number.isNaN(value));
    const mean = draws.reduce((sum, v) => sum + v, 0) / draws.length;
    return Math.sqrt((draws.reduce((sum, v) => sum + (v - mean) ** 2, 0) / draws.length) * (nUnits / (nUnits - 1)));
  }

  /**
   * Return the outcome of a pair.
   * @param {Omit<Judged, "outcome">} pair @param {number} nUnits @param {Rule} rule
   * @returns {Judged["outcome"]}
   */
  function decide(pair, nUnits, rule) {
    if (nUnits < rule.fewUnits) return "undecided";
    if (pair.same || (-rule.rope <= pair.low && pair.high <= rule.rope)) return "practically equal";
    if (pair.p < alphaOf(rule.level) && pair.low > 0) return "better";
    if (pair.p < alphaOf(rule.level) && pair.high < 0) return "worse";
    return "undecided";
  }

  /**
   * Return the verdict on the chosen rows.
   * @param {Rows} rows @param {NamedHead[]} heads @param {number[]} chosen at least one row
   * @param {Map<NamedHead, Float64Array>} drawn head -> macro-F1 in each draw
   * @param {Rule} rule @param {KnownPair[]} known pairs with the report's p, where the rows are the report's
   * @returns {Decision}
   */
  function judge(rows, heads, chosen, drawn, rule, known) {
    const value = new Map(heads.map((head) => [head, scores.ofRows(rows, head, chosen).macro_f1]));
    /** @param {NamedHead} head */
    const valueOf = (head) => /** @type {number} */ (value.get(head));
    /** Return the head with the highest value, the cheapest of equals. @param {NamedHead[]} some */
    const bestOf = (some) => some.reduce((best, head) => (!best || valueOf(head) > valueOf(best) ? head : best), /** @type {NamedHead | null} */ (null));
    const byCost = heads.map((head, i) => ({ head, i })).sort((a, b) => a.head.cost - b.head.cost || a.i - b.i).map(({ head }) => head);
    const main = byCost.filter((head) => head.main);
    const baseline = bestOf(byCost.filter((head) => head.untrained));
    const compared = byCost.filter((head) => !head.chance || !baseline || baseline.chance);
    const best = bestOf(compared) || heads[0];
    const nUnits = new Set(chosen.map((i) => rows.unit[i])).size;
    const wanted = main.length && main.length < heads.length ? askedPairs(main, compared, best, baseline) : headPairs(heads.filter((head) => head.main));
    const p = wanted.map(([head, reference]) => {
      const found = known.find((pair) => pair.head === head.name && pair.reference === reference.name);
      return found ? found.p : signFlip(rows, head, reference, chosen, rule.exactUnits);
    });
    const adjusted = holm(p);
    const { tail } = rule;
    const pairs = wanted.map(([head, reference], n) => {
      const one = drawn.get(head), other = drawn.get(reference);
      const gaps = one && other ? one.map((v, d) => v - other[d]) : new Float64Array();
      const [low, high] = gaps.length && tail !== null ? scores.interval(gaps, tail) : [NaN, NaN];
      const same = chosen.every((i) => head.predicted[i] === reference.predicted[i]);
      const pair = { head, reference, value: valueOf(head) - valueOf(reference), low, high, error: standardError(gaps, nUnits), p: adjusted[n], same };
      return { ...pair, outcome: decide(pair, nUnits, rule) };
    });
    const needed = unitsNeeded(pairs.length, rule);
    const [code, recommended] = recommend();
    return { code, recommended, best, baseline, pairs, nUnits, needed };

    /** Return the code and the head or baseline to use. @returns {[string, NamedHead | null]} */
    function recommend() {
      if (!main.length) return ["no_head", null];
      if (compared.length === 1) return ["one_candidate", best];
      if (nUnits < needed) return ["too_few_units", null];
      /** @param {NamedHead} head */
      const aboutAsGood = (head) => head === best || pairs.some((pair) => {
        if (![pair.head, pair.reference].includes(head) || ![pair.head, pair.reference].includes(best)) return false;
        if (pair.outcome === "better" || pair.outcome === "worse") return (pair.outcome === "better") === (pair.head === head);
        const loss = pair.head === best ? pair.value : -pair.value;
        return pair.outcome === "practically equal" || loss <= pair.error;
      });
      const beating = pairs.filter((pair) => pair.reference === baseline && pair.outcome === "better").map((pair) => pair.head);
      /** @param {NamedHead[]} some @param {NamedHead} other */
      const first = (some, other) => some.find(aboutAsGood) || other;
      if (baseline && !beating.length) return ["baseline", first(compared.filter((head) => head.untrained), baseline)];
      if (baseline && !beating.includes(best)) return ["proven", bestOf(byCost.filter((head) => beating.includes(head)))];
      const chosenHead = first(baseline ? byCost.filter((head) => beating.includes(head)) : compared, best);
      return [chosenHead === best ? "best" : "cheaper", chosenHead];
    }
  }

  /**
   * Return the pairs that a recommendation between heads and baselines rests on.
   * @param {NamedHead[]} main @param {NamedHead[]} compared @param {NamedHead} best @param {NamedHead | null} baseline
   * @returns {[NamedHead, NamedHead][]}
   */
  function askedPairs(main, compared, best, baseline) {
    /** @type {[NamedHead, NamedHead][]} */
    const pairs = [];
    for (const head of new Set([...main, best])) if (baseline && head !== baseline) pairs.push([head, baseline]);
    const known = pairs.slice();
    for (const head of compared.slice(0, compared.indexOf(best))) {
      if (!known.some((pair) => pair.includes(head) && pair.includes(best))) pairs.push([head, best]);
    }
    return pairs;
  }

  /**
   * Return every pair of heads once, the reference of the report second.
   * @param {NamedHead[]} main
   * @returns {[NamedHead, NamedHead][]}
   */
  function headPairs(main) {
    const ordered = [...main.filter((head) => head.reference), ...main.filter((head) => !head.reference)];
    return ordered.flatMap((reference, i) => ordered.slice(i + 1).map((head) => /** @type {[NamedHead, NamedHead]} */ ([head, reference])));
  }

  return { judge };
})();
