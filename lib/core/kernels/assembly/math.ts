// deno-fmt-ignore-file: the formatter drops the decorators of functions
// Elementary functions on four floats at a time. Scratch-free and table-free:
// the module may hold no static data.
import { madd } from "./simd";

/** a b + c with c a constant: a step of Horner's rule. */
// @ts-ignore: decorator
@inline
function step(a: v128, b: v128, c: f32): v128 {
  return madd(a, b, f32x4.splat(c));
}

/**
 * e^x. Relative error below 3e-7; overflow gives Infinity, results below 2e-38
 * give 0 (denormals would slow everything after them), NaN gives NaN.
 *
 * x = n ln 2 + r with |r| <= ln 2 / 2, n rounded by adding 1.5 * 2^23, after
 * which its bits are the low bits of the sum. ln 2 is split in two so that r is
 * exact to the last bit (W. J. Cody and W. Waite). e^r = 1 + r P(r), P our own
 * minimax fit of degree 4 (error 1e-7), evaluated in pairs (G. Estrin) as a
 * chain of multiplications would wait on itself.
 */
// @ts-ignore: decorator
@inline
export function exp(x: v128): v128 {
  // pmin and pmax are one instruction each, and return their first operand if it is NaN.
  x = f32x4.pmax(f32x4.pmin(x, f32x4.splat(89)), f32x4.splat(-87.4));
  const rounder = f32x4.splat(12582912);
  const shifted = madd(x, f32x4.splat(1.44269504088896341), rounder);
  const n = f32x4.sub(shifted, rounder);
  let r = madd(n, f32x4.splat(-0.693359375), x);
  r = madd(n, f32x4.splat(2.12194440e-4), r);
  const r2 = f32x4.mul(r, r);
  const low = step(r, f32x4.splat(0.49999147818953377), 0.9999997062897036);
  const high = step(r, f32x4.splat(0.041898161733520956), 0.16667638197788012);
  const p = madd(madd(r2, f32x4.splat(0.008290267703312726), high), r2, low);
  // 2 e^r times 2^(n - 1), as 2^128 is not a float but e^88.7 is; 2^-127 becomes 0.
  const one = f32x4.splat(1);
  const y = madd(p, r, one);
  const power = i32x4.add(i32x4.shl(shifted, 23), i32x4.splat(0x3f000000));
  return f32x4.mul(f32x4.add(y, y), power);
}

/**
 * tanh x. Relative error below 3e-7. Near zero the odd polynomial of Cephes
 * (single/tanhf.c), elsewhere 1 - 2 / (e^2|x| + 1) with the sign of x.
 */
// @ts-ignore: decorator
@inline
export function tanh(x: v128): v128 {
  const size = f32x4.abs(x);
  const e = exp(f32x4.add(size, size));
  const one = f32x4.splat(1);
  let far = f32x4.sub(
    one,
    f32x4.div(f32x4.splat(2), f32x4.add(e, one)),
  );
  far = v128.or(far, v128.and(x, f32x4.splat(-0.0)));
  const z = f32x4.mul(x, x);
  let p = f32x4.splat(-5.70498872745e-3);
  p = step(p, z, 2.06390887954e-2);
  p = step(p, z, -5.37397155531e-2);
  p = step(p, z, 1.33314422036e-1);
  p = step(p, z, -3.33332819422e-1);
  const near = madd(f32x4.mul(p, z), x, x);
  return v128.bitselect(near, far, f32x4.lt(size, f32x4.splat(0.625)));
}

/** 1 / (1 + e^-x). */
// @ts-ignore: decorator
@inline
export function sigmoid(x: v128): v128 {
  const one = f32x4.splat(1);
  return f32x4.div(one, f32x4.add(one, exp(f32x4.neg(x))));
}

/**
 * The standard normal distribution function, given also e^(-x^2 / 2).
 *
 * Its tail is e^(-x^2 / 2) t P(t), t = 1 / (1 + 0.305 |x|), the form of
 * Abramowitz and Stegun 7.1.26; P is our own minimax fit for |x| <= 14, relative
 * error of the tail 1e-7 before rounding.
 */
// @ts-ignore: decorator
@inline
export function normalCdf(x: v128, bell: v128): v128 {
  const one = f32x4.splat(1);
  const t = f32x4.div(one, step(f32x4.abs(x), f32x4.splat(0.305), 1));
  const t2 = f32x4.mul(t, t);
  const t4 = f32x4.mul(t2, t2);
  const p01 = step(t, f32x4.splat(0.12246726500271271), 0.12163970229416063);
  const p23 = step(t, f32x4.splat(0.12103014495589141), 0.10341818580420824);
  const p45 = step(t, f32x4.splat(0.1857328606519326), -0.037992148866183933);
  const p67 = step(t, f32x4.splat(0.036701247069320826), -0.1529972098820551);
  const p = madd(madd(p67, t2, p45), t4, madd(p23, t2, p01));
  const tail = f32x4.mul(f32x4.mul(p, t), bell);
  const negative = f32x4.lt(x, f32x4.splat(0));
  return v128.bitselect(tail, f32x4.sub(one, tail), negative);
}

/** Natural logarithm of a positive normal number: ln m + e ln 2, ln m by atanh's series. */
export function log(x: f64): f64 {
  const bits = reinterpret<i64>(x);
  let exponent = ((bits >> 52) & 0x7ff) - 1023;
  let m = reinterpret<f64>((bits & 0xfffffffffffff) | 0x3ff0000000000000);
  if (m > 1.4142135623730951) {
    m *= 0.5;
    exponent += 1;
  }
  const s = (m - 1) / (m + 1);
  const z = s * s;
  let p: f64 = 1.0 / 15;
  p = p * z + 1.0 / 13;
  p = p * z + 1.0 / 11;
  p = p * z + 1.0 / 9;
  p = p * z + 1.0 / 7;
  p = p * z + 1.0 / 5;
  p = p * z + 1.0 / 3;
  p = p * z + 1;
  return 2 * s * p + <f64> exponent * 0.6931471805599453;
}
