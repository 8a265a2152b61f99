/** Pictures of what a trained model keeps. */
import { type Images, pickImages } from "../core/images.ts";
import { predictVit, type TrainedVit } from "./train.ts";

/** What a dropped patch is painted with: white, as paper. */
const BLANK = 255;

/**
 * Each image as it is and after each depth at which tokens leave, those that left painted white.
 *
 * @returns 1 + depths pictures for each image, one image after the other; labels are of the images
 */
export function keptPatches(model: TrainedVit, images: Images): Images {
  const { patchSize } = model.config;
  const { count, width, height, channels } = images;
  const columns = width / patchSize;
  const size = width * height * channels;
  const stages: Int32Array[] = [];
  predictVit(model, images, {
    batch: count,
    onKept: (_, places) => void stages.push(places.slice()),
  });
  const out = pickImages(
    images,
    Array.from(
      { length: count * (1 + stages.length) },
      (_, i) => Math.floor(i / (1 + stages.length)),
    ),
  );
  for (let b = 0; b < count; b++) {
    // Numbers of a stage count the tokens that the stage before left.
    let left = Array.from(
      { length: columns * (height / patchSize) },
      (_, n) => n,
    );
    stages.forEach((places, s) => {
      const K = places.length / count;
      const before = left;
      left = Array.from(
        places.subarray(b * K, (b + 1) * K),
        (place) => before[place],
      );
      const kept = new Set(left);
      const start = (b * (1 + stages.length) + 1 + s) * size;
      for (let y = 0; y < height; y++) {
        for (let x = 0; x < width; x++) {
          const patch = Math.floor(y / patchSize) * columns +
            Math.floor(x / patchSize);
          if (kept.has(patch)) continue;
          const at = start + (y * width + x) * channels;
          out.images.fill(BLANK, at, at + channels);
        }
      }
    });
  }
  return out;
}
