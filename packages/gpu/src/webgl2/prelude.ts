/** The prelude of ../webgpu/prelude.ts in GLSL, where bits are looked at for the same reasons; there is no fma here. */
export const PRELUDE = `
bool nanBits(float x) { return (floatBitsToUint(x) & 0x7fffffffu) > 0x7f800000u; }
float infinity() { return uintBitsToFloat(0x7f800000u); }
float notANumber() { return uintBitsToFloat(0x7fc00000u); }
float toBfloat16(float x) {
  uint bits = floatBitsToUint(x);
  if (nanBits(x)) { return x; }
  return uintBitsToFloat((bits + 0x7fffu + ((bits >> 16u) & 1u)) & 0xffff0000u);
}
float toFloat16(float x) {
  uint sign = floatBitsToUint(x) & 0x80000000u;
  uint bits = floatBitsToUint(x) & 0x7fffffffu;
  if (bits >= 0x7f800000u) { return x; }
  if (bits >= 0x477ff000u) { return uintBitsToFloat(sign | 0x7f800000u); }
  if (bits < 0x38800000u) {
    float scaled = uintBitsToFloat(bits) * 16777216.0;
    return uintBitsToFloat(sign | floatBitsToUint(roundEven(scaled) / 16777216.0));
  }
  return uintBitsToFloat(sign | ((bits + 0xfffu + ((bits >> 13u) & 1u)) & 0xffffe000u));
}
uint upper(uint a, uint b) {
  uint low = (a & 0xffffu) * (b & 0xffffu);
  uint middle = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
  uint other = (a & 0xffffu) * (b >> 16u) + (middle & 0xffffu);
  return (a >> 16u) * (b >> 16u) + (middle >> 16u) + (other >> 16u);
}
float expNear(float r, float n) {
  float p = ((((1.98756915e-4 * r + 1.3981999507e-3) * r + 8.3334519073e-3) * r + 4.1665795894e-2) * r + 1.6666665459e-1) * r + 5.0000001201e-1;
  int h = int(n) / 2;
  return (p * r * r + r + 1.0) * uintBitsToFloat(uint(h + 127) << 23u) * uintBitsToFloat(uint(int(n) - h + 127) << 23u);
}
float expOf(float x) {
  if (nanBits(x)) { return x; }
  float y = clamp(x, -104.0, 89.0);
  float n = roundEven(y * 1.4426950408889634);
  return expNear(n * 2.1219444e-4 + (n * -0.693359375 + y), n);
}
float logOf(float x) {
  uint bits = floatBitsToUint(x);
  if ((bits & 0x7fffffffu) < 0x00800000u) { return -infinity(); }
  if (bits > 0x7f800000u) { return notANumber(); }
  if (bits == 0x7f800000u) { return x; }
  float m = uintBitsToFloat((bits & 0x007fffffu) | 0x3f800000u);
  bool over = m > 1.4142135;
  float f = over ? m * 0.5 : m;
  float s = (f - 1.0) / (f + 1.0);
  float q = s * s;
  float series = ((((0.09090909 * q + 0.11111111) * q + 0.14285715) * q + 0.2) * q + 0.33333334) * q + 1.0;
  float e = float(int(bits >> 23u) - (over ? 126 : 127));
  return e * 0.693359375 + (e * -2.1219444e-4 + 2.0 * s * series);
}
const uint TWO_OVER_PI[7] = uint[7](0u, 0x28be60dbu, 0x9391054au, 0x7f09d5f4u, 0x7d4d3770u, 0x36d8a566u, 0x4f10e410u);
float trigonometric(float x, uint turn) {
  uint bits = floatBitsToUint(x) & 0x7fffffffu;
  if (bits >= 0x7f800000u) { return notANumber(); }
  float r = abs(x);
  uint quadrant = 0u;
  if (bits >= 0x3f000000u) {
    uint e = (bits >> 23u) - 126u;
    uint m = ((bits & 0x007fffffu) | 0x00800000u) << 8u;
    uint i = e >> 5u;
    uint j = e & 31u;
    uint high = TWO_OVER_PI[i];
    uint middle = TWO_OVER_PI[i + 1u];
    uint low = TWO_OVER_PI[i + 2u];
    if (j > 0u) {
      high = (high << j) | (middle >> (32u - j));
      middle = (middle << j) | (low >> (32u - j));
      low = (low << j) | (TWO_OVER_PI[i + 3u] >> (32u - j));
    }
    uint first = upper(m, low);
    uint p = m * middle + first;
    uint h = upper(m, middle) + m * high + (p < first ? 1u : 0u);
    quadrant = h >> 30u;
    h = h & 0x3fffffffu;
    float factor = 3.4061215800865545e-19;
    if ((h & 0x20000000u) != 0u) {
      quadrant = quadrant + 1u;
      p = ~p + 1u;
      h = 0x40000000u - h - (p == 0u ? 0u : 1u);
      factor = -factor;
    }
    r = (float(h) * 4294967296.0 + float(p)) * factor;
  }
  float s = r * r;
  float sine = s * r * ((-1.9515295891e-4 * s + 8.3321608736e-3) * s - 1.6666654611e-1) + r;
  float cosine = s * s * ((2.443315711809948e-5 * s - 1.388731625493765e-3) * s + 4.166664568298827e-2) + (1.0 - 0.5 * s);
  uint q = quadrant + turn;
  float y = (q & 1u) == 1u ? cosine : sine;
  bool negative = ((q & 2u) != 0u) != (turn == 0u && floatBitsToUint(x) > 0x7fffffffu);
  return negative ? -y : y;
}
float first12Bits(float x) { return uintBitsToFloat(floatBitsToUint(x) & 0xfffff000u); }
float positivePower(float x, float y) {
  uint bits = floatBitsToUint(x);
  float fraction = uintBitsToFloat((bits & 0x007fffffu) | 0x3f800000u);
  bool over = fraction > 1.4142135;
  float m = over ? fraction * 0.5 : fraction;
  float e = float(int(bits >> 23u) - (over ? 126 : 127));
  float sum = m + 1.0;
  float sumHigh = first12Bits(sum);
  float s = first12Bits((m - 1.0) / sum);
  float sLow = (((m - 1.0) - s * sumHigh) - s * (m - (sumHigh - 1.0))) / sum;
  float t = s + sLow;
  float q = t * t;
  float series = t * q * (((0.22222222 * q + 0.2857143) * q + 0.4) * q + 0.6666667);
  float large = e * 0.693359375;
  float logX = large + 2.0 * s;
  float logXLow = ((large - logX) + 2.0 * s) + (e * -2.1219444e-4 + (2.0 * sLow + series));
  float rough = y * (logX + logXLow);
  if (rough > 89.0) { return infinity(); }
  if (rough < -104.0) { return 0.0; }
  float yHigh = first12Bits(y);
  float logXHigh = first12Bits(logX);
  float product = yHigh * logXHigh;
  float productLow = y * ((logX - logXHigh) + logXLow) + (y - yHigh) * logXHigh;
  float n = roundEven((product + productLow) * 1.4426950408889634);
  return expNear(((product - n * 0.693359375) + n * 2.1219444e-4) + productLow, n);
}
float powerOf(float x, float y) {
  if (y == 0.0) { return 1.0; }
  if (nanBits(x) || nanBits(y)) { return notANumber(); }
  float size = abs(x);
  bool endless = (floatBitsToUint(y) & 0x7fffffffu) == 0x7f800000u;
  if (endless && size == 1.0) { return notANumber(); }
  if (endless) { return (size > 1.0) == (y > 0.0) ? infinity() : 0.0; }
  bool whole = floor(y) == y;
  bool odd = whole && abs(y) < 16777216.0 && (int(y) & 1) != 0;
  float sign = odd && floatBitsToUint(x) > 0x7fffffffu ? -1.0 : 1.0;
  if (size == 0.0 || floatBitsToUint(size) == 0x7f800000u) { return sign * ((size == 0.0) == (y < 0.0) ? infinity() : 0.0); }
  if (x < 0.0 && !whole) { return notANumber(); }
  if (whole && abs(y) <= 16.0) {
    uint n = uint(abs(y));
    float square = size;
    float product = 1.0;
    while (n > 0u) {
      if ((n & 1u) == 1u) { product = product * square; }
      square = square * square;
      n = n >> 1u;
    }
    if (y > 0.0) { return sign * product; }
    if (floatBitsToUint(product) - 1u < 0x7f7fffffu) { return sign / product; }
  }
  return sign * positivePower(size, y);
}
`;

