// An answer: plain data that grows while the server writes it, and is kept with its conversation. Knows no element, no request.
//
// {text, tokens, finish, replaced, usage, seconds, error}
//   tokens: [{id, text, bytes, logprob, others}]; bytes only where the token is a part of a character; others: the likeliest
//     tokens in its place as {id, text, bytes, logprob}
//   finish: "stop" (the model ended it), "length" (no more was allowed, or fits), "stopped" (the reader did), "error", or ""
//   replaced: the index of the token that the reader chose, or -1
//   seconds: {toFirst, after}; usage: what the server counted; both null before

export const N_ALTERNATIVES = 12;

/** An answer that begins with some tokens and their text. */
export function newAnswer(tokens = [], text = "", replaced = -1) {
  return { text, tokens, finish: "", replaced, usage: null, seconds: null, error: "" };
}

/** The answer up to a token, with another in its place; stopIds end a text. The old answer stays as it is. */
export function replaceToken(answer, index, other, stopIds) {
  const old = answer.tokens[index];
  const tokens = [...answer.tokens.slice(0, index), { ...other, others: alternativesOf(old) }];
  const replaced = newAnswer(tokens, textOf(tokens, answer, stopIds), index);
  if (stopIds.has(other.id)) replaced.finish = "stop";
  return replaced;
}

/** The answer once more, to be gone on with. */
export function reopen(answer, stopIds) {
  const tokens = answer.tokens.filter((token) => !stopIds.has(token.id));
  return newAnswer(tokens, answer.text, answer.replaced);
}

/** Takes one event of a stream; returns whether it told something of the text. */
export function takeEvent(answer, event, stopIds) {
  if (event.usage) answer.usage = event.usage;
  const choice = event.choices[0];
  if (!choice) return false;
  const tokens = (choice.logprobs?.content ?? []).map(tokenOf);
  const content = choice.delta.content ?? "";
  const isInCharacter = answer.text.endsWith("\ufffd"); // the server does not know how the character began
  answer.tokens.push(...tokens);
  answer.text = isInCharacter ? textOf(answer.tokens, answer, stopIds) : answer.text + content;
  if (choice.finish_reason) answer.finish = choice.finish_reason;
  return content !== "" || tokens.length > 0;
}

/** The likeliest tokens in a token's place, itself among them, likeliest first. */
export function alternativesOf(token) {
  const others = token.others.some((other) => other.id === token.id) ? token.others : [...token.others, bare(token)];
  return [...others].sort((a, b) => b.logprob - a.logprob);
}

/** Tokens in a second, as far as they were drawn now; 0 where there is nothing to count. */
export function tokensPerSecond(answer) {
  const n = (answer.usage?.completion_tokens ?? answer.tokens.length) - 1;
  return answer.seconds?.after > 0 && n > 0 ? n / answer.seconds.after : 0;
}

function bare({ id, text, bytes, logprob }) {
  return { id, text, bytes, logprob };
}

function tokenOf(entry) {
  return { ...alternativeOf(entry), others: entry.top_logprobs.map(alternativeOf) };
}

function alternativeOf({ id, token, bytes, logprob }) {
  const isPart = bytes && encoder.encode(token).length !== bytes.length; // then it is spelled with backslashes
  return { id, text: token, bytes: isPart ? bytes : null, logprob: Math.round(logprob * 1e4) / 1e4 };
}

const encoder = new TextEncoder();

/** The text of tokens; a first space is left out where the answer's own text has none, as at the beginning of a story. */
function textOf(tokens, answer, stopIds) {
  const decoder = new TextDecoder();
  let text = "";
  for (const token of tokens) {
    if (stopIds.has(token.id)) continue;
    const bytes = token.bytes ? Uint8Array.from(token.bytes) : encoder.encode(token.text);
    text += decoder.decode(bytes, { stream: true });
  }
  text += decoder.decode();
  const wasTrimmed = answer.tokens[0]?.text.startsWith(" ") && !answer.text.startsWith(" ");
  return wasTrimmed && text.startsWith(" ") ? text.slice(1) : text;
}
