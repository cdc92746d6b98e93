// Requests to the service: JSON, uploads, and errors as sentences. A token becomes a session: a cookie that no script reads.

/** What the service refused, in its own sentence; `status` is 0 where no answer came. */
export class Refused extends Error {
  constructor(sentence, status) {
    super(sentence);
    this.status = status;
  }
}

let askForToken = async () => "";
let asking = null;

/** `ask(sentence)` resolves to a token. It is called when the service answers 401; the sentence says why a token failed. */
export function onUnauthorized(ask) {
  askForToken = ask;
}

/** The service's answer: JSON, or null where there is none. */
export async function call(method, path, body) {
  const content = body === undefined ? {} : { headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const text = await (await authorized(() => fetch(path, { method, ...content }))).text();
  return text ? JSON.parse(text) : null;
}

/**
 * Upload a file; resolves to the job. `progress(share)` is told how much is sent, `signal` ends it.
 * It is an XMLHttpRequest, as fetch does not tell how much it has sent.
 */
export async function upload(file, options, progress, signal) {
  const query = new URLSearchParams({ filename: file.name, options: JSON.stringify(options) });
  const send = () =>
    new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      request.open("POST", `/jobs/upload?${query}`);
      request.setRequestHeader("Content-Type", "application/octet-stream");
      request.upload.onprogress = ({ loaded, total }) => progress(loaded / Math.max(total, 1));
      request.onload = () => resolve(new Response(request.responseText || null, { status: request.status }));
      request.onerror = () => reject(new TypeError("no answer"));
      request.onabort = () => reject(signal.reason);
      signal.throwIfAborted();
      signal.addEventListener("abort", () => request.abort(), { once: true });
      request.send(file);
    });
  return (await authorized(send)).json();
}

/** What `send` resolves to; sent again once a session is there. Throws `Refused` for any error but the end of a signal. */
async function authorized(send) {
  for (;;) {
    const response = await answered(send);
    if (response.ok) return response;
    if (response.status !== 401) throw new Refused(await sentenceOf(response), response.status);
    asking ??= beginSession().finally(() => (asking = null));
    await asking;
  }
}

async function beginSession() {
  for (let sentence = ""; ; ) {
    const token = await askForToken(sentence);
    const headers = { Authorization: `Bearer ${token}` };
    const response = await answered(() => fetch("/session", { method: "POST", headers }));
    if (response.ok) return;
    sentence = await sentenceOf(response);
  }
}

async function answered(send) {
  try {
    return await send();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The service does not answer.", 0);
  }
}

async function sentenceOf(response) {
  const { error } = await response.json().catch(() => ({}));
  return typeof error === "string" ? error : `The service answered with status ${response.status}.`;
}
