/**
 * Integer matrix products against sums of plain numbers, equal in every bit.
 */
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  type ActivationOptions,
  floatsAt,
  type Format,
  type IntegerBuild,
  type IntegerEngine,
  intsAt,
  linear,
  multiply,
  openIntegerEngine,
  packActivations,
  packWeights,
  putFloats,
  quantizeActivations,
} from "../lib/core/integer/bindings.ts";
import { fold, type Key, key, normal, randomInts } from "../lib/core/rng.ts";
import { SOURCES } from "../lib/core/integer/generated.ts";
import { sourceHash } from "../scripts/build-integer-kernels.ts";

type Codes = Int8Array | Uint8Array;

const BUILDS: IntegerBuild[] = ["simd128", "relaxed"].filter((build) => {
  try {
    openIntegerEngine({ build: build as IntegerBuild });
    return true;
  } catch {
    return false;
  }
}) as IntegerBuild[];

/** sum_k (a_ik - za_i)(b_jk - zb_j), in doubles: exact below 2^53. */
function reference(
  a: Codes,
  b: Codes,
  [M, N, K]: readonly number[],
  za: number[] = [],
  zb: number[] = [],
): Int32Array {
  const c = new Int32Array(M * N);
  for (let i = 0; i < M; i++) {
    for (let j = 0; j < N; j++) {
      const [zeroA, zeroB] = [za[i] ?? 0, zb[j] ?? 0];
      let sum = 0;
      for (let k = 0; k < K; k++) {
        sum += (a[i * K + k] - zeroA) * (b[j * K + k] - zeroB);
      }
      c[i * N + j] = sum;
    }
  }
  return c;
}

/** Fails with `name` and the first difference, if there is one. */
function same(got: Int32Array, expected: Int32Array, name: string): void {
  assert.is(got.length, expected.length, name);
  const at = got.findIndex((sum, i) => sum !== expected[i]);
  assert.is(at, -1, `${name}: ${got[at]} for ${expected[at]} at ${at}`);
}

/** Sums of `multiply` with guards around the result that must survive. */
function product(
  engine: IntegerEngine,
  format: Format,
  a: Codes,
  b: Codes,
  [M, N, K]: readonly number[],
  za: number | number[] = 0,
  zb: number | number[] = 0,
): Int32Array {
  const mark = engine.mark();
  const weights = packWeights(engine, b, N, K, { format, zeroPoint: zb });
  const activations = packActivations(engine, a, M, K, {
    format,
    zeroPoint: za,
  });
  const guard = 16;
  const c = engine.allocate(4 * (M * N + 2 * guard));
  intsAt(engine, c, M * N + 2 * guard).fill(0x5A5A5A5A);
  multiply(engine, activations, weights, c + 4 * guard);
  const all = intsAt(engine, c, M * N + 2 * guard).slice();
  for (let i = 0; i < guard; i++) {
    assert.is(all[i], 0x5A5A5A5A, "wrote before C");
    assert.is(all[guard + M * N + i], 0x5A5A5A5A, "wrote behind C");
  }
  engine.release(mark);
  return all.slice(guard, guard + M * N);
}

interface Convention {
  format: Format;
  activation: readonly [number, number];
  weight: readonly [number, number];
}

const S8 = [-128, 127] as const;
const U8 = [0, 255] as const;
const S4 = [-8, 7] as const;
const U4 = [0, 15] as const;
const U7 = [0, 127] as const;

const CONVENTIONS: Convention[] = [
  ...[S8, U8].flatMap((activation) =>
    [S8, U8].map((weight) => ({ format: "int8", activation, weight } as const))
  ),
  ...(["pairs", "nibble-pairs", "agile"] as const).flatMap((format) =>
    [S4, U4].flatMap((activation) =>
      [S4, U4].map((weight) => ({ format, activation, weight }))
    )
  ),
  ...(["pairs", "nibble-pairs"] as const).flatMap((format) =>
    [S8, U8].map((activation) => ({ format, activation, weight: S4 }))
  ),
  ...[S8, U8].flatMap((activation) =>
    [U7, U4, S4, [-64, 63] as const].map((weight) =>
      ({ format: "bytes", activation, weight }) as const
    )
  ),
];

function codesOf(
  k: Key,
  n: number,
  [low, high]: readonly [number, number],
): Codes {
  const values = randomInts(k, n, low, high + 1);
  return low < 0 ? Int8Array.from(values) : Uint8Array.from(values);
}

