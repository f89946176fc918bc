/** GLSL for one element and for four; tanh is its series, off by 1e-8 at most, where a difference would have no digits left. */
export const VECTORS = `
vec4 expOf(vec4 x) { return vec4(expOf(x.x), expOf(x.y), expOf(x.z), expOf(x.w)); }
vec4 tangentOf(vec4 x) {
  vec4 q = x * x;
  vec4 near = x * ((((0.021869489 * q - 0.053968254) * q + 0.13333334) * q - 0.33333334) * q + 1.0);
  return mix(1.0 - 2.0 / (expOf(2.0 * clamp(x, -20.0, 20.0)) + 1.0), near, lessThan(q, vec4(0.0625)));
}
float summed(float x) { return x; }
float summed(vec4 x) { return (x.x + x.y) + (x.z + x.w); }
float largestOf(float x) { return x; }
float largestOf(vec4 x) { return max(max(x.x, x.y), max(x.z, x.w)); }
`;
