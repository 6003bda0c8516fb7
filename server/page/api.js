// Requests to this server, with the key if one was given. The key lives as long as the tab.

const STORED = "malmoi.key";
let key = restore();

function restore() {
  try {
    return sessionStorage.getItem(STORED) ?? "";
  } catch {
    return "";
  }
}

export function useKey(given) {
  key = given;
  try {
    sessionStorage.setItem(STORED, given);
  } catch {
    // then it lives as long as the page
  }
}

export class Refused extends Error {
  constructor(status, message, retryAfter) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

export async function request(path, options = {}) {
  const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  const response = await fetch(path, { ...options, headers, cache: "no-store" });
  if (response.ok) return response;
  const problem = await response.json().catch(() => null);
  const message = problem?.error?.message ?? problem?.status ?? `${response.status}`;
  const refused = new Refused(response.status, message, response.headers.get("retry-after"));
  if (response.status === 401) document.dispatchEvent(new CustomEvent("key-needed", { detail: Boolean(key) }));
  throw refused;
}

// The data of each server-sent event, as text.
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      if (part.startsWith("data: ")) yield part.slice("data: ".length);
    }
  }
}