function constant(n: number, code: number, [low]: readonly number[]): Codes {
  return (low < 0 ? new Int8Array(n) : new Uint8Array(n)).fill(code);
}

test("a product by hand: 2 x 3 by 2 x 3", () => {
  const engine = openIntegerEngine();
  const a = Int8Array.of(1, 2, 3, -4, 5, -6);
  const b = Int8Array.of(1, 0, -1, 2, 2, 2);
  // 1 - 3, 2 + 4 + 6; -4 + 6, -8 + 10 - 12
  assert.equal([...product(engine, "int8", a, b, [2, 2, 3])], [-2, 12, 2, -10]);
  assert.equal([...product(engine, "pairs", a, b, [2, 2, 3])], [
    -2,
    12,
    2,
    -10,
  ]);
});

/** Random shapes per convention; each is multiplied without and with zero points. */
const ROUNDS = 150;

for (const build of BUILDS) {
  const products = 2 * ROUNDS * CONVENTIONS.length;
  test(`${products} products in every format and sign convention equal the reference on ${build}, all codes at their ends too`, () => {
    let compared = 0;
    const engine = openIntegerEngine({ build });
    const root = fold(key(7), build);
    const sizes = [0, 1, 2, 3, 4, 5, 7, 8, 9, 13, 16, 17, 31, 33, 64, 65];
    for (const [t, convention] of CONVENTIONS.entries()) {
      const { format, activation, weight } = convention;
      for (let round = 0; round < ROUNDS; round++) {
        const k = fold(fold(root, `${t}`), round);
        const pick = randomInts(fold(k, "sizes"), 5, 0, sizes.length);
        const [M, N, K] = [sizes[pick[0]], sizes[pick[1]], sizes[pick[2]]];
        const size = [M, N, K];
        // A third at the ends of the ranges: the greatest sums of either sign.
        const ends = round % 3 === 0;
        const fill = (codes: Codes, which: number) =>
          ends ? codes.fill([...activation, ...weight][which]) : codes;
        const a = fill(codesOf(fold(k, "a"), M * K, activation), round & 1);
        const b = fill(
          codesOf(fold(k, "b"), N * K, weight),
          2 + ((round >> 1) & 1),
        );
        const za = [...codesOf(fold(k, "za"), M, activation)];
        const zb = [...codesOf(fold(k, "zb"), N, weight)];
        const name = `${format} ${activation} by ${weight}, size ${size}`;
        same(
          product(engine, format, a, b, size),
          reference(a, b, size),
          name,
        );
        same(
          product(engine, format, a, b, size, za, zb),
          reference(a, b, size, za, zb),
          `${name}, zero points`,
        );
        compared += 2;
      }
    }
    assert.is(compared, products);
    assert.ok(compared >= 5000, "thousands of random shapes");
  });

  test(`sums spill in time on ${build}: depths around every limit, all codes at their ends`, () => {
    const engine = openIntegerEngine({ build });
    for (const { format, activation, weight } of CONVENTIONS) {
      for (
        const K of [15, 16, 17, 18, 20, 31, 32, 255, 256, 257, 292, 4096, 4099]
      ) {
        const M = K % 2 === 0 ? 2 : 1;
        for (const one of activation) {
          for (const other of weight) {
            const size = [M, 17, K];
            const a = constant(M * K, one, activation);
            const b = constant(17 * K, other, weight);
            const c = product(engine, format, a, b, size);
            assert.ok(
              c.every((sum) => sum === K * one * other),
              `${format} ${one} times ${other}, depth ${K}: ${c[0]}`,
            );
          }
        }
      }
    }
  });
}

/** Ties to even, as a table: independent of the code under test. */
function roundEven(x: number): number {
  const r = Math.round(x);
  return Math.abs(x - Math.trunc(x)) === 0.5 && r % 2 !== 0 ? r - 1 : r;
}

