// The status page: asks `status` each second and `history` each three, and shows what they answer.

import { byId, element, fill, fillRows, setClass, setText } from "./dom.js";
import { showFlow } from "./flow.js";
import { showPlots } from "./plots.js";
import { clock, count, day, many, percent, span } from "./words.js";

const STATUS_MS = 1000;
const HISTORY_MS = 3000;
const HIDDEN_MS = 15000;
// A request that is not answered is given up, and tried again.
const ANSWER_MS = 20000;
// Rows of a table, at most: those with most lag.
const MOST_ROWS = 500;

const STATES = { running: "good", starting: "warn", waiting: "warn", paused: "bad", stopping: "warn" };
let shown = {};
let history = { fields: [], samples: [] };
let shownConfig = "";

// An address beside this page: it may be behind a proxy, under any path.
const address = (name) => new URL(name, location.origin + location.pathname);

async function ask(name) {
  const answer = await fetch(address(name), { signal: AbortSignal.timeout(ANSWER_MS) });
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error ?? `HTTP ${answer.status}`);
  return found;
}

function showState(status) {
  const state = byId("state");
  setText(state, status.state);
  setClass(state, `state ${STATES[status.state] ?? "warn"}`);
  setText(byId("about"), `version ${status.version}, pid ${status.pid}`
    + (status.started_at ? `, since ${day(status.started_at)}` : ""));
  document.title = `${status.state} – pipeline`;
}

function showReasons(status) {
  const reasons = status.readiness.reasons;
  byId("attention").hidden = !reasons.length;
  fill(byId("reasons"), reasons, (one) => JSON.stringify([one.process, one.name, one.reason, one.paused]),
    (one) => element("li", { class: one.paused ? "paused" : "" },
      element("b", {}, `${one.paused ? "paused, until you act" : "waits"}: `
        + `${[one.process, one.name].filter(Boolean).join(", ")}${one.since ? ` since ${clock(one.since)}` : ""}: `),
      one.reason), () => {});
}

const offset = (value) => (value < 0 ? "–" : String(value));

function showPartitions(sink) {
  byId("partitions").hidden = !sink;
  if (!sink) return;
  const sorted = [...sink.partitions].sort((one, other) => other.lag - one.lag || one.stream.localeCompare(other.stream)
    || one.topic.localeCompare(other.topic) || one.partition - other.partition);
  setText(byId("partitions-note"), sorted.length > MOST_ROWS
    ? `The ${count(MOST_ROWS)} of ${count(sorted.length)} with most lag.` : "");
  fillRows(byId("partition-rows"), sorted.slice(0, MOST_ROWS),
    (one) => JSON.stringify([one.stream, one.topic, one.partition]),
    (one) => [one.stream, one.topic, [String(one.partition)], [offset(one.committed)], [offset(one.end)],
      [count(one.lag)], [one.lag_seconds === null ? "–" : span(one.lag_seconds)],
      one.overtaken_in_seconds === null ? "" : `deletes unwritten messages in ${span(one.overtaken_in_seconds)}`]);
  const why = { ghost: "a connection from before a restart of Iggy holds it; remove it with: pipeline offsets regroup",
    none: "its consumer group has given it to no member", missing: "it does not exist; correct `partitions`" };
  const losses = [
    ...sink.unread.map((one) => `${one.stream}/${one.topic} partition ${one.partition} is read by nobody, lag `
      + `${count(one.lag)}: ${why[one.why] ?? one.why}`),
    ...sink.gaps.map((one) => `${one.stream}/${one.topic} partition ${one.partition}: offsets ${one.first} to `
      + `${one.last} were deleted before they were read`)];
  fill(byId("losses"), losses, (text) => text, (text) => element("li", {}, text), () => {});
}

function showMeasurements(source) {
  byId("measurements").hidden = !source;
  if (!source) return;
  fill(byId("progress"), source.sources.filter((one) => one.share < 1), (one) => one.source,
    () => element("li"), (item, one) => setText(item, `${one.source}: ${percent(one.share)} of the time caught up`
      + `${one.seconds_left === null ? "" : `, about ${span(one.seconds_left)} left`}`));
  fill(byId("late"), source.sources.filter((one) => one.late), (one) => one.source, () => element("li"), (item, one) =>
    setText(item, `${one.source}: ${many(one.late, "point")} written after their time was read, and missing in Iggy: `
      + "the log has what to do"));
  // Before its first point is found, a watermark is long before any.
  const sorted = [...source.measurements].sort((one, other) => one.watermark - other.watermark
    || one.source.localeCompare(other.source) || one.measurement.localeCompare(other.measurement));
  setText(byId("measurements-note"), sorted.length > MOST_ROWS
    ? `The ${count(MOST_ROWS)} of ${count(sorted.length)} that are furthest behind.` : "");
  fillRows(byId("measurement-rows"), sorted.slice(0, MOST_ROWS), (one) => JSON.stringify([one.source, one.measurement]),
    (one) => (one.watermark < -9e9 ? [one.source, one.measurement, "not begun", ["–"], ["–"], [count(one.in_flight)]]
      : [one.source, one.measurement, day(one.watermark), [span(one.behind_seconds)], [percent(one.share)],
        [count(one.in_flight)]]));
}

