// The jobs that are shown: loaded page by page, and kept up to date by the feed of status events.

import { ask, events, get, pause } from "./api.js";
import { UNFINISHED } from "./format.js";

const PAGE = 200;
const REFRESH_MS = 700; // what is seen of running jobs may be so old
const MOST_IDS = 100;

export class Jobs {
  constructor(changed) {
    this.changed = changed;
    this.filter = { status: "", model: "", search: "", owner: "" };
    this.connected = false;
    this.error = null;
    this.reset();
    this.stop = new AbortController();
    this.wanted = new Set(); // ids whose rows are on the screen
    this.stale = new Set(); // ids whose rows say less than the server knows
    this.follow();
    this.keepFresh();
  }

  end() { this.stop.abort(); this.loading?.abort(); }

  reset() {
    this.byId = new Map();
    this.list = [];
    this.next = null;
    this.more = true;
    this.busy = false;
    this.loaded = false;
  }

  filterBy(filter) {
    this.filter = { ...this.filter, ...filter };
    this.loading?.abort();
    this.reset();
    return this.loadMore();
  }

  async loadMore() {
    if (this.busy || !this.more) return;
    this.busy = true;
    const loading = this.loading = new AbortController();
    try {
      const { status, model, search, owner } = this.filter;
      const page = await get("jobs", { limit: PAGE, page: this.next, status, model, search, owner }, { signal: loading.signal });
      if (loading.signal.aborted) return;
      for (const job of page.data) this.put(job);
      this.sort();
      this.next = page.next_page;
      this.more = page.has_more;
      this.loaded = true;
      this.error = null;
    } catch (error) {
      if (error.name === "AbortError") return;
      this.error = error;
    } finally {
      if (this.loading === loading) this.busy = false;
      this.tell();
    }
  }

  put(job) {
    const known = this.byId.get(job.id);
    if (known) { Object.assign(known, job); return known; }
    this.byId.set(job.id, job);
    this.list.push(job);
    return job;
  }

  sort() { this.list.sort((a, b) => b.created_at - a.created_at || (a.id < b.id ? 1 : -1)); }

  drop(id) {
    if (!this.byId.delete(id)) return;
    this.list = this.list.filter((job) => job.id !== id);
  }

  fits(job) {
    const { status, model, search, owner } = this.filter;
    const text = search.toLowerCase();
    return (!status || status.split(",").includes(job.status)) && (!model || job.model === model)
      && (!owner || job.owner === owner)
      && (!text || `${job.id} ${job.model} ${JSON.stringify(job.metadata)}`.toLowerCase().includes(text));
  }

  // Told at most once a frame, however many events come.
  tell() {
    if (this.told) return;
    this.told = true;
    requestAnimationFrame(() => { this.told = false; this.changed(); });
  }

  take({ name, data }) {
    if (name === "response.deleted") { this.drop(data.data.id); return this.tell(); }
    const { id, status, model, metadata, owner } = data.data;
    const known = this.byId.get(id);
    if (known) {
      known.status = status;
      if (!UNFINISHED.has(status) && !known.ended_at) known.ended_at = data.created_at;
      if (status === "in_progress" && !known.started_at) known.started_at = data.created_at;
      if (!this.fits(known)) this.drop(id);
    } else if (this.loaded) {
      const job = {
        id, status, model, metadata, owner, created_at: data.created_at, started_at: null, ended_at: null, attempts: 0,
        deployment: null, tokens: null, error: null, stream: null, events: 0,
      };
      // Of one that is older than the page, the list has no place yet.
      const last = this.list.at(-1);
      if (this.fits(job) && (status === "queued" || !this.more || (last && last.created_at < job.created_at))) {
        this.byId.set(id, job);
        this.list.unshift(job);
        this.sort();
      }
    }
    this.stale.add(id);
    this.tell();
  }

  async follow() {
    let last = null;
    while (!this.stop.signal.aborted) {
      try {
        const headers = last ? { "Last-Event-ID": last } : {};
        const answer = await ask("events", { headers, signal: this.stop.signal });
        this.connected = true;
        this.error = null;
        this.tell();
        if (last === null) this.filterBy({}); // whatever happens from now on is told
        for await (const event of events(answer)) {
          if (event.id) last = event.id;
          if (event.name === "feed.gap") this.filterBy({});
          else if (event.name.startsWith("response.")) this.take({ name: event.name, data: JSON.parse(event.data) });
        }
      } catch (error) {
        if (this.stop.signal.aborted) return;
        if (error.status === 401) { this.error = error; this.tell(); return; }
        this.error = error.status === undefined ? null : error;
      }
      this.connected = false;
      this.tell();
      await pause(500 + Math.random() * 1500, this.stop.signal);
    }
  }

  // Rows on the screen are read again when an event has come for them.
  async keepFresh() {
    while (!this.stop.signal.aborted) {
      await pause(REFRESH_MS, this.stop.signal);
      const ids = [...this.stale].filter((id) => this.wanted.has(id) && this.byId.has(id)).slice(0, MOST_IDS);
      if (!ids.length || document.hidden) continue;
      ids.forEach((id) => this.stale.delete(id));
      try {
        const { data } = await get("jobs", { ids: ids.join(",") }, { signal: this.stop.signal });
        for (const job of data) if (this.byId.has(job.id)) this.put(job);
        this.tell();
      } catch { ids.forEach((id) => this.stale.add(id)); }
      if (this.stale.size > 5000) this.stale.clear();
    }
  }

  see(ids) { this.wanted = new Set(ids); }
}
