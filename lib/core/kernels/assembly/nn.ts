// deno-fmt-ignore-file: the formatter drops the decorators of functions
// Kernels of lib/core/nn.ts; see index.ts for the rules of memory.
//
// Arrays are dense and row-major. A function that ends in Backward computes the
// gradient of its last-named argument. A tail of fewer than four numbers goes
// through the same vector code, one number splat at a time.
import { exp, log, normalCdf, sigmoid, tanh } from "./math";
import { madd, sumLanes } from "./simd";

/** Scores at or below this are hidden: they get probability 0. */
const HIDDEN_SCORE: f32 = -1e30;

// @ts-ignore: decorator
@inline
function at(base: usize, index: i32): usize {
  return base + (<usize> index << 2);
}

// @ts-ignore: decorator
@inline
function first(x: v128): f32 {
  return f32x4.extract_lane(x, 0);
}

// @ts-ignore: decorator
@inline
function maxLanes(x: v128): f32 {
  const pair = f32x4.max(x, v128.shuffle<f32>(x, x, 2, 3, 0, 1));
  return max(f32x4.extract_lane(pair, 0), f32x4.extract_lane(pair, 1));
}

/** e^x; for the tests of the vector function. */
export function vectorExp(x: usize, y: usize, n: i32): void {
  for (let i = 0; i < n; i++) {
    store<f32>(at(y, i), first(exp(v128.load32_splat(at(x, i)))));
  }
}

/** tanh x; for the tests of the vector function. */
export function vectorTanh(x: usize, y: usize, n: i32): void {
  for (let i = 0; i < n; i++) {
    store<f32>(at(y, i), first(tanh(v128.load32_splat(at(x, i)))));
  }
}

// Sums and copies.

/** y += x */
export function accumulate(x: usize, y: usize, n: i32): void {
  let i = 0;
  for (; i + 4 <= n; i += 4) {
    v128.store(
      at(y, i),
      f32x4.add(v128.load(at(y, i)), v128.load(at(x, i))),
    );
  }
  for (; i < n; i++) {
    store<f32>(at(y, i), load<f32>(at(y, i)) + load<f32>(at(x, i)));
  }
}

/** z = x + y */
export function addForward(x: usize, y: usize, z: usize, n: i32): void {
  let i = 0;
  for (; i + 4 <= n; i += 4) {
    v128.store(
      at(z, i),
      f32x4.add(v128.load(at(x, i)), v128.load(at(y, i))),
    );
  }
  for (; i < n; i++) {
    store<f32>(at(z, i), load<f32>(at(x, i)) + load<f32>(at(y, i)));
  }
}

/** Each of `rows` rows of y = x. */
export function repeatRow(x: usize, y: usize, rows: i32, columns: i32): void {
  for (let r = 0; r < rows; r++) {
    memory.copy(at(y, r * columns), x, <usize> columns << 2);
  }
}

/** y = sum of the rows of x [rows, columns]. */
export function sumRows(x: usize, y: usize, rows: i32, columns: i32): void {
  memory.fill(y, 0, <usize> columns << 2);
  for (let r = 0; r < rows; r++) accumulate(at(x, r * columns), y, columns);
}

// Normalisation.

/** y = x inv w, inv = (mean(x^2) + eps)^(-1/2) of each row. */
export function rmsNormForward(
  x: usize,
  w: usize,
  y: usize,
  inv: usize,
  rows: i32,
  columns: i32,
  eps: f32,
): void {
  for (let r = 0; r < rows; r++) {
    let sums = f32x4.splat(0);
    let i = 0;
    for (; i + 4 <= columns; i += 4) {
      const v = v128.load(at(x, i));
      sums = madd(v, v, sums);
    }
    let sum = sumLanes(sums);
    for (; i < columns; i++) {
      const v = load<f32>(at(x, i));
      sum += v * v;
    }
    const scale: f32 = 1 / Mathf.sqrt(sum / <f32> columns + eps);
    store<f32>(at(inv, r), scale);
    const scales = f32x4.splat(scale);
    i = 0;
    for (; i + 4 <= columns; i += 4) {
      v128.store(
        at(y, i),
        f32x4.mul(
          f32x4.mul(v128.load(at(x, i)), scales),
          v128.load(at(w, i)),
        ),
      );
    }
    for (; i < columns; i++) {
      store<f32>(at(y, i), load<f32>(at(x, i)) * scale * load<f32>(at(w, i)));
    }
    x = at(x, columns);
    y = at(y, columns);
  }
}

