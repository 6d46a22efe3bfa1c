"use strict";
/**
 * Recompute the scores of the report from its test rows. The formulas are those of pipeline/evaluation/metrics.py.
 *
 * @typedef {{y: Int32Array, unit: Int32Array, nClasses: number, nUnits: number, edges: number[]}} Rows
 * @typedef {{predicted: Int32Array, p: Float64Array | null}} Head  p is null where the page leaves it out
 */
const scores = (() => {
  const OF_LABELS = ["accuracy", "balanced_accuracy", "macro_f1"];
  const LEAST_P = 1e-15;

  /** Return the typed array of a base64 text. */
  function decode(text, Type) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    return new Type(bytes.buffer);
  }

  /** Return the number of sums that `addRow` needs: K * K cells, nll, brier, and three for each reliability bin. */
  const nSums = (rows) => rows.nClasses ** 2 + 2 + 3 * (rows.edges.length + 1);

  /** Return the class of the highest probability of a row, the first of equal ones. */
  function topClass(head, i, k) {
    let top = 0;
    for (let j = 1; j < k; j++) if (head.p[i * k + j] > head.p[i * k + top]) top = j;
    return top;
  }

  /** Return the reliability bin of a confidence; a bin is closed on the right. */
  function binOf(confidence, edges) {
    let bin = 0;
    while (bin < edges.length && edges[bin] < confidence) bin++;
    return bin;
  }

  /** Add what one row contributes to the metrics, from `at` on. */
  function addRow(sums, at, rows, head, i) {
    const k = rows.nClasses, y = rows.y[i], bins = rows.edges.length + 1, first = at + k * k;
    sums[at + y * k + head.predicted[i]] += 1;
    if (!head.p) return;
    const own = head.p[i * k + y];
    sums[first] -= Math.log(Math.min(1, Math.max(LEAST_P, own)));
    let squares = 0;
    for (let j = 0; j < k; j++) squares += head.p[i * k + j] ** 2;
    sums[first + 1] += squares - 2 * own + 1;
    const top = topClass(head, i, k), confidence = head.p[i * k + top];
    const bin = first + 2 + binOf(confidence, rows.edges);
    sums[bin] += 1;
    sums[bin + bins] += confidence;
    sums[bin + 2 * bins] += Number(top === y);
  }

  /** Return precision, recall and f1 of each class (NaN where undefined) and its support, from K * K cells. */
  function classScores(cells, at, k) {
    const found = { precision: [], recall: [], f1: [], support: [] };
    for (let c = 0; c < k; c++) {
      let support = 0, claimed = 0;
      for (let j = 0; j < k; j++) {
        support += cells[at + c * k + j];
        claimed += cells[at + j * k + c];
      }
      const hits = cells[at + c * k + c];
      found.support.push(support);
      found.precision.push(claimed ? hits / claimed : NaN);
      found.recall.push(support ? hits / support : NaN);
      found.f1.push(support ? (2 * hits) / (support + claimed) : NaN);
    }
    return found;
  }

  /** Return the metrics that are sums over rows: six, or the three of labels without probabilities. */
  function metricsOfSums(sums, at, rows, head) {
    const k = rows.nClasses, bins = rows.edges.length + 1, first = at + k * k;
    const classes = classScores(sums, at, k);
    let total = 0, hits = 0, recall = 0, f1 = 0, present = 0;
    for (let c = 0; c < k; c++) {
      total += classes.support[c];
      hits += sums[at + c * k + c];
      if (classes.support[c] > 0) {
        present += 1;
        recall += classes.recall[c];
        f1 += classes.f1[c];
      }
    }
    let gap = 0;
    for (let b = first + 2; b < first + 2 + bins; b++) gap += Math.abs(sums[b + 2 * bins] - sums[b + bins]);
    const ofLabels = {
      accuracy: hits / total,
      balanced_accuracy: recall / present,
      macro_f1: f1 / present,
    };
    return head.p ? { ...ofLabels, nll: sums[first] / total, brier: sums[first + 1] / total, ece: gap / total } : ofLabels;
  }

  /** Return the mean one-vs-rest area under the ROC curve over the classes that occur and are not alone. */
  function auroc(rows, head, chosen) {
    const k = rows.nClasses, areas = [];
    for (let c = 0; c < k; c++) {
      const order = Array.from(chosen).sort((a, b) => head.p[a * k + c] - head.p[b * k + c]);
      let inside = 0, rankSum = 0;
      for (let i = 0; i < order.length; ) {
        let end = i;
        while (end < order.length && head.p[order[end] * k + c] === head.p[order[i] * k + c]) end++;
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

  /** Return the metrics and class scores of a head on some rows, without auroc_ovr, which needs rankings. */
  function ofRows(rows, head, chosen) {
    const sums = new Float64Array(nSums(rows));
    for (const i of chosen) addRow(sums, 0, rows, head, i);
    return { ...metricsOfSums(sums, 0, rows, head), classes: classScores(sums, 0, rows.nClasses) };
  }

  /** Return the value of sorted numbers at a probability, interpolated linearly. */
  function quantile(sorted, probability) {
    const place = probability * (sorted.length - 1), low = Math.floor(place), high = Math.min(low + 1, sorted.length - 1);
    return sorted[low] + (sorted[high] - sorted[low]) * (place - low);
  }

  /** Return metric -> [low, high] from the counts of the units in each draw, draw after draw. */
  function intervals(rows, head, draws, tail) {
    const n = nSums(rows), perUnit = new Float64Array(rows.nUnits * n);
    for (let i = 0; i < rows.y.length; i++) addRow(perUnit, rows.unit[i] * n, rows, head, i);
    const nDraws = draws.length / rows.nUnits, sums = new Float64Array(n);
    const names = head.p ? [...OF_LABELS, "nll", "brier", "ece"] : OF_LABELS;
    const values = Object.fromEntries(names.map((name) => [name, new Float64Array(nDraws)]));
    for (let d = 0; d < nDraws; d++) {
      sums.fill(0);
      for (let u = 0; u < rows.nUnits; u++) {
        const weight = draws[d * rows.nUnits + u];
        if (weight) for (let s = 0; s < n; s++) sums[s] += weight * perUnit[u * n + s];
      }
      const found = metricsOfSums(sums, 0, rows, head);
      for (const name of names) values[name][d] = found[name];
    }
    return Object.fromEntries(
      names.map((name) => {
        const sorted = values[name].sort();
        return [name, [quantile(sorted, tail), quantile(sorted, 1 - tail)]];
      }),
    );
  }

  return { decode, ofRows, auroc, intervals, topClass, binOf };
})();
if (typeof module !== "undefined") module.exports = scores;
