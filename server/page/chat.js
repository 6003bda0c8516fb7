// The conversation: questions go out, answers stream in, as text and never as markup.

import { Refused, events, request } from "/page/api.js";
import { duration, rate, words } from "/page/words.js";

const $ = (id) => document.getElementById(id);
const turns = $("turns");
let conversation = [];
let running = null; // the AbortController of the answer that streams
let model = null;

export function setModel(name) {
  model = name;
}

export function start() {
  $("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  $("question").addEventListener("keydown", (event) => {
    // While a syllable is being composed, Enter ends the syllable.
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      ask();
    }
  });
  $("question").addEventListener("input", grow);
  $("stop").addEventListener("click", () => running?.abort());
  $("clear").addEventListener("click", clear);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") running?.abort();
  });
  showEmpty();
}

export function relabel() {
  if (!conversation.length && !running) showEmpty();
  for (const turn of turns.querySelectorAll("article")) {
    turn.querySelector("h3").textContent = turn.dataset.role === "user" ? words().you : words().answer;
  }
}

function showEmpty() {
  const hint = document.createElement("p");
  hint.className = "empty";
  hint.textContent = words().empty;
  turns.replaceChildren(hint);
}

function clear() {
  running?.abort();
  conversation = [];
  showEmpty();
  $("clear").disabled = true;
  $("question").focus();
}

function grow() {
  const field = $("question");
  field.style.height = "auto";
  field.style.height = `${Math.min(field.scrollHeight + 2, 200)}px`;
}

async function ask() {
  const question = $("question").value.trim();
  if (!question || running) return;
  $("question").value = "";
  grow();
  const controller = new AbortController();
  setRunning(controller);
  const messages = conversation;
  messages.push({ role: "user", content: question });
  add("user", question);
  const turn = add("assistant", "");
  const outcome = await answer(turn, messages, controller.signal);
  if (messages === conversation) {
    if (outcome.text) messages.push({ role: "assistant", content: outcome.text });
    else messages.pop(); // what was not answered is not asked again with the next question
    $("said").textContent = outcome.said;
  }
  setRunning(null);
}

function setRunning(controller) {
  running = controller;
  $("stop").hidden = !controller;
  $("send").hidden = Boolean(controller);
  $("clear").disabled = false;
  if (!controller && document.activeElement === document.body) $("question").focus();
}

function add(role, text) {
  turns.querySelector(".empty")?.remove();
  const turn = document.createElement("article");
  turn.dataset.role = role;
  const name = document.createElement("h3");
  name.textContent = role === "user" ? words().you : words().answer;
  const body = document.createElement("p");
  body.className = "text";
  body.append(document.createTextNode(text));
  const note = document.createElement("p");
  note.className = "note";
  turn.append(name, body, note);
  turns.append(turn);
  turns.scrollTop = turns.scrollHeight;
  return turn;
}

// Streams one answer into `turn`: its text, and what to say of its end.
async function answer(turn, messages, signal) {
  const note = turn.querySelector(".note");
  const written = turn.querySelector(".text").firstChild;
  turn.setAttribute("aria-busy", "true");
  const begun = performance.now();
  const seen = { first: null, last: null, reason: null };
  let said = words().answered;
  try {
    for await (const event of await stream(messages, signal)) {
      if (event === "[DONE]") break;
      const { choices, error } = JSON.parse(event);
      if (error) throw new Refused(200, error.message, null);
      for (const choice of choices) take(choice, written, seen);
    }
    note.textContent = [measured(written.data, seen, begun), words().ends[seen.reason]].filter(Boolean).join(" · ");
  } catch (problem) {
    if (signal.aborted) {
      said = words().wasStopped;
      note.textContent = [measured(written.data, seen, begun), words().stopped].filter(Boolean).join(" · ");
    } else {
      said = note.textContent = words().failed + told(problem);
      turn.classList.add("problem");
    }
  }
  turn.removeAttribute("aria-busy");
  return { text: written.data, said };
}

async function* stream(messages, signal) {
  const body = {
    model,
    messages,
    stream: true,
    temperature: $("temperature").valueAsNumber || 0,
    max_tokens: $("max-tokens").valueAsNumber || 256,
  };
  const response = await request("/v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
  yield* events(response);
}

function take(choice, written, seen) {
  const text = choice.delta?.content;
  seen.reason = choice.finish_reason ?? seen.reason;
  if (!text) return;
  seen.last = performance.now();
  seen.first ??= seen.last;
  const atEnd = turns.scrollHeight - turns.scrollTop - turns.clientHeight < 40;
  written.appendData(text);
  if (atEnd) turns.scrollTop = turns.scrollHeight;
}

function measured(text, seen, begun) {
  if (seen.first === null) return "";
  const characters = [...text].length;
  const speed = rate(characters / ((seen.last - begun) / 1000));
  return words().measured({ characters, first: duration((seen.first - begun) / 1000), speed });
}

function told(problem) {
  if (!(problem instanceof Refused)) return words().lost;
  return problem.message + (problem.retryAfter ? words().retry(problem.retryAfter) : "");
}
