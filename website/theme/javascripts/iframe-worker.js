/* The search's worker where a page is opened from a folder: browsers start none from file://, so a
   hidden frame does its work. */
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = Object.assign(document.createElement("iframe"), { hidden: true });
      this.ready = new Promise(resolve => {
        (document.body || document.documentElement).appendChild(frame);
        const inside = frame.contentWindow;
        const run = source => new Promise((loaded, failed) => {
          const script = inside.document.createElement("script");
          Object.assign(script, { src: source, onload: loaded, onerror: failed });
          inside.document.body.appendChild(script);
        });
        inside.importScripts = (...sources) =>
          sources.reduce((before, source) => before.then(() => run(source)), Promise.resolve());
        inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }));
        run(url).then(() => resolve(inside));
      });
    }
    postMessage(data) {
      this.ready.then(inside => inside.dispatchEvent(new inside.MessageEvent("message", { data })));
    }
    terminate() {}
  };
  window.Worker = window.IFrameWorker;
}