/** dx = inv (g - x inv^2 mean(g x)), g = w dy. */
export function rmsNormBackwardX(
  x: usize,
  w: usize,
  inv: usize,
  dy: usize,
  dx: usize,
  rows: i32,
  columns: i32,
): void {
  for (let r = 0; r < rows; r++) {
    let sums = f32x4.splat(0);
    let i = 0;
    for (; i + 4 <= columns; i += 4) {
      const g = f32x4.mul(v128.load(at(dy, i)), v128.load(at(w, i)));
      sums = madd(g, v128.load(at(x, i)), sums);
    }
    let sum = sumLanes(sums);
    for (; i < columns; i++) {
      sum += load<f32>(at(dy, i)) * load<f32>(at(w, i)) * load<f32>(at(x, i));
    }
    const scale = load<f32>(at(inv, r));
    const pull: f32 = -scale * scale * scale * sum / <f32> columns;
    const scales = f32x4.splat(scale);
    const pulls = f32x4.splat(pull);
    i = 0;
    for (; i + 4 <= columns; i += 4) {
      const g = f32x4.mul(v128.load(at(dy, i)), v128.load(at(w, i)));
      v128.store(
        at(dx, i),
        madd(pulls, v128.load(at(x, i)), f32x4.mul(g, scales)),
      );
    }
    for (; i < columns; i++) {
      const g = load<f32>(at(dy, i)) * load<f32>(at(w, i));
      store<f32>(at(dx, i), g * scale + pull * load<f32>(at(x, i)));
    }
    x = at(x, columns);
    dy = at(dy, columns);
    dx = at(dx, columns);
  }
}

/** dw = sum over rows of dy (x - mean) inv; mean 0 (a null pointer) for rmsNorm. */
export function normBackwardWeight(
  x: usize,
  mean: usize,
  inv: usize,
  dy: usize,
  dw: usize,
  rows: i32,
  columns: i32,
): void {
  memory.fill(dw, 0, <usize> columns << 2);
  for (let r = 0; r < rows; r++) {
    const scale = load<f32>(at(inv, r));
    const shift: f32 = mean == 0 ? 0 : load<f32>(at(mean, r));
    const scales = f32x4.splat(scale);
    const shifts = f32x4.splat(shift);
    let i = 0;
    for (; i + 4 <= columns; i += 4) {
      const normal = f32x4.mul(
        f32x4.sub(v128.load(at(x, i)), shifts),
        scales,
      );
      v128.store(
        at(dw, i),
        madd(normal, v128.load(at(dy, i)), v128.load(at(dw, i))),
      );
    }
    for (; i < columns; i++) {
      store<f32>(
        at(dw, i),
        load<f32>(at(dw, i)) +
          (load<f32>(at(x, i)) - shift) * scale * load<f32>(at(dy, i)),
      );
    }
    x = at(x, columns);
    dy = at(dy, columns);
  }
}

/** y = (x - mean) inv gamma + beta, inv = (variance + eps)^(-1/2) of each row. */
export function layerNormForward(
  x: usize,
  gamma: usize,
  beta: usize,
  y: usize,
  mean: usize,
  inv: usize,
  rows: i32,
  columns: i32,
  eps: f32,
): void {
  for (let r = 0; r < rows; r++) {
    let sums = f32x4.splat(0);
    let i = 0;
    for (; i + 4 <= columns; i += 4) {
      sums = f32x4.add(sums, v128.load(at(x, i)));
    }
    let sum = sumLanes(sums);
    for (; i < columns; i++) sum += load<f32>(at(x, i));
    const shift: f32 = sum / <f32> columns;
    const shifts = f32x4.splat(shift);
    // A second pass over the row, as mean(x^2) - mean(x)^2 cancels.
    sums = f32x4.splat(0);
    i = 0;
    for (; i + 4 <= columns; i += 4) {
      const v = f32x4.sub(v128.load(at(x, i)), shifts);
      sums = madd(v, v, sums);
    }
    sum = sumLanes(sums);
    for (; i < columns; i++) {
      const v = load<f32>(at(x, i)) - shift;
      sum += v * v;
    }
    const scale: f32 = 1 / Mathf.sqrt(sum / <f32> columns + eps);
    store<f32>(at(mean, r), shift);
    store<f32>(at(inv, r), scale);
    const scales = f32x4.splat(scale);
    i = 0;
    for (; i + 4 <= columns; i += 4) {
      const normal = f32x4.mul(
        f32x4.sub(v128.load(at(x, i)), shifts),
        scales,
      );
      v128.store(
        at(y, i),
        madd(normal, v128.load(at(gamma, i)), v128.load(at(beta, i))),
      );
    }
    for (; i < columns; i++) {
      store<f32>(
        at(y, i),
        (load<f32>(at(x, i)) - shift) * scale * load<f32>(at(gamma, i)) +
          load<f32>(at(beta, i)),
      );
    }
    x = at(x, columns);
    y = at(y, columns);
  }
}

