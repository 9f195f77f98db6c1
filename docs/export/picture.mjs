// One picture through an exported pix2pix model, without Python:
//
//     node picture.mjs sketch2face.onnx drawing.png face.png
//
// For sketch2face.onnx and facades.onnx. The model takes and gives bytes; nothing has to be scaled or shifted.

import { readFile } from "node:fs/promises";
import * as ort from "onnxruntime-web";
import sharp from "sharp";

const [model, from, to] = process.argv.slice(2);
if (!to) {
  console.error("usage: node picture.mjs MODEL.onnx SOURCE TARGET.png");
  process.exit(2);
}

ort.env.wasm.numThreads = 1;
const session = await ort.InferenceSession.create(await readFile(model));
const [, side, , channels] = session.inputMetadata[0].shape; // N, height, width, channels

// Around a drawing is white paper; around a label map the class background, and no colour in it is mixed with another.
const drawing = channels === 1;
const fit = { fit: "contain", background: drawing ? "white" : "#0000de", kernel: drawing ? "lanczos3" : "nearest" };
const picture = sharp(from).flatten({ background: "white" }).resize(side, side, fit);
const source = await (drawing ? picture.grayscale() : picture.toColourspace("srgb")).raw().toBuffer();

const { target } = await session.run({ source: new ort.Tensor("uint8", source, [1, side, side, channels]) });
const [, height, width] = target.dims;
await sharp(target.data, { raw: { width, height, channels: 3 } }).toFile(to);
