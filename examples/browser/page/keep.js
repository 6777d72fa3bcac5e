// The service worker: keeps the page's files, and answers from what it kept. build.py writes FILES and VERSION above.

const OWN = `clarp ${self.registration.scope} `;
const CACHE = OWN + VERSION;
const KEPT = FILES.map((file) => new URL(file, self.registration.scope).href);

/** A first one works at once, so that files are kept as they come; a later one when it has all that is new. */
self.addEventListener("install", (event) => {
  if (self.registration.active) event.waitUntil(Promise.all(KEPT.map(keep)));
});

self.addEventListener("activate", (event) => {
  event.waitUntil(
    (async () => {
      const old = (await caches.keys()).filter((name) => name.startsWith(OWN) && name !== CACHE);
      await Promise.all(old.map((name) => caches.delete(name)));
      await self.clients.claim();
    })(),
  );
});

self.addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method === "GET" && KEPT.includes(plain(request.url))) event.respondWith(answer(event));
});

/** The page asks whether all is kept: what it did not need yet is fetched now. */
self.addEventListener("message", (event) => {
  const [port] = event.ports;
  event.waitUntil(
    Promise.all(KEPT.map(keep)).then(
      () => port.postMessage(true),
      () => port.postMessage(false),
    ),
  );
});

const plain = (url) => url.replace(/[?#].*$/, "");

async function answer(event) {
  const url = plain(event.request.url);
  const cache = await caches.open(CACHE);
  const found = await cache.match(url);
  if (found) return isolated(found);
  const response = await fetch(url, { cache: "no-cache" });
  if (response.ok) event.waitUntil(written(cache, url, response.clone()));
  return isolated(response);
}

const writing = new Map();

function written(cache, url, response) {
  const done = cache.put(url, response).finally(() => writing.delete(url));
  writing.set(url, done);
  return done;
}

/** Fetch a file into the cache, unless it is there or on its way. */
async function keep(url) {
  const cache = await caches.open(CACHE);
  if (writing.has(url)) await writing.get(url);
  if (await cache.match(url)) return;
  const response = await fetch(url, { cache: "no-cache" });
  if (!response.ok) throw new Error(`${url}: the server answers ${response.status}`);
  await written(cache, url, response);
}

/** With the headers of an isolated page, which may use threads. */
function isolated(response) {
  const headers = new Headers(response.headers);
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}