test("quantised activations hold the codes of the formula, rows of zeros and ties included", () => {
  const engine = openIntegerEngine();
  const f = Math.fround;
  for (const format of ["int8", "pairs", "agile"] as const) {
    for (const signed of [true, false]) {
      for (const symmetric of [true, false]) {
        for (const granularity of ["token", "tensor"] as const) {
          for (const [M, K] of [[1, 1], [3, 5], [4, 8], [6, 15], [9, 3]]) {
            const options: ActivationOptions = {
              format,
              signed,
              symmetric,
              granularity,
            };
            const bits = format === "int8" ? 8 : 4;
            const qmin = signed ? -(2 ** (bits - 1)) : 0;
            const qmax = qmin + 2 ** bits - 1;
            const x = normal(fold(key(3), `${M} ${K}`), M * K);
            x.fill(0, 0, K); // the first row has no range
            const mark = engine.mark();
            const a = quantizeActivations(
              engine,
              putFloats(engine, x),
              M,
              K,
              options,
            );
            // The codes come back through a product with the identity.
            const eye = Int8Array.from(
              { length: K * K },
              (_, i) => i % (K + 1) === 0 ? 1 : 0,
            );
            const c = engine.allocate(4 * M * K);
            multiply(
              engine,
              a,
              packWeights(engine, eye, K, K, { format }),
              c,
            );
            const got = intsAt(engine, c, M * K).slice();
            for (let i = 0; i < M; i++) {
              const own = granularity === "token"
                ? x.subarray(i * K, i * K + K)
                : x;
              const low = Math.min(0, ...own);
              const high = Math.max(0, ...own);
              const scale = symmetric
                ? f(Math.max(-low, high) / qmax)
                : f(f(high - low) / (qmax - qmin));
              const zero = symmetric || scale === 0 ? 0 : Math.min(
                qmax,
                Math.max(qmin, qmin - roundEven(f(low / scale))),
              );
              for (let k = 0; k < K; k++) {
                const v = scale === 0 ? 0 : roundEven(f(x[i * K + k] / scale));
                const code = Math.min(qmax, Math.max(qmin, v + zero));
                assert.is(
                  got[i * K + k],
                  code - zero,
                  `${format} ${granularity} row ${i}`,
                );
              }
            }
            engine.release(mark);
          }
        }
      }
    }
  }
  const ties = putFloats(engine, Float32Array.of(0.5, 1.5, 2.5, -0.5, -1.5, 9));
  const a = quantizeActivations(engine, ties, 1, 6, {
    format: "pairs",
    scale: 1,
  });
  const eye = Int8Array.from(
    { length: 36 },
    (_, i) => i % 7 === 0 ? 1 : 0,
  );
  const c = engine.allocate(24);
  multiply(engine, a, packWeights(engine, eye, 6, 6, { format: "pairs" }), c);
  assert.equal([...intsAt(engine, c, 6)], [0, 2, 2, 0, -2, 7]);
});

test("a linear layer equals dequantised integer sums, bit by bit", () => {
  const engine = openIntegerEngine();
  const f = Math.fround;
  for (const format of ["int8", "pairs", "nibble-pairs", "agile"] as const) {
    for (const [M, N, K] of [[1, 9, 20], [5, 17, 33], [4, 8, 64], [0, 3, 2]]) {
      const range = format === "int8" ? S8 : S4;
      const a = codesOf(fold(key(4), format), M * K, range);
      const b = codesOf(fold(key(5), format), N * K, range);
      const scaleA = Float32Array.from({ length: M }, (_, i) => 0.01 + i / 7);
      const scaleB = Float32Array.from({ length: N }, (_, j) => 0.02 + j / 9);
      const bias = normal(key(6), N);
      const weights = packWeights(engine, b, N, K, {
        format,
        scale: scaleB,
        bias,
      });
      const rows = packActivations(engine, a, M, K, { format, scale: scaleA });
      const y = engine.allocate(4 * M * N);
      linear(engine, rows, weights, y);
      const sums = reference(a, b, [M, N, K]);
      const got = floatsAt(engine, y, M * N);
      for (let i = 0; i < M * N; i++) {
        const scale = f(scaleA[Math.floor(i / N)] * scaleB[i % N]);
        assert.is(got[i], f(f(sums[i] * scale) + bias[i % N]));
      }
    }
  }
});

