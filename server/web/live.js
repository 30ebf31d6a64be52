// The jobs that are shown: loaded page by page, and kept up to date by the feed of status events.

import { ask, events, get, now, pause } from "./api.js";
import { UNFINISHED } from "./format.js";
import { untilLookedAt, whileLookedAt } from "./looking.js";

const PAGE = 200;
const REFRESH_MS = 700; // what is seen of running jobs may be so old
const LOOK_MS = 3000; // how often unfinished jobs on the screen are read again: no event tells of leases and deployments
const MOST_IDS = 100; // are asked for at a time
const MOST_LIVE = 3000; // so long the list may grow by itself, before only its first page is kept
const MOST_ROWS = 20_000; // so long it may grow by scrolling
const MOST_UNKNOWN = 400; // jobs that an event told of and no page: beyond that, the first page is read anew
const REREAD_MS = 1500; // how often at most
const AGAIN_MS = 1000; // after a page could not be read
const MOST_EARLY = 5000; // events that may come while a page is read

const rank = (status) => (status === "queued" ? 0 : status === "in_progress" ? 1 : 2);

export class Jobs {
  constructor(changed, filter = {}) {
    this.changed = changed;
    this.filter = { status: "", model: "", search: "", owner: "", ...filter };
    this.connected = false;
    this.error = null;
    this.scrolled = 0; // where the list was left
    this.atTop = true; // further down, rows do not move under the reader's eyes: what is new is only counted
    this.reset();
    this.stop = new AbortController();
    this.wanted = new Set(); // ids whose rows are on the screen
    this.stale = new Set(); // ids whose rows say less than the server knows
    this.unknown = new Set(); // ids that belong into the list, perhaps
    this.clock = setInterval(() => this.lookAgain(), LOOK_MS);
    this.follow();
  }

  end() { this.stop.abort(); this.loading?.abort(); clearInterval(this.clock); clearTimeout(this.timer); clearTimeout(this.due); }

  reset() {
    this.byId = new Map();
    this.list = [];
    this.next = null;
    this.more = true;
    this.loaded = false;
    this.missed = 0; // new ones that are not in the list
    this.missedAny = false; // something happened that the list does not show
    this.gone = false; // the list still has jobs that `byId` has not
    this.moved = false; // the list is not in order
  }

  filterBy(filter) {
    this.filter = { ...this.filter, ...filter };
    this.reset();
    this.scrolled = 0;
    this.atTop = true;
    this.unknown?.clear();
    return this.load();
  }

  loadMore() {
    if (!this.busy && this.more && this.list.length < MOST_ROWS) this.load();
  }

  // Reads the first page anew. The old rows stay until it has come.
  reread() {
    this.rereadAt = Date.now();
    return this.load({ anew: true });
  }

  get busy() { return Boolean(this.loading); }

  get isCut() { return this.more && this.list.length >= MOST_ROWS; }

  async load({ anew = false } = {}) {
    this.loading?.abort();
    const loading = this.loading = new AbortController();
    const first = anew || !this.loaded;
    this.early = []; // what is told meanwhile may be newer than the page
    try {
      const query = { limit: PAGE, page: anew ? null : this.next, ...this.filter };
      const page = await get("jobs", query, { signal: loading.signal });
      if (loading.signal.aborted) return;
      if (anew) { this.reset(); this.unknown.clear(); }
      for (const job of page.data) this.put(job);
      this.moved = true;
      this.next = page.next_page;
      this.more = page.has_more;
      this.loaded = true;
      this.error = null;
      const { early } = this;
      this.early = null;
      for (const event of early) if (first || this.byId.has(event.data.data.id)) this.take(event);
    } catch (error) {
      if (loading.signal.aborted) return;
      this.error = error;
      if (!error.status || error.status === 429 || error.status >= 500) this.tryAgain(loading.signal, anew);
    } finally {
      if (this.loading === loading) { this.loading = null; this.early = null; this.tell(); }
    }
  }

  async tryAgain(signal, anew) {
    await pause(AGAIN_MS, AbortSignal.any([signal, this.stop.signal]));
    if (!signal.aborted && !this.stop.signal.aborted && !this.busy) this.load({ anew });
  }

  // A job as the server shows it. It may have been read before an event that has been taken: no status goes back.
  put(job) {
    const known = this.byId.get(job.id);
    if (known && rank(job.status) < rank(known.status)) return;
    if (!known) return this.add(job);
    if (known.created_at !== job.created_at) this.moved = true;
    Object.assign(known, job);
  }

  add(job) {
    this.byId.set(job.id, job);
    this.list.push(job);
    this.moved = true;
  }

  drop(id) {
    if (this.byId.delete(id)) this.gone = true;
    this.stale.delete(id);
    this.unknown.delete(id);
  }

  fits(job) {
    const { status, model, search, owner } = this.filter;
    const text = search.trim().toLowerCase();
    return (!status || status.split(",").includes(job.status)) && (!model || job.model === model)
      && (!owner || job.owner === owner)
      && (!text || `${job.id} ${job.model} ${JSON.stringify(job.metadata)}`.toLowerCase().includes(text));
  }

  // Told at most once a frame, however many events come.
  tell() {
    if (this.told) return;
    this.told = true;
    requestAnimationFrame(() => { this.told = false; this.settle(); this.changed(); });
  }

