// Photos: from files of any kind, from a camera, from what is drawn.

import * as api from "/api.js";
import { $, note } from "/controls.js";
import { make } from "/messages.js";

const SHOWN_SIDE = 2048;

export async function read(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch { // HEIC and others that this browser does not know: the server does
    bitmap = await createImageBitmap(await api.convert(file));
  }
  const scale = Math.min(1, SHOWN_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = make("canvas", { width: Math.max(1, Math.round(bitmap.width * scale)), height: Math.max(1, Math.round(bitmap.height * scale)) });
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return { name: (file.name ?? "photo").slice(0, 80), url: canvas.toDataURL("image/jpeg", 0.92), width: canvas.width, height: canvas.height };
}

// What a page can draw, as a file.
export async function blobOf(source, width, height, name) {
  const canvas = make("canvas", { width, height });
  canvas.getContext("2d").drawImage(source, 0, 0);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
  return Object.assign(blob, { name });
}

// Opens the camera's dialog; `take` receives the photo.
export async function camera(take) {
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    $("video").srcObject = stream;
    $("shoot").onclick = async () => {
      const photo = await blobOf($("video"), $("video").videoWidth, $("video").videoHeight, "camera");
      $("snap").close();
      take([photo]);
    };
    $("snap").showModal();
    $("snap").addEventListener("close", () => stream.getTracks().forEach((track) => track.stop()), { once: true });
  } catch {
    note("there is no camera here, or it may not be used", true);
  }
}