/** dx = inv (g - mean(g) - n mean(g n)), g = gamma dy, n = (x - mean) inv. */
export function layerNormBackwardX(
  x: usize,
  gamma: usize,
  mean: usize,
  inv: usize,
  dy: usize,
  dx: usize,
  rows: i32,
  columns: i32,
): void {
  for (let r = 0; r < rows; r++) {
    const shift = load<f32>(at(mean, r));
    const scale = load<f32>(at(inv, r));
    const shifts = f32x4.splat(shift);
    const scales = f32x4.splat(scale);
    let sums = f32x4.splat(0);
    let products = f32x4.splat(0);
    let i = 0;
    for (; i + 4 <= columns; i += 4) {
      const g = f32x4.mul(v128.load(at(dy, i)), v128.load(at(gamma, i)));
      const normal = f32x4.mul(
        f32x4.sub(v128.load(at(x, i)), shifts),
        scales,
      );
      sums = f32x4.add(sums, g);
      products = madd(g, normal, products);
    }
    let sum = sumLanes(sums);
    let product = sumLanes(products);
    for (; i < columns; i++) {
      const g = load<f32>(at(dy, i)) * load<f32>(at(gamma, i));
      sum += g;
      product += g * (load<f32>(at(x, i)) - shift) * scale;
    }
    sum /= <f32> columns;
    product /= <f32> columns;
    const meanG = f32x4.splat(sum);
    const meanGn = f32x4.splat(product);
    i = 0;
    for (; i + 4 <= columns; i += 4) {
      const g = f32x4.mul(v128.load(at(dy, i)), v128.load(at(gamma, i)));
      const normal = f32x4.mul(
        f32x4.sub(v128.load(at(x, i)), shifts),
        scales,
      );
      const d = f32x4.sub(f32x4.sub(g, meanG), f32x4.mul(normal, meanGn));
      v128.store(at(dx, i), f32x4.mul(d, scales));
    }
    for (; i < columns; i++) {
      const g = load<f32>(at(dy, i)) * load<f32>(at(gamma, i));
      const normal = (load<f32>(at(x, i)) - shift) * scale;
      store<f32>(at(dx, i), (g - sum - normal * product) * scale);
    }
    x = at(x, columns);
    dy = at(dy, columns);
    dx = at(dx, columns);
  }
}

// Activations.

/** 0.7978845608 (x + 0.044715 x^3), the argument of the approximation's tanh. */
// @ts-ignore: decorator
@inline
function geluArgument(x: v128, square: v128): v128 {
  const cubic = f32x4.mul(square, f32x4.splat(0.044715));
  return f32x4.mul(
    madd(cubic, x, x),
    f32x4.splat(0.7978845608028654),
  );
}

/** 1 / (1 + e^-2u) = (1 + tanh u) / 2: what gelu multiplies x by, approximately. */
// @ts-ignore: decorator
@inline
function gateTanh(x: v128): v128 {
  const u = geluArgument(x, f32x4.mul(x, x));
  return sigmoid(f32x4.add(u, u));
}

/** Slope of x s(x), given s = gateTanh(x): s + x s (1 - s) 2 u'. */
// @ts-ignore: decorator
@inline
function slopeTanh(x: v128, s: v128): v128 {
  const one = f32x4.splat(1);
  const square = f32x4.mul(x, x);
  // 2 u' = 2 * 0.79788 (1 + 3 * 0.044715 x^2)
  const slope = f32x4.mul(
    madd(square, f32x4.splat(0.134145), one),
    f32x4.splat(1.5957691216057308),
  );
  const rise = f32x4.mul(f32x4.mul(x, slope), f32x4.sub(one, s));
  return madd(s, rise, s);
}

/** e^(-x^2 / 2) */
// @ts-ignore: decorator
@inline
function bell(x: v128): v128 {
  return exp(f32x4.mul(f32x4.mul(x, x), f32x4.splat(-0.5)));
}

/** Slope of x Phi(x): Phi(x) + x phi(x), given Phi(x) and e^(-x^2 / 2). */
// @ts-ignore: decorator
@inline
function slopeExact(x: v128, cdf: v128, b: v128): v128 {
  const density = f32x4.mul(b, f32x4.splat(0.3989422804014327));
  return madd(x, density, cdf);
}

