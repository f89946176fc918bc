/** GLSL that is the same for one element and for four. */
export const VECTORS = `
vec4 expOf(vec4 x) { return vec4(expOf(x.x), expOf(x.y), expOf(x.z), expOf(x.w)); }
float summed(float x) { return x; }
float summed(vec4 x) { return (x.x + x.y) + (x.z + x.w); }
float largestOf(float x) { return x; }
float largestOf(vec4 x) { return max(max(x.x, x.y), max(x.z, x.w)); }
`;
