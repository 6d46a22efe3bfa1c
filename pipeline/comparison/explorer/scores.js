"use strict";
/**
 * Recompute the scores of the report from its test rows. The formulas are those of pipeline/evaluation/metrics.py.
 *
 * @typedef {{y: Int32Array, unit: Int32Array, nClasses: number, nUnits: number, edges: number[]}} Rows
 * @typedef {{predicted: Int32Array, p: Float64Array | null}} Head  p is null where the page leaves it out
 * @typedef {Record<string, number>} Values  metric -> value
 * @typedef {{precision: number[], recall: number[], f1: number[], support: number[]}} ClassScores
 */
const scores = (() => {
  const LEAST_P = 1e-15;

  /**
   * Return the number of sums of `addRow`: support, predicted and hits of each class, nll, brier, three of each bin.
   * @param {Rows} rows
   */
  const nSums = (rows) => 3 * rows.nClasses + 2 + 3 * (rows.edges.length + 1);

  /**
   * Return the class of the highest probability of a row, the first of equal ones.
   * @param {Float64Array} p @param {number} i @param {number} k
   */
  function topClass(p, i, k) {
    let top = 0;
    for (let j = 1; j < k; j++) if (p[i * k + j] > p[i * k + top]) top = j;
    return top;
  }

  /**
   * Return the reliability bin of a confidence; a bin is closed on the right.
   * @param {number} confidence @param {number[]} edges
   */
  function binOf(confidence, edges) {
    let bin = 0;
    while (bin < edges.length && edges[bin] < confidence) bin++;
    return bin;
  }

  /**
   * Add what one row contributes to the metrics, from `at` on.
   * @param {Float64Array} sums @param {number} at @param {Rows} rows @param {Head} head @param {number} i
   */
  function addRow(sums, at, rows, head, i) {
    const k = rows.nClasses, y = rows.y[i], bins = rows.edges.length + 1, first = at + 3 * k;
    sums[at + y] += 1;
    sums[at + k + head.predicted[i]] += 1;
    if (head.predicted[i] === y) sums[at + 2 * k + y] += 1;
    if (!head.p) return;
    const own = head.p[i * k + y];
    sums[first] -= Math.log(Math.min(1, Math.max(LEAST_P, own)));
    let squares = 0;
    for (let j = 0; j < k; j++) squares += head.p[i * k + j] ** 2;
    sums[first + 1] += squares - 2 * own + 1;
    const top = topClass(head.p, i, k), confidence = head.p[i * k + top];
    const bin = first + 2 + binOf(confidence, rows.edges);
    sums[bin] += 1;
    sums[bin + bins] += confidence;
    sums[bin + 2 * bins] += Number(top === y);
  }

  /**
   * Return precision, recall and f1 of each class (NaN where undefined) and its support.
   * @param {Float64Array} sums @param {number} k
   * @returns {ClassScores}
   */
  function classScores(sums, k) {
    /** @type {ClassScores} */
    const found = { precision: [], recall: [], f1: [], support: [] };
    for (let c = 0; c < k; c++) {
      const support = sums[c], claimed = sums[k + c], hits = sums[2 * k + c];
      found.support.push(support);
      found.precision.push(claimed ? hits / claimed : NaN);
      found.recall.push(support ? hits / support : NaN);
      found.f1.push(support ? (2 * hits) / (support + claimed) : NaN);
    }
    return found;
  }

  /**
   * Return the mean F1 over the classes that occur.
   * @param {Float64Array} sums support, predicted and hits of each class @param {number} k
   */
  function macroF1(sums, k) {
    let total = 0, present = 0;
    for (let c = 0; c < k; c++) {
      if (!sums[c]) continue;
      present += 1;
      total += (2 * sums[2 * k + c]) / (sums[c] + sums[k + c]);
    }
    return total / present;
  }

  /**
   * Return the metrics that are sums over rows: six, or the three of labels without probabilities.
   * @param {Float64Array} sums @param {Rows} rows @param {Head} head
   * @returns {Values}
   */
  function metricsOfSums(sums, rows, head) {
    const k = rows.nClasses, bins = rows.edges.length + 1, first = 3 * k;
    let total = 0, hits = 0, recall = 0, present = 0;
    for (let c = 0; c < k; c++) {
      if (!sums[c]) continue;
      present += 1;
      total += sums[c];
      hits += sums[2 * k + c];
      recall += sums[2 * k + c] / sums[c];
    }
    const ofLabels = { accuracy: hits / total, balanced_accuracy: recall / present, macro_f1: macroF1(sums, k) };
    if (!head.p) return ofLabels;
    let gap = 0;
    for (let b = first + 2; b < first + 2 + bins; b++) gap += Math.abs(sums[b + 2 * bins] - sums[b + bins]);
    return { ...ofLabels, nll: sums[first] / total, brier: sums[first + 1] / total, ece: gap / total };
  }

  /**
   * Return the mean one-vs-rest area under the ROC curve over the classes that occur and are not alone.
   * @param {Rows} rows @param {Float64Array} p @param {number[]} chosen
   */
  function auroc(rows, p, chosen) {
    const k = rows.nClasses;
    /** @type {number[]} */
    const areas = [];
    for (let c = 0; c < k; c++) {
      const order = Array.from(chosen).sort((a, b) => p[a * k + c] - p[b * k + c]);
      let inside = 0, rankSum = 0;
      for (let i = 0; i < order.length; ) {
        let end = i;
        while (end < order.length && p[order[end] * k + c] === p[order[i] * k + c]) end++;
        for (let j = i; j < end; j++) {
          if (rows.y[order[j]] === c) {
            inside += 1;
            rankSum += (i + end + 1) / 2; // the mean rank of equal values
          }
        }
        i = end;
      }
      const outside = order.length - inside;
      if (inside && outside) areas.push((rankSum - (inside * (inside + 1)) / 2) / (inside * outside));
    }
    return areas.length ? areas.reduce((a, b) => a + b, 0) / areas.length : NaN;
  }

  /**
   * Return the sums of a head over some rows.
   * @param {Rows} rows @param {Head} head @param {number[]} chosen
   */
  function sumsOfRows(rows, head, chosen) {
    const sums = new Float64Array(nSums(rows));
    for (const i of chosen) addRow(sums, 0, rows, head, i);
    return sums;
  }

  /**
   * Return the metrics of a head on some rows, without auroc_ovr, which needs rankings.
   * @param {Rows} rows @param {Head} head @param {number[]} chosen
   */
  const ofRows = (rows, head, chosen) => metricsOfSums(sumsOfRows(rows, head, chosen), rows, head);

  /**
   * Return the scores of each class on some rows.
   * @param {Rows} rows @param {Head} head @param {number[]} chosen
   */
  const ofClasses = (rows, head, chosen) => classScores(sumsOfRows(rows, head, chosen), rows.nClasses);

  /**
   * Return metric -> its value in each draw; NaN in a draw that has none of the chosen rows.
   * @param {Rows} rows @param {Head} head @param {number[]} chosen
   * @param {Uint8Array} draws how often each unit is in each draw, draw after draw
   * @returns {Record<string, Float64Array>}
   */
  function inDraws(rows, head, chosen, draws) {
    const n = nSums(rows), perUnit = new Float64Array(rows.nUnits * n), nDraws = draws.length / rows.nUnits;
    for (const i of chosen) addRow(perUnit, rows.unit[i] * n, rows, head, i);
    /** @type {number[]} */
    const at = [], start = [0]; // the sums of a unit that are not 0, unit after unit
    for (let u = 0; u < rows.nUnits; u++) {
      for (let s = 0; s < n; s++) if (perUnit[u * n + s]) at.push(s);
      start.push(at.length);
    }
    /** @type {Record<string, Float64Array>} */
    const values = {};
    const sums = new Float64Array(n);
    for (let d = 0; d < nDraws; d++) {
      sums.fill(0);
      for (let u = 0; u < rows.nUnits; u++) {
        const weight = draws[d * rows.nUnits + u];
        if (weight) for (let j = start[u]; j < start[u + 1]; j++) sums[at[j]] += weight * perUnit[u * n + at[j]];
      }
      for (const [name, value] of Object.entries(metricsOfSums(sums, rows, head))) {
        (values[name] ||= new Float64Array(nDraws))[d] = value;
      }
    }
    return values;
  }

  /**
   * Return the value of sorted numbers at a probability, interpolated linearly.
   * @param {Float64Array} sorted @param {number} probability
   */
  function quantile(sorted, probability) {
    const place = probability * (sorted.length - 1), low = Math.floor(place), high = Math.min(low + 1, sorted.length - 1);
    return sorted[low] + (sorted[high] - sorted[low]) * (place - low);
  }

  /**
   * Return [low, high] of the values in draws that cut off `tail` at each end; NaN in a draw is left out.
   * @param {Float64Array} values @param {number} tail
   * @returns {[number, number]}
   */
  function interval(values, tail) {
    const sorted = values.filter((value) => !Number.isNaN(value)).sort();
    return [quantile(sorted, tail), quantile(sorted, 1 - tail)];
  }

  return { ofRows, ofClasses, auroc, inDraws, interval, macroF1, topClass, binOf };
})();