/** y = gelu(x), slopes = its derivative. */
export function geluForward(
  x: usize,
  y: usize,
  slopes: usize,
  n: i32,
  approximate: bool,
): void {
  let i = 0;
  if (approximate) {
    for (; i + 4 <= n; i += 4) {
      const v = v128.load(at(x, i));
      const s = gateTanh(v);
      v128.store(at(y, i), f32x4.mul(v, s));
      v128.store(at(slopes, i), slopeTanh(v, s));
    }
    for (; i < n; i++) {
      const v = v128.load32_splat(at(x, i));
      const s = gateTanh(v);
      store<f32>(at(y, i), first(f32x4.mul(v, s)));
      store<f32>(at(slopes, i), first(slopeTanh(v, s)));
    }
  } else {
    for (; i + 8 <= n; i += 8) { // in twos, as in expRow
      const v = v128.load(at(x, i));
      const u = v128.load(at(x, i), 16);
      const b = bell(v);
      const c = bell(u);
      const cdf = normalCdf(v, b);
      const cdf2 = normalCdf(u, c);
      v128.store(at(y, i), f32x4.mul(v, cdf));
      v128.store(at(y, i), f32x4.mul(u, cdf2), 16);
      v128.store(at(slopes, i), slopeExact(v, cdf, b));
      v128.store(at(slopes, i), slopeExact(u, cdf2, c), 16);
    }
    for (; i < n; i++) {
      const v = v128.load32_splat(at(x, i));
      const b = bell(v);
      const cdf = normalCdf(v, b);
      store<f32>(at(y, i), first(f32x4.mul(v, cdf)));
      store<f32>(at(slopes, i), first(slopeExact(v, cdf, b)));
    }
  }
}

/** z = x y */
export function multiply(x: usize, y: usize, z: usize, n: i32): void {
  let i = 0;
  for (; i + 4 <= n; i += 4) {
    v128.store(
      at(z, i),
      f32x4.mul(v128.load(at(x, i)), v128.load(at(y, i))),
    );
  }
  for (; i < n; i++) {
    store<f32>(at(z, i), load<f32>(at(x, i)) * load<f32>(at(y, i)));
  }
}

/** s = sigmoid(gate), y = gate s up */
export function swigluForward(
  gate: usize,
  up: usize,
  y: usize,
  s: usize,
  n: i32,
): void {
  let i = 0;
  for (; i + 4 <= n; i += 4) {
    const g = v128.load(at(gate, i));
    const sig = sigmoid(g);
    v128.store(at(s, i), sig);
    v128.store(
      at(y, i),
      f32x4.mul(f32x4.mul(g, sig), v128.load(at(up, i))),
    );
  }
  for (; i < n; i++) {
    const g = load<f32>(at(gate, i));
    const sig = first(sigmoid(f32x4.splat(g)));
    store<f32>(at(s, i), sig);
    store<f32>(at(y, i), g * sig * load<f32>(at(up, i)));
  }
}

/** dgate = dy up s (1 + gate (1 - s)) */
export function swigluBackwardGate(
  gate: usize,
  up: usize,
  s: usize,
  dy: usize,
  dgate: usize,
  n: i32,
): void {
  const one = f32x4.splat(1);
  let i = 0;
  for (; i + 4 <= n; i += 4) {
    const sig = v128.load(at(s, i));
    const d = f32x4.mul(v128.load(at(dy, i)), v128.load(at(up, i)));
    const slope = madd(v128.load(at(gate, i)), f32x4.sub(one, sig), one);
    v128.store(at(dgate, i), f32x4.mul(f32x4.mul(d, sig), slope));
  }
  for (; i < n; i++) {
    const sig = load<f32>(at(s, i));
    const d = load<f32>(at(dy, i)) * load<f32>(at(up, i));
    const slope: f32 = 1 + load<f32>(at(gate, i)) * (1 - sig);
    store<f32>(at(dgate, i), d * sig * slope);
  }
}

/** dup = dy gate s */
export function swigluBackwardUp(
  gate: usize,
  s: usize,
  dy: usize,
  dup: usize,
  n: i32,
): void {
  let i = 0;
  for (; i + 4 <= n; i += 4) {
    const silu = f32x4.mul(v128.load(at(gate, i)), v128.load(at(s, i)));
    v128.store(at(dup, i), f32x4.mul(silu, v128.load(at(dy, i))));
  }
  for (; i < n; i++) {
    const silu = load<f32>(at(gate, i)) * load<f32>(at(s, i));
    store<f32>(at(dup, i), silu * load<f32>(at(dy, i)));
  }
}

// Rotary positions.

/**
 * y = x [B, T, H, D] with the halves of each head rotated by the angles of its
 * position: cos and sin are [T, D / 2]; sign -1 rotates back.
 */
export function ropeForward(
  x: usize,
  cos: usize,
  sin: usize,
  y: usize,
  B: i32,
  T: i32,
  H: i32,
  D: i32,
  sign: f32,
): void {
  const half = D / 2;
  const signs = f32x4.splat(sign);
  for (let b = 0; b < B; b++) {
    for (let t = 0; t < T; t++) {
      const c = at(cos, t * half);
      const s = at(sin, t * half);
      for (let h = 0; h < H; h++) {
        const right = at(x, half);
        const toRight = at(y, half);
        let i = 0;
        for (; i + 4 <= half; i += 4) {
          const u = v128.load(at(x, i));
          const v = v128.load(at(right, i));
          const cosine = v128.load(at(c, i));
          const sine = f32x4.mul(v128.load(at(s, i)), signs);
          v128.store(
            at(y, i),
            f32x4.sub(f32x4.mul(u, cosine), f32x4.mul(v, sine)),
          );
          v128.store(
            at(toRight, i),
            f32x4.add(f32x4.mul(v, cosine), f32x4.mul(u, sine)),
          );
        }
        for (; i < half; i++) {
          const u = load<f32>(at(x, i));
          const v = load<f32>(at(right, i));
          const cosine = load<f32>(at(c, i));
          const sine = load<f32>(at(s, i)) * sign;
          store<f32>(at(y, i), u * cosine - v * sine);
          store<f32>(at(toRight, i), v * cosine + u * sine);
        }
        x = at(x, D);
        y = at(y, D);
      }
    }
  }
}