/** Bodies of kernel functions (see ../functions.ts) in GLSL: whole numbers are int32 here. */
const BODIES: Readonly<Record<string, string>> = {
  idiv: "return user_x / user_n;",
  imod: "return user_x % user_n;",
  integer: "return int(user_x);",
  isNan: "return nanBits(user_x) ? 1.0 : 0.0;",
  differs: "return user_x != user_y || nanBits(user_x) || nanBits(user_y) ? 1.0 : 0.0;",
  truncated: "return abs(user_x) < 2147483648.0 ? trunc(user_x) : 0.0;",
  rounded: "return abs(user_x) < 8388608.0 ? roundEven(user_x) : user_x;",
  exponential: "return expOf(user_x);",
  logarithm: "return logOf(user_x);",
  sine: "return trigonometric(user_x, 0u);",
  cosine: "return trigonometric(user_x, 1u);",
  power: "return powerOf(user_x, user_y);",
};

/** GLSL with these bodies in the place of those that gpu.js wrote. */
export function withGlslBodies(code: string): string {
  return Object.entries(BODIES).reduce((out, [name, body]) => replaceBody(out, name, body), code);
}

/** GLSL with other statements in a function. */
export function replaceBody(code: string, name: string, body: string): string {
  const declaration = new RegExp(`(\\w+ ${name}\\([^)]*\\) \\{\\n)[\\s\\S]*?\\n\\}`);
  return code.replace(declaration, (_, head: string) => `${head}  ${body}\n}`);
}
