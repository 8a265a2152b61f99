// deno-lint-ignore-file
// deno-fmt-ignore-file: the formatter drops the decorators of functions
// Keys and values in 8 bits: one scale for every token and head.

/** Codes round(x / scale) of rows [rows, depth] of float32, scale = max|x| / 127 of each row (1 of zeros). */
export function floatsToCache(x: usize, rows: i32, depth: i32, codes: usize, scales: usize): void {
  for (let i = 0; i < rows; i++) {
    let most: f32 = 0;
    for (let k = 0; k < depth; k++) most = max(most, abs(load<f32>(x + (<usize> k << 2))));
    const scale: f32 = most == 0 ? 1 : most / 127;
    store<f32>(scales, scale);
    for (let k = 0; k < depth; k++) {
      const code = <i32> nearest(load<f32>(x) / scale);
      store<i8>(codes++, <i8> min(127, max(-127, code)));
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
