// Elementary functions on four floats at a time. Scratch-free and table-free:
// the module may hold no static data.
import { madd } from "./simd";

/** a b + c with c a constant: a step of Horner's rule. */
// @ts-ignore: decorator

function step(a: v128, b: v128, c: f32): v128 {
  return madd(a, b, f32x4.splat(c));
}

/**
 * e^x. Relative error below 2e-7; overflow gives Infinity, results below the
 * smallest normal number give 0 (denormals would slow everything after them),
 * NaN gives NaN.
 *
 * x = n ln 2 + r with |r| <= ln 2 / 2, and e^r by the polynomial of S. L.
 * Moshier's Cephes library (single/expf.c); ln 2 is split in two so that r is
 * exact to the last bit.
 */
// @ts-ignore: decorator

export function exp(x: v128): v128 {
  const tooSmall = f32x4.lt(x, f32x4.splat(-87.3365447));
  x = f32x4.max(f32x4.min(x, f32x4.splat(89)), f32x4.splat(-88));
  const n = f32x4.nearest(f32x4.mul(x, f32x4.splat(1.44269504088896341)));
  let r = f32x4.sub(x, f32x4.mul(n, f32x4.splat(0.693359375)));
  r = f32x4.sub(r, f32x4.mul(n, f32x4.splat(-2.12194440e-4)));
  let p = f32x4.splat(1.9875691500e-4);
  p = step(p, r, 1.3981999507e-3);
  p = step(p, r, 8.3334519073e-3);
  p = step(p, r, 4.1665795894e-2);
  p = step(p, r, 1.6666665459e-1);
  p = step(p, r, 5.0000001201e-1);
  p = f32x4.add(madd(p, f32x4.mul(r, r), r), f32x4.splat(1));
  // 2^n in two factors, as 2^128 is not a float but e^88.7 is.
  const power = i32x4.trunc_sat_f32x4_s(n);
  const half = i32x4.shr_s(power, 1);
  const rest = i32x4.sub(power, half);
  const one = i32x4.splat(127);
  p = f32x4.mul(p, i32x4.shl(i32x4.add(half, one), 23));
  p = f32x4.mul(p, i32x4.shl(i32x4.add(rest, one), 23));
  return v128.andnot(p, tooSmall);
}

/**
 * tanh x. Relative error below 3e-7. Near zero the odd polynomial of Cephes
 * (single/tanhf.c), elsewhere 1 - 2 / (e^2|x| + 1) with the sign of x.
 */
// @ts-ignore: decorator

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

export function sigmoid(x: v128): v128 {
  const one = f32x4.splat(1);
  return f32x4.div(one, f32x4.add(one, exp(f32x4.neg(x))));
}

/**
 * The standard normal distribution function, given also e^(-x^2 / 2).
 *
 * Its tail is e^(-x^2 / 2) t P(t), t = 1 / (1 + 0.21 |x|), the form of
 * Abramowitz and Stegun 7.1.26; P is our own fit (Lawson's iteration on 400
 * Chebyshev nodes for |x| <= 14), relative error of the tail below 2e-8 before
 * rounding.
 */
// @ts-ignore: decorator

export function normalCdf(x: v128, bell: v128): v128 {
  const one = f32x4.splat(1);
  const t = f32x4.div(
    one,
    step(f32x4.abs(x), f32x4.splat(0.21), 1),
  );
  let p = f32x4.splat(-0.07165634149961979);
  p = step(p, t, 0.2835888222262864);
  p = step(p, t, -0.3302540816689545);
  p = step(p, t, 0.3494019708645547);
  p = step(p, t, -0.09392596946461147);
  p = step(p, t, 0.12487309014921315);
  p = step(p, t, 0.0691920681415314);
  p = step(p, t, 0.08506887349726669);
  p = step(p, t, 0.08371157466765604);
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
