// Requests to the server. Decisions go through an outbox, one after the other, and are sent again under the same id
// until they are answered: a server that is killed and started again has each of them once. The outbox is stored in
// the browser, so that a page that is closed loses nothing either.

const RETRY_MS = [200, 400, 800, 1500, 2500];

export class Problem extends Error {
  constructor(status, kind, message, similar = []) {
    super(message);
    this.status = status;
    this.kind = kind;
    this.similar = similar;
  }
}

export async function ask(path, options = {}) {
  const answer = await fetch(path, { cache: "no-store", ...options });
  const isJson = (answer.headers.get("content-type") ?? "").startsWith("application/json");
  const content = isJson ? await answer.json() : await answer.text();
  if (answer.ok) return content;
  if (isJson) throw new Problem(answer.status, content.problem, content.message, content.similar);
  throw new Problem(answer.status, "refused", content.trim());
}

// Positions hold for one order of the pictures, `of`; `run` keeps pictures of another review out of the cache.
let key = "";
export const addressPictures = ({ of, run }) => { key = `&of=${of}&run=${run}`; };
export const pictureUrl = (position, px) => `api/pictures/${position}?px=${px}${key}`;

export class Outbox {
  // changed: called with the number of decisions that wait, and the problem that holds them up, if there is one.
  constructor(name, changed) {
    this.name = `lensmith-review ${name}`;
    this.changed = changed;
    this.waiting = this.stored();
    this.promises = new Map();
    this.working = false;
  }

  // The answer to a decision; rejected with a Problem where the server refuses it.
  send(decision) {
    const made = { id: crypto.randomUUID?.() ?? randomId(), ...decision };
    const answered = new Promise((resolve, reject) => this.promises.set(made.id, { resolve, reject }));
    this.waiting.push(made);
    this.store();
    this.work();
    return { id: made.id, answered };
  }

  async work() {
    if (this.working) return;
    this.working = true;
    let failures = 0;
    while (this.waiting.length > 0) {
      const [first] = this.waiting;
      try {
        const content = await post(first);
        this.finish(first.id, (promise) => promise.resolve(content));
        failures = 0;
      } catch (problem) {
        if (problem instanceof Problem && problem.status < 500 && problem.status !== 401) {
          this.finish(first.id, (promise) => promise.reject(problem));
        } else { // the server is gone, its disk is full, or it was started again with another token
          this.changed(this.waiting.length, problem);
          await new Promise((resolve) => setTimeout(resolve, RETRY_MS[Math.min(failures, RETRY_MS.length - 1)]));
          failures += 1;
        }
      }
    }
    this.working = false;
  }

  finish(id, settle) {
    this.waiting.shift();
    this.store();
    const promise = this.promises.get(id);
    this.promises.delete(id);
    if (promise) settle(promise);
    this.changed(this.waiting.length, null);
  }

  store() {
    try {
      if (this.waiting.length) localStorage.setItem(this.name, JSON.stringify(this.waiting));
      else localStorage.removeItem(this.name);
    } catch { /* a browser that stores nothing */ }
  }

  stored() {
    try {
      const found = JSON.parse(localStorage.getItem(this.name) ?? "[]");
      return Array.isArray(found) ? found : [];
    } catch {
      return [];
    }
  }
}

const post = (decision) =>
  ask("api/decisions", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(decision),
  });

// Pages that are not from this machine and not encrypted have no crypto.randomUUID.
const randomId = () => [...crypto.getRandomValues(new Uint8Array(16))].map((each) => each.toString(16).padStart(2, "0")).join("");
