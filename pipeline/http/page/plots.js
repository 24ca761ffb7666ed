// Plots of the samples of `history`: lines of rates and of values.

import { byId, element, fill, setText } from "./dom.js";
import { bytes, clock, count, rate, span } from "./words.js";

const WIDTH = 300;
const HEIGHT = 80;

// [title, unit, [[label, field, whether it is a total]]]
const SINK = [
  ["Messages read and points written", rate, [["read", "read", true], ["written", "written", true]]],
  ["Lag, messages", count, [["lag", "lag", false]]],
  ["In flight, messages", count, [["in flight", "in_flight", false]]],
  ["Rejected messages", rate, [["rejected", "rejected", true]]],
  ["Sent to the databases", (value) => `${bytes(value)}/s`, [["bytes", "sent_bytes", true]]],
];
const SOURCE = [
  ["Points sent to Iggy", rate, [["points", "points", true]]],
  ["Behind", span, [["behind", "behind_seconds", false]]],
];

// [time, value] of a field. A total that has become smaller is that of a new coordinator, which counts from 0.
function series(history, field, isTotal) {
  const at = history.fields.indexOf(field);
  if (!isTotal) return history.samples.map((one) => [one[0], one[at]]);
  return history.samples.slice(1).map((one, index) => {
    const before = history.samples[index];
    const growth = one[at] >= before[at] ? one[at] - before[at] : one[at];
    return [one[0], growth / Math.max(0.001, one[0] - before[0])];
  });
}

function path(points, begin, end, most) {
  const step = points.length > 1 ? (points[points.length - 1][0] - points[0][0]) / (points.length - 1) : 1;
  let last = -Infinity;
  return points.map(([time, value]) => {
    const command = time - last > 3 * step + 2 ? "M" : "L";
    last = time;
    const x = (WIDTH * (time - begin)) / Math.max(1, end - begin);
    return `${command}${x.toFixed(1)} ${(HEIGHT - 2 - (HEIGHT - 4) * (value / most)).toFixed(1)}`;
  }).join("");
}

function make([title, , lines]) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  lines.forEach((_, index) => {
    const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
    line.setAttribute("class", index ? "second" : "first");
    svg.append(line);
  });
  const keys = lines.map(([label], index) => element("span", {},
    ...(lines.length > 1 ? [element("i", { class: index ? "key dashed" : "key" }), `${label}: `] : []),
    element("span", { class: "now" })));
  return element("figure", {}, element("figcaption", {}, element("b", {}, title), ...keys), svg,
    element("p", { class: "axis" }, element("span"), element("span"), element("span")));
}

function update(history, figure, [title, unit, lines]) {
  const found = lines.map(([, field, isTotal]) => series(history, field, isTotal));
  const times = history.samples.map((one) => one[0]);
  const [begin, end] = [times[0] ?? 0, times[times.length - 1] ?? 0];
  const most = Math.max(0, ...found.flat().map(([, value]) => value));
  const svg = figure.querySelector("svg");
  const now = figure.querySelectorAll(".now");
  const said = found.map((points, index) => {
    svg.children[index].setAttribute("d", path(points, begin, end, most || 1));
    const text = points.length ? unit(points[points.length - 1][1]) : "nothing yet";
    setText(now[index], text);
    return `${lines[index][0]} now ${text}`;
  });
  svg.setAttribute("aria-label", `${title}, last ${span(end - begin)}: ${said.join(", ")}; most ${unit(most)}`);
  const [left, middle, right] = figure.querySelector(".axis").children;
  setText(left, begin ? clock(begin) : "");
  setText(middle, `most ${unit(most)}`);
  setText(right, end ? clock(end) : "");
}

// Draws what there is of the directions that the pipeline has.
export function showPlots(history, shown) {
  const plots = [...(shown.sink ? SINK : []), ...(shown.source ? SOURCE : [])];
  fill(byId("plots"), plots, (plot) => plot[0], make, (figure, plot) => update(history, figure, plot));
}