async function showPayload(letter) {
  const place = `${letter.stream}/${letter.topic} partition ${letter.partition} offset ${letter.offset}`;
  setText(byId("payload-about"), `${place}: …`);
  setText(byId("payload-text"), "");
  byId("payload").showModal();
  const { stream, topic, partition, offset: at } = letter;
  try {
    const found = await ask(`payload?${new URLSearchParams({ stream, topic, partition, offset: at })}`);
    setText(byId("payload-about"), `${place}, ${count(found.size)} bytes${found.base64 ? ", not text: as Base64" : ""}`);
    setText(byId("payload-text"), found.text || found.base64 || "");
  } catch (error) {
    setText(byId("payload-about"), `${place}: ${error.message}`);
  }
}

function showLetters(status) {
  const sink = status.sink;
  byId("letters").hidden = !sink;
  if (!sink) return;
  setText(byId("letters-note"), !sink.dead_letters.length ? "There are none."
    : status.shows_messages ? "pipeline dlq has all of them." : "What is in messages is shown to the holder of "
      + "http.token only. pipeline dlq has all of them.");
  fillRows(byId("letter-rows"), sink.dead_letters,
    (one) => JSON.stringify([one.sink, one.stream, one.topic, one.partition, one.offset, one.time]),
    (one) => [day(one.time), `${one.stream}/${one.topic} partition ${one.partition} offset ${one.offset}`, one.reason,
      [one.detail, one.line].filter(Boolean).join(" | "),
      status.shows_messages ? () => {
        const button = element("button", { type: "button", "aria-label": `Show the payload of partition `
          + `${one.partition} offset ${one.offset}` }, "Show");
        button.addEventListener("click", () => showPayload(one));
        return button;
      } : "–"]);
}

// The keys of a table as lines, dotted like in TOML.
function* configLines(value, key) {
  const isList = Array.isArray(value) && value.every((one) => typeof one !== "object");
  if (value !== null && typeof value === "object" && !isList) {
    for (const [name, item] of Object.entries(value)) yield* configLines(item, key ? `${key}.${name}` : name);
  } else yield `${key} = ${JSON.stringify(value)}`;
}

function showConfig(config) {
  const text = JSON.stringify(config);
  if (text === shownConfig) return;
  shownConfig = text;
  const tables = Object.entries(config).map(([name, value]) => [name, [...configLines(value, "")].join("\n")])
    .filter(([, lines]) => lines);
  fill(byId("config"), tables, ([name]) => name,
    ([name]) => element("details", {}, element("summary", {}, name), element("pre", { tabindex: "0" })),
    (node, [, lines]) => setText(node.children[1], lines));
}

function show(status) {
  shown = status;
  document.body.classList.remove("stale");
  showState(status);
  showReasons(status);
  showFlow(status);
  showPlots(history, status);
  showPartitions(status.sink);
  showMeasurements(status.source);
  showLetters(status);
  showConfig(status.config);
}

function showFailure(error) {
  document.body.classList.add("stale");
  const state = byId("state");
  setClass(state, "state bad");
  setText(state, `no answer${shown.time ? ` since ${clock(shown.time)}` : ""}: `
    + (error instanceof TypeError || error.name === "TimeoutError" ? "does the pipeline run?" : error.message));
}

// Calls `once` again and again: less often while nobody looks, and where an answer costs much.
function repeat(milliseconds, once) {
  const next = async () => {
    const began = performance.now();
    try {
      await once();
    } catch (error) {
      showFailure(error);
    }
    const lasted = performance.now() - began;
    setTimeout(next, document.hidden ? HIDDEN_MS : Math.max(milliseconds, 5 * lasted));
  };
  next();
}

repeat(STATUS_MS, async () => show(await ask("status")));
repeat(HISTORY_MS, async () => {
  history = await ask("history");
  showPlots(history, shown);
});
