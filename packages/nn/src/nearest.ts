/** The known names most like `name`, best first: for "did you mean". A shared last component counts most, then edit distance. */
export function nearest(name: string, known: readonly string[], count = 3): string[] {
  const last = (path: string): string => path.slice(path.lastIndexOf(".") + 1);
  const distance = (candidate: string): number =>
    Math.min(
      editDistance(name, candidate),
      editDistance(last(name), last(candidate)) + (last(name) === last(candidate) ? 0 : 0.5),
    );
  return known
    .filter((candidate) => candidate !== "")
    .map((candidate) => ({ candidate, score: distance(candidate) }))
    .filter(({ score }) => score <= Math.max(2, name.length / 2))
    .toSorted((a, b) => a.score - b.score)
    .slice(0, count)
    .map(({ candidate }) => candidate);
}

/** Levenshtein 1966: insertions, deletions and substitutions that turn a into b. */
export function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next.push(Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + Number(a[i - 1] !== b[j - 1])));
    }
    row = next;
  }
  return row[b.length]!;
}