test("rows of 4 and of 8 bits in one matrix: every row as if all had its bits, bit by bit", () => {
  const engine = openIntegerEngine();
  const [N, K] = [19, 37];
  const b = codesOf(key(31), N * K, [-8, 7]);
  const scale = Float32Array.from({ length: N }, (_, j) => 0.02 + j / 9);
  for (const format of ["pairs", "nibble-pairs", "int8", "bytes"] as const) {
    const bias = normal(key(33), N);
    const weights = packWeights(engine, b, N, K, { format, scale, bias });
    for (const M of [1, 2, 5, 8, 13, 32]) {
      const x = putFloats(engine, normal(fold(key(32), M), M * K));
      const pick = randomInts(fold(key(34), M), M, 0, 2);
      const layer = (bits: number, rows?: number[]) => {
        const order = rows === undefined ? 0 : engine.allocate(4 * rows.length);
        if (rows !== undefined) {
          intsAt(engine, order, rows.length).set(rows);
        }
        return quantizeActivations(engine, x, rows?.length ?? M, K, {
          format,
          bits,
          order,
        });
      };
      const [y, whole4, whole8] = [0, 1, 2].map(() =>
        engine.allocate(4 * M * N)
      );
      linear(engine, layer(4), weights, whole4);
      linear(engine, layer(8), weights, whole8);
      for (const bits of [4, 8]) {
        const rows = Array.from(pick.keys())
          .filter((i) => (pick[i] === 1) === (bits === 8));
        linear(engine, layer(bits, rows), weights, y);
      }
      const values = [y, whole4, whole8].map((at) =>
        floatsAt(engine, at, M * N)
      );
      for (let i = 0; i < M * N; i++) {
        const expected = values[1 + pick[Math.floor(i / N)]][i];
        assert.is(values[0][i], expected, `${format}, ${M} rows, at ${i}`);
      }
    }
  }
});

test("groups: every scale and zero point counts, bit by bit, in both codes' conventions", () => {
  const engine = openIntegerEngine();
  const f = Math.fround;
  const format = "nibble-groups";
  for (const weight of [U4, S4]) {
    for (
      const [M, N, K, G] of [
        [1, 8, 32, 32],
        [1, 5, 64, 16],
        [3, 11, 48, 4],
        [4, 9, 96, 32],
        [7, 24, 256, 128],
        [2, 3, 7, 0],
        [0, 4, 8, 8],
      ]
    ) {
      const k = fold(key(8), `${M} ${N} ${K} ${weight}`);
      const groups = G === 0 ? 1 : K / G;
      const group = G === 0 ? K : G;
      const a = codesOf(fold(k, "a"), M * K, S8);
      const b = codesOf(fold(k, "b"), N * K, weight);
      const scale = Float32Array.from(
        { length: N * groups },
        (_, i) => 0.01 + (i % 13) / 31,
      );
      const zeroPoint = [...codesOf(fold(k, "z"), N * groups, weight)];
      const scaleA = Float32Array.from({ length: M }, (_, i) => 0.1 + i / 3);
      const weights = packWeights(engine, b, N, K, {
        format,
        scale,
        zeroPoint,
        ...(G === 0 ? {} : { groupSize: G }),
      });
      const rows = packActivations(engine, a, M, K, { format, scale: scaleA });
      const y = engine.allocate(4 * M * N);
      linear(engine, rows, weights, y);
      const got = floatsAt(engine, y, M * N);
      for (let i = 0; i < M; i++) {
        for (let j = 0; j < N; j++) {
          let total = 0;
          for (let g = 0; g < groups; g++) {
            let sum = 0;
            for (let q = g * group; q < (g + 1) * group; q++) {
              sum += a[i * K + q] * (b[j * K + q] - zeroPoint[j * groups + g]);
            }
            total = f(total + f(f(sum) * scale[j * groups + g]));
          }
          assert.is(
            got[i * N + j],
            f(total * scaleA[i]),
            `${M} ${N} ${K} ${G}`,
          );
        }
      }
    }
  }
});

test("requantised sums are the codes that the next product takes", () => {
  const engine = openIntegerEngine();
  const f = Math.fround;
  for (const [M, N] of [[1, 1], [3, 7], [5, 8], [4, 18]]) {
    const sums = randomInts(fold(key(9), `${M}`), M * N, -90000, 90000);
    sums[0] = 2 ** 31 - 1;
    const c = engine.allocate(4 * M * N);
    intsAt(engine, c, M * N).set(sums);
    const factors = Float32Array.from(
      { length: N },
      (_, j) => 0.0005 + j / 9000,
    );
    const strips = engine.allocate(Math.ceil(M / 4) * ((N + 3) & ~3) * 8);
    const rowSums = engine.allocate(4 * M);
    engine.kernels.requantizeRows(
      c,
      M,
      N,
      putFloats(engine, factors),
      1,
      3,
      -128,
      127,
      0,
      strips,
      rowSums,
    );
    for (let i = 0; i < M; i++) {
      let sum = 0;
      for (let j = 0; j < N; j++) {
        const code = Math.min(
          127,
          Math.max(-128, roundEven(f(f(sums[i * N + j]) * factors[j])) + 3),
        );
        sum += code;
        const width = (N + 3) & ~3;
        const at = strips + (i >> 2) * width * 8 + (j >> 1) * 16 + (i & 3) * 4 +
          (j & 1) * 2;
        const got = new DataView(engine.memory.buffer).getInt16(at, true);
        assert.is(got, code, `row ${i}, column ${j}`);
      }
      assert.is(intsAt(engine, rowSums, M)[i], sum);
    }
  }
});

