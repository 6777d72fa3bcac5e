// A browser starts no worker of a page that lies on the disk. There the search runs in a frame of the page.
// The theme's search looks for the name IFrameWorker in the page above it.
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      this.ready = new Promise((resolve) => {
        window.addEventListener("message", (event) => {
          if (event.source !== this.frame.contentWindow) return;
          if (event.data === "worker is ready") resolve();
          else this.dispatchEvent(new MessageEvent("message", { data: event.data }));
        });
      });
      const inside = this.frame.contentDocument;
      inside.open();
      inside.write(`<script>
        postMessage = parent.postMessage.bind(parent);
        importScripts = async (...urls) => {
          for (const url of urls)
            await new Promise((resolve, reject) => {
              const script = document.createElement("script");
              Object.assign(script, { src: url, onload: resolve, onerror: reject });
              document.body.append(script);
            });
        };
      <\/script><body><script src="${new URL(url, location.href)}"><\/script><script>postMessage("worker is ready", "*");<\/script>`);
      inside.close();
    }
    postMessage(data) {
      // An event, since what runs inside the frame has replaced the frame's own postMessage.
      this.ready.then(() => this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data })));
    }
    terminate() {
      this.frame.remove();
    }
  };
  window.Worker = window.IFrameWorker;
}