// Softmax and the losses on top of it.

/** max of scale x + mask over n numbers; hidden ones are -Infinity; the sums replace x. */
// @ts-ignore: decorator
@inline
function maskRow(x: usize, mask: usize, n: i32, scale: f32): void {
  for (let i = 0; i < n; i++) {
    const m = load<f32>(at(mask, i));
    const value = load<f32>(at(x, i)) * scale + m;
    store<f32>(at(x, i), m <= HIDDEN_SCORE ? -Infinity : value);
  }
}

// @ts-ignore: decorator
@inline
function maxRow(x: usize, n: i32): f32 {
  let largest: f32 = -Infinity;
  let i = 0;
  if (n >= 4) {
    let lanes = v128.load(x);
    for (i = 4; i + 4 <= n; i += 4) {
      lanes = f32x4.max(lanes, v128.load(at(x, i)));
    }
    largest = maxLanes(lanes);
  }
  for (; i < n; i++) largest = max(largest, load<f32>(at(x, i)));
  return largest;
}

/** y = e^(scale (x - shift)); the sum. x may be y. */
// @ts-ignore: decorator
@inline
function expRow(x: usize, y: usize, n: i32, scale: f32, shift: f32): f32 {
  const scales = f32x4.splat(scale);
  const shifts = f32x4.splat(shift);
  let sums = f32x4.splat(0);
  let i = 0;
  for (; i + 8 <= n; i += 8) { // in twos, which hides the latency of exp
    const e = exp(
      f32x4.mul(f32x4.sub(v128.load(at(x, i)), shifts), scales),
    );
    const f = exp(
      f32x4.mul(f32x4.sub(v128.load(at(x, i), 16), shifts), scales),
    );
    v128.store(at(y, i), e);
    v128.store(at(y, i), f, 16);
    sums = f32x4.add(sums, f32x4.add(e, f));
  }
  for (; i + 4 <= n; i += 4) {
    const e = exp(
      f32x4.mul(f32x4.sub(v128.load(at(x, i)), shifts), scales),
    );
    v128.store(at(y, i), e);
    sums = f32x4.add(sums, e);
  }
  let sum = sumLanes(sums);
  for (; i < n; i++) {
    const e = first(
      exp(
        f32x4.mul(f32x4.sub(v128.load32_splat(at(x, i)), shifts), scales),
      ),
    );
    store<f32>(at(y, i), e);
    sum += e;
  }
  return sum;
}

// @ts-ignore: decorator
@inline
function scaleRow(x: usize, n: i32, factor: f32): void {
  const factors = f32x4.splat(factor);
  let i = 0;
  for (; i + 4 <= n; i += 4) {
    v128.store(at(x, i), f32x4.mul(v128.load(at(x, i)), factors));
  }
  for (; i < n; i++) store<f32>(at(x, i), load<f32>(at(x, i)) * factor);
}

/** How many keys query r sees, if the first query sees `visible` and the next one more (causal). */
// @ts-ignore: decorator
@inline
function visibleKeys(visible: i32, causal: bool, r: i32, columns: i32): i32 {
  return causal ? min(visible + r, columns) : columns;
}

/**
 * Softmax in place of each row of scale x + mask, over the keys it sees; 0 elsewhere. x is
 * [rows, columns] with leading dimension `stride`; mask is a null pointer or the same with leading
 * dimension maskStride (0: one row for all).
 */
export function softmaxRows(
  x: usize,
  stride: i32,
  mask: usize,
  maskStride: i32,
  rows: i32,
  columns: i32,
  scale: f32,
  causal: bool,
  visible: i32,
): void {
  for (let r = 0; r < rows; r++) {
    const n = visibleKeys(visible, causal, r, columns);
    let factor = scale;
    if (mask != 0) {
      maskRow(x, at(mask, r * maskStride), n, scale);
      factor = 1;
    }
    // A negative scale would make the smallest score the largest.
    if (factor < 0) {
      scaleRow(x, n, factor);
      factor = 1;
    }
    const largest = maxRow(x, n);
    if (largest == -Infinity) {
      memory.fill(x, 0, <usize> columns << 2); // sees nothing
    } else {
      const sum = expRow(x, x, n, factor, largest);
      scaleRow(x, n, 1 / sum);
      if (n < columns) {
        memory.fill(at(x, n), 0, <usize> (columns - n) << 2);
      }
    }
    x = at(x, stride);
  }
}

