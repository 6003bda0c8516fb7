// Puts the page together, and asks the server how it is while somebody looks.

import { Refused, request, useKey } from "/page/api.js";
import * as chat from "/page/chat.js";
import { Charts } from "/page/charts.js";
import * as model from "/page/model.js";
import { applyWords, duration, rate, share, switchLanguage, words } from "/page/words.js";

const INTERVAL_MS = 2500;
const $ = (id) => document.getElementById(id);
const charts = new Charts($("charts"));
let state = null;
let live = null;
let isLoaded = false;

function relabel() {
  applyWords();
  $("language").textContent = words().other;
  $("language").lang = document.documentElement.lang === "ko" ? "en" : "ko";
  chat.relabel();
  model.relabel();
  showState();
  if (live) showLive(live);
}

function showState() {
  if (state === null) return;
  $("state").dataset.state = state;
  const text = words().states[state] ?? state;
  if ($("state-text").textContent !== text) $("state-text").textContent = text;
}

function showLive(now) {
  live = now;
  charts.update(now);
  $("load").textContent = words().load(now);
  const { objective } = now;
  $("promise").textContent = words().objective({
    ttft: duration(objective.time_to_first_token_s),
    perCharacter: duration(objective.seconds_per_character),
    share: share(objective.target),
  });
  const met = objective.met === null ? words().none : share(objective.met);
  const rows = Object.entries(objective.burn_rate).map(([window, burn]) => [
    words().burn(window),
    burn === null ? words().none : `${rate(burn)}×`,
  ]);
  $("objective").replaceChildren(...[[words().goodput, met], ...rows].map(grouped));
}

function grouped([term, value]) {
  const group = document.createElement("div");
  group.append(...model.pair(term, value));
  return group;
}

async function askState() {
  const response = await fetch("/ready", { cache: "no-store" });
  state = (await response.json()).status;
}

async function poll() {
  let problem = "";
  try {
    await askState();
    if ($("key-form").hidden) showLive(await (await request("/page/live")).json());
  } catch (error) {
    if (!(error instanceof Refused)) state = "unreachable";
    problem = error.status === 403 ? words().notAllowed : words().unreachable;
    if (error.status === 401) problem = "";
  }
  showState();
  if ($("live-problem").textContent !== problem) $("live-problem").textContent = problem;
  $("live-problem").hidden = !problem;
}

async function watch() {
  if (document.visibilityState === "visible") {
    if (!isLoaded && $("key-form").hidden) await load().catch(() => {});
    await poll();
  }
  setTimeout(watch, INTERVAL_MS);
}

async function load() {
  const [models, card] = await Promise.all([request("/v1/models"), request("/page/card")]);
  const name = (await models.json()).data[0].id;
  $("model-name").textContent = name;
  document.title = `${name} · malmoi`;
  chat.setModel(name);
  model.show(await card.json());
  $("key-form").hidden = true;
  isLoaded = true;
}

function askForKey({ detail: wasRefused }) {
  if ($("key-form").hidden) {
    $("key-form").hidden = false;
    $("key").focus();
  }
  $("key-problem").textContent = wasRefused ? words().keyRefused : "";
}

$("language").addEventListener("click", () => {
  switchLanguage();
  relabel();
});
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey($("key").value.trim());
  load().then(poll, () => {});
});
document.addEventListener("key-needed", askForKey);
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") poll();
});
chat.start();
relabel();
watch();
