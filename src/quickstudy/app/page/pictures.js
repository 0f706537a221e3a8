/* Files, strokes and camera frames to the pictures that examples are. */

const PAD = 280, INK = 84, PHOTO = 224, MOST_BYTES = 1 << 16;
const LARGE_FILE = 1 << 20, LARGE = 1024;

function canvas(side) {
  const made = document.createElement("canvas");
  made.width = made.height = side;
  const pen = made.getContext("2d", { willReadFrequently: true });
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, side, side);
  pen.imageSmoothingQuality = "high";
  return [made, pen];
}

/* The middle square of a photo or a frame. */
function square(source, width, height) {
  const side = Math.min(width, height), [made, pen] = canvas(PHOTO);
  pen.drawImage(source, (width - side) / 2, (height - side) / 2, side, side, 0, 0, PHOTO, PHOTO);
  for (const quality of [.9, .75, .5]) {
    const url = made.toDataURL("image/jpeg", quality);
    if (url.length * 3 / 4 < MOST_BYTES) return url;  // as the server stores it, so unchanged
  }
  return made.toDataURL("image/jpeg", .3);
}

/* What is drawn, in the middle of a square, so that place and size do not matter. */
export function centred(pad) {
  const { data } = pad.getContext("2d").getImageData(0, 0, PAD, PAD);
  let [left, top, right, bottom] = [PAD, PAD, 0, 0];
  for (let i = 0; i < data.length; i += 4) if (data[i] < 200) {
    const x = i / 4 % PAD, y = Math.floor(i / 4 / PAD);
    left = Math.min(left, x); right = Math.max(right, x);
    top = Math.min(top, y); bottom = Math.max(bottom, y);
  }
  const side = Math.max(right - left, bottom - top, 60) * 1.25;
  const [out, pen] = canvas(INK);
  const x = (left + right - side) / 2, y = (top + bottom - side) / 2, scale = INK / side;
  pen.drawImage(pad, -x * scale, -y * scale, PAD * scale, PAD * scale);
  return out.toDataURL("image/png");
}

export function pad() { return canvas(PAD); }

export function line(pen, from, to) {
  pen.strokeStyle = "#000"; pen.lineWidth = 13; pen.lineCap = pen.lineJoin = "round";
  pen.beginPath(); pen.moveTo(...from); pen.lineTo(...to); pen.stroke();
}

/* A pad with strokes, each of points from 0 to 1, as if someone had drawn them. */
export function sketch(strokes) {
  const [made, pen] = pad();
  for (const stroke of strokes) stroke.reduce((from, to) => {
    line(pen, from.map(v => v * PAD), to.map(v => v * PAD));
    return to;
  });
  return made;
}

/* A scanned or saved drawing: all of it, dark on light. */
function ink(picture) {
  const [made, pen] = pad(), scale = PAD / Math.max(picture.width, picture.height);
  const [width, height] = [picture.width * scale, picture.height * scale];
  const x = (PAD - width) / 2, y = (PAD - height) / 2;
  pen.drawImage(picture, x, y, width, height);
  if (darkBorder(pen, x, y, width, height)) {
    pen.globalCompositeOperation = "difference";
    pen.fillRect(x, y, width, height);
  }
  return centred(made);
}
function darkBorder(pen, x, y, width, height) {
  const { data } = pen.getImageData(Math.ceil(x), Math.ceil(y), Math.max(1, Math.floor(width) - 1),
    Math.max(1, Math.floor(height) - 1));
  const wide = Math.max(1, Math.floor(width) - 1), rows = data.length / 4 / wide;
  let sum = 0, n = 0;
  for (let i = 0; i < data.length / 4; i++) {
    const row = Math.floor(i / wide), column = i % wide;
    if (row === 0 || row === rows - 1 || column === 0 || column === wide - 1) {
      sum += data[4 * i]; n++;
    }
  }
  return sum / n < 128;
}

export const frame = video => square(video, video.videoWidth, video.videoHeight);

/* A file as it is; a large one smaller, but whole. */
async function unchanged(file, picture) {
  if (file.size > LARGE_FILE || !file.type.startsWith("image/")) {
    const scale = Math.min(1, LARGE / Math.max(picture.width, picture.height));
    const made = document.createElement("canvas");
    [made.width, made.height] = [picture.width, picture.height].map(n => Math.max(1, n * scale));
    const pen = made.getContext("2d");
    pen.imageSmoothingQuality = "high";
    pen.drawImage(picture, 0, 0, made.width, made.height);
    return made.toDataURL("image/jpeg", .95);
  }
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = failed;
    reader.readAsDataURL(file);
  });
}
const PREPARED = {
  photo: (file, picture) => square(picture, picture.width, picture.height),
  drawing: (file, picture) => ink(picture),
  file: unchanged,
};

/* Files as pictures, prepared as examples of a kind or, as `file`, not at all; and the names of those
   that are none. */
export async function read(files, kind, progress = () => {}) {
  const images = [], bad = [];
  for (const file of files) {
    try {
      const picture = await createImageBitmap(file);
      images.push(await PREPARED[kind](file, picture));
      picture.close();
    } catch { bad.push(file.name); }
    progress(images.length + bad.length);
  }
  return { images, bad };
}
