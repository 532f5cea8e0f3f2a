// Lets the server write an answer: the request, the stream into the answer, the time that it took. Knows no element.

import { N_ALTERNATIVES, takeEvent } from "./answer.js";
import { ApiError } from "./api.js";

/** Goes on with an answer until it ends, breaks off or is stopped; onChange is called whenever it has grown. Never raises. */
export async function writeAnswer(api, messages, answer, settings, stopIds, signal, onChange) {
  const body = {
    ...settings, messages, stream: true, stream_options: { include_usage: true },
    logprobs: true, top_logprobs: N_ALTERNATIVES, answer_ids: answer.tokens.map(({ id }) => id),
  };
  const started = performance.now();
  try {
    for await (const event of api.chat(body, signal)) {
      answer.model ??= event.model;
      if (takeEvent(answer, event, stopIds)) noteTime(answer, started);
      onChange();
    }
  } catch (error) {
    noteError(answer, error, signal);
  }
  answer.finish ||= "error";
}

function noteTime(answer, started) {
  const seconds = (performance.now() - started) / 1000;
  answer.seconds ??= { toFirst: seconds, after: 0 };
  answer.seconds.after = seconds - answer.seconds.toFirst;
}

function noteError(answer, error, signal) {
  answer.finish = signal.aborted ? "stopped" : "error";
  if (signal.aborted) return;
  answer.error = error instanceof ApiError ? error.message : `The page failed: ${error.message}`;
  if (error.retrySeconds) answer.error += ` Try again in ${error.retrySeconds} s.`;
}