/** In place of d = gradient of the softmax p: scale p (d - sum(d p)) = gradient of its input. */
export function softmaxBackward(
  p: usize,
  strideP: i32,
  d: usize,
  strideD: i32,
  rows: i32,
  columns: i32,
  scale: f32,
  causal: bool,
  visible: i32,
): void {
  const scales = f32x4.splat(scale);
  for (let r = 0; r < rows; r++) {
    const n = visibleKeys(visible, causal, r, columns);
    let sums = f32x4.splat(0);
    let i = 0;
    for (; i + 4 <= n; i += 4) {
      sums = madd(v128.load(at(p, i)), v128.load(at(d, i)), sums);
    }
    let sum = sumLanes(sums);
    for (; i < n; i++) sum += load<f32>(at(p, i)) * load<f32>(at(d, i));
    const means = f32x4.splat(sum);
    i = 0;
    for (; i + 4 <= n; i += 4) {
      const slope = f32x4.sub(v128.load(at(d, i)), means);
      v128.store(
        at(d, i),
        f32x4.mul(f32x4.mul(v128.load(at(p, i)), slope), scales),
      );
    }
    for (; i < n; i++) {
      store<f32>(
        at(d, i),
        load<f32>(at(p, i)) * (load<f32>(at(d, i)) - sum) * scale,
      );
    }
    if (n < columns) memory.fill(at(d, n), 0, <usize> (columns - n) << 2);
    p = at(p, strideP);
    d = at(d, strideD);
  }
}

/** Sum of e^(scale (x - shift)), without storing the terms. */
// @ts-ignore: decorator
@inline
function sumExp(x: usize, n: i32, scale: f32, shift: f32): f32 {
  const scales = f32x4.splat(scale);
  const shifts = f32x4.splat(shift);
  let sums = f32x4.splat(0);
  let i = 0;
  for (; i + 4 <= n; i += 4) {
    sums = f32x4.add(
      sums,
      exp(f32x4.mul(f32x4.sub(v128.load(at(x, i)), shifts), scales)),
    );
  }
  let sum = sumLanes(sums);
  for (; i < n; i++) {
    sum += first(
      exp(
        f32x4.mul(f32x4.sub(v128.load32_splat(at(x, i)), shifts), scales),
      ),
    );
  }
  return sum;
}

/**
 * losses[r] = normalizers[r] - logits[r, label], normalizers = log sum exp of the row; 0 for an ignored
 * row. Returns the first row with a label outside [0, V), or -1.
 */
export function crossEntropyForward(
  logits: usize,
  labels: usize,
  losses: usize,
  normalizers: usize,
  N: i32,
  V: i32,
  ignore: i32,
): i32 {
  for (let r = 0; r < N; r++) {
    const label = load<i32>(at(labels, r));
    if (label == ignore) {
      store<f32>(at(losses, r), 0);
      store<f32>(at(normalizers, r), 0);
    } else {
      if (<u32> label >= <u32> V) return r;
      const largest = maxRow(logits, V);
      const sum = sumExp(logits, V, 1, largest);
      const tail = <f32> log(<f64> sum);
      // Differences first: the label's logit is often the largest.
      store<f32>(
        at(losses, r),
        (largest - load<f32>(at(logits, label))) + tail,
      );
      store<f32>(at(normalizers, r), largest + tail);
    }
    logits = at(logits, V);
  }
  return -1;
}

/** dlogits = g (softmax - one-hot); g is dlosses[r] times factor, at stride 0 or 1. */
export function crossEntropyBackward(
  logits: usize,
  labels: usize,
  normalizers: usize,
  dlosses: usize,
  stride: i32,
  factor: f32,
  dlogits: usize,
  N: i32,
  V: i32,
  ignore: i32,
): void {
  for (let r = 0; r < N; r++) {
    const label = load<i32>(at(labels, r));
    if (label == ignore) memory.fill(dlogits, 0, <usize> V << 2);
    else {
      const g = load<f32>(at(dlosses, r * stride)) * factor;
      expRow(logits, dlogits, V, 1, load<f32>(at(normalizers, r)));
      scaleRow(dlogits, V, g);
      const to = at(dlogits, label);
      store<f32>(to, load<f32>(to) - g);
    }
    logits = at(logits, V);
    dlogits = at(dlogits, V);
  }
}

/**
 * losses[r] = sum of p (log p - log q) over the row, q = softmax(scale logits). Keeps
 * normalizers[r], with which q = e^(scale (logits - normalizers)), and totals[r] = sum of p.
 */
