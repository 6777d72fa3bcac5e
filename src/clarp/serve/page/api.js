// Questions to the server. A question that is given up hangs up, and the server stops working on it.

import { $, status } from "./dom.js";

const KEY = "clarp-token";

/** The token comes behind the #, which browsers never send, and leaves the address at once. */
export function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!given) return;
  sessionStorage.setItem(KEY, given);
  history.replaceState(null, "", location.pathname);
}

async function askForToken() {
  const dialog = $("token-asked");
  if (!dialog.open) dialog.showModal();
  await new Promise((done) => dialog.addEventListener("close", done, { once: true }));
  sessionStorage.setItem(KEY, $("token").value.trim());
  $("token").value = "";
}

const pause = (seconds, signal) =>
  new Promise((done, failed) => {
    const timer = setTimeout(done, 1000 * seconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      failed(new DOMException("given up", "AbortError"));
    });
  });

/** The response to a question; waits where the server is busy, and asks for the token where it is wanted. */
export async function ask(path, query = {}, photo = null, signal = null) {
  const url = new URL(`/api/${path}`, location.origin);
  for (const [name, value] of Object.entries(query)) {
    for (const one of [value].flat()) url.searchParams.append(name, one);
  }
  for (let attempt = 0; ; attempt += 1) {
    const token = sessionStorage.getItem(KEY);
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    if (photo) headers["Content-Type"] = "application/octet-stream";
    const response = await fetch(url, { method: photo ? "POST" : "GET", body: photo, headers, signal });
    if (response.ok) return response;
    if (response.status === 401) {
      await askForToken();
    } else if (response.status === 503 && attempt < 10) {
      const seconds = Number(response.headers.get("Retry-After") ?? 2);
      status(`The server is busy; trying again in ${seconds} s.`);
      await pause(seconds, signal);
    } else {
      const told = await response.json().catch(() => ({}));
      throw new Error(told.detail ?? `The server answered ${response.status}.`);
    }
  }
}

export const askJson = async (...question) => (await ask(...question)).json();
