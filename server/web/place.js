// Where one is: the part of the address behind `#`, so that each place can be linked to, and is there after a reload.

const decoded = (text) => { try { return decodeURIComponent(text); } catch { return text; } };

// {page, id, filter}: `#/?status=failed&search=red`, `#/r/ID`, `#/deployments`.
export function placeNow() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  const cut = path.indexOf("/");
  const [page, id] = cut < 0 ? [path, null] : [path.slice(0, cut), decoded(path.slice(cut + 1))];
  return { page, id: page === "r" ? id : null, filter: Object.fromEntries(new URLSearchParams(query)) };
}

// The API key in `#/key=KEY`, or null.
export function keyInPlace() {
  const match = /^#\/key=(.+)$/s.exec(location.hash);
  return match && decoded(match[1]);
}

export const toResponse = (id) => `#/r/${encodeURIComponent(id)}`;

export function toList(filter) {
  const query = new URLSearchParams(Object.entries(filter).filter(([, value]) => value));
  return `#/${query.size ? `?${query}` : ""}`;
}

export const go = (where) => { location.hash = where; };

// The address of the list says what is shown, without a step in the history for each letter of a search.
export const note = (where) => history.replaceState(null, "", where);
