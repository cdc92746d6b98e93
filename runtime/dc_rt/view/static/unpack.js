// The worker: packed frames in, depth and pictures out. What packed them is runtime/dc_rt/view/packing.py.
"use strict";

/**
 * Depth of a frame as whole numbers, row by row: Uint16Array of width * height values in [0, 2**bits).
 *
 * The bytes are a zlib stream of residuals from a prediction by the neighbours to the left, above and above left (the
 * median of left, above, and left + above - corner, as in JPEG-LS). They are zigzag coded modulo 2**bits, all high
 * bytes before all low ones. zlib's checksum is checked by the browser: a damaged frame fails, and is never wrong.
 */
async function unpackDepth(blob, width, height, bits) {
  const inflated = blob.stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(inflated).arrayBuffer());
  const count = width * height;
  if (bytes.length !== 2 * count) throw new Error(`A frame has ${bytes.length} bytes in the place of ${2 * count}.`);
  const values = new Uint16Array(count);
  const mask = 2 ** bits - 1;
  const residual = (index) => {
    const zigzag = (bytes[index] << 8) | bytes[count + index];
    return (zigzag >>> 1) ^ -(zigzag & 1);
  };
  values[0] = residual(0) & mask;
  for (let x = 1; x < width; x++) values[x] = (values[x - 1] + residual(x)) & mask;
  for (let row = width; row < count; row += width) {
    let corner = values[row - width];
    let left = corner;
    for (let index = row; index < row + width; index++) {
      const above = values[index - width];
      const low = left < above ? left : above;
      const high = left < above ? above : left;
      const guess = corner >= high ? low : corner <= low ? high : left + above - corner;
      left = (guess + residual(index)) & mask;
      values[index] = left;
      corner = above;
    }
  }
  return values;
}

/** The picture of a frame, with its numbers as they are: nothing converts its colours. */
function unpackPicture(blob) {
  return createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
}

self.onmessage = async ({ data: { index, depth, picture, width, height, bits } }) => {
  try {
    const [values, image] = await Promise.all([unpackDepth(depth, width, height, bits), unpackPicture(picture)]);
    self.postMessage({ index, values, image }, [values.buffer, image]);
  } catch (error) {
    self.postMessage({ index, error: String(error) });
  }
};