export function klForward(
  logits: usize,
  target: usize,
  losses: usize,
  normalizers: usize,
  totals: usize,
  N: i32,
  V: i32,
  scale: f32,
): void {
  for (let r = 0; r < N; r++) {
    const largest = maxRow(logits, V);
    const tail = log(<f64> sumExp(logits, V, scale, largest));
    let loss: f64 = 0;
    let total: f64 = 0;
    for (let i = 0; i < V; i++) {
      const p = <f64> load<f32>(at(target, i));
      if (p > 0) { // 0 log 0 = 0
        const logQ =
          <f64> scale * (<f64> load<f32>(at(logits, i)) - <f64> largest) -
          tail;
        loss += p * (log(p) - logQ);
        total += p;
      }
    }
    store<f32>(at(losses, r), <f32> loss);
    store<f32>(at(normalizers, r), <f32> (<f64> largest + tail / <f64> scale));
    store<f32>(at(totals, r), <f32> total);
    logits = at(logits, V);
    target = at(target, V);
  }
}

/** dlogits = factor dloss (q totals - p) */
export function klBackward(
  logits: usize,
  target: usize,
  normalizers: usize,
  totals: usize,
  dloss: usize,
  factor: f32,
  dlogits: usize,
  N: i32,
  V: i32,
  scale: f32,
): void {
  const g = load<f32>(dloss) * factor;
  const gs = f32x4.splat(g);
  for (let r = 0; r < N; r++) {
    expRow(logits, dlogits, V, scale, load<f32>(at(normalizers, r)));
    const total = load<f32>(at(totals, r));
    const weights = f32x4.splat(total);
    let i = 0;
    for (; i + 4 <= V; i += 4) {
      const q = f32x4.mul(v128.load(at(dlogits, i)), weights);
      v128.store(
        at(dlogits, i),
        f32x4.mul(f32x4.sub(q, v128.load(at(target, i))), gs),
      );
    }
    for (; i < V; i++) {
      const q = load<f32>(at(dlogits, i)) * total;
      store<f32>(at(dlogits, i), (q - load<f32>(at(target, i))) * g);
    }
    logits = at(logits, V);
    target = at(target, V);
    dlogits = at(dlogits, V);
  }
}

// Embedding.

/** y[i] = table[ids[i]]. Returns the first index with an id outside [0, V), or -1. */
export function gatherRows(
  ids: usize,
  table: usize,
  y: usize,
  n: i32,
  V: i32,
  D: i32,
): i32 {
  for (let i = 0; i < n; i++) {
    const id = load<i32>(at(ids, i));
    if (<u32> id >= <u32> V) return i;
    memory.copy(at(y, i * D), at(table, id * D), <usize> D << 2);
  }
  return -1;
}

/** dtable = 0, then dtable[ids[i]] += dy[i] in the order of i: the same sum every time. */
export function scatterAddRows(
  ids: usize,
  dy: usize,
  dtable: usize,
  n: i32,
  V: i32,
  D: i32,
): void {
  memory.fill(dtable, 0, <usize> (V * D) << 2);
  for (let i = 0; i < n; i++) {
    accumulate(at(dy, i * D), at(dtable, load<i32>(at(ids, i)) * D), D);
  }
}

// Fake quantisation. x is [outer, channels, inner]; scale and zero point are per
// channel (strides 1) or shared (strides 0).

/** y = scale (clamp(round(x / scale) + zero, qmin, qmax) - zero) */
export function fakeQuantForward(
  x: usize,
  scale: usize,
  scaleStride: i32,
  zero: usize,
  zeroStride: i32,
  y: usize,
  outer: i32,
  channels: i32,
  inner: i32,
  qmin: f32,
  qmax: f32,
): void {
  const low = f32x4.splat(qmin);
  const high = f32x4.splat(qmax);
  for (let o = 0; o < outer; o++) {
    for (let c = 0; c < channels; c++) {
      const s = v128.load32_splat(at(scale, c * scaleStride));
      const z = v128.load32_splat(at(zero, c * zeroStride));
      let i = 0;
      for (; i + 4 <= inner; i += 4) {
        const code = f32x4.add(
          f32x4.nearest(f32x4.div(v128.load(at(x, i)), s)),
          z,
        );
        const kept = f32x4.pmax(f32x4.pmin(code, high), low);
        v128.store(at(y, i), f32x4.mul(f32x4.sub(kept, z), s));
      }
      for (; i < inner; i++) {
        const code = f32x4.add(
          f32x4.nearest(f32x4.div(v128.load32_splat(at(x, i)), s)),
          z,
        );
        const kept = f32x4.pmax(f32x4.pmin(code, high), low);
        store<f32>(at(y, i), first(f32x4.mul(f32x4.sub(kept, z), s)));
      }
      x = at(x, inner);
      y = at(y, inner);
    }
  }
}

