// Requests to the service, with the token where there is one, and its errors in plain words. Addresses are relative,
// so that the service may have any path behind a proxy.

const KEY = "lensmith-token";

// Stored for this tab only, and removed with it.
export const token = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

export class Problem extends Error {
  // retryS: seconds after which to ask again; null: unknown.
  constructor(title, detail, { status = 0, requestId = "", retryS = null } = {}) {
    super(title);
    Object.assign(this, { title, detail, status, requestId, retryS });
  }

  // Whether sending the same picture again may help.
  get passing() {
    return this.status === 0 || [401, 403, 408, 429].includes(this.status) || this.status >= 500;
  }
}

const AGAIN = "Nothing is wrong with the picture. Send it again in a moment.";

// Problems whose details are for programs, in the page's own words.
const ALWAYS = {
  401: ["A token is needed", "This service answers those who have a token. Give yours at the top of the page."],
  403: ["This token does not allow it", "It is valid, but not for predictions. Give another at the top of the page."],
};

// For errors of a proxy in between, which are no problem details.
const OTHERWISE = {
  404: ["There is no service here", "Whatever answers at this address does not pass pictures on to the service."],
  413: ["The upload is too large", "Something between this page and the service takes only smaller ones."],
  429: ["Too many pictures in a short time", AGAIN],
  502: ["The service does not answer", `It may be starting, or have stopped. ${AGAIN}`],
  503: ["The service is busy", AGAIN],
  504: ["The service did not answer in time", AGAIN],
};

// The body of a response, read as "json" or "text"; throws a Problem for an error.
export async function ask(address, as, options = {}) {
  const headers = token.get() ? { Authorization: `Bearer ${token.get()}` } : {};
  let refused;
  try {
    const response = await fetch(address, { ...options, headers });
    if (response.ok) return await response[as]();
    refused = await refusal(response);
  } catch (error) {
    if (options.signal?.aborted) throw error;
    refused = new Problem(
      "The service cannot be reached", "It may have been stopped. Start it again, then send the picture once more.");
  }
  throw refused;
}

// A problem from problem details, of a response or of one picture among several.
export function described(problem, retryS = null) {
  const [title, detail] = ALWAYS[problem.status] ?? [problem.title, problem.detail];
  return new Problem(title, detail, { status: problem.status, requestId: problem.request_id, retryS });
}

async function refusal(response) {
  const { status, headers } = response;
  const retryS = seconds(headers.get("retry-after"));
  if (headers.get("content-type")?.startsWith("application/problem+json")) {
    return described({ ...(await response.json()), status }, retryS);
  }
  const unknown = ["The request failed", `Its answer was ${status}, and nothing more.`];
  const [title, detail] = ALWAYS[status] ?? OTHERWISE[status] ?? unknown;
  return new Problem(title, detail, { status, requestId: headers.get("x-request-id") ?? "", retryS });
}

function seconds(retryAfter) {
  if (!retryAfter) return null;
  const given = /^\d+$/.test(retryAfter) ? Number(retryAfter) : (Date.parse(retryAfter) - Date.now()) / 1000;
  return Number.isFinite(given) ? Math.max(0, Math.ceil(given)) : null;
}