test("what does not fit is refused, with the value", () => {
  const engine = openIntegerEngine();
  const codes = new Int8Array(12).fill(19);
  const pack = (options: Parameters<typeof packWeights>[4], depth = 4) =>
    packWeights(engine, codes, 12 / depth, depth, options);
  assert.throws(() => pack({ format: "pairs" }), /codes from 0 to 19/);
  codes.fill(5);
  assert.throws(
    () => pack({ format: "nibble-groups", groupSize: 3 }, 12),
    /multiple of 4 .* group size 3, depth 12/,
  );
  assert.throws(
    () => pack({ format: "nibble-groups", groupSize: 8 }, 12),
    /group size 8, depth 12/,
  );
  assert.throws(() => pack({ format: "int8", groupSize: 4 }), /has no groups/);
  assert.throws(() => pack({ format: "int8", scale: NaN }), /scale NaN at 0/);
  assert.throws(
    () => pack({ format: "int8", scale: [1, 0, 1] }),
    /scale 0 at 1/,
  );
  assert.throws(
    () => pack({ format: "int8", zeroPoint: 300 }),
    /zero point 300 at 0/,
  );
  assert.throws(
    () => packWeights(engine, codes, 5, 4, { format: "int8" }),
    /5 x 4 codes: 12/,
  );
  const x = putFloats(engine, new Float32Array(8));
  assert.throws(
    () => quantizeActivations(engine, x, 2, 4, { format: "agile", bits: 8 }),
    /agile takes 2 to 4 bits: 8/,
  );
  assert.throws(
    () => quantizeActivations(engine, x, 2, 4, { format: "pairs", bits: 9 }),
    /pairs takes 2 to 8 bits: 9/,
  );
  for (const bad of [NaN, Infinity, -Infinity]) {
    const broken = new Float32Array(10);
    broken[8] = bad;
    const at = putFloats(engine, broken);
    assert.throws(
      () => quantizeActivations(engine, at, 2, 5, { format: "int8" }),
      new RegExp(`${bad} in row 1`),
    );
  }
  const a = quantizeActivations(engine, x, 2, 4, { format: "int8" });
  const b = pack({ format: "pairs" });
  assert.throws(
    () => multiply(engine, a, b, engine.allocate(64)),
    /int8 with 4, pairs with 4/,
  );
});

test("a depth that could overflow 32 bits is refused, the deepest allowed one is exact", () => {
  const engine = openIntegerEngine();
  // 2^31 - 1 = 131071 x 128 x 128 + 16383
  const K = 131071;
  const deepest = new Int8Array(K).fill(-128);
  assert.equal(
    [...product(engine, "int8", deepest, deepest, [1, 1, K])],
    [K * 2 ** 14],
  );
  const deeper = new Int8Array(K + 1).fill(-128);
  assert.throws(
    () => product(engine, "int8", deeper, deeper, [1, 1, K + 1]),
    /up to depth 131071: depth 131072/,
  );
});

test("the memory is a stack: blocks apart, 64-byte aligned, and nothing lost over many products", () => {
  const engine = openIntegerEngine();
  const [first, second] = [engine.allocate(1), engine.allocate(100)];
  assert.is(second - first, 64);
  assert.is(first % 64, 0);
  const before = engine.mark();
  const codes = new Int8Array(64 * 64).fill(1);
  for (let i = 0; i < 20; i++) {
    const got = product(engine, "pairs", codes, codes, [64, 64, 64]);
    assert.ok(got.every((sum) => sum === 64));
  }
  assert.is(engine.mark(), before);
});

// That it is also what they compile to takes the compiler ten seconds: the gate does it.
test("the committed module is made of the sources that lie beside it", () => {
  assert.is(SOURCES, sourceHash(), "run npm run build:integer-kernels");
});

test.run();
