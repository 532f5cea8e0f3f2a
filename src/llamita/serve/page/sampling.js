// What temperature, top-k, top-p and min-p make of the probabilities of tokens: the engine's own steps, for the eye.
//
// The server tells the likeliest tokens only. What the others weigh at another temperature is not known exactly: they are taken
// as so many tokens, each as likely as the least likely one that is known.

/** The probability of a log-probability. */
export function probabilityOf(logprob) {
  return Math.exp(logprob);
}

/**
 * For each of some tokens, likeliest first: {probability, cut}. cut names the setting that keeps it from being drawn, or is "".
 * rest: the probability with which any other token is drawn.
 */
export function drawnShares(logprobs, { temperature, top_k, top_p, min_p }) {
  const known = logprobs.map(probabilityOf);
  const rest = Math.max(0, 1 - sum(known));
  if (temperature === 0) {
    return { shares: known.map((_, i) => (i === 0 ? kept(1) : cutBy("temperature"))), rest: 0 };
  }
  const heated = known.map((p) => p ** (1 / temperature));
  const least = known.at(-1);
  let heatedRest = least > 0 ? (rest / least) * heated.at(-1) : 0;
  const total = sum(heated) + heatedRest;
  const cuts = cutsOf(heated, total, { top_k, top_p, min_p });
  if (cuts.at(-1)) heatedRest = 0; // what is less likely than one that is cut is cut as well
  const left = sum(heated.filter((_, i) => !cuts[i])) + heatedRest;
  return { shares: heated.map((weight, i) => (cuts[i] ? cutBy(cuts[i]) : kept(weight / left))), rest: heatedRest / left };
}

/** Which setting cuts each of some weights, largest first; "" where none does. */
function cutsOf(weights, total, { top_k, top_p, min_p }) {
  const isNucleus = top_p > 0 && top_p < 1;
  let sumBefore = 0;
  return weights.map((weight, i) => {
    const before = sumBefore;
    sumBefore += weight;
    if ((top_k > 0 && i >= top_k) || (top_p === 0 && i > 0)) return top_p === 0 ? "top_p" : "top_k";
    if (isNucleus && before > top_p * total) return "top_p";
    return weight < min_p * weights[0] ? "min_p" : "";
  });
}

function kept(probability) {
  return { probability, cut: "" };
}

function cutBy(setting) {
  return { probability: 0, cut: setting };
}

function sum(numbers) {
  return numbers.reduce((total, number) => total + number, 0);
}