  settle() {
    if (this.gone) this.list = this.list.filter((job) => this.byId.get(job.id) === job);
    if (this.moved) this.list.sort((a, b) => b.created_at - a.created_at || (a.id < b.id ? 1 : -1));
    this.gone = this.moved = false;
    if (this.missedAny && this.atTop && !this.busy) this.rereadSoon();
  }

  rereadSoon() {
    const in_ms = REREAD_MS - (Date.now() - this.rereadAt);
    if (!(in_ms > 0)) this.reread();
    else this.due ??= setTimeout(() => { this.due = null; this.tell(); }, in_ms);
  }

  take(event) {
    if (this.early) {
      if (this.early.length < MOST_EARLY) this.early.push(event);
      else this.missedAny = true;
    }
    const { name, data } = event;
    if (name === "response.deleted") { this.drop(data.data.id); return this.tell(); }
    const { id, status } = data.data;
    const known = this.byId.get(id);
    if (known) this.advance(known, status, data.created_at);
    else if (this.loaded) this.meet(data);
    if (this.byId.has(id)) this.stale.add(id);
    this.refreshSoon();
    this.tell();
  }

  advance(job, status, at) {
    if (rank(status) < rank(job.status)) return;
    job.status = status;
    if (!UNFINISHED.has(status)) job.ended_at ??= Math.max(at, job.created_at);
    if (status === "in_progress") job.started_at ??= Math.max(at, job.created_at);
    if (!this.fits(job)) this.drop(job.id);
  }

  // A job of which the list does not know.
  meet({ data, created_at: at }) {
    const job = {
      ...data, created_at: Math.min(Math.max(now(), at), at + 0.999), started_at: null, ended_at: null, attempts: 0,
      deployment: null, tokens: null, error: null, stream: null, events: 0,
    };
    if (!this.fits(job)) { this.unknown.delete(job.id); return; }
    if (!this.atTop || this.list.length >= MOST_LIVE || document.hidden) {
      this.missedAny = true;
      if (data.status === "queued") this.missed += 1;
    } else if (data.status === "queued") {
      this.add(job);
    } else if (this.unknown.size < MOST_UNKNOWN) {
      this.unknown.add(job.id); // when it was created, only the server knows
    } else {
      this.missedAny = true;
    }
  }

  see(ids) { this.wanted = new Set(ids); if (this.stale.size) this.refreshSoon(); }

  lookAgain() {
    if (document.hidden || !this.connected) return;
    for (const id of this.wanted) if (UNFINISHED.has(this.byId.get(id)?.status)) this.stale.add(id);
    if (this.stale.size) this.refreshSoon();
  }

  refreshSoon() {
    if (!this.timer && !this.stop.signal.aborted) this.timer = setTimeout(() => this.refresh(), REFRESH_MS);
  }

  // Rows on the screen are read again when an event has come for them, and those that are to come into the list.
  async refresh() {
    const ids = [...this.unknown, ...[...this.stale].filter((id) => this.wanted.has(id))].slice(0, MOST_IDS);
    try {
      if (!ids.length || document.hidden) return;
      ids.forEach((id) => this.stale.delete(id));
      const { data } = await get("jobs", { ids: ids.join(",") }, { signal: this.stop.signal });
      const last = this.list.at(-1);
      for (const job of data) {
        if (this.byId.has(job.id)) this.put(job);
        // Of one that is older than what is loaded, the list has no place yet.
        else if (this.unknown.has(job.id) && this.fits(job) && (!this.more || last?.created_at < job.created_at)) this.add(job);
      }
      const there = new Set(data.map((job) => job.id));
      for (const id of ids) { this.unknown.delete(id); if (!there.has(id)) this.drop(id); }
      this.tell();
    } catch {
      ids.forEach((id) => this.byId.has(id) && this.stale.add(id)); // the feed tells what is wrong
    } finally {
      this.timer = null;
      if (this.unknown.size || [...this.stale].some((id) => this.wanted.has(id))) this.refreshSoon();
    }
  }

  async follow() {
    const { signal } = this.stop;
    const seen = { id: null };
    while (!signal.aborted) {
      const looking = whileLookedAt(signal);
      try {
        await this.read(seen, looking);
      } catch (error) {
        if (signal.aborted) return;
        if (error.status === 401) { this.error = error; this.tell(); return; }
        if (error.status === 400) seen.id = null; // another store: what was told before it, nobody knows any more
        if (error.status !== undefined) this.error = error;
      }
      this.connected = false;
      this.tell();
      if (looking.aborted) {
        await untilLookedAt(signal);
        seen.id = null; // much may have happened meanwhile, of which most is of no interest any more
      } else {
        await pause(500 + Math.random() * 1500, signal);
      }
    }
  }

  async read(seen, signal) {
    const headers = seen.id ? { "Last-Event-ID": seen.id } : {};
    const answer = await ask("events", { headers, signal });
    this.connected = true;
    this.error = null;
    this.tell();
    // Whatever happens from now on is told.
    if (seen.id === null || !this.loaded) (this.loaded ? this.catchUp() : this.load());
    for await (const event of events(answer)) {
      if (event.id) seen.id = event.id;
      if (event.name === "feed.gap") this.catchUp();
      else if (event.name.startsWith("response.")) this.take({ name: event.name, data: JSON.parse(event.data) });
    }
  }

  // What is loaded may be old, all of it.
  catchUp() {
    this.byId.forEach((_, id) => this.stale.add(id));
    this.refreshSoon();
    this.missedAny = true;
    this.tell();
  }
}
