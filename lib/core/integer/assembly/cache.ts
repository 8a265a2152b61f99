// deno-lint-ignore-file
// deno-fmt-ignore-file: the formatter drops the decorators of functions
// Keys and values in 8 bits: one scale for every token and head.

/** Codes round(x / scale) of rows [rows, depth] of float32, scale = max|x| / 127 of each row (1 of zeros). */
export function floatsToCache(x: usize, rows: i32, depth: i32, codes: usize, scales: usize): void {
  for (let i = 0; i < rows; i++) {
    let k = 0;
    let greatest = f32x4.splat(0);
    for (; k + 4 <= depth; k += 4) {
      greatest = f32x4.pmax(greatest, f32x4.abs(v128.load(x + (<usize> k << 2))));
    }
    greatest = f32x4.pmax(greatest, v128.shuffle<f32>(greatest, greatest, 2, 3, 0, 1));
    let most: f32 = max(f32x4.extract_lane(greatest, 0), f32x4.extract_lane(greatest, 1));
    for (; k < depth; k++) most = max(most, abs(load<f32>(x + (<usize> k << 2))));
    const scale: f32 = most == 0 ? 1 : most / 127;
    store<f32>(scales, scale);
    const divisor = f32x4.splat(scale);
    for (k = 0; k + 4 <= depth; k += 4) {
      const code = i32x4.trunc_sat_f32x4_s(f32x4.nearest(f32x4.div(v128.load(x), divisor)));
      const narrow = i16x8.narrow_i32x4_s(code, code); // |code| <= 127, as |x| <= most
      v128.store_lane<i32>(codes, i8x16.narrow_i16x8_s(narrow, narrow), 0);
      codes += 4;
      x += 16;
    }
    for (; k < depth; k++) {
      store<i8>(codes++, <i8> <i32> nearest(load<f32>(x) / scale));
      x += 4;
    }
    scales += 4;
  }
}

/** Head g of `tokens` tokens of codes [tokens, heads, depth] and scales [tokens, heads] as float32 [tokens, depth]. */
export function cacheToFloats(
  codes: usize, scales: usize, tokens: i32, heads: i32, depth: i32, g: i32, to: usize,
): void {
  codes += <usize> (g * depth);
  scales += <usize> g << 2;
  for (let t = 0; t < tokens; t++) {
    const scale = f32x4.splat(load<f32>(scales));
    let k = 0;
    for (; k + 8 <= depth; k += 8) {
      const x = v128.load_ext<i8>(codes + <usize> k);
      v128.store(to, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(x)), scale));
      v128.store(to, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(x)), scale), 16);
      to += 32;
    }
    for (; k < depth; k++) {
      store<f32>(to, <f32> load<i8>(codes + <usize> k) * load<f32>(scales));
      to += 4;
    }
    codes += <usize> (heads * depth);
    scales += <usize> heads << 2;
  }
}

// One query reads the codes as they lie: to bring them back to float32 first would write four times what it reads,
// and a cache of 32 bits would be faster.

/** x + w code of four codes, as float32. */
// @ts-ignore: decorator
@inline
function addCodes(x: v128, w: v128, codes: v128): v128 {
  return f32x4.add(x, f32x4.mul(w, f32x4.convert_i32x4_s(codes)));
}

// @ts-ignore: decorator
@inline
function sumFloats(x: v128): f32 {
  const y = f32x4.add(x, v128.shuffle<f32>(x, x, 2, 3, 0, 1));
  return f32x4.extract_lane(y, 0) + f32x4.extract_lane(y, 1);
}

/** scores_t = scale_t sum_d q_d code_td of head g, float32 [tokens]; q [depth]. */
export function scoreCodes(
  q: usize, codes: usize, scales: usize, tokens: i32, heads: i32, depth: i32, g: i32, scores: usize,
): void {
  codes += <usize> (g * depth);
  scales += <usize> g << 2;
  for (let t = 0; t < tokens; t++) {
    let low = f32x4.splat(0), high = low;
    let at = q;
    let k = 0;
    for (; k + 8 <= depth; k += 8) {
      const x = v128.load_ext<i8>(codes + <usize> k);
      low = addCodes(low, v128.load(at), i32x4.extend_low_i16x8_s(x));
      high = addCodes(high, v128.load(at, 16), i32x4.extend_high_i16x8_s(x));
      at += 32;
    }
    let sum = sumFloats(f32x4.add(low, high));
    for (; k < depth; k++) {
      sum += load<f32>(at) * <f32> load<i8>(codes + <usize> k);
      at += 4;
    }
    store<f32>(scores, sum * load<f32>(scales));
    codes += <usize> (heads * depth);
    scales += <usize> heads << 2;
    scores += 4;
  }
}

/** y_d = sum_t p_t scale_t code_td of head g, float32 [depth]; p [tokens]. */
export function mixCodes(
  p: usize, codes: usize, scales: usize, tokens: i32, heads: i32, depth: i32, g: i32, y: usize,
): void {
  codes += <usize> (g * depth);
  scales += <usize> g << 2;
  const stride = <usize> (heads * depth), step = <usize> heads << 2;
  let k = 0;
  for (; k + 16 <= depth; k += 16) {
    let y0 = f32x4.splat(0), y1 = y0, y2 = y0, y3 = y0;
    let at = codes + <usize> k, scale = scales;
    for (let t = 0; t < tokens; t++) {
      const w = f32x4.splat(load<f32>(p + (<usize> t << 2)) * load<f32>(scale));
      const x = v128.load(at);
      const low = i16x8.extend_low_i8x16_s(x), high = i16x8.extend_high_i8x16_s(x);
      y0 = addCodes(y0, w, i32x4.extend_low_i16x8_s(low));
      y1 = addCodes(y1, w, i32x4.extend_high_i16x8_s(low));
      y2 = addCodes(y2, w, i32x4.extend_low_i16x8_s(high));
      y3 = addCodes(y3, w, i32x4.extend_high_i16x8_s(high));
      at += stride;
      scale += step;
    }
    v128.store(y, y0);
    v128.store(y, y1, 16);
    v128.store(y, y2, 32);
    v128.store(y, y3, 48);
    y += 64;
  }
  for (; k < depth; k++) {
    let sum: f32 = 0;
    let at = codes + <usize> k, scale = scales;
    for (let t = 0; t < tokens; t++) {
      sum += load<f32>(p + (<usize> t << 2)) * load<f32>(scale) * <f32> load<i8>(at);
      at += stride;
      scale += step;
    }
    store<f32>(y, sum);
    y += 4;
  }
}
