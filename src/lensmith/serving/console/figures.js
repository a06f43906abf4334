// Live figures: from two readings of the metrics to rates, errors and percentiles between them.

import { buckets, parse, quantile, sum } from "./prometheus.js";

export const WINDOW_MS = 10_000;

// Routes that classify, of every protocol. Health, metrics and this page itself would only distort the figures.
const PREDICTS = /[/:](predict|infer|invocations)(\/batch)?$/;

const predicts = (labels) => PREDICTS.test(labels.route);
// 503 and 504 are refusals by admission control; they count as shed.
const fails = (labels) => predicts(labels) && /^5/.test(labels.status) && !["503", "504"].includes(labels.status);

// One reading of the metrics. Throws where the text holds no metrics of the service.
export function reading(text, atMs) {
  const families = parse(text);
  if (!families.has("lensmith_model_info")) throw new Error("no measurements of lensmith");
  const of = (name, wanted) => sum(families, name, wanted) ?? 0;
  return {
    atMs,
    requests: of("lensmith_requests_total", predicts),
    errors: of("lensmith_requests_total", fails),
    shed: of("lensmith_shed_total"),
    latency: buckets(families, "lensmith_request_seconds", predicts),
    underWay: of("lensmith_images_running") + of("lensmith_images_queued"),
    threads: of("lensmith_threads"),
    memory: of("lensmith_memory_bytes"),
    memoryLimit: of("lensmith_memory_limit_bytes"),
    served: families.get("lensmith_model_info").filter(({ value }) => value > 0).map(({ labels }) => ({
      ...labels,
      full: `${labels.name}@${labels.version}`,
      images: of("lensmith_answers_total", ({ version }) => version === labels.version),
    })).sort((one, other) => one.full.localeCompare(other.full)),
  };
}

// The readings of the window with a new one, none from before a restart.
export function inWindow(readings, latest) {
  const restarted = readings.length > 0 && latest.requests < readings.at(-1).requests;
  const recent = restarted ? [] : readings.filter(({ atMs }) => latest.atMs - atMs <= WINDOW_MS + 500);
  return [...recent, latest];
}

// Figures from the first to the last of some readings; null where there is only one reading, or no request.
export function figures(readings) {
  const [first, last] = [readings[0], readings.at(-1)];
  const seconds = (last.atMs - first.atMs) / 1000;
  const known = readings.length > 1 && seconds > 0;
  const more = (name) => last[name] - first[name];
  const latency = new Map([...last.latency].map(([bound, count]) => [bound, count - (first.latency.get(bound) ?? 0)]));
  const before = new Map(first.served.map(({ version, images }) => [version, images]));
  return {
    seconds,
    requests: known ? more("requests") : null,
    perSecond: known ? more("requests") / seconds : null,
    p50: known ? quantile(0.5, latency) : null,
    p99: known ? quantile(0.99, latency) : null,
    errors: known ? more("errors") / Math.max(1, more("requests")) : null,
    shed: known ? Math.max(0, more("shed")) / seconds : null,
    underWay: last.underWay,
    threads: last.threads,
    memory: last.memory,
    memoryLimit: last.memoryLimit,
    served: last.served.map((model) => ({
      ...model,
      perSecond: known ? Math.max(0, model.images - (before.get(model.version) ?? 0)) / seconds : null,
    })),
  };
}