/** dx = dy where the code lies in [qmin, qmax], else 0. */
export function fakeQuantBackwardX(
  x: usize,
  scale: usize,
  scaleStride: i32,
  zero: usize,
  zeroStride: i32,
  dy: usize,
  dx: usize,
  outer: i32,
  channels: i32,
  inner: i32,
  qmin: f32,
  qmax: f32,
): void {
  const low = f32x4.splat(qmin);
  const high = f32x4.splat(qmax);
  for (let o = 0; o < outer; o++) {
    for (let c = 0; c < channels; c++) {
      const s = v128.load32_splat(at(scale, c * scaleStride));
      const z = v128.load32_splat(at(zero, c * zeroStride));
      let i = 0;
      for (; i + 4 <= inner; i += 4) {
        const code = f32x4.add(
          f32x4.nearest(f32x4.div(v128.load(at(x, i)), s)),
          z,
        );
        const inside = v128.and(f32x4.ge(code, low), f32x4.le(code, high));
        v128.store(at(dx, i), v128.and(v128.load(at(dy, i)), inside));
      }
      for (; i < inner; i++) {
        const code = f32x4.add(
          f32x4.nearest(f32x4.div(v128.load32_splat(at(x, i)), s)),
          z,
        );
        const inside = v128.and(f32x4.ge(code, low), f32x4.le(code, high));
        store<f32>(
          at(dx, i),
          first(v128.and(v128.load32_splat(at(dy, i)), inside)),
        );
      }
      x = at(x, inner);
      dy = at(dy, inner);
      dx = at(dx, inner);
    }
  }
}

/** dscale = sum of dy (clamped code - zero - x / scale inside the range). */
export function fakeQuantBackwardScale(
  x: usize,
  scale: usize,
  scaleStride: i32,
  zero: usize,
  zeroStride: i32,
  dy: usize,
  dscale: usize,
  outer: i32,
  channels: i32,
  inner: i32,
  qmin: f32,
  qmax: f32,
): void {
  memory.fill(
    dscale,
    0,
    <usize> (scaleStride == 0 ? 1 : channels) << 2,
  );
  for (let o = 0; o < outer; o++) {
    for (let c = 0; c < channels; c++) {
      const s = load<f32>(at(scale, c * scaleStride));
      const z = load<f32>(at(zero, c * zeroStride));
      let sum: f64 = 0;
      for (let i = 0; i < inner; i++) {
        const ratio = load<f32>(at(x, i)) / s;
        const code = nearest(ratio) + z;
        let slope: f32 = 0;
        if (code > qmax) slope = qmax - z;
        else if (code < qmin) slope = qmin - z;
        else slope = code - z - ratio;
        sum += <f64> (slope * load<f32>(at(dy, i)));
      }
      const to = at(dscale, c * scaleStride);
      store<f32>(to, load<f32>(to) + <f32> sum);
      x = at(x, inner);
      dy = at(dy, inner);
    }
  }
}

// Convolution by patches.

/**
 * patches [outHeight outWidth, fh fw C] of one image x [height, width, C]; 0 outside.
 */
export function imageToPatches(
  x: usize,
  patches: usize,
  height: i32,
  width: i32,
  C: i32,
  fh: i32,
  fw: i32,
  strides: i32,
  padTop: i32,
  padLeft: i32,
  outHeight: i32,
  outWidth: i32,
): void {
  const bytes = <usize> C << 2;
  for (let oy = 0; oy < outHeight; oy++) {
    for (let ox = 0; ox < outWidth; ox++) {
      for (let i = 0; i < fh; i++) {
        const row = oy * strides + i - padTop;
        for (let j = 0; j < fw; j++) {
          const column = ox * strides + j - padLeft;
          if (<u32> row < <u32> height && <u32> column < <u32> width) {
            memory.copy(patches, at(x, (row * width + column) * C), bytes);
          } else memory.fill(patches, 0, bytes);
          patches += bytes;
        }
      }
    }
  }
}

/** The transpose of imageToPatches: dx = 0, then each patch is added where it came from. */
export function patchesToImage(
  patches: usize,
  dx: usize,
  height: i32,
  width: i32,
  C: i32,
  fh: i32,
  fw: i32,
  strides: i32,
  padTop: i32,
  padLeft: i32,
  outHeight: i32,
  outWidth: i32,
): void {
  memory.fill(dx, 0, <usize> (height * width * C) << 2);
  for (let oy = 0; oy < outHeight; oy++) {
    for (let ox = 0; ox < outWidth; ox++) {
      for (let i = 0; i < fh; i++) {
        const row = oy * strides + i - padTop;
        for (let j = 0; j < fw; j++) {
          const column = ox * strides + j - padLeft;
          if (<u32> row < <u32> height && <u32> column < <u32> width) {
            accumulate(patches, at(dx, (row * width + column) * C), C);
          }
          patches = at(patches, C);
        }
      }
    }
  }
}
