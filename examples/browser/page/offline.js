// The page's side of working without a network: the service worker keeps every file (keep.js).

const PATIENCE = 10_000; // milliseconds until the page goes on without

/** Begin to keep the page's files; from here on, what is fetched is kept. */
export async function keeping() {
  if (!navigator.serviceWorker || navigator.serviceWorker.controller) return;
  const taken = new Promise((resolve) => {
    navigator.serviceWorker.addEventListener("controllerchange", resolve, { once: true });
  });
  try {
    const { active } = await navigator.serviceWorker.register("keep.js");
    if (active) return; // the page was loaded past it, on purpose
    await Promise.race([taken, new Promise((resolve) => setTimeout(resolve, PATIENCE))]);
  } catch {
    // Some browsers have none in private windows: the page works, with a network.
  }
}

/** Whether every file is kept, as soon as that is so. */
export async function whenKept() {
  const worker = navigator.serviceWorker?.controller;
  if (!worker) return false;
  const channel = new MessageChannel();
  const answer = new Promise((resolve) => (channel.port1.onmessage = ({ data }) => resolve(data)));
  worker.postMessage("keep all", [channel.port2]);
  return answer;
}
