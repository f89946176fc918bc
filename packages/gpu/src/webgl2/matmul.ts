/**
 * Four neighbours of a row of a product at once, where they share a texel and the operands lie in whole texels: 16 multiplications
 * for 5 texels read, instead of 1 for 2. `parameters` are those of the plain kernel, which does everything else.
 */
export function packedMatmul(rank: number, block: number): string {
  const axes = Array.from({ length: rank }, (_, axis) => axis);
  const whole = (...numbers: string[]): string => `((${numbers.map((x) => `user_${x}`).join(" | ")}) & 3) == 0`;
  const batches = (name: string): string[] => axes.map((axis) => `${name}Batch${axis}`);
  return `if (!(${whole("N", "K", "bOffset", ...batches("b"))})) { return plain(first); }
  bool rowsOfB = user_bColumn == 1 && ${whole("bRow")};
  bool columnsOfB = user_bRow == 1 && ${whole("bColumn")};
  bool rowsOfA = user_aColumn == 1 && ${whole("aRow", "aOffset", ...batches("a"))};
  if (!rowsOfB && !(columnsOfB && rowsOfA)) { return plain(first); }
  int j = first % user_N;
  int i = (first / user_N) % user_M;
  int rest = first / (user_N * user_M);
  int a = user_aOffset + i * user_aRow;
  int b = user_bOffset + j * user_bColumn;
  ${axes
    .toReversed()
    .map((axis) => {
      const [at, left] = axis === 0 ? ["rest", ""] : [`(rest % user_size${axis})`, `rest /= user_size${axis};`];
      return `a += ${at} * user_aBatch${axis}; b += ${at} * user_bBatch${axis}; ${left}`;
    })
    .join("\n  ")}
  vec4 total = vec4(0.0);
  for (int p = 0; p < user_K; p += ${block}) {
    vec4 part = vec4(0.0);
    for (int q = p; q < min(p + ${block}, user_K); q += 4) {
      vec4 x = rowsOfA
        ? fetch4(user_a, user_aDim.y, a + q)
        : vec4(
            element(user_a, user_aDim.y, a + q * user_aColumn),
            element(user_a, user_aDim.y, a + (q + 1) * user_aColumn),
            element(user_a, user_aDim.y, a + (q + 2) * user_aColumn),
            element(user_a, user_aDim.y, a + (q + 3) * user_aColumn));
      if (rowsOfB) {
        part += x.x * fetch4(user_b, user_bDim.y, b + q * user_bRow)
          + x.y * fetch4(user_b, user_bDim.y, b + (q + 1) * user_bRow)
          + x.z * fetch4(user_b, user_bDim.y, b + (q + 2) * user_bRow)
          + x.w * fetch4(user_b, user_bDim.y, b + (q + 3) * user_bRow);
      } else {
        part += vec4(
          dot(x, fetch4(user_b, user_bDim.y, b + q)),
          dot(x, fetch4(user_b, user_bDim.y, b + q + user_bColumn)),
          dot(x, fetch4(user_b, user_bDim.y, b + q + 2 * user_bColumn)),
          dot(x, fetch4(user_b, user_bDim.y, b + q + 3 * user_bColumn)));
      }
    }
    total += part;
  }
  return total;`;
}
