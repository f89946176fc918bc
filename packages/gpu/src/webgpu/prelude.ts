/**
 * What every module may call. Much is done by bits: WGSL may assume that nothing is NaN or infinite, flushes what is small in its
 * conversions from 16-bit floats, and gives sin and cos two digits less than float32 has.
 */
export const PRELUDE = `
fn nanBits(x : f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }
fn fromBfloat16(h : u32) -> f32 { return bitcast<f32>(h << 16u); }
fn fromFloat16(h : u32) -> f32 {
  let sign = (h & 0x8000u) << 16u;
  let exponent = (h >> 10u) & 0x1fu;
  let fraction = h & 0x3ffu;
  if (exponent == 0u) { return select(1.0, -1.0, sign != 0u) * f32(fraction) * 5.960464477539063e-8; }
  return bitcast<f32>(sign | (select(exponent + 112u, 255u, exponent == 31u) << 23u) | (fraction << 13u));
}
fn toBfloat16(x : f32) -> u32 {
  let bits = bitcast<u32>(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) { return (bits >> 16u) | 0x40u; }
  return (bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u;
}
fn toFloat16(x : f32) -> u32 {
  let bits = bitcast<u32>(x);
  let sign = (bits >> 16u) & 0x8000u;
  let magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) { return sign | 0x7e00u; }
  if (magnitude >= 0x477ff000u) { return sign | 0x7c00u; }
  if (magnitude < 0x38800000u) {
    let scaled = bitcast<f32>(magnitude) * 16777216.0;
    let whole = floor(scaled);
    let rest = scaled - whole;
    let n = u32(whole);
    return sign | (n + select(0u, 1u, rest > 0.5 || (rest == 0.5 && (n & 1u) == 1u)));
  }
  return sign | ((magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13u) & 1u)) >> 13u);
}
/** Not known when the module is compiled: constants that are no numbers are refused there. */
fn notConstant() -> u32 { return select(0u, 1u, params.outputX == 0u); }
fn infinity() -> f32 { return bitcast<f32>(0x7f800000u | notConstant()); }
fn notANumber() -> f32 { return bitcast<f32>(0x7fc00000u | notConstant()); }
/** The upper half of a product; the lower is a * b. */
fn upper(a : u32, b : u32) -> u32 {
  let low = (a & 0xffffu) * (b & 0xffffu);
  let middle = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
  let other = (a & 0xffffu) * (b >> 16u) + (middle & 0xffffu);
  return (a >> 16u) * (b >> 16u) + (middle >> 16u) + (other >> 16u);
}
/** eˣ by Cephes' polynomial: at most 2 ulps off, where WGSL allows 3 + 2|x|. */
fn expOf(x : f32) -> f32 {
  if (nanBits(x)) { return x; }
  let n = round(clamp(x, -104.0, 89.0) * 1.4426950408889634);
  return expNear(fma(n, 2.1219444e-4, fma(n, -0.693359375, clamp(x, -104.0, 89.0))), n);
}
/** eʳ·2ⁿ for a small r. */
fn expNear(r : f32, n : f32) -> f32 {
  let p = fma(r, fma(r, fma(r, fma(r, fma(r, 1.98756915e-4, 1.3981999507e-3), 8.3334519073e-3), 4.1665795894e-2), 1.6666665459e-1), 5.0000001201e-1);
  let half = i32(n) / 2;
  return (fma(p, r * r, r) + 1.0) * bitcast<f32>((half + 127) << 23u) * bitcast<f32>((i32(n) - half + 127) << 23u);
}
/** log x = e·log 2 + 2·atanh((f − 1) / (f + 1)) for x = f·2ᵉ, f in [√½, √2]. */
fn logOf(x : f32) -> f32 {
  let bits = bitcast<u32>(x);
  if ((bits & 0x7fffffffu) == 0u) { return -infinity(); }
  if (bits > 0x7f800000u) { return notANumber(); }
  if (bits == 0x7f800000u) { return x; }
  let m = bitcast<f32>((bits & 0x007fffffu) | 0x3f800000u);
  let over = m > 1.4142135;
  let f = select(m, m * 0.5, over);
  let s = (f - 1.0) / (f + 1.0);
  let q = s * s;
  let series = fma(q, fma(q, fma(q, fma(q, fma(q, 0.09090909, 0.11111111), 0.14285715), 0.2), 0.33333334), 1.0);
  return fma(f32(i32(bits >> 23u) - select(127, 126, over)), 0.6931471805599453, 2.0 * s * series);
}
/** sin(x), or cos(x) for a turn of 1. Payne & Hanek's reduction with 190 bits of 2/π, Cephes' polynomials. */
fn trigonometric(x : f32, turn : u32) -> f32 {
  let bits = bitcast<u32>(x) & 0x7fffffffu;
  if (bits >= 0x7f800000u) { return notANumber(); }
  var r = abs(x);
  var quadrant = 0u;
  if (bits >= 0x3f000000u) {
    var table = array<u32, 7>(0u, 0x28be60dbu, 0x9391054au, 0x7f09d5f4u, 0x7d4d3770u, 0x36d8a566u, 0x4f10e410u);
    let e = (bits >> 23u) - 126u;
    let m = ((bits & 0x007fffffu) | 0x00800000u) << 8u;
    let i = e >> 5u;
    let j = e & 31u;
    var high = table[i];
    var middle = table[i + 1u];
    var low = table[i + 2u];
    if (j > 0u) {
      high = (high << j) | (middle >> (32u - j));
      middle = (middle << j) | (low >> (32u - j));
      low = (low << j) | (table[i + 3u] >> (32u - j));
    }
    let first = upper(m, low);
    var p = m * middle + first;
    var h = upper(m, middle) + m * high + select(0u, 1u, p < first);
    quadrant = h >> 30u;
    h = h & 0x3fffffffu;
    var factor = 3.4061215800865545e-19;
    if ((h & 0x20000000u) != 0u) {
      quadrant = quadrant + 1u;
      p = ~p + 1u;
      h = 0x40000000u - h - select(1u, 0u, p == 0u);
      factor = -factor;
    }
    r = (f32(h) * 4294967296.0 + f32(p)) * factor;
  }
  let s = r * r;
  let sine = fma(s * r, fma(s, fma(s, -1.9515295891e-4, 8.3321608736e-3), -1.6666654611e-1), r);
  let cosine = fma(s * s, fma(s, fma(s, 2.443315711809948e-5, -1.388731625493765e-3), 4.166664568298827e-2), 1.0 - 0.5 * s);
  let q = quadrant + turn;
  let y = select(sine, cosine, (q & 1u) == 1u);
  let negative = ((q & 2u) != 0u) != (turn == 0u && bitcast<u32>(x) > 0x7fffffffu);
  return select(y, -y, negative);
}
/** What is left of it is exact in a product of two. */
fn first12Bits(x : f32) -> f32 { return bitcast<f32>(bitcast<u32>(x) & 0xfffff000u); }
/**
 * xʸ for finite x > 0: e to y·log x, of which products and sums keep what rounding would drop, as in log x = e·log 2 + 2·atanh(s) for
 * x = m·2ᵉ and s = (m − 1) / (m + 1). Off by 4e-7 of itself.
 */
fn positivePower(x : f32, y : f32) -> f32 {
  let bits = bitcast<u32>(x);
  let fraction = bitcast<f32>((bits & 0x007fffffu) | 0x3f800000u);
  let over = fraction > 1.4142135;
  let m = select(fraction, fraction * 0.5, over);
  let e = f32(i32(bits >> 23u) - select(127, 126, over));
  let sum = m + 1.0;
  let sumHigh = first12Bits(sum);
  let s = first12Bits((m - 1.0) / sum);
  let sLow = (((m - 1.0) - s * sumHigh) - s * (m - (sumHigh - 1.0))) / sum;
  let t = s + sLow;
  let q = t * t;
  let series = t * q * (((0.22222222 * q + 0.2857143) * q + 0.4) * q + 0.6666667);
  let large = e * 0.693359375;
  let logX = large + 2.0 * s;
  let logXLow = ((large - logX) + 2.0 * s) + (e * -2.1219444e-4 + (2.0 * sLow + series));
  let rough = y * (logX + logXLow);
  if (rough > 89.0) { return infinity(); }
  if (rough < -104.0) { return 0.0; }
  let yHigh = first12Bits(y);
  let logXHigh = first12Bits(logX);
  let product = yHigh * logXHigh;
  let productLow = y * ((logX - logXHigh) + logXLow) + (y - yHigh) * logXHigh;
  let n = round((product + productLow) * 1.4426950408889634);
  return expNear(((product - n * 0.693359375) + n * 2.1219444e-4) + productLow, n);
}
/** xʸ as JavaScript has it; whole y up to 16 by multiplication. */
fn powerOf(x : f32, y : f32) -> f32 {
  if (y == 0.0) { return 1.0; }
  if (nanBits(x) || nanBits(y)) { return notANumber(); }
  let size = abs(x);
  let endless = (bitcast<u32>(y) & 0x7fffffffu) == 0x7f800000u;
  if (endless && size == 1.0) { return notANumber(); }
  if (endless) { return select(0.0, infinity(), (size > 1.0) == (y > 0.0)); }
  let whole = floor(y) == y;
  let odd = whole && abs(y) < 16777216.0 && (i32(y) & 1) != 0;
  let sign = select(1.0, -1.0, odd && bitcast<u32>(x) > 0x7fffffffu);
  if (size == 0.0 || (bitcast<u32>(size) == 0x7f800000u)) { return sign * select(0.0, infinity(), (size == 0.0) == (y < 0.0)); }
  if (x < 0.0 && !whole) { return notANumber(); }
  if (whole && abs(y) <= 16.0) {
    var n = u32(abs(y));
    var square = size;
    var product = 1.0;
    while (n > 0u) {
      if ((n & 1u) == 1u) { product = product * square; }
      square = square * square;
      n = n >> 1u;
    }
    if (y > 0.0) { return sign * product; }
    if (bitcast<u32>(product) - 1u < 0x7f7fffffu) { return sign / product; }
  }
  return sign * positivePower(size, y);
}
`;
