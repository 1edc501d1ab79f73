/** What changed between two JSON values, as Python's `difference` tells it. */

/**
 * The value that a change makes of `old`; what did not change is the same object in both.
 * @param {any} old @param {any} change  [value], {key: change} or [start, count, [value]]
 */
export function patched(old, change) {
  if (Array.isArray(change)) return change.length === 1 ? change[0] : [...old.slice(0, change[0]), ...change[2], ...old.slice(change[0] + change[1])];
  const now = Array.isArray(old) ? [...old] : { ...old };
  for (const [key, inner] of Object.entries(change)) {
    if (inner.length === 0) delete now[key];
    else now[key] = patched(old[key], inner);
  }
  return now;
}
