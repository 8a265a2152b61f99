/** A reader's own images: formats, sizes, damage. */
import * as assert from "uvu/assert";
import { test } from "uvu";
import { Buffer } from "node:buffer";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PNG } from "pngjs";
import jpeg from "jpeg-js";
import {
  contactSheet,
  decodeImage,
  divideImages,
  readImageFolder,
  squareImage,
} from "../lib/core/image-folder.ts";
import { bits, key } from "../lib/core/rng.ts";

function picture(
  width: number,
  height: number,
  pixel: (x: number, y: number) => number[],
) {
  const data = new Uint8Array(width * height * 4);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) data.set(pixel(x, y), (y * width + x) * 4);
  }
  return { width, height, data };
}

function pngOf(
  { width, height, data }: ReturnType<typeof picture>,
): Uint8Array {
  const png = new PNG({ width, height });
  png.data.set(data);
  return PNG.sync.write(png);
}

const ramp = picture(8, 4, (x, y) => [10 * x, 20 * y, 5, 255]);

test("the middle square, by the mean of the area", () => {
  // Columns 2 to 5 of 8; each pixel of two by two is the mean of four.
  assert.equal([...squareImage(ramp, 2, 3)], [
    25,
    10,
    5,
    45,
    10,
    5,
    25,
    50,
    5,
    45,
    50,
    5,
  ]);
  assert.equal([...squareImage(ramp, 4, 3)].slice(0, 6), [20, 0, 5, 30, 0, 5]);
  // Larger: every pixel twice; thirds: by area
  assert.equal([...squareImage(ramp, 8, 3)].slice(0, 6), [20, 0, 5, 20, 0, 5]);
  const row = picture(4, 4, (x) => [90 * (x === 0 ? 1 : 0), 0, 0, 255]);
  assert.equal(
    [...squareImage(row, 3, 3)].filter((_, i) => i % 3 === 0).slice(0, 3),
    [68, 0, 0],
  );
});

test("grey by the weights of the eye, transparent is white", () => {
  const one = picture(1, 1, () => [100, 200, 50, 255]);
  assert.equal([...squareImage(one, 1, 1)], [Math.round(29.9 + 117.4 + 5.7)]);
  const clear = picture(1, 1, () => [0, 0, 0, 0]);
  assert.equal([...squareImage(clear, 1, 3)], [255, 255, 255]);
});

test("PNG is read as it was written, JPEG nearly, whatever the name says", () => {
  assert.equal([...decodeImage(pngOf(ramp)).data], [...ramp.data]);
  const flat = picture(16, 16, () => [200, 100, 50, 255]);
  const read = decodeImage(jpeg.encode({ ...flat, data: flat.data }, 95).data);
  assert.is(read.width, 16);
  read.data.forEach((x, i) =>
    assert.ok(Math.abs(x - flat.data[i]) <= 3, `${i}: ${x}`)
  );
});

