// Kernels of lib/core/optim.ts; see index.ts for the rules of memory.
//
// One pass over a parameter each. The last size mod 4 elements go through the
// same formula in scalars.

/** Sum of the squares of `size` floats, added in double precision. */
export function sumOfSquares(x: usize, size: i32): f64 {
  let low = f64x2.splat(0);
  let high = f64x2.splat(0);
  let i = 0;
  for (; i + 4 <= size; i += 4) {
    const four = v128.load(x);
    const a = f64x2.promote_low_f32x4(four);
    const b = f64x2.promote_low_f32x4(v128.shuffle<f32>(four, four, 2, 3, 2, 3));
    low = f64x2.add(low, f64x2.mul(a, a));
    high = f64x2.add(high, f64x2.mul(b, b));
    x += 16;
  }
  const sums = f64x2.add(low, high);
  let sum = f64x2.extract_lane(sums, 0) + f64x2.extract_lane(sums, 1);
  for (; i < size; i++) {
    const one = <f64> load<f32>(x);
    sum += one * one;
    x += 4;
  }
  return sum;
}

/**
 * AdamW in place: g' = gradScale g; m = m + (1 - beta1) (g' - m); v = beta2 v + (1 - beta2) g'^2;
 * p = keep p - rate m / (sqrt(v) * rootScale + eps), where keep = 1 - lr * weightDecay,
 * rate = lr / (1 - beta1^t) and rootScale = 1 / sqrt(1 - beta2^t).
 */
export function adamW(
  p: usize,
  g: usize,
  m: usize,
  v: usize,
  size: i32,
  gradScale: f32,
  rest1: f32, // 1 - beta1
  beta2: f32,
  rest2: f32, // 1 - beta2
  keep: f32,
  rate: f32,
  rootScale: f32,
  eps: f32,
): void {
  const gradScales = f32x4.splat(gradScale);
  const rests1 = f32x4.splat(rest1);
  const betas2 = f32x4.splat(beta2);
  const rests2 = f32x4.splat(rest2);
  const keeps = f32x4.splat(keep);
  const rates = f32x4.splat(rate);
  const rootScales = f32x4.splat(rootScale);
  const epsilons = f32x4.splat(eps);
  let i = 0;
  for (; i + 4 <= size; i += 4) {
    const grad = f32x4.mul(v128.load(g), gradScales);
    let first = v128.load(m);
    first = f32x4.add(first, f32x4.mul(rests1, f32x4.sub(grad, first)));
    const second = f32x4.add(
      f32x4.mul(betas2, v128.load(v)),
      f32x4.mul(rests2, f32x4.mul(grad, grad)),
    );
    const root = f32x4.add(f32x4.mul(f32x4.sqrt(second), rootScales), epsilons);
    const change = f32x4.div(f32x4.mul(rates, first), root);
    v128.store(m, first);
    v128.store(v, second);
    v128.store(p, f32x4.sub(f32x4.mul(keeps, v128.load(p)), change));
    p += 16;
    g += 16;
    m += 16;
    v += 16;
  }
  for (; i < size; i++) {
    const grad = load<f32>(g) * gradScale;
    let first = load<f32>(m);
    first += rest1 * (grad - first);
    const second = beta2 * load<f32>(v) + rest2 * (grad * grad);
    const root = sqrt<f32>(second) * rootScale + eps;
    store<f32>(m, first);
    store<f32>(v, second);
    store<f32>(p, keep * load<f32>(p) - rate * first / root);
    p += 4;
    g += 4;
    m += 4;
    v += 4;
  }
}

/**
 * SGD in place: d = gradScale g + decay p; u = momentum u + d; p = p - rate d', where d' is u, or
 * d + momentum u with `nesterov`. `u` is 0 without momentum and is then not touched.
 */
export function sgd(
  p: usize,
  g: usize,
  u: usize,
  size: i32,
  gradScale: f32,
  decay: f32,
  momentum: f32,
  nesterov: i32,
  rate: f32,
): void {
  const gradScales = f32x4.splat(gradScale);
  const decays = f32x4.splat(decay);
  const momenta = f32x4.splat(momentum);
  const rates = f32x4.splat(rate);
  let i = 0;
  for (; i + 4 <= size; i += 4) {
    const param = v128.load(p);
    let change = f32x4.add(
      f32x4.mul(v128.load(g), gradScales),
      f32x4.mul(decays, param),
    );
    if (u != 0) {
      const velocity = f32x4.add(f32x4.mul(momenta, v128.load(u)), change);
      v128.store(u, velocity);
      change = nesterov
        ? f32x4.add(change, f32x4.mul(momenta, velocity))
        : velocity;
      u += 16;
    }
    v128.store(p, f32x4.sub(param, f32x4.mul(rates, change)));
    p += 16;
    g += 16;
  }
  for (; i < size; i++) {
    const param = load<f32>(p);
    let change = load<f32>(g) * gradScale + decay * param;
    if (u != 0) {
      const velocity = momentum * load<f32>(u) + change;
      store<f32>(u, velocity);
      change = nesterov ? change + momentum * velocity : velocity;
      u += 4;
    }
    store<f32>(p, param - rate * change);
    p += 4;
    g += 4;
  }
}
