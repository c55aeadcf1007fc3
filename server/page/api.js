// The page's requests to the server, and the errors that they may end with.

const KEY = "gram-key";

export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
};

/** A request that failed: the server's problem+json, or one made by the page if no response came. */
export class Refusal extends Error {
  constructor(problem, retryAfter = null) {
    super(problem.detail);
    this.problem = problem;
    this.retryAfter = retryAfter;
  }
}

const lost = () => new Refusal({ cause: "lost", detail: "The connection to the server was lost" });

async function request(path, options = {}) {
  const headers = { ...options.headers };
  if (key.get()) headers.authorization = `Bearer ${key.get()}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    throw error.name === "AbortError" ? error : lost();
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({ detail: `The server answered ${response.status}` }));
  throw new Refusal(problem, response.headers.get("retry-after"));
}

/** The JSON answer to a GET. */
export async function ask(path) {
  return (await request(path)).json();
}

/** The events of a stream, as {event, data}. Ends after the result; throws a Refusal if the stream ends in another way. */
export async function* events(path, body, signal) {
  const response = await request(path, {
    method: "POST",
    headers: { "content-type": "application/json", accept: "application/x-ndjson" },
    body: JSON.stringify(body),
    signal,
  });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    let part;
    try {
      part = await reader.read();
    } catch (error) {
      throw error.name === "AbortError" ? error : lost();
    }
    if (part.done) throw lost();
    const lines = (rest + part.value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const { event, data } = JSON.parse(line);
      if (event === "error") throw new Refusal(data);
      yield { event, data };
      if (event === "result") return;
    }
  }
}

const ADVICE = {
  unauthorized: () => "Enter a key above, then run again.",
  forbidden: () => "Ask whoever runs this server for a key that may do this.",
  invalid: () => "Correct it and run again.",
  not_found: () => "Choose another task, or load a model that can do this.",
  too_large: () => "Send a shorter puzzle.",
  rate_limited: later,
  overloaded: later,
  no_engine: () => "Wait a few seconds and run again: the same seed gives the same boards.",
  stopping: () => "When the server is back, run again: the same seed gives the same boards.",
  deadline: () => "Run fewer trajectories, or set a smaller depth.",
  out_of_memory: () => "Run again in a while; if that fails too, run fewer trajectories.",
  slow_client: () => "Run fewer trajectories, or use a faster connection to the server.",
  lost: () => "Check that the server is running and that you can reach it, then run again: the same seed gives the same boards.",
  internal: () => "Run again; if it fails again, tell whoever runs this server.",
};

function later(retryAfter) {
  return retryAfter ? `Run again in ${retryAfter} ${retryAfter === "1" ? "second" : "seconds"}.` : "Run again in a while.";
}

/** An error for people: what is wrong, and what to do. */
export function sentence(error) {
  if (!(error instanceof Refusal)) return `The page itself failed: ${error.message}. Reload it; if it fails again, report it.`;
  const { detail, cause, request_id: id } = error.problem;
  // The advice says when to try again, so the server's message need not say it too.
  const told = detail.replace(/; try again in \d+ s$/, "");
  const advice = (ADVICE[cause] ?? (() => "Run again in a while."))(error.retryAfter);
  const trace = cause === "internal" && id ? ` (request ${id})` : "";
  return `${told[0].toUpperCase()}${told.slice(1)}${trace}. ${advice}`;
}
