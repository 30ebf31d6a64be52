// Whether somebody looks at this page. Browsers have six connections for a host, for all tabs together: a tab that
// nobody looks at gives its own back, and neither polls nor grows.

import { useEffect } from "./vendor/htm-preact.js";

const AWAY_AFTER_MS = 20_000; // whoever only has a quick look at another tab need not wait when coming back

let away = new AbortController();
let timer;
const waiting = new Set();

function changed() {
  clearTimeout(timer);
  if (document.hidden) {
    timer = setTimeout(() => away.abort(), AWAY_AFTER_MS);
  } else if (away.signal.aborted) {
    away = new AbortController();
    for (const resume of [...waiting]) resume();
  }
}
document.addEventListener("visibilitychange", changed);
changed();

// A signal that also says stop when nobody looks any more.
export const whileLookedAt = (signal) => AbortSignal.any([signal, away.signal]);

// Ends when somebody looks, at once if somebody does, or as soon as `signal` says stop.
export function untilLookedAt(signal) {
  if (!away.signal.aborted || signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const resume = () => { waiting.delete(resume); signal.removeEventListener("abort", resume); resolve(); };
    waiting.add(resume);
    signal.addEventListener("abort", resume);
  });
}

// Calls `look(signal)` now, again and again while the page is seen, and at once when it is seen again.
export function usePolls(look, everyMs) {
  useEffect(() => {
    const stop = new AbortController();
    let busy = false;
    const once = async () => {
      if (busy || document.hidden) return;
      busy = true;
      try { await look(stop.signal); } finally { busy = false; }
    };
    once();
    const clock = setInterval(once, everyMs);
    document.addEventListener("visibilitychange", once);
    return () => { stop.abort(); clearInterval(clock); document.removeEventListener("visibilitychange", once); };
  }, []);
}
