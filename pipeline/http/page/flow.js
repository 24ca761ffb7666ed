// The pipeline drawn as its processes, in the order in which data pass them.

import { byId, element, fill, setClass, setText } from "./dom.js";
import { bytes, count, many, rate, span } from "./words.js";

const SILENT_SECONDS = 5;
const NAMES = { ingest: "Read", encode: "Encode", write: "Write", query: "Query", convert: "Convert", produce: "Send" };

// CPU seconds of each process at the last status, for the share that it uses now.
let before = new Map();

function shares(status) {
  const found = new Map();
  const newer = new Map();
  for (const one of status.processes) {
    if (one.cpu_seconds === null) continue;
    const key = `${one.name} ${one.pid}`;
    const last = before.get(key);
    const next = { time: status.time, cpu: one.cpu_seconds, share: last?.share };
    if (last && status.time - last.time >= 0.5) {
      next.share = Math.max(0, one.cpu_seconds - last.cpu) / (status.time - last.time);
    } else if (last) Object.assign(next, last);
    newer.set(key, next);
    if (next.share !== undefined) found.set(one.name, next.share);
  }
  before = newer;
  return found;
}

function condition(one) {
  if (one.waits_for) return ["waits", "warn"];
  if (!one.pid && !one.remote) return ["not running", "bad"];
  if (one.silent_seconds > SILENT_SECONDS) return [`silent for ${span(one.silent_seconds)}`, "bad"];
  return ["runs", "good"];
}

function showProcess(node, one, share) {
  const [name, state, rest] = node.children;
  setText(name, one.name);
  const [text, kind] = condition(one);
  setText(state, text);
  setClass(state, kind);
  setText(rest, [
    one.remote ? "on another machine" : one.pid ? `pid ${one.pid}` : "",
    share === undefined ? "" : `CPU\u00a0${(100 * share).toFixed(0)}\u00a0%`,
    one.rss_bytes ? bytes(one.rss_bytes).replace(" ", "\u00a0") : "",
    one.restarts ? `restarted ${many(one.restarts, "time")}, last: ${one.last_death}` : "",
  ].filter(Boolean).join(" · "));
}

function stage(kind, title) {
  return { key: kind, kind, title };
}

function edge(key, moving, ...texts) {
  return { key, moving, texts };
}

function sinkFlow(status) {
  const { rates, sink } = status;
  const topics = new Set(sink.partitions.map((one) => `${one.stream}/${one.topic}`));
  const lag = sink.partitions.reduce((sum, one) => sum + one.lag, 0);
  return [
    { key: "from", outside: "Iggy", text: `${many(topics.size, "topic")}, `
      + `${many(sink.partitions.length, "partition")}, lag ${count(lag)}` },
    edge("read", rates.read, rate(rates.read), many(sink.read, "message")),
    stage("ingest", NAMES.ingest),
    edge("in-flight", sink.in_flight, count(sink.in_flight), "in flight"),
    stage("encode", NAMES.encode),
    edge("encoded", rates.written, `${bytes(rates.sent_bytes)}/s`, `${many(sink.encoded, "point")} encoded`),
    stage("write", NAMES.write),
    edge("written", rates.written, rate(rates.written), `${many(sink.written, "point")} written`),
    { key: "to", outside: "Databases", text: `${bytes(sink.sent_bytes)} sent` },
  ];
}

// Those that no data pass, and the way of the messages that were rejected.
function otherFlow(status) {
  const { rates, sink } = status;
  return [
    ...(sink ? [edge("rejected", rates.rejected, rate(rates.rejected), `${many(sink.rejected, "message")} rejected`),
      stage("dead-letter", "Dead letters")] : []),
    { key: "others", kind: ["supervisor", "coordinator", "source-coordinator", "http"], title: "Beside them" },
  ];
}

function sourceFlow(status) {
  const { rates, source } = status;
  return [
    { key: "from", outside: "Databases", text: many(source.measurements.length, "measurement") },
    edge("rows", rates.points, `${count(source.rows)}`, "rows"),
    stage("query", NAMES.query),
    edge("pages", source.in_flight, count(source.in_flight), "pages in flight"),
    stage("convert", NAMES.convert),
    edge("points", rates.points, rate(rates.points), many(source.points, "point")),
    stage("produce", NAMES.produce),
    edge("messages", rates.points, count(source.messages), "messages"),
    { key: "to", outside: "Iggy", text: `${bytes(source.sent_bytes)} sent` },
  ];
}

function makeStep(step) {
  if (step.outside) return element("li", { class: "stage outside" }, element("h3", {}, step.outside), element("span"));
  if (step.key === "others") {
    return element("li", { class: "stage wide" }, element("h3", {}, step.title), element("ul"));
  }
  if (step.texts) return element("li", { class: "edge" }, element("b"), element("span", { class: "soft" }));
  return element("li", { class: "stage" }, element("h3", {}, step.title),
    element("ul", { tabindex: "0", "aria-label": step.title }));
}

function updateStep(node, step, status, used) {
  if (step.outside) setText(node.children[1], step.text);
  else if (step.texts) {
    setText(node.children[0], step.texts[0]);
    setText(node.children[1], step.texts[1]);
    setClass(node, step.moving ? "edge moving" : "edge");
  } else {
    const kinds = [step.kind].flat();
    fill(node.children[1], status.processes.filter((one) => kinds.includes(one.kind)), (one) => one.name,
      () => element("li", { class: "process" }, element("b"), element("span"), element("div", { class: "soft" })),
      (child, one) => showProcess(child, one, used.get(one.name)));
  }
}

export function showFlow(status) {
  const used = shares(status);
  const flows = [["sink", status.sink ? sinkFlow(status) : null], ["source", status.source ? sourceFlow(status) : null],
    ["others", otherFlow(status)]].filter(([, steps]) => steps);
  fill(byId("flows"), flows, ([name]) => name, ([name]) => element("ol", { class: "flow", "aria-label": {
    sink: "From Iggy to the databases", source: "From the databases to Iggy", others: "Other processes" }[name] }),
    (list, [, steps]) => fill(list, steps, (step) => step.key, makeStep,
      (node, step) => updateStep(node, step, status, used)));
}