test("a folder of classes; order, labels and division do not depend on the machine", () => {
  const folder = mkdtempSync(join(tmpdir(), "images-"));
  try {
    for (const [name, red] of [["b", 200], ["a", 50]] as const) {
      mkdirSync(join(folder, name));
      for (let i = 0; i < 3; i++) {
        writeFileSync(
          join(folder, name, `${i}.PNG`),
          pngOf(picture(5, 7, () => [red + i, 0, 0, 255])),
        );
      }
    }
    writeFileSync(join(folder, "a", "notes.txt"), "no image");
    const { images, classes } = readImageFolder(folder, { size: 2 });
    assert.equal(classes, ["a", "b"]);
    assert.equal([...images.labels], [0, 0, 0, 1, 1, 1]);
    assert.equal([...images.images].filter((_, i) => i % 12 === 0), [
      50,
      51,
      52,
      200,
      201,
      202,
    ]);
    const { train, test: held } = divideImages(images, 0.3, key(1));
    assert.is(train.count, 4);
    assert.equal(
      [...train.images, ...held.images].filter((_, i) => i % 12 === 0).sort((
        x,
        y,
      ) => x - y),
      [50, 51, 52, 200, 201, 202],
    );
    assert.throws(
      () => divideImages(images, 1, key(1)),
      /above 0 and below 1: 1/,
    );
    // What the system and editors leave, and a folder that is named as a picture, are no pictures.
    mkdirSync(join(folder, ".ipynb_checkpoints"));
    writeFileSync(join(folder, "a", "._0.png"), "no picture");
    mkdirSync(join(folder, "a", "x.png"));
    assert.equal(readImageFolder(folder, { size: 2 }), { images, classes });
    mkdirSync(join(folder, "c"));
    assert.throws(
      () => readImageFolder(folder, { size: 2 }),
      /no \.png, \.jpg or \.jpeg file in .*c/,
    );
    writeFileSync(join(folder, "c", "x.png"), pngOf(ramp).subarray(0, 40));
    assert.throws(
      () => readImageFolder(folder, { size: 2 }),
      /x\.png as the PNG file is damaged/,
    );
    assert.throws(
      () => readImageFolder(join(folder, "a"), { size: 2 }),
      /from 2 to 256 folders.*: 1/,
    );
    assert.throws(
      () => readImageFolder(folder, { size: 0 }),
      /positive integer: 0/,
    );
    assert.throws(
      () => readImageFolder(folder, { size: 2, channels: 2 as 1 }),
      /channels must be 1 or 3: 2/,
    );
    assert.throws(
      () => readImageFolder(join(folder, "absent"), { size: 2 }),
      /absent must be a folder .*: there is none/,
    );
    assert.throws(
      () => readImageFolder(join(folder, "a", "notes.txt"), { size: 2 }),
      /notes\.txt must be a folder .*: it is a file/,
    );
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("a division keeps every class of two or more in both parts", () => {
  const of = (labels: number[]) => ({
    count: labels.length,
    height: 1,
    width: 1,
    channels: 1,
    images: Uint8Array.from(labels, (_, i) => i),
    labels: Uint8Array.from(labels),
  });
  // One class of 40, one of 2, one of 1.
  const images = of([...new Array(40).fill(0), 1, 1, 2]);
  for (let seed = 0; seed < 20; seed++) {
    const { train, test: held } = divideImages(images, 0.1, key(seed));
    const count = (part: typeof train, label: number) =>
      part.labels.filter((l) => l === label).length;
    assert.equal([0, 1, 2].map((label) => count(held, label)), [4, 1, 0]);
    assert.equal(
      [...train.images, ...held.images].sort((x, y) => x - y),
      [...images.images],
    );
    const most = divideImages(images, 0.99, key(seed));
    assert.equal([0, 1, 2].map((l) => count(most.train, l)), [1, 1, 1]);
  }
  assert.not.equal(
    divideImages(images, 0.1, key(1)).test.images,
    divideImages(images, 0.1, key(2)).test.images,
  );
  assert.throws(() => divideImages(of([0, 1]), 0.5, key(1)), /at least two/);
});

test("fuzz: a damaged file gives pixels or a SyntaxError", () => {
  const flat = picture(16, 16, (x, y) => [x * 16, y * 16, 0, 255]);
  const files = [pngOf(flat), new Uint8Array(jpeg.encode(flat, 80).data)];
  const draws = bits(key(3), 3 * 600);
  let refused = 0;
  for (let i = 0; i < 600; i++) {
    const [a, b, c] = draws.subarray(3 * i, 3 * i + 3);
    let bytes = files[i % 2].slice();
    if (i % 3 === 0) bytes = bytes.subarray(0, a % bytes.length);
    else {
      bytes[a % bytes.length] = b & 255;
      bytes[(a >>> 8) % bytes.length] = c & 255;
    }
    try {
      const { width, height, data } = decodeImage(bytes, "file");
      assert.is(data.length, width * height * 4);
    } catch (error) {
      assert.instance(error, SyntaxError, `${i}: ${(error as Error).stack}`);
      refused++;
    }
  }
  assert.ok(refused > 200, `${refused} refused`);
  assert.throws(
    () => decodeImage(new Uint8Array([71, 73, 70, 56]), "x.gif"),
    /x\.gif as it must be a PNG or JPEG file: it begins with 47 49 46 38/,
  );
});

test("a contact sheet holds every pixel", () => {
  const images = {
    count: 3,
    height: 2,
    width: 2,
    channels: 1,
    images: Uint8Array.from({ length: 12 }, (_, i) => i),
    labels: new Uint8Array(3),
  };
  const sheet = PNG.sync.read(
    Buffer.from(contactSheet(images, { columns: 2, zoom: 1, gap: 1 })),
  );
  assert.equal([sheet.width, sheet.height], [5, 5]);
  const at = (x: number, y: number) => sheet.data[(y * 5 + x) * 4];
  assert.equal([
    at(0, 0),
    at(1, 0),
    at(2, 0),
    at(3, 0),
    at(4, 1),
    at(0, 3),
    at(1, 4),
    at(3, 3),
  ], [0, 1, 255, 4, 7, 8, 11, 255]);
});

test.run();
